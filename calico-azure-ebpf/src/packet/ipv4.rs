//! IPv4 (RFC 791).

use super::{ETHERNET, Network, Packet, V4, fragment, l4, protocol};
use crate::abi::Reason;

const MORE_FRAGMENTS: u32 = 0x2000;
const OFFSET: u32 = 0x1fff;

#[inline(always)]
pub(super) fn parse<P: Packet>(packet: &P) -> Result<Network<V4>, Reason> {
    let Some([w0, w1, w2, src, dst]) = packet.words::<5>(ETHERNET) else {
        return Err(Reason::Malformed);
    };
    let (w0, w1, w2) = (u32::from_be(w0), u32::from_be(w1), u32::from_be(w2));
    let header = (w0 >> 24 & 0xf) * 4;
    let total = w0 & 0xffff;
    if w0 >> 28 != 4 || header < 20 || total < header || ETHERNET + total > packet.len() {
        return Err(Reason::Malformed);
    }
    let (id, offset, more) = (w1 >> 16, w1 & OFFSET, w1 & MORE_FRAGMENTS != 0);
    let fragment = match (offset, more) {
        (0, false) => fragment::NO,
        (0, true) => fragment::FIRST,
        _ => fragment::LATER,
    };
    Ok(Network {
        src,
        dst,
        protocol: (w2 >> 16) as u8,
        hop_limit: (w2 >> 24) as u8,
        l4: ETHERNET + header,
        end: ETHERNET + total,
        fragment,
        id,
    })
}

/// DHCP before the client has an address: 0.0.0.0:68 to 255.255.255.255:67.
#[inline(always)]
pub(super) fn is_dhcp_discovery<P: Packet>(packet: &P, network: &Network<V4>) -> bool {
    if network.src != 0 || network.dst != u32::MAX || network.protocol != protocol::UDP {
        return false;
    }
    if network.fragment != fragment::NO {
        return false;
    }
    matches!(l4::parse(packet, network.protocol, network.l4, network.end), Ok(t) if t.sport == 68 && t.dport == 67)
}
