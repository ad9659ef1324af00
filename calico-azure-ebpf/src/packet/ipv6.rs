//! IPv6 (RFC 8200), with its extension headers followed up to a constant bound.

use super::{ETHERNET, Network, Packet, V6, fragment, l4, protocol};
use crate::abi::Reason;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION: u8 = 60;
/// Felix follows about eight; real traffic has at most three.
const MAX_EXTENSION_HEADERS: u32 = 8;

#[inline(always)]
pub(super) fn parse<P: Packet>(packet: &P) -> Result<Network<V6>, Reason> {
    let Some(words) = packet.words::<10>(ETHERNET) else {
        return Err(Reason::Malformed);
    };
    let (w0, w1) = (u32::from_be(words[0]), u32::from_be(words[1]));
    let end = ETHERNET + 40 + (w1 >> 16);
    if w0 >> 28 != 6 || end > packet.len() {
        return Err(Reason::Malformed);
    }
    let mut network = Network {
        src: [words[2], words[3], words[4], words[5]],
        dst: [words[6], words[7], words[8], words[9]],
        protocol: (w1 >> 8) as u8,
        hop_limit: w1 as u8,
        l4: ETHERNET + 40,
        end,
        fragment: fragment::NO,
        id: 0,
    };
    let mut headers = 0;
    while headers < MAX_EXTENSION_HEADERS {
        match network.protocol {
            HOP_BY_HOP | ROUTING | DESTINATION | AUTHENTICATION | FRAGMENT => {
                extension(packet, &mut network)?;
            }
            _ => return Ok(network),
        }
        // After the fragment header of a later fragment comes payload, not a header.
        if network.fragment == fragment::LATER {
            return Ok(network);
        }
        headers += 1;
    }
    Err(Reason::ExtensionHeaders)
}

/// Steps over one extension header.
#[inline(always)]
fn extension<P: Packet>(packet: &P, network: &mut Network<V6>) -> Result<(), Reason> {
    let Some([w0, w1]) = packet.words::<2>(network.l4) else {
        return Err(Reason::Malformed);
    };
    let (w0, w1) = (u32::from_be(w0), u32::from_be(w1));
    let units = w0 >> 16 & 0xff;
    let length = match network.protocol {
        // A fragment of a fragment: no sender makes one, and which of the two is meant would be a guess.
        FRAGMENT if network.fragment != fragment::NO => return Err(Reason::ExtensionHeaders),
        FRAGMENT => {
            let (offset, more) = (w0 >> 3 & 0x1fff, w0 & 1 != 0);
            // Offset 0 and nothing to follow is an "atomic fragment" (RFC 6946): a whole datagram.
            network.fragment = match (offset, more) {
                (0, false) => network.fragment,
                (0, true) => fragment::FIRST,
                _ => fragment::LATER,
            };
            network.id = w1;
            8
        }
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

/// Neighbour discovery (RFC 4861: hop limit 255, so it cannot have been forwarded) and MLD (RFC 2710, 3810).
/// A pod may not send router advertisements or redirects.
#[inline(always)]
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
