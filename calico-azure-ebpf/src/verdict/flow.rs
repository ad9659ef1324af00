//! Flows: which packets need no new policy question, and what an answer does to the conntrack entry.
//!
//! An entry has four legs: for each side, what it sends (judged by its egress policy) and what it receives (its
//! ingress policy). A packet that a pod sends passes if the pod's out leg is approved, or, as a reply, its in leg;
//! a packet that it receives, the other way round. An approval holds in the epoch it was given in. After that the
//! leg is judged again, in the direction in which the flow began, so a policy change cuts what it no longer allows
//! whichever side speaks next.

use super::entry::{
    FOUND, FOUND_APPROVED, FOUND_FORWARDED, FOUND_NOTHING, FOUND_OTHER, FOUND_OWN, FOUND_PROMOTE,
    FOUND_SERVICE, FOUND_UNTRANSLATED, ICMP_SHIFT, Sight, consult,
};
use super::judge::Judge;
use super::related::Quoted;
use super::{CtTable, FamilyTables, Outcome, Tables};
use crate::abi::{
    CT_FORWARDED, Config, CtValue, LEG_DEFERS, LEG_HOST, LEG_IN, LEG_OUT, LEG_REVOKED, LEG_SERVICE, Reason,
};
use crate::packet::{Family, Network, protocol, tcp};

/// A packet at a pod's interface, and the packet of its flow: the same, unless it is an ICMP error, which is about one
/// that went the other way. At a host endpoint the far side takes the pod's place.
pub(super) struct AtPod<'a, F: Family> {
    /// The packet itself. In an error as in what it is about, one end is the pod.
    pub(super) network: &'a mut Network<F>,
    /// The endpoint's slot word for the packet's own direction.
    pub(super) endpoint: u64,
    pub(super) ifindex: u32,
    /// What policy calls the packet's own port.
    pub(super) policy_port: u16,
    /// `LEG_OUT` at `from_workload`, `LEG_IN` at `to_workload`.
    pub(super) leg: u32,
    /// The host itself sent it.
    pub(super) from_host: bool,
    /// It is an ICMP error.
    pub(super) error: bool,
    /// It has not been translated yet: what is sent to a service is judged where it leaves.
    pub(super) defers: bool,
    /// The flow's packet.
    pub(super) of: Quoted<F>,
}

/// Which entry, and which of its legs are this pod's.
struct Slot<F: Family> {
    key: F::CtKey,
    /// Side of the sender.
    sender: u32,
    /// Side of the pod.
    pod: u32,
}

