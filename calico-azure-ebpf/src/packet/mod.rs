//! Reads headers. Works on anything that is a [`Packet`]: an skb in the kernel, a byte slice on the host.
//!
//! Nothing is trusted: every read is bounds-checked, every length field is compared with what is there, and the
//! loop over IPv6 extension headers has a constant bound. What cannot be read is an `Err` with its reason.

mod family;
mod ipv4;
mod ipv6;
mod l4;
#[cfg(not(target_arch = "bpf"))]
mod slice;

pub use family::{Family, V4, V6};
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
    /// `N` 32-bit words from byte `offset` on, as on the wire; `None` if the frame is shorter.
    fn words<const N: usize>(&self, offset: u32) -> Option<[u32; N]>;
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
    /// Whether and how it is a fragment: one of the `fragment::*`.
    pub fragment: u8,
    /// Identification of the datagram, if it is a fragment.
    pub id: u32,
}

/// Values of [`Network::fragment`].
pub mod fragment {
    /// A whole datagram.
    pub const NO: u8 = 0;
    /// The first fragment, with ports.
    pub const FIRST: u8 = 1;
    /// A later one, without.
    pub const LATER: u8 = 2;
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

impl<F: Family> Network<F> {
    /// Reads the network layer.
    ///
    /// # Errors
    /// `Malformed` or `ExtensionHeaders`.
    #[inline(always)]
    pub fn parse<P: Packet>(packet: &P) -> Result<Self, Reason> {
        let mut network = F::parse(packet)?;
        let word = u64::from(network.protocol)
            | u64::from(network.fragment) << 8
            | u64::from(network.hop_limit) << 16
            | u64::from(network.l4 & 0xffff) << 32
            | u64::from(network.end & 0xffff) << 48;
        let word = P::opaque(word);
        network.protocol = word as u8;
        network.fragment = (word >> 8) as u8;
        network.hop_limit = (word >> 16) as u8;
        // Neither exceeds 14 + 40 + 65535, and a frame over 64 KiB (a GSO packet) has its headers in the first.
        network.l4 = (word >> 32) as u32 & 0xffff;
        network.end = if network.end > 0xffff {
            0xffff
        } else {
            (word >> 48) as u32
        };
        Ok(network)
    }

    /// Reads the transport layer; must not be called for a later fragment.
    ///
    /// # Errors
    /// `Malformed`.
    #[inline(always)]
    pub fn transport<P: Packet>(&self, packet: &P) -> Result<Transport, Reason> {
        let transport = l4::parse(packet, self.protocol, self.l4, self.end)?;
        let word = P::opaque(
            u64::from(transport.sport)
                | u64::from(transport.dport) << 16
                | u64::from(transport.policy_port) << 32
                | u64::from(transport.flags) << 48,
        );
        Ok(Transport {
            sport: word as u16,
            dport: (word >> 16) as u16,
            policy_port: (word >> 32) as u16,
            flags: (word >> 48) as u8,
        })
    }
}
