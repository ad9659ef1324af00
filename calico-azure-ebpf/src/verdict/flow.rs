//! Flows: which packets need no new policy question, and what an answer does to the conntrack entry.
//!
//! An entry has four legs: for each side, what it sends (judged by its egress policy) and what it receives (its
//! ingress policy). A packet that a pod sends passes if the pod's out leg is approved, or, as a reply, its in leg;
//! a packet that it receives, the other way round. An approval holds in the epoch it was given in. After that the
//! leg is judged again, in the direction in which the flow began, so a policy change cuts what it no longer allows
//! whichever side speaks next.

use super::policy::{Question, ask, ready};
use super::{CtTable, FamilyTables, Outcome, Tables};
use crate::abi::{
    CONFIG_KEEP_ESTABLISHED, CT_REFRESH, CT_SEEN, Config, CtValue, LEG_HOST, LEG_NONE, LEG_OUT, LEG_REVOKED,
    LEG_SERVICE, Reason, TIMEOUT_GENERIC, TIMEOUT_ICMP, TIMEOUT_TCP_ESTABLISHED, TIMEOUT_TCP_FINS,
    TIMEOUT_TCP_HALF_OPEN, TIMEOUT_TCP_RESET, TIMEOUT_UDP,
};
use crate::packet::{Family, Network, Transport, protocol, tcp};

/// A packet at a pod's interface.
pub(super) struct AtPod<'a, F: Family> {
    pub(super) ifindex: u32,
    /// The endpoint's slot word for the packet's own direction.
    pub(super) endpoint: u64,
    pub(super) network: &'a Network<F>,
    pub(super) transport: Transport,
    /// `LEG_OUT` at `from_workload`, `LEG_IN` at `to_workload`.
    pub(super) leg: u32,
    /// The host itself sent it.
    pub(super) from_host: bool,
    /// It has not been translated yet: what is sent to a service is judged where it leaves.
    pub(super) defers: bool,
}

/// What an entry says about a packet: a `FOUND_*`, and for [`FOUND_STALE`] the entry's icmp field above it and the
/// pod's two legs.
#[derive(Clone, Copy)]
struct Found {
    word: u64,
    own: u32,
    other: u32,
}

/// No entry, or a dead one.
const FOUND_NOTHING: u64 = 0;
/// The packet passes.
const FOUND_APPROVED: u64 = 1;
/// The packet passes, and its flow is established by it.
const FOUND_PROMOTE: u64 = 2;
/// There is an entry, but policy must be asked.
const FOUND_STALE: u64 = 3;
/// The packet passes and is judged where it leaves.
const FOUND_SERVICE: u64 = 4;

impl Found {
    #[inline(always)]
    fn of(word: u64) -> Self {
        Self {
            word,
            own: LEG_NONE,
            other: LEG_NONE,
        }
    }
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
    #[inline(always)]
    fn slot(&self) -> Slot<F> {
        let (src, dst) = (self.network.src, self.network.dst);
        let (sport, dport) = (self.transport.sport, self.transport.dport);
        let src_first = if src == dst {
            sport <= dport
        } else {
            F::less(src, dst)
        };
        let protocol = self.network.protocol;
        let key = if src_first {
            F::ct_key([src, dst], [sport, dport], protocol)
        } else {
            F::ct_key([dst, src], [dport, sport], protocol)
        };
        let sender = u32::from(!src_first);
        Slot {
            key,
            sender,
            pod: if self.leg == LEG_OUT { sender } else { 1 - sender },
        }
    }

    #[inline(always)]
    fn peer(&self) -> F::Addr {
        if self.leg == LEG_OUT {
            self.network.dst
        } else {
            self.network.src
        }
    }

    /// A SYN begins a connection, whatever is remembered about its tuple.
    #[inline(always)]
    fn begins(&self) -> bool {
        self.network.protocol == protocol::TCP && self.transport.flags & (tcp::SYN | tcp::ACK) == tcp::SYN
    }

    #[inline(always)]
    fn seen(&self) -> u8 {
        CT_SEEN | (self.transport.flags & (tcp::FIN | tcp::SYN | tcp::RST | tcp::ACK))
    }
}

