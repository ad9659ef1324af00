//! Datagrams in fragments. Only the first fragment has ports; it is remembered for a while, at the interface and in the
//! direction where it was seen, and the others are judged as it is, whatever became of it: by the same flow and the
//! same policy, that of now.
//!
//! | later fragment | verdict |
//! |---|---|
//! | begins inside the first one, or inside any transport header of its protocol | `Malformed` |
//! | its first was seen here in the last 30 seconds | the verdict on the first one's ports |
//! | its first was not seen, and no rule about the peer names the protocol or source ports | that verdict; no flow is entered |
//! | its first was not seen, and it does | `UnknownFragment` |

use super::FamilyTables;
use super::workload::code;
use crate::abi::{FRAGMENT_TIMEOUT, FragValue, Reason, word};
use crate::packet::{Family, Network, Packet, Transport, fragment, protocol};

/// The transport header of a packet, as far as it is known.
#[derive(Clone, Copy)]
pub(super) struct Known {
    pub(super) transport: Transport,
    /// Protocol of the flow.
    pub(super) protocol: u8,
    /// The ports are not known.
    pub(super) blind: bool,
}

const CHECK: u64 = 0x7ff;

impl Known {
    /// Nothing.
    #[inline(always)]
    pub(super) fn nothing() -> Self {
        Self {
            transport: Transport::default(),
            protocol: 0,
            blind: false,
        }
    }
}

/// A whole packet's transport header, a first fragment's, which is remembered, or that of a later one's first.
#[cfg_attr(target_arch = "bpf", inline(never))]
pub(super) fn know<F: Family, P: Packet, T: FamilyTables<F> + super::Tables>(
    packet: &P,
    tables: &T,
    network: &Network<F>,
    leg: u32,
    known: &mut Known,
) -> u32 {
    code(find(packet, tables, network, leg).map(|found| *known = found))
}

#[inline(always)]
fn find<F: Family, P: Packet, T: FamilyTables<F> + super::Tables>(
    packet: &P,
    tables: &T,
    network: &Network<F>,
    leg: u32,
) -> Result<Known, Reason> {
    if network.fragment == fragment::LATER {
        let known = recall(tables, network, packet.ifindex(), leg);
        let first = if known.blind { 0 } else { known.end };
        let header = match network.protocol {
            protocol::TCP => 3,
            protocol::SCTP => 2,
            _ => 1,
        };
        // What a receiver would put together from those is not what was judged.
        if network.boundary < first || network.boundary < header {
            return Err(Reason::Malformed);
        }
        return Ok(known.known());
    }
    let transport = network.transport(packet)?;
    if network.fragment == fragment::FIRST {
        remember(tables, network, &transport, packet.ifindex(), leg);
    }
    Ok(Known {
        transport,
        protocol: network.protocol,
        blind: false,
    })
}

/// What is remembered of a later fragment's first.
#[derive(Clone, Copy)]
pub(super) struct Recalled {
    word: u64,
    pub(super) blind: bool,
    /// Where the first one ends, in units of 8 bytes.
    end: u32,
    protocol: u8,
}

impl Recalled {
    #[inline(always)]
    pub(super) fn known(self) -> Known {
        Known {
            transport: unpack(self.protocol, self.word),
            protocol: self.protocol,
            blind: self.blind,
        }
    }
}

/// Looks for the first fragment of the datagram at an interface, in a direction.
#[inline(always)]
pub(super) fn recall<F: Family, T: FamilyTables<F> + super::Tables>(
    tables: &T,
    network: &Network<F>,
    ifindex: u32,
    leg: u32,
) -> Recalled {
    let addr = [network.src, network.dst];
    let key = F::frag_key(addr, network.id, network.protocol, leg, ifindex);
    let now = tables.now();
    let check = check(F::mix(addr), network.id, ifindex);
    let word = match tables.frag(&key) {
        // An element that was given away under the program's feet fails the check.
        Some(value) if value.word >> 53 == check && now.saturating_sub(value.seen) <= FRAGMENT_TIMEOUT => {
            (value.word & ((1 << 53) - 1)) | 1 << 53
        }
        _ => u64::from(network.protocol) << 32,
    };
    let word = T::opaque(word);
    Recalled {
        word,
        blind: word >> 53 == 0,
        end: (word >> 40) as u32 & 0x1fff,
        protocol: (word >> 32) as u8,
    }
}

#[inline(always)]
fn remember<F: Family, T: FamilyTables<F> + super::Tables>(
    tables: &T,
    network: &Network<F>,
    transport: &Transport,
    ifindex: u32,
    leg: u32,
) {
    let addr = [network.src, network.dst];
    let key = F::frag_key(addr, network.id, network.protocol, leg, ifindex);
    let word = pack(network.protocol, transport)
        | u64::from(network.protocol) << 32
        | u64::from(network.boundary) << 40
        | check(F::mix(addr), network.id, ifindex) << 53;
    tables.set_frag(
        &key,
        &FragValue {
            word,
            seen: tables.now(),
        },
    );
}

/// 11 bits of a key.
#[inline(always)]
fn check(addresses: u32, id: u32, ifindex: u32) -> u64 {
    u64::from(word::check24(
        addresses ^ id.rotate_left(13) ^ ifindex.rotate_left(21),
    )) & CHECK
}

/// 32 bits that tell flows apart.
#[inline(always)]
fn pack(protocol: u8, transport: &Transport) -> u64 {
    let second = match protocol {
        protocol::ICMP | protocol::ICMP6 => transport.policy_port,
        _ => transport.dport,
    };
    u64::from(transport.sport) << 16 | u64::from(second)
}

#[inline(always)]
fn unpack(protocol: u8, word: u64) -> Transport {
    let (sport, second) = ((word >> 16) as u16, word as u16);
    Transport {
        sport,
        dport: match protocol {
            protocol::ICMP | protocol::ICMP6 => sport,
            _ => second,
        },
        policy_port: second,
        flags: 0,
    }
}
