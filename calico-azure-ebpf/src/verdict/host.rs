//! Host endpoints: what the host itself sends and gets through its own interfaces, and what passes through them.
//!
//! In order, first match wins. An interface without a host endpoint is not restricted.
//!
//! | what | verdict |
//! |---|---|
//! | of the host itself: DHCP, Azure's wireserver and instance metadata, the tunnel to and from other nodes | `AlwaysAllowed` |
//! | a stage of the endpoint cannot be read / malformed transport header or fragment | drop with that reason |
//! | a later fragment | as its first, see [`super::datagram`] |
//! | with untracked policy, whatever is remembered of the flow: failsafe ports of the host, then that policy | `PolicyAllow` / `PolicyDeny` |
//! | an ICMP error | by the flow that it is about, see [`super::related`] |
//! | flow approved in this epoch at this interface, in either direction | `Established`; `Service` as below |
//! | a new flow that comes in for a service, if pre-DNAT policy does not decide (nor is asked about a failsafe port of the host) | `Service`: marked, and judged where it leaves, see [`super::behind`] |
//! | any other new flow: failsafe ports of the host, pre-DNAT policy of what comes in, then the policy of the host itself or of what passes through | `PolicyAllow` / `PolicyDeny` |
//! | what passes through, and nobody decided | `PolicyAllow` |
//!
//! What has a say at pods' interfaces: see [`super::beside`].
//!
//! Approvals are legs of the far side, which no pod of this node can be: what comes in is what that side sends.

use super::datagram::{Known, know};
use super::flow::{AtPod, EXISTS, FORWARDED, REPLY, track};
use super::judge::{Judge, question};
use super::policy::{Asked, decide, near_set};
use super::related::{Quoted, quote_at_host};
use super::workload::done;
use super::{FamilyTables, Outcome, Tables};
use crate::abi::{CLASS_DEFAULT_V4, CT_FORWARDED, Config, LEG_IN, LEG_OUT, Reason, host_set, route, word};
use crate::packet::{Family, Network, Packet, Transport, protocol};

/// A packet at a host endpoint.
pub(super) struct AtHost<F: Family> {
    /// Its own source, which need not be the far side's: errors come from any router.
    pub(super) src: F::Addr,
    /// Of the host itself; else it passes through.
    pub(super) local: bool,
    /// It was for a service, and this is where it leaves.
    pub(super) translated: bool,
}

/// A question to stages of a host endpoint.
pub(super) struct ToStages<F: Family> {
    pub(super) ifindex: u32,
    pub(super) epoch: u32,
    /// The host's side, and the other.
    pub(super) near: F::Addr,
    pub(super) far: F::Addr,
    pub(super) protocol: u8,
    pub(super) blind: bool,
    pub(super) sport: u16,
    pub(super) port: u16,
}

/// Stages as bits, by half their `host_set`.
const FAILSAFE: u32 = 1 << (host_set::FAILSAFE / 2);
const UNTRACKED: u32 = 1 << (host_set::UNTRACKED / 2);
pub(super) const PRE_DNAT: u32 = 1 << (host_set::PRE_DNAT / 2);
pub(super) const FORWARD: u32 = 1 << (host_set::FORWARD / 2);
const NORMAL: u32 = 1 << (host_set::NORMAL / 2);
const STAGES: u32 = 5;
/// Not a stage: a failsafe port keeps the stages after it from being asked, and decides nothing.
const BEFORE: u32 = 1 << STAGES;

/// [`LEG_OUT`] names what comes in, because that is what the far side sends.
const _: () = assert!(
    LEG_OUT == 0 && LEG_IN == 1,
    "stages for what goes out follow those for what comes in"
);

/// Whether a host endpoint governs the interface in this epoch.
#[inline(always)]
pub(super) fn governs<T: Tables>(tables: &T, config: &Config, ifindex: u32) -> bool {
    // A word of another key says nothing about this one; that is noticed when its stages are asked.
    tables
        .host(ifindex, host_set::NORMAL)
        .is_some_and(|sets| word::slot(sets, config.epoch) != 0)
}

