//! IPv6's extension headers (RFC 8200, 4), followed up to a constant bound. `ipv6` asks, through [`Packet::follow`].
//!
//! Question and answer are a word each: so in the kernel this can be a function that the verifier looks at once, and not again for each
//! program, each way to it and each way on from it.

use super::{Packet, fragment};
use crate::abi::Reason;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION: u8 = 60;
/// Felix follows about eight; real traffic has at most three.
const MAX_EXTENSION_HEADERS: u32 = 8;
/// Of a packet that an ICMP error quotes.
const MAX_QUOTED_HEADERS: u32 = 2;
/// Set in an answer if there is none, but a reason in place of the hop limit.
const FAILED: u64 = 1 << 23;
/// What an answer says of the fragment header.
const OF_FRAGMENT: u64 = 0xffff << 48 | 0x1fff << 10 | 3 << 8;
/// Set in a question about a packet that an ICMP error quotes.
const QUOTED: u64 = 1 << 24;

/// Whether a header of this kind is stepped over.
#[inline(always)]
pub(super) fn is_one(protocol: u8) -> bool {
    matches!(
        protocol,
        HOP_BY_HOP | ROUTING | DESTINATION | AUTHENTICATION | FRAGMENT
    )
}

/// The question: what comes at byte `l4` of a packet that ends at `end`.
#[inline(always)]
pub(super) fn from(l4: u32, end: u32, protocol: u8, quoted: bool) -> u64 {
    u64::from(l4 & 0xffff)
        | u64::from(protocol) << 16
        | u64::from(quoted) << 24
        // No skb is as long as a megabyte.
        | u64::from(end & 0xf_ffff) << 32
}

/// The answer if there is no such header.
#[inline(always)]
pub(super) fn none(from: u64) -> u64 {
    (from >> 16 & 0xff) | (from & 0xffff) << 32
}

/// Why the headers cannot be followed.
#[inline(always)]
pub(super) fn failure(answer: u64) -> Option<Reason> {
    const EXTENSIONS: u64 = Reason::ExtensionHeaders as u64;
    match answer & FAILED {
        0 => None,
        _ if answer >> 24 & 0xff == EXTENSIONS => Some(Reason::ExtensionHeaders),
        _ => Some(Reason::Malformed),
    }
}

/// `Network::fragment`.
#[inline(always)]
pub(super) fn fragment(answer: u64) -> u8 {
    (answer >> 8) as u8 & 3
}

/// `Network::boundary`.
#[inline(always)]
pub(super) fn boundary(answer: u64) -> u32 {
    (answer >> 10) as u32 & 0x1fff
}

/// Where the headers end.
#[inline(always)]
pub(super) fn l4(answer: u64) -> u32 {
    (answer >> 32) as u32 & 0xffff
}

/// Where the fragment header is.
#[inline(always)]
pub(super) fn fragment_header(answer: u64) -> u32 {
    (answer >> 48) as u32
}

/// Answers. All that it knows on its way is in the answer so far: in the kernel there is little room on the stack below a caller.
#[inline(always)]
pub fn follow<P: Packet>(packet: &P, from: u64) -> u64 {
    let mut at = none(from);
    let most = if from & QUOTED != 0 {
        MAX_QUOTED_HEADERS
    } else {
        MAX_EXTENSION_HEADERS
    };
    let mut headers = 0;
    while headers < most {
        if !is_one(at as u8) {
            return at;
        }
        // To the verifier there is one way to the next, whichever header it was.
        at = P::opaque(step(packet, from, at));
        // After the fragment header of a later fragment comes payload, not a header.
        if at & FAILED != 0 || fragment(at) == fragment::LATER {
            return at;
        }
        headers += 1;
    }
    if is_one(at as u8) {
        failed(Reason::ExtensionHeaders)
    } else {
        at
    }
}

#[inline(always)]
fn failed(reason: Reason) -> u64 {
    FAILED | u64::from(reason as u8) << 24
}

/// Over one header.
#[inline(always)]
fn step<P: Packet>(packet: &P, from: u64, at: u64) -> u64 {
    let (protocol, start, end) = (at as u8, l4(at), (from >> 32) as u32 & 0xf_ffff);
    let Some([w0]) = packet.words::<1>(start) else {
        return failed(Reason::Malformed);
    };
    let w0 = u32::from_be(w0);
    let units = w0 >> 16 & 0xff;
    let length = match protocol {
        FRAGMENT => 8,
        // Its fixed part alone is three words.
        AUTHENTICATION if units == 0 => return failed(Reason::Malformed),
        AUTHENTICATION => (units + 2) * 4,
        // Type 0 lets a sender steer packets around filters; RFC 5095 forbids it.
        ROUTING if w0 >> 8 & 0xff == 0 => return failed(Reason::ExtensionHeaders),
        _ => (units + 1) * 8,
    };
    let l4 = start + length;
    if l4 > end {
        return failed(Reason::Malformed);
    }
    let next = u64::from(w0 >> 24) | u64::from(l4 & 0xffff) << 32;
    if protocol != FRAGMENT {
        return next | at & OF_FRAGMENT;
    }
    // A fragment of a fragment is something that only a filter would see.
    if fragment_header(at) != 0 {
        return failed(Reason::ExtensionHeaders);
    }
    // Offset 0 and nothing to follow is an "atomic fragment" (RFC 6946): a whole datagram.
    let (offset, more, quoted) = (w0 >> 3 & 0x1fff, w0 & 1 != 0, from & QUOTED != 0);
    match fragment::of(offset, more, end - l4, quoted) {
        Ok((kind, boundary)) => {
            next | u64::from(kind & 3) << 8 | u64::from(boundary & 0x1fff) << 10 | u64::from(start) << 48
        }
        Err(reason) => failed(reason),
    }
}
