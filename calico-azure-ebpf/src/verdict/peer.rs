//! What is at the other end of a flow at a pod's interface, as far as its address and the interface tell. In the kernel a function of its own,
//! see [`crate::packet::Packet::peer4`]: it takes words and answers with one.

use super::fabric::is_nobodys;
use super::{FamilyTables, Tables};
use crate::abi::{CONFIG_ALLOW_UNKNOWN, CONFIG_LINKS, route};
use crate::packet::{Family, Packet};

/// Of what is asked, above `Config::flags`: the pod sends it.
pub(super) const SENT: u64 = 1 << 32;
/// The packet itself comes from the pod.
pub(super) const LEAVES: u64 = 2 << 32;
/// The flow is new.
pub(super) const NEW: u64 = 4 << 32;

/// Of the answer, in bits that a judge has no use for: the flow's other end is the host. What a pod sends no further than its link arrives
/// there, too, or nowhere: on a bridge other pods are held to their own addresses.
pub(super) const HOSTS: u64 = 1 << 32;
/// The flow is new, and its other end may be a pod that nobody knows: it has an address of the node's podCIDR that no pod has, or is behind
/// an interface that is not in `LINKS`.
pub(super) const STRANGER: u64 = 2 << 32;

/// Without what a packet says of interfaces: it is leaving by one that has our programs.
#[inline(always)]
pub(super) const fn apart_from_links(asked: u64) -> u64 {
    asked & !(CONFIG_LINKS as u64)
}

/// The answer about the address of the other end.
#[inline(always)]
pub fn peer<F: Family, P: Packet, T: Tables + FamilyTables<F>>(
    packet: &P,
    tables: &T,
    peer: F::Addr,
    asked: u64,
) -> u64 {
    let on_link = asked & SENT != 0 && (F::is_link_destination(peer) || F::is_multicast(peer));
    if on_link {
        return HOSTS;
    }
    let known = tables.route(peer);
    if known & route::LOCAL_HOST != 0 {
        return HOSTS;
    }
    if asked & NEW == 0 || asked & u64::from(CONFIG_ALLOW_UNKNOWN) != 0 {
        return 0;
    }
    if is_nobodys(known) {
        return STRANGER;
    }
    if asked & u64::from(CONFIG_LINKS) == 0 {
        return 0;
    }
    let link = if asked & LEAVES == 0 {
        packet.ingress_ifindex()
    } else if known & route::KINDS == 0 {
        packet.leads_to::<F>(peer)
    } else {
        0
    };
    u64::from(tables.is_open(link)) * STRANGER
}