/// Decides a packet at a pod's interface and keeps its flow.
#[inline(always)]
pub(super) fn track<F: Family, T: Tables + FamilyTables<F>>(
    tables: &T,
    config: &Config,
    at: &AtPod<'_, F>,
) -> Outcome {
    let slot = at.slot();
    let now = tables.now();
    let mut table = CtTable::Established;
    let mut found = look(tables, config, now, at, &slot, table);
    if found.word == FOUND_NOTHING {
        table = CtTable::HalfOpen;
        found = look(tables, config, now, at, &slot, table);
    }
    let Found { word, own, other } = found;
    if word == FOUND_APPROVED || word == FOUND_PROMOTE {
        if word == FOUND_PROMOTE && table == CtTable::HalfOpen {
            establish(tables, &slot);
        }
        return Outcome::of(if at.from_host {
            Reason::FromHost
        } else {
            Reason::Established
        });
    }
    if word == FOUND_SERVICE {
        return Outcome::of(Reason::Service);
    }
    let icmp = (word >> 16) as u16;
    let begins = at.begins() || at.from_host;
    // A reply to a flow that policy once allowed lives and dies with that flow, so that one is judged again.
    let reply = !begins && own == LEG_NONE && other != LEG_NONE;
    let before = if reply { other } else { own };
    // Whichever way it came here, the verifier follows the question only once.
    let bits = u64::from(word != FOUND_NOTHING)
        | u64::from(table == CtTable::Established) << 1
        | u64::from(reply) << 2
        | u64::from(begins) << 3
        | u64::from(before != LEG_NONE) << 4
        | u64::from(own == LEG_SERVICE && !at.defers) << 5
        | u64::from(icmp) << 16;
    let bits = T::opaque(bits);
    let (exists, reply, begins, had) = (bits & 1 != 0, bits & 4 != 0, bits & 8 != 0, bits & 16 != 0);
    // Nothing translated it: it is still what it was where it was sent on, and what was decided there must stay.
    let untranslated = bits & 32 != 0;
    let table = if bits & 2 != 0 {
        CtTable::Established
    } else {
        CtTable::HalfOpen
    };
    let icmp = (bits >> 16) as u16;
    let leg = if reply { 1 - at.leg } else { at.leg };
    let outcome = answer(tables, config, at, reply, icmp);
    let passes = outcome.reason.passes();
    let value = match outcome.reason {
        Reason::Service => LEG_SERVICE,
        _ if passes && at.from_host => LEG_HOST,
        _ if passes => config.epoch,
        _ => LEG_REVOKED,
    };
    if untranslated {
        return outcome;
    }
    if !exists {
        return if passes {
            begin(tables, now, at, &slot, value, outcome)
        } else {
            outcome
        };
    }
    // A denied SYN on a live tuple is not the connection's fault; what was never approved cannot be revoked.
    if passes || (had && !begins) {
        tables.ct_with(table, &slot.key, |entry| {
            entry.set_leg(slot.pod, leg, value);
            if passes {
                if at.begins() {
                    entry.seen = 0;
                }
                entry.seen |= u16::from(at.seen()) << (slot.sender * 8);
                entry.last_seen = now;
            }
        });
    }
    outcome
}

/// Looks for a flow in one table.
#[inline(always)]
fn look<F: Family, T: Tables + FamilyTables<F>>(
    tables: &T,
    config: &Config,
    now: u64,
    at: &AtPod<'_, F>,
    slot: &Slot<F>,
    table: CtTable,
) -> Found {
    let found = tables
        .ct_with(table, &slot.key, |entry| consult(entry, config, now, at, slot))
        .unwrap_or(Found::of(FOUND_NOTHING));
    Found {
        word: T::opaque(found.word),
        ..found
    }
}

/// Reads an entry and, if it approves the packet, notes that it passed.
#[inline(always)]
fn consult<F: Family>(
    entry: &mut CtValue,
    config: &Config,
    now: u64,
    at: &AtPod<'_, F>,
    slot: &Slot<F>,
) -> Found {
    if now.saturating_sub(entry.last_seen) > timeout(entry, config, at.network.protocol) {
        return Found::of(FOUND_NOTHING);
    }
    let (own, other) = (entry.leg(slot.pod, at.leg), entry.leg(slot.pod, 1 - at.leg));
    let service = at.leg == LEG_OUT && own == LEG_SERVICE;
    let approved = if service {
        at.defers
    } else {
        approves(own, config) || approves(other, config)
    };
    if !approved || at.begins() || (at.from_host && own != LEG_HOST) {
        return Found {
            word: FOUND_STALE | u64::from(entry.icmp) << 16,
            own,
            other,
        };
    }
    if now.saturating_sub(entry.last_seen) > CT_REFRESH {
        entry.last_seen = now;
    }
    let seen = u16::from(at.seen()) << (slot.sender * 8);
    if entry.seen & seen != seen {
        entry.seen |= seen;
    }
    let peer_seen = entry.seen_from(1 - slot.sender);
    let promote = if at.network.protocol == protocol::TCP {
        // The third packet of the handshake; a SYN flood never gets to send it.
        at.transport.flags & (tcp::ACK | tcp::SYN | tcp::RST) == tcp::ACK && peer_seen & tcp::ACK != 0
    } else {
        peer_seen != 0
    };
    Found::of(match promote {
        _ if service => FOUND_SERVICE,
        true => FOUND_PROMOTE,
        false => FOUND_APPROVED,
    })
}

