//! IPv6 (RFC 8200).

use super::{Network, Packet, Place, V6, fragment, headers, protocol};
use crate::abi::Reason;

/// The fixed header, in bytes.
const HEADER: u32 = 40;

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
    let from = headers::from(at.start, end, network.protocol, at.quoted);
    // Most packets have none.
    let followed = if !headers::is_one(network.protocol) {
        headers::none(from)
    } else if at.quoted {
        // There is no room for another function on the stack, and these are few.
        headers::follow(packet, from)
    } else {
        packet.follow(from)
    };
    let followed = P::opaque(followed);
    headers::failure(followed).map_or(Ok(()), Err)?;
    network.protocol = followed as u8;
    network.fragment = headers::fragment(followed);
    network.boundary = headers::boundary(followed);
    network.l4 = headers::l4(followed);
    if network.fragment != fragment::NO {
        let [id] = packet
            .words::<1>(headers::fragment_header(followed) + 4)
            .ok_or(Reason::Malformed)?;
        network.id = u32::from_be(id);
    }
    Ok(network)
}

/// As [`is_neighbour_control`], at a glance, of what a pod's link needs while nobody knows the pod: solicitations and
/// neighbours' advertisements. Where it is for.
#[inline(always)]
pub fn discovery<P: Packet>(packet: &P, start: u32) -> Option<[u32; 4]> {
    let [first, head] = packet.words::<2>(start)?;
    let [a, b, c, d, message] = packet.words::<5>(start + 24)?;
    let kind = u32::from_be(message) >> 24;
    let head = u32::from_be(head);
    let length = head >> 16;
    let is_one = u32::from_be(first) >> 28 == 6
        && head & 0xffff == u32::from(protocol::ICMP6) << 8 | 255
        && matches!(kind, 133 | 135 | 136)
        && length >= 8
        && start + 40 + length <= packet.len();
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
    let Ok(transport) = network.transport(packet) else {
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
