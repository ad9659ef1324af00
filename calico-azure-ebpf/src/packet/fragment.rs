//! What fragments of both families have in common.

use crate::abi::Reason;

/// A whole datagram.
pub const NO: u8 = 0;
/// The first fragment, with ports.
pub const FIRST: u8 = 1;
/// A later one, without.
pub const LATER: u8 = 2;

/// Most bytes of a reassembled datagram's payload.
const LARGEST: u32 = 0xffff;

/// One of the constants above, and the boundary that goes with it: where a first fragment ends, or where a later one
/// begins, in units of 8 bytes. `length` is that of the fragment's payload; of a `quoted` header it is not known.
#[inline(always)]
pub(super) fn of(offset: u32, more: bool, length: u32, quoted: bool) -> Result<(u8, u32), Reason> {
    if offset == 0 && !more {
        return Ok((NO, 0));
    }
    // Nothing to put together, a gap that no fragment can fill, or an end beyond what a datagram can have.
    let odd = more && !length.is_multiple_of(8);
    if !quoted && (length == 0 || odd || offset * 8 + length > LARGEST) {
        return Err(Reason::Malformed);
    }
    Ok(if offset == 0 {
        (FIRST, (length / 8) & 0x1fff)
    } else {
        (LATER, offset)
    })
}
