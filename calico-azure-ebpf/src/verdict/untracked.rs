//! Untracked policy at XDP, which only hastens what [`super::fabric::from_fabric`] would do: [`super::fabric`] asks for each frame.

use super::datagram::Known;
use super::host::{ask_untracked, is_platform, is_tunnel, outcome};
use super::{FamilyTables, Outcome, Tables};
use crate::abi::{
    CLASS_DEFAULT_V4, Config, DENIED_ALIKE, DENIED_V6, Denied, LEG_OUT, Reason, host_set, route, word,
};
use crate::packet::{Family, Network, Packet, Transport};

/// What untracked policy denies at an interface, `None` for everything else. Not for later fragments.
///
/// What is denied is remembered by processor for [`is_again`]. The answer depends on nothing but the
/// question and what only a new epoch changes, and on routes: one that becomes an address of this or of another node makes a new epoch, too,
/// and one that ceases to be makes nothing pass.
#[inline(always)]
pub(super) fn judge<F: Family, P: Packet, T: Tables + FamilyTables<F>>(
    packet: &P,
    tables: &T,
    config: &Config,
    network: &Network<F>,
    transport: Transport,
) -> Option<Outcome> {
    if !has_untracked(tables, config, packet.ifindex()) {
        return None;
    }
    let local = tables.route(network.dst) & route::LOCAL_HOST != 0 || F::is_multicast(network.dst);
    let local = P::opaque(u64::from(local)) != 0;
    if local
        && (is_platform(network, &transport) || is_tunnel(tables, config, network, &transport, network.src))
    {
        return None;
    }
    let known = Known {
        transport,
        protocol: network.protocol,
        blind: false,
    };
    let place = u64::from(packet.ifindex()) | u64::from(LEG_OUT) << 32 | u64::from(local) << 33;
    let decision = ask_untracked(tables, config.epoch, network, &known, place);
    if word::decision_goes_on(decision) {
        return None;
    }
    let outcome = outcome(decision);
    if matches!(outcome.reason, Reason::PolicyDeny) {
        let asked = Question {
            src: network.src,
            dst: network.dst,
            protocol: network.protocol,
            sport: transport.sport,
            port: transport.policy_port,
        };
        tables.set_denied(&asked.at::<F, P>(packet, config), outcome.rule, outcome.log);
    }
    (!outcome.reason.passes()).then_some(outcome)
}

/// Whether a plain packet was denied before and need only be counted: the way of a flood. Everything else takes the long way, which would
/// say the same of this.
#[inline(always)]
pub(super) fn is_again<F: Family, P: Packet, T: Tables>(
    packet: &P,
    tables: &T,
    config: &Config,
) -> Option<Outcome> {
    let plain = F::plain(packet)?;
    let asked = Question {
        src: plain.src,
        dst: plain.dst,
        protocol: plain.protocol,
        sport: plain.sport,
        port: plain.dport,
    };
    let (rule, log) = tables.denied(&asked.at::<F, P>(packet, config))?;
    let reason = Reason::PolicyDeny;
    tables
        .counts_denied(packet, config)
        .then_some(Outcome { reason, rule, log })
}

/// All that the answer of untracked policy depends on, but for what only a new epoch changes.
struct Question<A> {
    src: A,
    dst: A,
    protocol: u8,
    sport: u16,
    port: u16,
}

impl<A: Copy> Question<A> {
    #[inline(always)]
    fn at<F: Family<Addr = A>, P: Packet>(&self, packet: &P, config: &Config) -> Denied {
        let alike = config.alike_from != 0 && self.sport >= config.alike_from;
        let sport = if alike { 0 } else { u32::from(self.sport) };
        let v6 = F::DEFAULT_CLASS != CLASS_DEFAULT_V4;
        Denied {
            epoch: config.epoch,
            ifindex: packet.ifindex(),
            src: F::wide(self.src),
            dst: F::wide(self.dst),
            ports: u32::from(self.port) | sport << 16,
            what: u32::from(self.protocol)
                | if v6 { DENIED_V6 } else { 0 }
                | if alike { DENIED_ALIKE } else { 0 },
            rule: 0,
            log: 0,
        }
    }
}

/// Whether untracked policy has a say in what comes in by an interface.
#[inline(always)]
fn has_untracked<T: Tables>(tables: &T, config: &Config, ifindex: u32) -> bool {
    tables
        .host(ifindex, host_set::UNTRACKED)
        .is_some_and(|sets| word::slot(sets, config.epoch) != 0)
}