/// Decides a packet on an interface that a host endpoint governs.
#[inline(always)]
pub(super) fn judge<F: Family, P: Packet, T: Tables + FamilyTables<F>>(
    packet: &P,
    tables: &T,
    config: &Config,
    network: &mut Network<F>,
    transport: &mut Transport,
    ingress: bool,
) -> Outcome {
    let leg = if ingress { LEG_OUT } else { LEG_IN };
    let local = if ingress {
        tables.route(network.dst) & route::LOCAL_HOST != 0 || F::is_multicast(network.dst)
    } else {
        packet.ingress_ifindex() == 0
    };
    let ifindex = packet.ifindex();
    let who = AtHost {
        src: network.src,
        local: P::opaque(u64::from(local)) != 0,
        translated: false,
    };
    let mut at = AtPod {
        endpoint: 0,
        ifindex,
        policy_port: 0,
        leg,
        from_host: false,
        error: false,
        defers: ingress && config.mark_mask != 0,
        of: Quoted {
            peer: if ingress { network.dst } else { network.src },
            known: Known::nothing(),
        },
        network,
    };
    if let Err(reason) = done(know(packet, tables, at.network, leg, &mut at.of.known)) {
        return Outcome::of(reason);
    }
    *transport = at.of.known.transport;
    at.policy_port = transport.policy_port;
    let peer = if ingress { at.network.src } else { at.network.dst };
    let always = who.local
        && (is_platform(at.network, transport) || is_tunnel(tables, config, at.network, transport, peer));
    // Whatever was compared, to the verifier there is one way on.
    if P::opaque(u64::from(always)) != 0 {
        return Outcome::of(Reason::AlwaysAllowed);
    }
    let mut log = 0;
    if set(tables, ifindex, config.epoch, host_set::UNTRACKED + leg as usize) != Ok(0) {
        let place = u64::from(ifindex) | u64::from(leg) << 32 | u64::from(who.local) << 33;
        let decision = ask_untracked(tables, config.epoch, at.network, &at.of.known, place);
        if !word::decision_goes_on(decision) {
            return outcome(decision);
        }
        log = u64::from(word::decision_logs(decision));
    }
    // Asked or not, to the verifier there is one way on.
    let log = T::opaque(log) != 0;
    let kind = (transport.policy_port >> 8) as u8;
    at.error = F::is_error(at.of.known.protocol, kind) && !at.of.known.blind;
    if at.error
        && let Err(reason) = done(quote_at_host(packet, tables, at.network, leg, &mut at.of))
    {
        return Outcome::of(reason);
    }
    at.error = T::opaque(u64::from(at.error)) != 0;
    at.settle::<T>();
    let outcome = track(tables, config, &at, &who);
    network.src = who.src;
    Outcome {
        log: outcome.log | log,
        ..outcome
    }
}

/// What the host cannot do without on Azure.
#[inline(always)]
pub(super) fn is_platform<F: Family>(network: &Network<F>, transport: &Transport) -> bool {
    const WIRESERVER: u32 = 0xa83f_8110;
    const METADATA: u32 = 0xa9fe_a9fe;
    let is_v4 = F::DEFAULT_CLASS == CLASS_DEFAULT_V4;
    let (client, server) = if is_v4 { (68, 67) } else { (546, 547) };
    let ends = (transport.sport, transport.dport);
    let dhcp = network.protocol == protocol::UDP && (ends == (client, server) || ends == (server, client));
    let is = |addr: F::Addr| is_v4 && matches!(u32::from_be(F::wide(addr)[0]), WIRESERVER | METADATA);
    dhcp || is(network.src) || is(network.dst)
}

/// The tunnel to or from another node, which carries pods' packets: those are judged where it ends.
#[inline(always)]
pub(super) fn is_tunnel<F: Family, T: FamilyTables<F>>(
    tables: &T,
    config: &Config,
    network: &Network<F>,
    transport: &Transport,
    peer: F::Addr,
) -> bool {
    let port = config.tunnel_port;
    let theirs = port != 0 && network.protocol == protocol::UDP && transport.dport == port;
    theirs && tables.route(peer) & route::REMOTE_HOST != 0
}

