//! Reads headers. Works on anything that is a [`Packet`]: an skb in the kernel, a byte slice on the host.
//!
//! Nothing is trusted: every read is bounds-checked, every length field is compared with what is there, and the
//! loop over IPv6 extension headers has a constant bound. What cannot be read is an `Err` with its reason.

mod family;
pub mod fragment;
pub mod headers;
mod ipv4;
mod ipv6;
pub mod l4;
pub mod plain;
#[cfg(not(target_arch = "bpf"))]
mod slice;
pub mod vlan;

pub use family::{Family, V4, V6};
pub use ipv6::discovery;
#[cfg(not(target_arch = "bpf"))]
pub use slice::SlicePacket;

use crate::abi::Reason;

/// Link-layer protocol numbers, host order.
pub mod ethertype {
    /// IPv4.
    pub const IPV4: u16 = 0x0800;
    /// IPv6.
    pub const IPV6: u16 = 0x86dd;
    /// ARP.
    pub const ARP: u16 = 0x0806;
    /// A customer's VLAN tag (802.1Q).
    pub const VLAN: u16 = 0x8100;
    /// A provider's VLAN tag (802.1ad).
    pub const PROVIDER_VLAN: u16 = 0x88a8;
}

/// IP protocol numbers.
pub mod protocol {
    /// ICMP.
    pub const ICMP: u8 = 1;
    /// IPv4 in IP.
    pub const IPIP: u8 = 4;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// IPv6 in IP.
    pub const IPV6: u8 = 41;
    /// GRE.
    pub const GRE: u8 = 47;
    /// `ICMPv6`.
    pub const ICMP6: u8 = 58;
    /// SCTP.
    pub const SCTP: u8 = 132;
    /// UDP-Lite.
    pub const UDPLITE: u8 = 136;
}

/// TCP flags.
pub mod tcp {
    /// No more data from the sender.
    pub const FIN: u8 = 1;
    /// Synchronise sequence numbers.
    pub const SYN: u8 = 2;
    /// Reset.
    pub const RST: u8 = 4;
    /// The acknowledgement field counts.
    pub const ACK: u8 = 16;
}

/// Length of an Ethernet header; every interface that the programs are attached to has one.
pub const ETHERNET: u32 = 14;

/// Bytes of a frame.
#[expect(clippy::len_without_is_empty, reason = "a frame is never empty")]
pub trait Packet {
    /// Whether it is at an interface; else it is about to be given to a socket of this host.
    const AT_INTERFACE: bool = true;
    /// Length in bytes, link-layer header included.
    fn len(&self) -> u32;
    /// Link-layer protocol, host order.
    fn ethertype(&self) -> u16;
    /// Interface that the frame is being handled on.
    fn ifindex(&self) -> u32;
    /// Interface that the frame entered the host by; 0 if the host itself made it.
    fn ingress_ifindex(&self) -> u32;
    /// The mark that travels with the packet inside this host.
    fn mark(&self) -> u32;
    /// Replaces it.
    fn set_mark(&self, mark: u32);
    /// The same value, with its history hidden from the verifier, which otherwise follows every path of the parser
    /// separately to the end of the program.
    #[must_use]
    fn opaque(value: u64) -> u64 {
        value
    }
    /// Keeps, for a program that this one calls, what [`Network::pack`] says.
    fn keep(&self, _network: [u32; 3]) {}
    /// What was kept; `None` where programs call nobody.
    fn kept(&self) -> Option<[u32; 3]> {
        None
    }
    /// What comes after IPv6's extension headers: [`headers::follow`], in the kernel called as a function of its own.
    #[inline(always)]
    fn follow(&self, from: u64) -> u64
    where
        Self: Sized,
    {
        headers::follow(self, from)
    }
    /// The transport header: [`l4::answer`], in the kernel called as a function of its own.
    #[inline(always)]
    fn transport(&self, from: u64) -> u64
    where
        Self: Sized,
    {
        l4::answer(self, from)
    }
    /// The interface to which the host would route what is for the address; 0 where there is no saying.
    fn leads_to<F: Family>(&self, _to: F::Addr) -> u32 {
        0
    }
    /// [`crate::verdict::peer::peer`] over the kernel's tables, called as a function of its own.
    fn peer4(&self, _peer: u32, _asked: u64) -> u64 {
        0
    }
    /// As [`Self::peer4`].
    fn peer6(&self, _peer: [u32; 4], _asked: u64) -> u64 {
        0
    }
    /// `N` 32-bit words from byte `offset` on, as on the wire; `None` if the frame is shorter.
    fn words<const N: usize>(&self, offset: u32) -> Option<[u32; N]>;
}

