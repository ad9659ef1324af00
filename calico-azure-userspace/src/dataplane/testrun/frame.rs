//! Frames, built without any of the code that reads them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The first packet of a flow, or any other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub src: IpAddr,
    pub dst: IpAddr,
    pub protocol: u8,
    /// Source port, or ICMP identifier.
    pub sport: u16,
    /// Destination port, or `type << 8 | code` for ICMP.
    pub dport: u16,
    pub tcp_flags: u8,
    pub hop_limit: u8,
    pub payload: usize,
    /// IPv4: 32-bit words of options.
    pub ipv4_options: usize,
    /// IPv6: headers between the fixed one and the transport: (type, bytes, a multiple of 8).
    pub extensions: Vec<(u8, usize)>,
    /// Fragment: (identification, offset in 8-byte units, more to follow).
    pub fragment: Option<(u32, u16, bool)>,
    /// ICMP error: the packet that it is about, as an IP packet. Without one, it quotes what belongs to no flow.
    pub quotes: Option<Vec<u8>>,
    /// VLAN tags: (ethertype, tag control), the outermost first.
    pub tags: Vec<(u16, u16)>,
}

/// A protocol number for experiments (RFC 3692), which has no flows.
const NO_PROTOCOL: u8 = 254;

/// TCP SYN.
pub const SYN: u8 = 2;
/// TCP ACK.
pub const ACK: u8 = 16;
/// TCP FIN.
pub const FIN: u8 = 1;
/// TCP RST.
pub const RST: u8 = 4;

impl Frame {
    /// A packet that could begin a flow.
    #[must_use]
    pub fn new(src: IpAddr, dst: IpAddr, protocol: u8, sport: u16, dport: u16) -> Self {
        Self {
            src,
            dst,
            protocol,
            sport,
            dport,
            tcp_flags: SYN,
            hop_limit: 64,
            payload: 16,
            ipv4_options: 0,
            extensions: Vec::new(),
            fragment: None,
            quotes: None,
            tags: Vec::new(),
        }
    }

    /// An ICMP error of `router` about this packet, of which it quotes `quoted` bytes at most.
    #[must_use]
    pub fn error(&self, router: IpAddr, kind: u8, code: u8, quoted: usize) -> Self {
        let protocol = if self.src.is_ipv4() { 1 } else { 58 };
        let mut packet = self.bytes().split_off(14);
        packet.truncate(quoted);
        Self {
            quotes: Some(packet),
            ..Self::new(router, self.src, protocol, 0, u16::from_be_bytes([kind, code]))
        }
    }

    /// Whether it is an ICMP error.
    fn is_error(&self) -> bool {
        match (self.protocol, self.dport >> 8) {
            (1, 3 | 11 | 12) => self.src.is_ipv4(),
            (58, 1..=4) => self.src.is_ipv6(),
            _ => false,
        }
    }

    /// The same with other TCP flags.
    #[must_use]
    pub fn flags(mut self, flags: u8) -> Self {
        self.tcp_flags = flags;
        self
    }

    /// The packet that answers: addresses and ports exchanged, an echo request becomes a reply.
    #[must_use]
    pub fn reply(&self) -> Self {
        let mut reply = self.clone();
        (reply.src, reply.dst) = (self.dst, self.src);
        match (self.protocol, self.dport >> 8) {
            (1, 8) => reply.dport = 0,
            (58, 128) => reply.dport = 129 << 8,
            (1 | 58, _) => {}
            _ => (reply.sport, reply.dport) = (self.dport, self.sport),
        }
        reply
    }

