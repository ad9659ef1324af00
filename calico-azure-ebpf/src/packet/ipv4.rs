//! IPv4 (RFC 791).

use super::{Network, Packet, Place, V4, fragment, l4, protocol};
use crate::abi::Reason;

const MORE_FRAGMENTS: u32 = 0x2000;
const OFFSET: u32 = 0x1fff;
/// A header without options, in bytes.
const HEADER: u32 = 20;

#[inline(always)]
pub(super) fn parse<P: Packet>(packet: &P, at: &Place) -> Result<Network<V4>, Reason> {
    let Some([w0, w1, w2, src, dst]) = packet.words::<5>(at.start) else {
        return Err(Reason::Malformed);
    };
    let (w0, w1, w2) = (u32::from_be(w0), u32::from_be(w1), u32::from_be(w2));
    let header = (w0 >> 24 & 0xf) * 4;
    if w0 >> 28 != 4 || header < HEADER {
        return Err(Reason::Malformed);
    }
    let end = at.end(w0 & 0xffff)?;
    let l4 = at.start + header;
    if l4 > end {
        return Err(Reason::Malformed);
    }
    let (offset, more) = (w1 & OFFSET, w1 & MORE_FRAGMENTS != 0);
    let (fragment, boundary) = fragment::of(offset, more, end - l4, at.quoted)?;
    Ok(Network {
        src,
        dst,
        protocol: (w2 >> 16) as u8,
        hop_limit: (w2 >> 24) as u8,
        l4,
        end,
        options: header != HEADER,
        fragment,
        boundary,
        id: w1 >> 16,
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