/// Where an IP header is.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// Its first byte, from the start of the frame.
    pub start: u32,
    /// Where the frame ends, or the ICMP error that quotes the header.
    pub limit: u32,
    /// An ICMP error quotes it: what it says of lengths is about a packet of which little is here.
    pub quoted: bool,
}

impl Place {
    /// Where `length` bytes from the start end. The kernel writes 0 for what a length field cannot hold (a GSO packet
    /// over 64 KiB, "BIG TCP"); no frame on a wire is that long.
    #[inline(always)]
    fn end(&self, length: u32) -> Result<u32, Reason> {
        let end = self.start + length;
        let huge = length == 0 && self.limit > self.start + 0xffff;
        if self.quoted || huge {
            Ok(self.limit)
        } else if end > self.limit {
            Err(Reason::Malformed)
        } else {
            Ok(end)
        }
    }
}

/// The network layer of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network<F: Family> {
    /// Source.
    pub src: F::Addr,
    /// Destination.
    pub dst: F::Addr,
    /// IP protocol number, after extension headers.
    pub protocol: u8,
    /// TTL or hop limit.
    pub hop_limit: u8,
    /// Where the transport header begins, in bytes from the start of the frame.
    pub l4: u32,
    /// Where the IP packet ends, in bytes from the start of the frame (link-layer padding excluded).
    pub end: u32,
    /// IPv4 options.
    pub options: bool,
    /// Whether and how it is a fragment: one of the `fragment::*`.
    pub fragment: u8,
    /// Of a datagram's payload, where a first fragment ends or a later one begins, in units of 8 bytes.
    pub boundary: u32,
    /// Identification of the datagram, if it is a fragment.
    pub id: u32,
}

/// The transport layer, as far as verdicts need it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Transport {
    /// Source port, host order; for ICMP echo its identifier; else 0.
    pub sport: u16,
    /// Destination port; for ICMP echo its identifier; else 0.
    pub dport: u16,
    /// What policy calls the port: the destination port, or `type << 8 | code` for ICMP.
    pub policy_port: u16,
    /// TCP flags, else 0.
    pub flags: u8,
}

impl Transport {
    /// One of which nothing is known yet; as [`Network::unread`].
    #[inline(always)]
    #[must_use]
    pub fn unread(zero: u32) -> Self {
        let port = zero as u16;
        Self {
            sport: port,
            dport: port,
            policy_port: port,
            flags: zero as u8,
        }
    }
}

impl<F: Family> Network<F> {
    /// One of which nothing is known yet. `zero` is 0, but not to the compiler: that would call a function to fill it.
    #[inline(always)]
    #[must_use]
    pub fn unread(zero: u32) -> Self {
        Self {
            src: F::filled(zero),
            dst: F::filled(zero),
            protocol: 0,
            hop_limit: 0,
            l4: zero,
            end: zero,
            options: false,
            fragment: fragment::NO,
            boundary: zero,
            id: zero,
        }
    }

    /// Reads the network layer of a frame, from byte `start` on.
    ///
    /// # Errors
    /// `Malformed` or `ExtensionHeaders`.
    #[inline(always)]
    pub fn parse<P: Packet>(packet: &P, start: u32) -> Result<Self, Reason> {
        let at = Place {
            start,
            limit: packet.len(),
            quoted: false,
        };
        Self::parse_at(packet, &at)
    }

