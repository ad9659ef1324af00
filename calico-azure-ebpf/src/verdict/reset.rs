//! A pod is gone and its peers do not know: they would send on until they give up. What they send of a TCP connection that passed
//! here is answered with a reset, as the pod's own host would have done.
//!
//! Only what has an entry in conntrack is answered, and nothing that begins a connection: an address without a pod may be one
//! whose pod is about to come.

use super::{AllTables, CtTable, FamilyTables};
use crate::packet::vlan::behind_tags;
use crate::packet::{ETHERNET, Family, Packet, protocol, tcp};

/// The packet that resets a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reset<F: Family> {
    /// The address that has no pod.
    pub src: F::Addr,
    /// Its peer.
    pub dst: F::Addr,
    /// Ports of the two, host order.
    pub ports: [u16; 2],
    /// Sequence number, as on the wire: the one that the peer waits for.
    pub seq: u32,
}

/// What answers a packet that `NoSuchWorkload` dropped, if anything does.
#[inline(always)]
pub fn reset<F: Family, P: Packet, T: AllTables + FamilyTables<F>>(
    packet: &P,
    tables: &T,
    ethertype: u16,
) -> Option<Reset<F>> {
    if behind_tags(packet) != Ok((ethertype, ETHERNET)) {
        return None;
    }
    let plain = F::plain(packet)?;
    if plain.protocol != protocol::TCP || plain.flags & (tcp::SYN | tcp::RST | tcp::ACK) != tcp::ACK {
        return None;
    }
    let [seq] = packet.words::<1>(plain.l4 + 8)?;
    let key = if F::less(plain.src, plain.dst) {
        F::ct_key([plain.src, plain.dst], [plain.sport, plain.dport], plain.protocol)
    } else {
        F::ct_key([plain.dst, plain.src], [plain.dport, plain.sport], plain.protocol)
    };
    if !is_known::<F, T>(tables, &key) {
        return None;
    }
    Some(Reset {
        src: plain.dst,
        dst: plain.src,
        ports: [plain.dport, plain.sport],
        seq,
    })
}

#[inline(always)]
fn is_known<F: Family, T: FamilyTables<F>>(tables: &T, key: &F::CtKey) -> bool {
    let is_in = |table| tables.ct_with(table, key, |_| ()).is_some();
    is_in(CtTable::Established) || is_in(CtTable::HalfOpen)
}
