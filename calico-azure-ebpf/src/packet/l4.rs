//! Transport headers: ports, ICMP type and code, TCP flags. Question and answer are a word each, as at [`super::headers`].

use super::{Packet, Transport, protocol};
use crate::abi::Reason;

/// Set in an answer if the header cannot be read.
const FAILED: u64 = 1 << 56;

/// The question: the header of this protocol at byte `offset`; `end` is where the IP packet ends.
#[inline(always)]
pub(super) fn from(protocol: u8, offset: u32, end: u32) -> u64 {
    u64::from(protocol) | u64::from(offset & 0xffff) << 16 | u64::from(end & 0xf_ffff) << 32
}

/// Answers.
#[inline(always)]
pub fn answer<P: Packet>(packet: &P, from: u64) -> u64 {
    let (offset, end) = ((from >> 16) as u32 & 0xffff, (from >> 32) as u32 & 0xf_ffff);
    parse(packet, from as u8, offset, end).map_or(FAILED, |transport| transport.word())
}

/// What an answer says.
///
/// # Errors
/// `Malformed`.
#[inline(always)]
pub(super) fn transport(answer: u64) -> Result<Transport, Reason> {
    if answer & FAILED == 0 {
        Ok(Transport::of(answer))
    } else {
        Err(Reason::Malformed)
    }
}

/// Reads the transport header at `offset`; `end` is where the IP packet ends.
#[inline(always)]
pub(super) fn parse<P: Packet>(packet: &P, protocol: u8, offset: u32, end: u32) -> Result<Transport, Reason> {
    let transport = quoted(packet, protocol, offset, end)?;
    match protocol {
        protocol::TCP => {
            let [word] = read::<P, 1>(packet, offset + 12, end)?;
            let word = u32::from_be(word);
            let data_offset = word >> 28;
            if data_offset < 5 || offset + data_offset * 4 > end {
                return Err(Reason::Malformed);
            }
            Ok(Transport {
                flags: (word >> 16) as u8,
                ..transport
            })
        }
        protocol::SCTP if offset + 12 > end => Err(Reason::Malformed),
        _ => Ok(transport),
    }
}

/// Reads what an ICMP error quotes of the transport header: its first 8 bytes (RFC 792).
#[inline(always)]
pub(super) fn quoted<P: Packet>(
    packet: &P,
    protocol: u8,
    offset: u32,
    end: u32,
) -> Result<Transport, Reason> {
    if !matches!(
        protocol,
        protocol::TCP | protocol::UDP | protocol::UDPLITE | protocol::SCTP | protocol::ICMP | protocol::ICMP6
    ) {
        return Ok(Transport::default());
    }
    let words = read::<P, 2>(packet, offset, end)?;
    Ok(match protocol {
        protocol::ICMP => icmp(words, 0, 8),
        protocol::ICMP6 => icmp(words, 129, 128),
        _ => ports(words[0]),
    })
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
