//! A second reading of frames, with etherparse's header types and none of the code under test. Anything odd is an error.

use std::net::IpAddr;

use etherparse::{
    Ethernet2HeaderSlice, IpAuthHeaderSlice, Ipv4HeaderSlice, Ipv6FragmentHeaderSlice, Ipv6HeaderSlice,
    Ipv6RawExtHeaderSlice, TcpHeaderSlice, UdpHeaderSlice,
};

/// What an IP frame says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Strict {
    pub(super) src: IpAddr,
    pub(super) dst: IpAddr,
    pub(super) protocol: u8,
    pub(super) hop_limit: u8,
    pub(super) fragment: Fragment,
    /// What is wrong with it, or that there is none in a later fragment.
    pub(super) transport: Result<Transport, &'static str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fragment {
    Whole,
    First(u32),
    Later(u32),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Transport {
    pub(super) sport: u16,
    /// What policy calls the port: for ICMP type and code.
    pub(super) dport: u16,
    /// What tells a flow from others: the ports, or for ICMP the identifier or else type and code, twice.
    pub(super) flow: [u16; 2],
    /// Begins a TCP connection.
    pub(super) syn: bool,
}

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    /// An IP packet whose network layer is without a fault.
    Ip(Strict),
    /// One with this fault.
    Bad(&'static str),
    /// Another protocol, by its ethertype; 0 for a frame without a whole Ethernet header.
    Other(u16),
}

pub(super) fn read(frame: &[u8]) -> Reading {
    let Ok(ethernet) = Ethernet2HeaderSlice::from_slice(frame) else {
        return Reading::Other(0);
    };
    let rest = frame.get(ethernet.slice().len()..).unwrap_or_default();
    let read = match ethernet.ether_type().0 {
        0x0800 => ipv4(rest),
        0x86dd => ipv6(rest),
        other => return Reading::Other(other),
    };
    read.map_or_else(Reading::Bad, Reading::Ip)
}

fn ipv4(bytes: &[u8]) -> Result<Strict, &'static str> {
    let header = Ipv4HeaderSlice::from_slice(bytes).map_err(|_| "IPv4 header")?;
    let range = header.slice().len()..usize::from(header.total_len());
    let payload = bytes.get(range).ok_or("IPv4 length")?;
    let offset = header.fragments_offset().value();
    let id = u32::from(header.identification());
    Ok(finish(
        Strict {
            src: header.source_addr().into(),
            dst: header.destination_addr().into(),
            protocol: header.protocol().0,
            hop_limit: header.ttl(),
            fragment: fragment(offset, header.more_fragments(), id),
            transport: Err("later fragment"),
        },
        payload,
    ))
}

fn fragment(offset: u16, more: bool, id: u32) -> Fragment {
    match (offset, more) {
        (0, false) => Fragment::Whole,
        (0, true) => Fragment::First(id),
        _ => Fragment::Later(id),
    }
}

fn ipv6(bytes: &[u8]) -> Result<Strict, &'static str> {
    let header = Ipv6HeaderSlice::from_slice(bytes).map_err(|_| "IPv6 header")?;
    let start = header.slice().len();
    let mut payload = bytes
        .get(start..start + usize::from(header.payload_length()))
        .ok_or("IPv6 length")?;
    let mut strict = Strict {
        src: header.source_addr().into(),
        dst: header.destination_addr().into(),
        protocol: header.next_header().0,
        hop_limit: header.hop_limit(),
        fragment: Fragment::Whole,
        transport: Err("later fragment"),
    };
    while matches!(strict.protocol, 0 | 43 | 44 | 51 | 60) {
        if matches!(strict.fragment, Fragment::Later(_)) {
            break;
        }
        let (next, length) = match strict.protocol {
            44 => {
                let part = Ipv6FragmentHeaderSlice::from_slice(payload).map_err(|_| "fragment header")?;
                let read = fragment(
                    part.fragment_offset().value(),
                    part.more_fragments(),
                    part.identification(),
                );
                // One that is the whole datagram says nothing.
                strict.fragment = match (strict.fragment, read) {
                    (first @ Fragment::First(_), Fragment::Whole) => first,
                    (_, read) => read,
                };
                (part.next_header(), part.slice().len())
            }
            51 => {
                let part = IpAuthHeaderSlice::from_slice(payload).map_err(|_| "authentication header")?;
                (part.next_header(), part.slice().len())
            }
            kind => {
                let part = Ipv6RawExtHeaderSlice::from_slice(payload).map_err(|_| "extension header")?;
                if kind == 43 && part.payload().first() == Some(&0) {
                    return Err("routing header of type 0");
                }
                (part.next_header(), part.slice().len())
            }
        };
        strict.protocol = next.0;
        payload = payload.get(length..).ok_or("extension header")?;
    }
    Ok(finish(strict, payload))
}

fn finish(strict: Strict, payload: &[u8]) -> Strict {
    if matches!(strict.fragment, Fragment::Later(_)) {
        return strict;
    }
    Strict {
        transport: transport(strict.protocol, payload),
        ..strict
    }
}

fn transport(protocol: u8, payload: &[u8]) -> Result<Transport, &'static str> {
    let ports = |at: usize| -> Option<u16> {
        let bytes = payload.get(at..at + 2)?;
        Some(u16::from_be_bytes(bytes.try_into().ok()?))
    };
    Ok(match protocol {
        6 => {
            let tcp = TcpHeaderSlice::from_slice(payload).map_err(|_| "TCP header")?;
            Transport {
                syn: tcp.syn() && !tcp.ack(),
                ..Transport::of(tcp.source_port(), tcp.destination_port())
            }
        }
        17 | 136 => {
            let udp = UdpHeaderSlice::from_slice(payload).map_err(|_| "UDP header")?;
            Transport::of(udp.source_port(), udp.destination_port())
        }
        132 => {
            let (Some(sport), Some(dport), true) = (ports(0), ports(2), payload.len() >= 12) else {
                return Err("SCTP header");
            };
            Transport::of(sport, dport)
        }
        1 | 58 => {
            let (Some(kind), Some(id), true) = (ports(0), ports(4), payload.len() >= 8) else {
                return Err("ICMP header");
            };
            let echo = match protocol {
                1 => [0, 8],
                _ => [128, 129],
            };
            let flow = if echo.contains(&(kind >> 8)) { id } else { kind };
            Transport {
                dport: kind,
                flow: [flow; 2],
                ..Transport::default()
            }
        }
        _ => Transport::default(),
    })
}

impl Transport {
    fn of(sport: u16, dport: u16) -> Self {
        Self {
            sport,
            dport,
            flow: [sport, dport],
            syn: false,
        }
    }
}
