//! VXLAN between nodes (flannel's): what a node sends may come from its own pods and itself only. The fabric sees the outer source, which
//! Azure answers for, and never the inner one; so this is asked where both can be seen, before the tunnel is taken off.
//!
//! Only [`super::fabric`] uses this.

use super::{AllTables, FamilyTables};
use crate::abi::{Reason, route};
use crate::packet::{ETHERNET, Family, Network, Packet, V4, V6, ethertype, fragment};

/// Length of a UDP header, and of VXLAN's (RFC 7348).
const UDP: u32 = 8;
const VXLAN: u32 = 8;
/// Where the inner frame's ethertype and the sources of both families are, from the beginning of that frame.
const ETHERTYPE: u32 = 12;
const SOURCE4: u32 = ETHERNET + 12;
const SOURCE6: u32 = ETHERNET + 8;

/// A datagram for this host. `from`: what is known of its source.
#[inline(always)]
pub(super) fn inner<F: Family, P: Packet, T: AllTables>(
    packet: &P,
    tables: &T,
    network: &Network<F>,
    from: u32,
) -> Reason {
    let pass = Reason::FabricPass;
    let Some(config) = tables.config() else {
        return pass;
    };
    // Whoever drops the first fragment drops the datagram.
    if config.tunnel_port == 0 || network.fragment == fragment::LATER {
        return pass;
    }
    let Some([ports]) = packet.words::<1>(network.l4) else {
        return Reason::Malformed;
    };
    if u32::from_be(ports) as u16 != config.tunnel_port {
        return pass;
    }
    let frame = network.l4 + UDP + VXLAN;
    let Some([kind]) = packet.words::<1>(frame + ETHERTYPE) else {
        return Reason::Malformed;
    };
    let inner = match (u32::from_be(kind) >> 16) as u16 {
        ethertype::IPV4 => packet
            .words::<1>(frame + SOURCE4)
            .map(|[source]| FamilyTables::<V4>::route(tables, source)),
        ethertype::IPV6 => packet
            .words::<4>(frame + SOURCE6)
            .map(|source| FamilyTables::<V6>::route(tables, source)),
        // No IP packet comes of it.
        _ => return pass,
    };
    match inner {
        None => Reason::Malformed,
        Some(inner) if route::is_senders(from, inner) => pass,
        Some(_) => Reason::TunnelSource,
    }
}
