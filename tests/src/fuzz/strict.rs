//! A second reading of frames, with etherparse's header types and none of the code under test. Anything odd is an error.

use std::net::IpAddr;

use etherparse::{
    Ethernet2HeaderSlice, IpAuthHeaderSlice, Ipv4HeaderSlice, Ipv6FragmentHeaderSlice, Ipv6HeaderSlice,
    Ipv6RawExtHeaderSlice, SingleVlanHeaderSlice, TcpHeaderSlice, UdpHeaderSlice,
};

/// What an IP frame says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Strict {
    pub(super) src: IpAddr,
    pub(super) dst: IpAddr,
    pub(super) protocol: u8,
    pub(super) hop_limit: u8,
    /// IPv4 options.
    pub(super) options: bool,
    pub(super) fragment: Fragment,
    /// What is wrong with it, or that there is none in a later fragment.
    pub(super) transport: Result<Transport, &'static str>,
    /// Of an ICMP error: the packet that it is about.
    pub(super) about: Option<About>,
}

/// A packet that an ICMP error quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct About {
    pub(super) src: IpAddr,
    pub(super) dst: IpAddr,
    pub(super) protocol: u8,
    pub(super) fragment: Fragment,
    pub(super) transport: Option<Transport>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fragment {
    Whole,
    /// Identification, and where it ends.
    First(u32, usize),
    /// Identification, and where it begins.
    Later(u32, usize),
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
    let mut rest = frame.get(ethernet.slice().len()..).unwrap_or_default();
    let mut kind = ethernet.ether_type().0;
    for tags in 0.. {
        if !matches!(kind, 0x8100 | 0x88a8) {
            break;
        }
        let Ok(tag) = SingleVlanHeaderSlice::from_slice(rest) else {
            return Reading::Bad("the frame ends in a tag");
        };
        if tags == 2 {
            return Reading::Bad("too many tags");
        }
        kind = tag.ether_type().0;
        rest = rest.get(tag.slice().len()..).unwrap_or_default();
    }
    let read = match kind {
        0x0800 => ipv4(rest),
        0x86dd => ipv6(rest),
        other => return Reading::Other(other),
    };
    read.map_or_else(Reading::Bad, Reading::Ip)
}

/// What an ICMP error quotes. Of its lengths nothing need be true: little of it is there.
fn quoted(is_v4: bool, bytes: &[u8]) -> Option<About> {
    let part = |offset: u16, more, id| match (offset, more) {
        (0, false) => Fragment::Whole,
        (0, true) => Fragment::First(id, 0),
        _ => Fragment::Later(id, usize::from(offset) * 8),
    };
    if is_v4 {
        let header = Ipv4HeaderSlice::from_slice(bytes).ok()?;
        let fragment = part(
            header.fragments_offset().value(),
            header.more_fragments(),
            header.identification().into(),
        );
        return Some(About {
            src: header.source_addr().into(),
            dst: header.destination_addr().into(),
            protocol: header.protocol().0,
            fragment,
            transport: first_bytes(header.protocol().0, bytes.get(header.slice().len()..)?),
        });
    }
    let header = Ipv6HeaderSlice::from_slice(bytes).ok()?;
    let mut rest = bytes.get(header.slice().len()..)?;
    let (mut next, mut fragment) = (header.next_header().0, Fragment::Whole);
    while matches!(next, 0 | 43 | 44 | 51 | 60) && !matches!(fragment, Fragment::Later(..)) {
        let length;
        (next, length) = match next {
            44 => {
                let header = Ipv6FragmentHeaderSlice::from_slice(rest).ok()?;
                fragment = part(
                    header.fragment_offset().value(),
                    header.more_fragments(),
                    header.identification(),
                );
                (header.next_header().0, header.slice().len())
            }
            51 => {
                let header = IpAuthHeaderSlice::from_slice(rest).ok()?;
                (header.next_header().0, header.slice().len())
            }
            _ => {
                let header = Ipv6RawExtHeaderSlice::from_slice(rest).ok()?;
                (header.next_header().0, header.slice().len())
            }
        };
        rest = rest.get(length..)?;
    }
    Some(About {
        src: header.source_addr().into(),
        dst: header.destination_addr().into(),
        protocol: next,
        fragment,
        transport: first_bytes(next, rest),
    })
}