impl<F: Family> AtPod<'_, F> {
    /// However it came here, to the verifier there is one way on.
    #[inline(always)]
    pub(super) fn settle<T: Tables>(&mut self) {
        let known = &mut self.of.known;
        let word = u64::from(known.blind) << 2
            | u64::from(known.protocol) << 8
            | u64::from(known.transport.flags) << 16;
        let word = T::opaque(word);
        (known.blind, known.protocol) = (word & 4 != 0, (word >> 8) as u8);
        known.transport.flags = (word >> 16) as u8;
    }

    /// Whether the flow may have begun before there was anybody to see it, and this packet be the other side's answer.
    #[inline(always)]
    fn may_be_adopted<T: Tables>(&self, tables: &T, config: &Config) -> bool {
        // Where what a pod sent to a service leaves, its replies do not come by.
        let here = self.defers || self.leg == LEG_IN;
        if !here || self.error || self.from_host || self.of.known.blind || config.adopt_until == 0 {
            return false;
        }
        // Of TCP alone: a datagram that looks like an answer may as well be a request, but nobody can make a new
        // connection of what is in the middle of one.
        let flags = self.of.known.transport.flags;
        let middle =
            self.of.known.protocol == protocol::TCP && flags & (tcp::SYN | tcp::RST | tcp::ACK) == tcp::ACK;
        middle && tables.now() >> 30 < u64::from(config.adopt_until)
    }

    /// Which way the flow's packet went.
    #[inline(always)]
    pub(super) fn flow_leg(&self) -> u32 {
        self.leg ^ u32::from(self.error)
    }

    #[inline(always)]
    fn slot<T: Tables>(&self) -> Slot<F> {
        let (own, peer) = if self.leg == LEG_OUT {
            (self.network.src, self.of.peer)
        } else {
            (self.network.dst, self.of.peer)
        };
        let sends = self.flow_leg() == LEG_OUT;
        let ports = &self.of.known.transport;
        let (own_port, peer_port) = if sends {
            (ports.sport, ports.dport)
        } else {
            (ports.dport, ports.sport)
        };
        let own_first = if own == peer {
            own_port < peer_port || (own_port == peer_port && sends)
        } else {
            F::less(own, peer)
        };
        let protocol = self.of.known.protocol;
        let key = if own_first {
            F::ct_key([own, peer], [own_port, peer_port], protocol)
        } else {
            F::ct_key([peer, own], [peer_port, own_port], protocol)
        };
        let pod = T::opaque(u64::from(!own_first)) as u32 & 1;
        Slot {
            key,
            sender: pod ^ self.flow_leg(),
            pod,
        }
    }

    #[inline(always)]
    fn sight(&self, slot: &Slot<F>) -> Sight {
        Sight {
            sender: slot.sender,
            pod: slot.pod,
            leg: self.flow_leg(),
            protocol: self.of.known.protocol,
            flags: self.of.known.transport.flags,
            from_host: self.from_host,
            error: self.error,
            defers: self.defers,
        }
    }
}

/// Decides a packet at an interface and keeps its flow.
#[inline(always)]
pub(super) fn track<F: Family, T: Tables + FamilyTables<F>, J: Judge<F>>(
    tables: &T,
    config: &Config,
    at: &AtPod<'_, F>,
    who: &J,
) -> Outcome {
    // Without ports there is no flow to look for.
    let mut bits = if at.of.known.blind {
        u64::from(at.from_host) * BEGINS
    } else {
        look_up(tables, config, at)
    };
    if bits & PASSES == 0 {
        let mut outcome = T::opaque_outcome(hear(tables, config, at, who, bits));
        outcome = who.beside(tables, config, at, bits, outcome);
        if J::ADOPTS
            && bits & EXISTS == 0
            && matches!(outcome.reason, Reason::PolicyDeny)
            && at.may_be_adopted(tables, config)
        {
            let adopted = T::opaque_outcome(hear(tables, config, at, who, bits | ADOPTS));
            let adopted = who.beside(tables, config, at, bits | ADOPTS, adopted);
            if adopted.reason.passes() {
                (outcome, bits) = (adopted, bits | ADOPTS);
            }
        }
        let (bits, outcome) = (T::opaque(bits), T::opaque_outcome(outcome));
        let kind = match who.kind() {
            None => 0,
            Some(CT_FORWARDED) => SETS_KIND | FORWARD,
            Some(_) => SETS_KIND,
        };
        return T::opaque_outcome(note(tables, config, at, bits | kind, outcome));
    }
    Outcome::of(if bits & DEFERS != 0 {
        Reason::Service
    } else if at.from_host {
        Reason::FromHost
    } else if at.error {
        Reason::Related
    } else {
        Reason::Established
    })
}