impl<F: Family> Judge<F> for AtHost<F> {
    #[inline(always)]
    fn answer<T: Tables + FamilyTables<F>>(
        &self,
        tables: &T,
        config: &Config,
        at: &AtPod<'_, F>,
        bits: u64,
    ) -> Outcome {
        let (q, leg) = question(at, bits);
        let known = at.error && bits & EXISTS != 0;
        let far = if at.leg == LEG_IN {
            at.network.dst
        } else if known {
            at.network.src
        } else {
            self.src
        };
        // How a flow was begun says whose it is, and not what answers it or is about it: that may be masqueraded.
        let local = if known || bits & REPLY != 0 {
            bits & FORWARDED == 0 && tables.route(q.peer) & route::LOCAL_HOST != 0
        } else {
            self.local
        };
        let comes_in = leg == LEG_OUT;
        let sent_on = self.translated && comes_in;
        // Asked of whatever else it is about nothing, so that to the verifier there is one way on.
        let asked = u64::from(comes_in) & u64::from(!self.translated) & u64::from(!q.blind);
        let place = asked * (u64::from(q.port) | u64::from(q.protocol) << 16);
        let service = served(tables, config, q.peer, place) != 0;
        let before = match (local, comes_in) {
            _ if sent_on => 0,
            (true, true) => FAILSAFE | UNTRACKED | PRE_DNAT,
            (true, false) => FAILSAFE | UNTRACKED,
            (false, true) => PRE_DNAT,
            (false, false) => 0,
        };
        let after = match local {
            _ if service => BEFORE,
            true => FAILSAFE | NORMAL,
            false => FORWARD,
        };
        let stages = T::opaque(u64::from(before | after)) as u32;
        let word = u64::from(q.sport)
            | u64::from(q.port) << 16
            | u64::from(q.protocol) << 32
            | u64::from(q.blind) << 40
            | u64::from(leg) << 41;
        let word = T::opaque(word);
        let q = ToStages {
            ifindex: q.ifindex,
            epoch: config.epoch,
            near: q.peer,
            far,
            protocol: (word >> 32) as u8,
            blind: word & 1 << 40 != 0,
            sport: word as u16,
            port: (word >> 16) as u16,
        };
        let decision = q.ask(tables, stages, (word >> 41) as u32 & 1);
        if word::decision_goes_on(decision) {
            let reason = if stages & BEFORE == 0 {
                Reason::PolicyAllow
            } else if at.leg == LEG_OUT {
                Reason::Service
            } else {
                // It answers what is judged elsewhere.
                Reason::Established
            };
            Outcome {
                log: word::decision_logs(decision),
                ..Outcome::of(reason)
            }
        } else {
            outcome(decision)
        }
    }

    #[inline(always)]
    fn kind(&self) -> Option<u32> {
        Some(if self.local { 0 } else { CT_FORWARDED })
    }
}

/// Whether kube-proxy translates what is sent there: `place` is the port, above it the protocol. Never if nothing can be marked.
#[cfg_attr(target_arch = "bpf", inline(never))]
fn served<F: Family, T: FamilyTables<F> + Tables>(
    tables: &T,
    config: &Config,
    addr: F::Addr,
    place: u64,
) -> u64 {
    if config.mark_mask == 0 {
        return 0;
    }
    let slots = tables.service(addr, place as u16, (place >> 16) as u8);
    T::opaque(u64::from(slots >> (config.epoch & 1) & 1))
}

/// What untracked policy decides: nothing, if it says nothing or a failsafe port comes first. `place` is the interface,
/// above it the leg, above that whether the packet is of the host itself.
#[cfg_attr(target_arch = "bpf", inline(never))]
pub(super) fn ask_untracked<F: Family, T: Tables + FamilyTables<F>>(
    tables: &T,
    epoch: u32,
    network: &Network<F>,
    known: &Known,
    place: u64,
) -> u64 {
    let out = (place >> 32) as usize & 1;
    let (near, far) = if out == 0 {
        (network.dst, network.src)
    } else {
        (network.src, network.dst)
    };
    let mut q = ToStages {
        ifindex: place as u32,
        epoch,
        near,
        far,
        protocol: known.protocol,
        blind: known.blind,
        sport: 0,
        port: 0,
    };
    let ports = &known.transport;
    let mut log = false;
    let mut question = if place >> 33 & 1 != 0 { 0 } else { 2 };
    let mut answer = 0;
    while question < 3 {
        let stage = match question {
            0 => host_set::FAILSAFE + out,
            1 => host_set::FAILSAFE + 1 - out,
            _ => host_set::UNTRACKED + out,
        };
        // An answer to what a failsafe port let through: if its flow is known.
        (q.sport, q.port) = if question == 1 {
            (ports.dport, ports.sport)
        } else {
            (ports.sport, ports.policy_port)
        };
        let decision = q.ask_stage(tables, stage);
        if !word::decision_goes_on(decision) {
            if question == 2 {
                answer = decision;
            }
            log = false;
            break;
        }
        log |= word::decision_logs(decision);
        question += 1;
    }
    if answer == 0 {
        answer = word::undecided(log, 0);
    }
    T::opaque(answer)
}