/// The first eight bytes of a transport header, all that an ICMP error need quote.
fn first_bytes(protocol: u8, bytes: &[u8]) -> Option<Transport> {
    let word = |at: usize| Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
    match protocol {
        6 | 17 | 132 | 136 => {
            let _whole = bytes.get(..8)?;
            Some(Transport::of(word(0)?, word(2)?))
        }
        1 | 58 => transport(protocol, bytes).ok(),
        _ => Some(Transport::default()),
    }
}

fn ipv4(bytes: &[u8]) -> Result<Strict, &'static str> {
    let header = Ipv4HeaderSlice::from_slice(bytes).map_err(|_| "IPv4 header")?;
    let range = header.slice().len()..usize::from(header.total_len());
    let payload = bytes.get(range).ok_or("IPv4 length")?;
    let offset = header.fragments_offset().value();
    let id = u32::from(header.identification());
    finish(
        Strict {
            src: header.source_addr().into(),
            dst: header.destination_addr().into(),
            protocol: header.protocol().0,
            hop_limit: header.ttl(),
            options: header.slice().len() > 20,
            fragment: fragment(offset, header.more_fragments(), id, payload.len())?,
            transport: Err("later fragment"),
            about: None,
        },
        payload,
    )
}

fn fragment(offset: u16, more: bool, id: u32, length: usize) -> Result<Fragment, &'static str> {
    let start = usize::from(offset) * 8;
    if (offset, more) == (0, false) {
        return Ok(Fragment::Whole);
    }
    if length == 0 || more && !length.is_multiple_of(8) || start + length > 0xffff {
        return Err("a fragment that belongs to no datagram");
    }
    Ok(match offset {
        0 => Fragment::First(id, length),
        _ => Fragment::Later(id, start),
    })
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
        options: false,
        fragment: Fragment::Whole,
        transport: Err("later fragment"),
        about: None,
    };
    while matches!(strict.protocol, 0 | 43 | 44 | 51 | 60) {
        if matches!(strict.fragment, Fragment::Later(..)) {
            break;
        }
        let (next, length) = match strict.protocol {
            44 => {
                let part = Ipv6FragmentHeaderSlice::from_slice(payload).map_err(|_| "fragment header")?;
                let length = payload.len() - part.slice().len();
                strict.fragment = fragment(
                    part.fragment_offset().value(),
                    part.more_fragments(),
                    part.identification(),
                    length,
                )?;
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
    finish(strict, payload)
}

fn finish(strict: Strict, payload: &[u8]) -> Result<Strict, &'static str> {
    if matches!(strict.fragment, Fragment::Later(..)) {
        return Ok(strict);
    }
    let transport = transport(strict.protocol, payload);
    let kind = transport.map(|transport| transport.dport >> 8);
    let is_v4 = strict.src.is_ipv4();
    let about = match (is_v4, strict.protocol, kind) {
        (true, 1, Ok(3 | 11 | 12)) | (false, 58, Ok(1..=4)) => {
            payload.get(8..).and_then(|bytes| quoted(is_v4, bytes))
        }
        _ => None,
    };
    Ok(Strict {
        transport,
        about,
        ..strict
    })
}

impl Strict {
    /// Whether it is a message about another packet.
    pub(super) fn is_error(&self) -> bool {
        let kind = self.transport.map(|transport| transport.dport >> 8);
        match self.src {
            IpAddr::V4(_) => self.protocol == 1 && matches!(kind, Ok(3 | 11 | 12)),
            IpAddr::V6(_) => self.protocol == 58 && matches!(kind, Ok(1..=4)),
        }
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
    pub(super) fn of(sport: u16, dport: u16) -> Self {
        Self {
            sport,
            dport,
            flow: [sport, dport],
            syn: false,
        }
    }
}
