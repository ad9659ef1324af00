//! VLAN tags inside the frame (IEEE 802.1Q, 802.1ad). The kernel takes the outermost one out of what it receives.

use super::{ETHERNET, Packet, ethertype};
use crate::abi::Reason;

/// A frame of a provider's network has two, one of which may be out of band.
const MAX_TAGS: u32 = 2;

/// Whether an ethertype announces a tag.
#[inline(always)]
#[must_use]
pub const fn is_tag(ethertype: u16) -> bool {
    matches!(ethertype, ethertype::VLAN | ethertype::PROVIDER_VLAN)
}

/// The ethertype behind all tags, and where what it names begins.
///
/// # Errors
/// `Malformed` if the frame ends in a tag, `VlanTagged` if there are more than are followed.
#[inline(always)]
pub fn behind_tags<P: Packet>(packet: &P) -> Result<(u16, u32), Reason> {
    let (mut ethertype, mut start) = (packet.ethertype(), ETHERNET);
    let mut tags = 0;
    while is_tag(ethertype) {
        if tags == MAX_TAGS {
            return Err(Reason::VlanTagged);
        }
        let Some([tag]) = packet.words::<1>(start) else {
            return Err(Reason::Malformed);
        };
        ethertype = u32::from_be(tag) as u16;
        start += 4;
        tags += 1;
    }
    // Behind whatever tags, what follows is one thing to the verifier.
    let word = P::opaque(u64::from(ethertype) << 8 | u64::from(start));
    Ok(((word >> 8) as u16, word as u32 & 0x1f))
}
