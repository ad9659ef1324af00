//! Transport headers: ports, ICMP type and code, TCP flags.

use super::{Packet, Transport, protocol};
use crate::abi::Reason;

/// Reads the transport header at `offset`; `end` is where the IP packet ends.
#[inline(always)]
pub(super) fn parse<P: Packet>(packet: &P, protocol: u8, offset: u32, end: u32) -> Result<Transport, Reason> {
    match protocol {
        protocol::TCP => {
            let words = read::<P, 4>(packet, offset, end)?;
            let data_offset = u32::from_be(words[3]) >> 28;
            if data_offset < 5 || offset + data_offset * 4 > end {
                return Err(Reason::Malformed);
            }
            Ok(Transport {
                flags: (u32::from_be(words[3]) >> 16) as u8,
                ..ports(words[0])
            })
        }
        protocol::UDP | protocol::UDPLITE => {
            let words = read::<P, 2>(packet, offset, end)?;
            Ok(ports(words[0]))
        }
        protocol::SCTP => {
            let words = read::<P, 3>(packet, offset, end)?;
            Ok(ports(words[0]))
        }
        protocol::ICMP => {
            let words = read::<P, 2>(packet, offset, end)?;
            Ok(icmp(words, 0, 8))
        }
        protocol::ICMP6 => {
            let words = read::<P, 2>(packet, offset, end)?;
            Ok(icmp(words, 129, 128))
        }
        _ => Ok(Transport::default()),
    }
}

#[inline(always)]
fn read<P: Packet, const N: usize>(packet: &P, offset: u32, end: u32) -> Result<[u32; N], Reason> {
    if offset + N as u32 * 4 > end {
        return Err(Reason::Malformed);
    }
    packet.words::<N>(offset).ok_or(Reason::Malformed)
}

#[inline(always)]
fn ports(word: u32) -> Transport {
    let word = u32::from_be(word);
    let dport = word as u16;
    Transport {
        sport: (word >> 16) as u16,
        dport,
        policy_port: dport,
        flags: 0,
    }
}

#[inline(always)]
fn icmp(words: [u32; 2], reply: u8, request: u8) -> Transport {
    let policy_port = (u32::from_be(words[0]) >> 16) as u16;
    let kind = (policy_port >> 8) as u8;
    // Request and reply share an identifier, so that both have the same conntrack key.
    let id = if kind == reply || kind == request {
        (u32::from_be(words[1]) >> 16) as u16
    } else {
        policy_port
    };
    Transport {
        sport: id,
        dport: id,
        policy_port,
        flags: 0,
    }
}