/// A stage's set, 0 if no policy has a say in it.
#[inline(always)]
fn set<T: Tables>(tables: &T, ifindex: u32, epoch: u32, stage: usize) -> Result<u32, Reason> {
    let sets = tables.host(ifindex, stage).ok_or(Reason::TableRace)?;
    if word::slot_check(sets) != word::check24(ifindex) {
        return Err(Reason::TableRace);
    }
    Ok(word::slot(sets, epoch))
}

impl<F: Family> ToStages<F> {
    /// The decision of the first of the stages that has one; `out` is 1 for what goes out.
    #[inline(always)]
    pub(super) fn ask<T: Tables + FamilyTables<F>>(&self, tables: &T, stages: u32, out: u32) -> u64 {
        let mut log = false;
        let mut stage = 0;
        while stage < STAGES {
            if stages >> stage & 1 != 0 {
                let decision = self.ask_stage(tables, (stage * 2 + out) as usize);
                log |= word::decision_logs(decision);
                if !word::decision_goes_on(decision) {
                    if stage == 0 && stages & BEFORE != 0 && word::decision_allows(decision) {
                        break;
                    }
                    return word::with_log(decision, log);
                }
            }
            stage += 1;
        }
        word::undecided(log, 0)
    }

    /// The decision of one stage. Out of line: what its lookups need of the stack is needed only while they last.
    #[inline(never)]
    fn ask_stage<T: Tables + FamilyTables<F>>(&self, tables: &T, stage: usize) -> u64 {
        match set(tables, self.ifindex, self.epoch, stage) {
            Ok(0) => word::undecided(false, 0),
            set => {
                let decision = set.and_then(|set| self.ask_set(tables, set));
                T::opaque(decision.unwrap_or_else(failed))
            }
        }
    }

    #[inline(always)]
    fn ask_set<T: Tables + FamilyTables<F>>(&self, tables: &T, stage: u32) -> Result<u64, Reason> {
        let set = near_set::<F, T>(tables, self.epoch, stage, self.near)?;
        let asked = Asked {
            set,
            peer: self.far,
            protocol: self.protocol,
            sport: self.sport,
            port: self.port,
            blind: self.blind,
        };
        decide::<F, T>(tables, self.epoch, &asked)
    }
}

/// Of a decision word: there is no decision, because of the reason that stands in the table's place.
const FAILED: u64 = 1 << 36;

/// A failure as a decision, so that the verifier follows one value.
#[inline(always)]
fn failed(reason: Reason) -> u64 {
    (reason as u64) << 40 | FAILED
}

#[inline(always)]
pub(super) fn outcome(decision: u64) -> Outcome {
    const MISSING: u32 = Reason::TableMissing as u32;
    const RACE: u32 = Reason::TableRace as u32;
    const FRAGMENT: u32 = Reason::UnknownFragment as u32;
    let why = if decision & FAILED == 0 {
        0
    } else {
        word::decision_table(decision)
    };
    let reason = match why {
        MISSING => Reason::TableMissing,
        RACE => Reason::TableRace,
        FRAGMENT => Reason::UnknownFragment,
        _ if word::decision_allows(decision) => Reason::PolicyAllow,
        _ => Reason::PolicyDeny,
    };
    Outcome {
        reason,
        rule: word::decision_rule(decision),
        log: word::decision_logs(decision),
    }
}
