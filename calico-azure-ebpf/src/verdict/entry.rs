//! One conntrack entry: what it says about a packet, and what the packet leaves in it. Only [`super::flow`] and
//! [`super::express`] ask.

use crate::abi::{
    CONFIG_KEEP_ESTABLISHED, CT_FORWARDED, CT_REFRESH, CT_SEEN, Config, CtValue, LEG_DEFERS, LEG_HOST,
    LEG_NONE, LEG_OUT, LEG_REVOKED, LEG_SERVICE, TIMEOUT_GENERIC, TIMEOUT_ICMP, TIMEOUT_TCP_ESTABLISHED,
    TIMEOUT_TCP_FINS, TIMEOUT_TCP_HALF_OPEN, TIMEOUT_TCP_RESET, TIMEOUT_UDP, leg_defers,
};
use crate::packet::{protocol, tcp};

/// What an entry says about a packet; for [`FOUND_STALE`] with the bits below, and the entry's icmp field above them.
pub(super) const FOUND: u64 = 7;
/// No entry, or a dead one.
pub(super) const FOUND_NOTHING: u64 = 0;
/// The packet passes.
pub(super) const FOUND_APPROVED: u64 = 1;
/// The packet passes, and its flow is established by it.
pub(super) const FOUND_PROMOTE: u64 = 2;
/// There is an entry, but policy must be asked.
pub(super) const FOUND_STALE: u64 = 3;
/// The packet passes and is judged where it leaves.
pub(super) const FOUND_SERVICE: u64 = 4;
/// Where the entry's ICMP type and code begin.
pub(super) const ICMP_SHIFT: u32 = 16;
/// The pod's leg in the packet's direction was approved once.
pub(super) const FOUND_OWN: u64 = 8;
/// Its other leg was.
pub(super) const FOUND_OTHER: u64 = 16;
/// The first of them is that of what is sent to a service, and this is the packet where it leaves.
pub(super) const FOUND_UNTRANSLATED: u64 = 32;
/// The entry is that of a forwarded flow.
pub(super) const FOUND_FORWARDED: u64 = 64;

/// What a conntrack entry must know of a packet.
#[derive(Clone, Copy)]
pub(super) struct Sight {
    /// Sides of the sender and of the pod.
    pub(super) sender: u32,
    pub(super) pod: u32,
    /// Which way the flow's packet went, from the pod.
    pub(super) leg: u32,
    pub(super) protocol: u8,
    pub(super) flags: u8,
    pub(super) from_host: bool,
    pub(super) error: bool,
    pub(super) defers: bool,
}

impl Sight {
    /// A SYN begins a connection, whatever is remembered about its tuple.
    #[inline(always)]
    pub(super) fn begins(&self) -> bool {
        self.protocol == protocol::TCP && self.flags & (tcp::SYN | tcp::ACK) == tcp::SYN
    }

    #[inline(always)]
    pub(super) fn seen(&self) -> u8 {
        CT_SEEN | (self.flags & (tcp::FIN | tcp::SYN | tcp::RST | tcp::ACK))
    }
}

/// Reads an entry and, if it approves the packet, notes that it passed.
#[inline(always)]
pub(super) fn consult(entry: &mut CtValue, config: &Config, now: u64, packet: &Sight) -> u64 {
    if now.saturating_sub(entry.last_seen) > timeout(entry, config, packet.protocol) {
        return FOUND_NOTHING;
    }
    let own = entry.leg(packet.pod, packet.leg);
    let other = entry.leg(packet.pod, 1 - packet.leg);
    let service = packet.leg == LEG_OUT && leg_defers(own) && !packet.error;
    let approved = if service {
        packet.defers && approves(own, config)
    } else {
        approves(own, config) || approves(other, config)
    };
    if !approved || packet.begins() || (packet.from_host && own != LEG_HOST) {
        return FOUND_STALE
            | (u64::from(own != LEG_NONE) * FOUND_OWN)
            | (u64::from(other != LEG_NONE) * FOUND_OTHER)
            | (u64::from(service && !packet.defers) * FOUND_UNTRANSLATED)
            | (u64::from(entry.kind & CT_FORWARDED != 0) * FOUND_FORWARDED)
            | (u64::from(entry.icmp) << ICMP_SHIFT);
    }
    // An error is no sign of life.
    if packet.error {
        return FOUND_APPROVED;
    }
    if now.saturating_sub(entry.last_seen) > CT_REFRESH {
        entry.last_seen = now;
    }
    // Who goes on has not reset the connection: whatever said so was not in its sequence, which nobody checks here.
    let seen = u16::from(packet.seen()) << (packet.sender * 8);
    let over = u16::from(!packet.flags & tcp::RST) << (packet.sender * 8);
    let seen = (entry.seen | seen) & !over;
    if entry.seen != seen {
        entry.seen = seen;
    }
    let peer_seen = entry.seen_from(1 - packet.sender);
    let promote = if packet.protocol == protocol::TCP {
        // The third packet of the handshake; a SYN flood never gets to send it.
        packet.flags & (tcp::ACK | tcp::SYN | tcp::RST) == tcp::ACK && peer_seen & tcp::ACK != 0
    } else {
        peer_seen != 0
    };
    match promote {
        _ if service => FOUND_SERVICE,
        true => FOUND_PROMOTE,
        false => FOUND_APPROVED,
    }
}

#[inline(always)]
fn approves(leg: u32, config: &Config) -> bool {
    let keeps = config.flags & CONFIG_KEEP_ESTABLISHED != 0 && leg != LEG_NONE && leg != LEG_REVOKED;
    leg & !LEG_DEFERS == config.epoch || leg == LEG_HOST || leg == LEG_SERVICE || keeps
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