    /// Reads the network layer of the packet that this one, an ICMP error, quotes.
    ///
    /// # Errors
    /// `Malformed` or `ExtensionHeaders`.
    #[inline(always)]
    pub fn quoted<P: Packet>(&self, packet: &P) -> Result<Self, Reason> {
        let at = Place {
            start: self.l4 + 8,
            limit: self.end,
            quoted: true,
        };
        Self::parse_at(packet, &at)
    }

    #[inline(always)]
    fn parse_at<P: Packet>(packet: &P, at: &Place) -> Result<Self, Reason> {
        let mut network = F::parse(packet, at)?;
        let whole = network.end;
        let word = P::opaque(network.word());
        network.id = P::opaque(u64::from(network.id)) as u32;
        network.set(word);
        // A frame over 64 KiB (a GSO packet) has its headers in the first.
        if whole > 0xffff {
            network.end = 0xffff;
        }
        Ok(network)
    }

    /// All but addresses and identification.
    #[inline(always)]
    fn word(&self) -> u64 {
        u64::from(self.protocol)
            | u64::from(self.fragment & 3) << 8
            | u64::from(self.boundary & 0x1fff) << 10
            | u64::from(self.options) << 23
            | u64::from(self.hop_limit) << 24
            | u64::from(self.l4 & 0xffff) << 32
            | u64::from(self.end & 0xffff) << 48
    }

    #[inline(always)]
    fn set(&mut self, word: u64) {
        self.protocol = word as u8;
        self.fragment = (word >> 8) as u8 & 3;
        self.boundary = (word >> 10) as u32 & 0x1fff;
        self.options = word & 1 << 23 != 0;
        self.hop_limit = (word >> 24) as u8;
        self.l4 = (word >> 32) as u32 & 0xffff;
        self.end = (word >> 48) as u32;
    }

    /// What another program needs to know, so that it need not follow the headers again.
    #[inline(always)]
    #[must_use]
    pub fn pack(&self) -> [u32; 3] {
        let word = self.word();
        [word as u32, (word >> 32) as u32, self.id]
    }

    /// As it was packed, with the addresses of the header at byte `start`; what was not kept is read.
    ///
    /// # Errors
    /// As [`Self::parse`].
    #[inline(always)]
    pub fn again<P: Packet>(packet: &P, start: u32) -> Result<Self, Reason> {
        let Some([low, high, id]) = packet.kept() else {
            return Self::parse(packet, start);
        };
        let (src, dst) = F::addresses(packet, start).ok_or(Reason::Malformed)?;
        let mut network = Self {
            src,
            dst,
            id,
            ..Self::unread(0)
        };
        network.set(u64::from(low) | u64::from(high) << 32);
        Ok(network)
    }

    /// Reads the transport layer; must not be called for a later fragment.
    ///
    /// # Errors
    /// `Malformed`.
    #[inline(always)]
    pub fn transport<P: Packet>(&self, packet: &P) -> Result<Transport, Reason> {
        let from = l4::from(self.protocol, self.l4, self.end);
        l4::transport(P::opaque(packet.transport(from)))
    }

    /// Reads what an ICMP error quotes of the transport layer; must not be called for a later fragment.
    ///
    /// # Errors
    /// `Malformed`.
    #[inline(always)]
    pub fn quoted_transport<P: Packet>(&self, packet: &P) -> Result<Transport, Reason> {
        Ok(l4::quoted(packet, self.protocol, self.l4, self.end)?.opaque::<P>())
    }
}

impl Transport {
    #[inline(always)]
    fn opaque<P: Packet>(self) -> Self {
        Self::of(P::opaque(self.word()))
    }

    #[inline(always)]
    fn word(&self) -> u64 {
        u64::from(self.sport)
            | u64::from(self.dport) << 16
            | u64::from(self.policy_port) << 32
            | u64::from(self.flags) << 48
    }

    #[inline(always)]
    fn of(word: u64) -> Self {
        Self {
            sport: word as u16,
            dport: (word >> 16) as u16,
            policy_port: (word >> 32) as u16,
            flags: (word >> 48) as u8,
        }
    }
}