#[inline(always)]
fn approves(leg: u32, config: &Config) -> bool {
    let keeps = config.flags & CONFIG_KEEP_ESTABLISHED != 0 && leg != LEG_NONE && leg != LEG_REVOKED;
    leg == config.epoch || leg == LEG_HOST || leg == LEG_SERVICE || keeps
}

/// For how long the flow may be silent, in nanoseconds: after that its entry is dead, whether it is still there or not.
#[inline(always)]
#[must_use]
pub fn timeout(entry: &CtValue, config: &Config, protocol: u8) -> u64 {
    let (a, b) = (entry.seen_from(0), entry.seen_from(1));
    let index = match protocol {
        protocol::TCP if (a | b) & tcp::RST != 0 => TIMEOUT_TCP_RESET,
        protocol::TCP if a & b & tcp::FIN != 0 => TIMEOUT_TCP_FINS,
        protocol::TCP if a != 0 && b != 0 => TIMEOUT_TCP_ESTABLISHED,
        protocol::TCP => TIMEOUT_TCP_HALF_OPEN,
        protocol::UDP => TIMEOUT_UDP,
        protocol::ICMP | protocol::ICMP6 => TIMEOUT_ICMP,
        _ => TIMEOUT_GENERIC,
    };
    config.timeouts[index & 7]
}

/// Enters a flow that policy allows.
#[inline(always)]
fn begin<F: Family, T: FamilyTables<F>>(
    tables: &T,
    now: u64,
    at: &AtPod<'_, F>,
    slot: &Slot<F>,
    value: u32,
    outcome: Outcome,
) -> Outcome {
    let word = u64::from(value) << (at.leg * 32);
    let entry = CtValue {
        last_seen: now,
        legs: [
            if slot.pod == 0 { word } else { 0 },
            if slot.pod == 0 { 0 } else { word },
        ],
        seen: u16::from(at.seen()) << (slot.sender * 8),
        icmp: at.transport.policy_port,
        reserved: 0,
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

/// Asks policy about the packet's own direction, or about the flow that it replies to.
#[inline(always)]
fn answer<F: Family, T: Tables + FamilyTables<F>>(
    tables: &T,
    config: &Config,
    at: &AtPod<'_, F>,
    reply: bool,
    icmp: u16,
) -> Outcome {
    if at.from_host {
        return Outcome::of(Reason::FromHost);
    }
    let protocol = at.network.protocol;
    let (mut endpoint, mut sport, mut port) = (at.endpoint, at.transport.sport, at.transport.policy_port);
    if reply {
        let Some(other) = tables.endpoint(at.ifindex, 1 - at.leg) else {
            return Outcome::of(Reason::NoEndpoint);
        };
        endpoint = other;
        sport = at.transport.dport;
        port = if matches!(protocol, protocol::ICMP | protocol::ICMP6) {
            icmp
        } else {
            at.transport.sport
        };
    }
    if at.defers && !reply && at.leg == LEG_OUT && config.mark_mask != 0 {
        let bits = tables.service(at.network.dst, at.transport.dport, protocol);
        if bits & 1 << (config.epoch & 1) != 0 {
            return match ready(config.epoch, at.ifindex, endpoint) {
                Ok(_) => Outcome::of(Reason::Service),
                Err(reason) => Outcome::of(reason),
            };
        }
    }
    ask::<F, T>(
        tables,
        config.epoch,
        &Question {
            ifindex: at.ifindex,
            endpoint,
            peer: at.peer(),
            protocol,
            sport,
            port,
        },
    )
}

/// Moves an entry to where a SYN flood cannot evict it.
#[inline(always)]
fn establish<F: Family, T: FamilyTables<F>>(tables: &T, slot: &Slot<F>) {
    let copy = tables.ct_with(CtTable::HalfOpen, &slot.key, |entry| *entry);
    if let Some(entry) = copy {
        // If the table refuses, the entry stays where it is and works as well.
        if tables.ct_insert(CtTable::Established, &slot.key, &entry) {
            tables.ct_remove(CtTable::HalfOpen, &slot.key);
        }
    }
}