/// Of what [`look_up`] returns: the flow is approved.
const PASSES: u64 = 1;
/// There is an entry, and it is this pod's.
pub(super) const EXISTS: u64 = 2;
/// It is among the established.
const ESTABLISHED: u64 = 4;
/// The packet answers a flow that policy once allowed.
pub(super) const REPLY: u64 = 8;
/// The packet begins a flow.
const BEGINS: u64 = 16;
/// The leg in question was approved before.
const HAD: u64 = 32;
/// With [`PASSES`]: it is judged where it leaves.
const DEFERS: u64 = 64;
/// Nothing translated it: it is still what it was where it was sent on, and what was decided there must stay.
const UNTRANSLATED: u64 = 128;
/// The flow is one that passes through.
pub(super) const FORWARDED: u64 = 256;
/// The packet itself tells what its flow is: [`FORWARD`] or not.
const SETS_KIND: u64 = 512;
/// It passes through.
const FORWARD: u64 = 1024;
/// There is no entry, because the flow is older than we are: it is judged as the other side's, which began it.
pub(super) const ADOPTS: u64 = 2048;

/// What is known of the packet's flow.
#[cfg_attr(target_arch = "bpf", inline(never))]
fn look_up<F: Family, T: Tables + FamilyTables<F>>(tables: &T, config: &Config, at: &AtPod<'_, F>) -> u64 {
    let slot = at.slot::<T>();
    let sight = at.sight(&slot);
    let now = tables.now();
    let mut table = CtTable::Established;
    let mut found = look::<F, T>(tables, config, now, &sight, &slot.key, table);
    if found == FOUND_NOTHING {
        table = CtTable::HalfOpen;
        found = look::<F, T>(tables, config, now, &sight, &slot.key, table);
    }
    let kind = found & FOUND;
    if kind == FOUND_APPROVED || kind == FOUND_PROMOTE {
        if kind == FOUND_PROMOTE && table == CtTable::HalfOpen {
            establish(tables, &slot);
        }
        return PASSES;
    }
    if kind == FOUND_SERVICE {
        return PASSES | DEFERS;
    }
    let begins = sight.begins() || at.from_host;
    // A reply to a flow that policy once allowed lives and dies with that flow, so that one is judged again.
    let (own, other) = (found & FOUND_OWN != 0, found & FOUND_OTHER != 0);
    let reply = !begins && !own && other;
    let had = own || reply;
    // A flow that only the peer's legs know is none of this pod's: an error about it is about nothing.
    let exists = kind != FOUND_NOTHING && (had || !at.error);
    // Whichever way it came here, the verifier follows the question only once.
    T::opaque(
        (u64::from(exists) * EXISTS)
            | (u64::from(table == CtTable::Established) * ESTABLISHED)
            | (u64::from(reply) * REPLY)
            | (u64::from(begins) * BEGINS)
            | (u64::from(had) * HAD)
            | (u64::from(found & FOUND_UNTRANSLATED != 0) * UNTRANSLATED)
            | (u64::from(found & FOUND_FORWARDED != 0) * FORWARDED)
            | (found & (0xffff << ICMP_SHIFT)),
    )
}

/// Asks policy. Apart from [`note`], so that what one needs of the stack is free for the other.
#[cfg_attr(target_arch = "bpf", inline(never))]
fn hear<F: Family, T: Tables + FamilyTables<F>, J: Judge<F>>(
    tables: &T,
    config: &Config,
    at: &AtPod<'_, F>,
    who: &J,
    bits: u64,
) -> Outcome {
    who.answer(tables, config, at, T::opaque(bits))
}

