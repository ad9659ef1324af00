//! IPv6 (RFC 8200), with its extension headers followed up to a constant bound.

use super::{Network, Packet, Place, V6, fragment, l4, protocol};
use crate::abi::Reason;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION: u8 = 60;
/// The fixed header, in bytes.
const HEADER: u32 = 40;
/// Felix follows about eight; real traffic has at most three.
const MAX_EXTENSION_HEADERS: u32 = 8;
/// Of a packet that an ICMP error quotes.
const MAX_QUOTED_HEADERS: u32 = 2;

#[inline(always)]
pub(super) fn parse<P: Packet>(packet: &P, at: &Place) -> Result<Network<V6>, Reason> {
    let Some(words) = packet.words::<10>(at.start) else {
        return Err(Reason::Malformed);
    };
    let (w0, w1) = (u32::from_be(words[0]), u32::from_be(words[1]));
    if w0 >> 28 != 6 {
        return Err(Reason::Malformed);
    }
    let at = Place {
        start: at.start + HEADER,
        ..*at
    };
    let end = at.end(w1 >> 16)?;
    if at.start > end {
        return Err(Reason::Malformed);
    }
    let mut network = Network {
        src: [words[2], words[3], words[4], words[5]],
        dst: [words[6], words[7], words[8], words[9]],
        protocol: (w1 >> 8) as u8,
        hop_limit: w1 as u8,
        l4: at.start,
        end,
        options: false,
        fragment: fragment::NO,
        boundary: 0,
        id: 0,
    };
    let mut headers = 0;
    let mut parts = 0_u32;
    let most = if at.quoted {
        MAX_QUOTED_HEADERS
    } else {
        MAX_EXTENSION_HEADERS
    };
    while headers < most {
        match network.protocol {
            HOP_BY_HOP | ROUTING | DESTINATION | AUTHENTICATION => {
                extension(packet, &mut network)?;
            }
            // A fragment of a fragment is something that only a filter would see.
            FRAGMENT if parts != 0 => return Err(Reason::ExtensionHeaders),
            FRAGMENT => {
                part(packet, &mut network, at.quoted)?;
                parts += 1;
            }
            _ => return Ok(network),
        }
        // After the fragment header of a later fragment comes payload, not a header.
        if network.fragment == fragment::LATER {
            return Ok(network);
        }
        // Whichever header it was, to the verifier there is one way to the next.
        let word = u64::from(network.l4 & 0xffff)
            | u64::from(network.protocol) << 16
            | u64::from(network.fragment) << 24
            | u64::from(parts) << 32;
        let word = P::opaque(word);
        network.l4 = word as u32 & 0xffff;
        network.protocol = (word >> 16) as u8;
        network.fragment = (word >> 24) as u8;
        parts = (word >> 32) as u32;
        headers += 1;
    }
    match network.protocol {
        HOP_BY_HOP | ROUTING | DESTINATION | AUTHENTICATION | FRAGMENT => Err(Reason::ExtensionHeaders),
        _ => Ok(network),
    }
}

/// Steps over one extension header.
#[inline(always)]
fn extension<P: Packet>(packet: &P, network: &mut Network<V6>) -> Result<(), Reason> {
    let Some([w0]) = packet.words::<1>(network.l4) else {
        return Err(Reason::Malformed);
    };
    let w0 = u32::from_be(w0);
    let units = w0 >> 16 & 0xff;
    let length = match network.protocol {
        // Its fixed part alone is three words.
        AUTHENTICATION if units == 0 => return Err(Reason::Malformed),
        AUTHENTICATION => (units + 2) * 4,
        // Type 0 lets a sender steer packets around filters; RFC 5095 forbids it.
        ROUTING if w0 >> 8 & 0xff == 0 => return Err(Reason::ExtensionHeaders),
        _ => (units + 1) * 8,
    };
    network.protocol = (w0 >> 24) as u8;
    network.l4 += length;
    if network.l4 > network.end {
        Err(Reason::Malformed)
    } else {
        Ok(())
    }
}

/// Steps over a fragment header. Offset 0 and nothing to follow is an "atomic fragment" (RFC 6946): a whole datagram.
#[inline(always)]
fn part<P: Packet>(packet: &P, network: &mut Network<V6>, quoted: bool) -> Result<(), Reason> {
    let Some([w0, w1]) = packet.words::<2>(network.l4) else {
        return Err(Reason::Malformed);
    };
    let (w0, w1) = (u32::from_be(w0), u32::from_be(w1));
    network.l4 += 8;
    if network.l4 > network.end {
        return Err(Reason::Malformed);
    }
    let length = network.end - network.l4;
    (network.fragment, network.boundary) = fragment::of(w0 >> 3 & 0x1fff, w0 & 1 != 0, length, quoted)?;
    network.protocol = (w0 >> 24) as u8;
    network.id = w1;
    Ok(())
}

/// As [`is_neighbour_control`], at a glance, of what a pod's link needs while nobody knows the pod: solicitations and
/// neighbours' advertisements. Where it is for.
#[inline(always)]
pub fn discovery<P: Packet>(packet: &P, start: u32) -> Option<[u32; 4]> {
    let [head] = packet.words::<1>(start + 4)?;
    let [a, b, c, d, message] = packet.words::<5>(start + 24)?;
    let kind = u32::from_be(message) >> 24;
    let is_one = u32::from_be(head) & 0xffff == u32::from(protocol::ICMP6) << 8 | 255
        && matches!(kind, 133 | 135 | 136);
    is_one.then_some([a, b, c, d])
}

/// Neighbour discovery (RFC 4861: hop limit 255, so it cannot have been forwarded) and MLD (RFC 2710, 3810).
/// A pod may not send router advertisements or redirects.
#[cfg_attr(target_arch = "bpf", inline(never))]
pub(super) fn is_neighbour_control<P: Packet>(
    packet: &P,
    network: &Network<V6>,
    from_workload: bool,
) -> bool {
    if network.protocol != protocol::ICMP6 || network.fragment != fragment::NO {
        return false;
    }
    let Ok(transport) = l4::parse(packet, network.protocol, network.l4, network.end) else {
        return false;
    };
    match transport.policy_port >> 8 {
        133 | 135 | 136 => network.hop_limit == 255,
        134 | 137 => network.hop_limit == 255 && !from_workload,
        130..=132 | 143 => network.hop_limit == 1,
        _ => false,
    }
}

/// The target of a neighbour's advertisement (RFC 4861, 4.4), unless it is link-local.
#[inline(always)]
pub(super) fn advertised<P: Packet>(packet: &P, network: &Network<V6>) -> Option<[u32; 4]> {
    let [message, _flags, target @ ..] = packet.words::<6>(network.l4)?;
    let advertises = u32::from_be(message) >> 24 == 136;
    let link_local = u32::from_be(target[0]) >> 22 == 0xfe80 >> 6;
    (advertises && !link_local).then_some(target)
}