    /// The frame's bytes; only an Ethernet header if the addresses are of different families.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let later = self.fragment.is_some_and(|(_, offset, _)| offset != 0);
        let transport = if later {
            vec![0xaa; self.payload]
        } else {
            self.transport()
        };
        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        for (ethertype, control) in &self.tags {
            frame.extend(ethertype.to_be_bytes());
            frame.extend(control.to_be_bytes());
        }
        match (self.src, self.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                frame.extend([8, 0]);
                self.ipv4(&mut frame, src, dst, &transport);
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                frame.extend([0x86, 0xdd]);
                self.ipv6(&mut frame, src, dst, &transport);
            }
            _ => frame.extend([0, 0]),
        }
        frame
    }

    fn transport(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        match self.protocol {
            1 | 58 => {
                bytes.extend(self.dport.to_be_bytes());
                bytes.extend([0, 0]);
                bytes.extend(self.sport.to_be_bytes());
                bytes.extend([0, 1]);
                if self.is_error() {
                    let nothing = || {
                        Self::new(self.dst, self.src, NO_PROTOCOL, 0, 0)
                            .bytes()
                            .split_off(14)
                    };
                    bytes.extend(self.quotes.clone().unwrap_or_else(nothing));
                    return bytes;
                }
            }
            6 | 17 | 132 | 136 => {
                bytes.extend(self.sport.to_be_bytes());
                bytes.extend(self.dport.to_be_bytes());
                match self.protocol {
                    6 => bytes.extend([
                        0,
                        0,
                        0,
                        1,
                        0,
                        0,
                        0,
                        0,
                        0x50,
                        self.tcp_flags,
                        0xff,
                        0xff,
                        0,
                        0,
                        0,
                        0,
                    ]),
                    132 => bytes.extend([0, 0, 0, 1, 0, 0, 0, 0]),
                    _ => {
                        let length = u16::try_from(8 + self.payload).unwrap_or(u16::MAX);
                        bytes.extend(length.to_be_bytes());
                        bytes.extend([0, 0]);
                    }
                }
            }
            _ => {}
        }
        bytes.resize(bytes.len() + self.payload, 0xaa);
        bytes
    }

    fn ipv4(&self, frame: &mut Vec<u8>, src: Ipv4Addr, dst: Ipv4Addr, transport: &[u8]) {
        let header = 20 + self.ipv4_options * 4;
        let total = u16::try_from(header + transport.len()).unwrap_or(u16::MAX);
        let (id, offset, more) = self.fragment.unwrap_or((0x4242, 0, false));
        let fragment = offset | if more { 0x2000 } else { 0 };
        frame.push(0x40 | u8::try_from(header / 4).unwrap_or(15));
        frame.push(0);
        frame.extend(total.to_be_bytes());
        frame.extend(u16::try_from(id & 0xffff).unwrap_or(0).to_be_bytes());
        frame.extend(fragment.to_be_bytes());
        frame.extend([self.hop_limit, self.protocol, 0, 0]);
        frame.extend(src.octets());
        frame.extend(dst.octets());
        frame.resize(frame.len() + self.ipv4_options * 4, 1);
        frame.extend(transport);
    }

    fn ipv6(&self, frame: &mut Vec<u8>, src: Ipv6Addr, dst: Ipv6Addr, transport: &[u8]) {
        let mut chain: Vec<(u8, Vec<u8>)> = self
            .extensions
            .iter()
            .map(|&(kind, length)| (kind, extension(kind, length)))
            .collect();
        if let Some((id, offset, more)) = self.fragment {
            let mut header = vec![0, 0];
            header.extend(((offset << 3) | u16::from(more)).to_be_bytes());
            header.extend(id.to_be_bytes());
            chain.push((44, header));
        }
        let kinds: Vec<u8> = chain
            .iter()
            .map(|(kind, _)| *kind)
            .chain([self.protocol])
            .collect();
        let length = chain.iter().map(|(_, bytes)| bytes.len()).sum::<usize>() + transport.len();
        frame.extend([0x60, 0, 0, 0]);
        frame.extend(u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes());
        frame.extend([kinds.first().copied().unwrap_or(self.protocol), self.hop_limit]);
        frame.extend(src.octets());
        frame.extend(dst.octets());
        for ((_, bytes), next) in chain.into_iter().zip(kinds.into_iter().skip(1)) {
            frame.push(next);
            frame.extend(bytes.into_iter().skip(1));
        }
        frame.extend(transport);
    }
}

fn extension(kind: u8, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    // The authentication header counts 4-byte words less two, the others 8-byte words less one.
    bytes[1] = u8::try_from(if kind == 51 {
        length / 4 - 2
    } else {
        length / 8 - 1
    })
    .unwrap_or(u8::MAX);
    // Routing type 2 (mobile IPv6): type 0 is refused.
    if kind == 43 {
        bytes[2] = 2;
    }
    bytes
}