/// Notes the answer in the flow's entry.
#[cfg_attr(target_arch = "bpf", inline(never))]
fn note<F: Family, T: Tables + FamilyTables<F>>(
    tables: &T,
    config: &Config,
    at: &AtPod<'_, F>,
    bits: u64,
    mut outcome: Outcome,
) -> Outcome {
    let bits = T::opaque(bits);
    let passes = outcome.reason.passes();
    let (exists, error) = (bits & EXISTS != 0, at.error);
    if at.of.known.blind || (error && !exists) || bits & UNTRANSLATED != 0 {
        return outcome;
    }
    let value = match outcome.reason {
        // What a host endpoint says of the untranslated packet is asked again after a change, of an answer, too.
        Reason::Service | Reason::Established if bits & SETS_KIND != 0 => config.epoch | LEG_DEFERS,
        Reason::Service => LEG_SERVICE,
        _ if passes && at.from_host => LEG_HOST,
        _ if passes => config.epoch,
        _ => LEG_REVOKED,
    };
    let value = T::opaque(u64::from(value)) as u32;
    let kind = u32::from(bits & FORWARD != 0) * CT_FORWARDED;
    if !exists {
        if passes {
            outcome = begin(tables, at, kind, value, outcome, bits);
        }
        // It is judged where the pod's own packets leave.
        if bits & ADOPTS != 0 && matches!(outcome.reason, Reason::Service) {
            outcome.reason = Reason::Established;
        }
        return outcome;
    }
    // A denied SYN on a live tuple is not the connection's fault; what was never approved cannot be revoked.
    if passes || (bits & HAD != 0 && bits & BEGINS == 0) {
        let slot = at.slot::<T>();
        let sight = at.sight(&slot);
        let leg = if bits & REPLY != 0 {
            1 - sight.leg
        } else {
            sight.leg
        };
        let table = if bits & ESTABLISHED != 0 {
            CtTable::Established
        } else {
            CtTable::HalfOpen
        };
        let now = tables.now();
        tables.ct_with(table, &slot.key, |entry| {
            entry.set_leg(slot.pod, leg, value);
            if bits & SETS_KIND != 0 && bits & REPLY == 0 && !error {
                entry.kind = kind;
            }
            if passes && !error {
                if sight.begins() {
                    entry.seen = 0;
                }
                entry.seen |= u16::from(sight.seen()) << (slot.sender * 8);
                entry.last_seen = now;
            }
        });
    }
    if passes && error {
        outcome.reason = Reason::Related;
    }
    outcome
}

/// Looks for a flow in one table.
#[inline(always)]
fn look<F: Family, T: Tables + FamilyTables<F>>(
    tables: &T,
    config: &Config,
    now: u64,
    packet: &Sight,
    key: &F::CtKey,
    table: CtTable,
) -> u64 {
    // Moved, because what it would borrow needs room on the stack.
    let found = tables.ct_with(table, key, move |entry| consult(entry, config, now, packet));
    T::opaque(found.unwrap_or(FOUND_NOTHING))
}

/// Enters a flow that policy allows.
#[inline(always)]
fn begin<F: Family, T: Tables + FamilyTables<F>>(
    tables: &T,
    at: &AtPod<'_, F>,
    kind: u32,
    value: u32,
    outcome: Outcome,
    bits: u64,
) -> Outcome {
    let slot = at.slot::<T>();
    let sight = at.sight(&slot);
    let leg = at.leg ^ u32::from(bits & ADOPTS != 0);
    let word = u64::from(value) << (leg * 32);
    let entry = CtValue {
        last_seen: tables.now(),
        legs: [
            word & u64::from(slot.pod).wrapping_sub(1),
            word & 0_u64.wrapping_sub(u64::from(slot.pod)),
        ],
        seen: u16::from(sight.seen()) << (slot.sender * 8),
        icmp: at.of.known.transport.policy_port,
        kind,
    };
    if tables.ct_insert(CtTable::HalfOpen, &slot.key, &entry) {
        outcome
    } else {
        Outcome {
            reason: Reason::ConntrackFull,
            ..outcome
        }
    }
}

/// Moves an entry to where a SYN flood cannot evict it.
#[inline(always)]
fn establish<F: Family, T: FamilyTables<F>>(tables: &T, slot: &Slot<F>) {
    let copied = tables.ct_with(CtTable::HalfOpen, &slot.key, |entry| {
        // If the table refuses, the entry stays where it is and works as well.
        tables.ct_insert(CtTable::Established, &slot.key, entry)
    });
    if copied == Some(true) {
        tables.ct_remove(CtTable::HalfOpen, &slot.key);
    }
}
