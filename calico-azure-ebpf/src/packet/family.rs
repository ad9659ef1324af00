//! What differs between IPv4 and IPv6, as types, so that each path is compiled for its own family.

use super::plain::{self, Plain};
use super::{Network, Packet, Place, ipv4, ipv6, protocol};
use crate::abi::{CLASS_DEFAULT_V4, CLASS_DEFAULT_V6, CtKey4, CtKey6, FragKey4, FragKey6, Reason, word};

/// An address family.
pub trait Family: Copy {
    /// An address as on the wire.
    type Addr: Copy + Eq + Default;
    /// Conntrack key.
    type CtKey: Copy;
    /// Fragment key.
    type FragKey: Copy;
    /// Linux's number of it (`AF_INET`, `AF_INET6`).
    const AF: u32;
    /// Peer class of an address that no predicate holds for.
    const DEFAULT_CLASS: u32;

    /// Reads the network layer.
    ///
    /// # Errors
    /// `Malformed` or `ExtensionHeaders`.
    fn parse<P: Packet>(packet: &P, at: &Place) -> Result<Network<Self>, Reason>;
    /// Source and destination of the header at byte `start`.
    fn addresses<P: Packet>(packet: &P, start: u32) -> Option<(Self::Addr, Self::Addr)>;
    /// Reads a plain packet behind an Ethernet header; `None` also where anything about it is odd.
    fn plain<P: Packet>(packet: &P) -> Option<Plain<Self::Addr>>;
    /// The address whose words all are this.
    fn filled(word: u32) -> Self::Addr;
    /// Whether `a` comes before `b` in the canonical order.
    fn less(a: Self::Addr, b: Self::Addr) -> bool;
    /// 24 bits of an address, as slot words repeat them.
    fn check(addr: Self::Addr) -> u32;
    /// Key from sides that are already in canonical order.
    fn ct_key(addr: [Self::Addr; 2], port: [u16; 2], protocol: u8) -> Self::CtKey;
    /// Key of a datagram at an interface.
    fn frag_key(addr: [Self::Addr; 2], id: u32, protocol: u8, leg: u32, ifindex: u32) -> Self::FragKey;
    /// 32 bits of both addresses.
    fn mix(addr: [Self::Addr; 2]) -> u32;
    /// The address as four words, IPv4 in the first.
    fn wide(addr: Self::Addr) -> [u32; 4];
    /// Whether this is a multicast or limited-broadcast destination.
    fn is_multicast(addr: Self::Addr) -> bool;
    /// Whether a sender that has no address of its own yet may use this one on the link.
    fn is_link_source(addr: Self::Addr) -> bool;
    /// Whether a packet for this destination stays on the link that it is sent on: no router forwards it.
    fn is_link_destination(addr: Self::Addr) -> bool;
    /// Whether it is an ICMP error: a message about a packet of another flow.
    fn is_error(protocol: u8, kind: u8) -> bool;
    /// Whether the packet keeps the link itself alive (neighbour discovery, MLD, DHCP) and so is never policy's
    /// business. `from_workload`: it was sent by a pod.
    fn is_link_control<P: Packet>(packet: &P, network: &Network<Self>, from_workload: bool) -> bool;
    /// The address that it says is at its sender's interface, if that is what it is for (a neighbour's advertisement). Link-local
    /// ones are anybody's. Of what [`Self::is_link_control`] holds for.
    fn advertised<P: Packet>(packet: &P, network: &Network<Self>) -> Option<Self::Addr>;
}

/// IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct V4;

/// IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct V6;

impl Family for V4 {
    type Addr = u32;
    type CtKey = CtKey4;
    type FragKey = FragKey4;
    const AF: u32 = 2;
    const DEFAULT_CLASS: u32 = CLASS_DEFAULT_V4;

    #[inline(always)]
    fn parse<P: Packet>(packet: &P, at: &Place) -> Result<Network<Self>, Reason> {
        ipv4::parse(packet, at)
    }

    #[inline(always)]
    fn addresses<P: Packet>(packet: &P, start: u32) -> Option<(u32, u32)> {
        packet.words::<2>(start + 12).map(|[src, dst]| (src, dst))
    }

    #[inline(always)]
    fn plain<P: Packet>(packet: &P) -> Option<Plain<u32>> {
        plain::ipv4(packet)
    }

    #[inline(always)]
    fn filled(word: u32) -> u32 {
        word
    }

    #[inline(always)]
    fn less(a: u32, b: u32) -> bool {
        u32::from_be(a) < u32::from_be(b)
    }

    #[inline(always)]
    fn check(addr: u32) -> u32 {
        word::check24(addr)
    }

    #[inline(always)]
    fn ct_key(addr: [u32; 2], port: [u16; 2], protocol: u8) -> CtKey4 {
        CtKey4 {
            addr,
            port,
            protocol: u32::from(protocol),
        }
    }

    #[inline(always)]
    fn frag_key(addr: [u32; 2], id: u32, protocol: u8, leg: u32, ifindex: u32) -> FragKey4 {
        FragKey4 {
            addr,
            id,
            protocol: u32::from(protocol) | leg << 8,
            ifindex,
        }
    }

    #[inline(always)]
    fn mix(addr: [u32; 2]) -> u32 {
        addr[0] ^ addr[1].rotate_left(7)
    }

    #[inline(always)]
    fn wide(addr: u32) -> [u32; 4] {
        [addr, 0, 0, 0]
    }

    #[inline(always)]
    fn is_multicast(addr: u32) -> bool {
        u32::from_be(addr) >= 0xe000_0000
    }

    #[inline(always)]
    fn is_link_source(addr: u32) -> bool {
        addr == 0
    }

    /// What is for all of a link. Addresses of 169.254.0.0/16 are no such, because nodes route them.
    #[inline(always)]
    fn is_link_destination(addr: u32) -> bool {
        addr == u32::MAX || u32::from_be(addr) >> 8 == 0xe0_0000
    }

    /// Destination unreachable, time exceeded, parameter problem. Redirects and source quench are not: whether a pod
    /// gets those is up to policy.
    #[inline(always)]
    fn is_error(protocol: u8, kind: u8) -> bool {
        protocol == protocol::ICMP && matches!(kind, 3 | 11 | 12)
    }

    #[inline(always)]
    fn is_link_control<P: Packet>(packet: &P, network: &Network<Self>, from_workload: bool) -> bool {
        from_workload && ipv4::is_dhcp_discovery(packet, network)
    }

    #[inline(always)]
    fn advertised<P: Packet>(_packet: &P, _network: &Network<Self>) -> Option<u32> {
        None
    }
}

impl Family for V6 {
    type Addr = [u32; 4];
    type CtKey = CtKey6;
    type FragKey = FragKey6;
    const AF: u32 = 10;
    const DEFAULT_CLASS: u32 = CLASS_DEFAULT_V6;

    #[inline(always)]
    fn parse<P: Packet>(packet: &P, at: &Place) -> Result<Network<Self>, Reason> {
        ipv6::parse(packet, at)
    }

    #[inline(always)]
    fn addresses<P: Packet>(packet: &P, start: u32) -> Option<([u32; 4], [u32; 4])> {
        let [a, b, c, d, e, f, g, h] = packet.words::<8>(start + 8)?;
        Some(([a, b, c, d], [e, f, g, h]))
    }

    #[inline(always)]
    fn plain<P: Packet>(packet: &P) -> Option<Plain<[u32; 4]>> {
        plain::ipv6(packet)
    }

    #[inline(always)]
    fn filled(word: u32) -> [u32; 4] {
        [word; 4]
    }

    #[inline(always)]
    fn less(a: [u32; 4], b: [u32; 4]) -> bool {
        let wide = |x: u32, y: u32| (u64::from(u32::from_be(x)) << 32) | u64::from(u32::from_be(y));
        let (high_a, high_b) = (wide(a[0], a[1]), wide(b[0], b[1]));
        if high_a == high_b {
            wide(a[2], a[3]) < wide(b[2], b[3])
        } else {
            high_a < high_b
        }
    }

    #[inline(always)]
    fn check(addr: [u32; 4]) -> u32 {
        word::check24_v6(addr)
    }

    #[inline(always)]
    fn ct_key(addr: [[u32; 4]; 2], port: [u16; 2], protocol: u8) -> CtKey6 {
        CtKey6 {
            addr,
            port,
            protocol: u32::from(protocol),
        }
    }

    #[inline(always)]
    fn frag_key(addr: [[u32; 4]; 2], id: u32, _protocol: u8, leg: u32, ifindex: u32) -> FragKey6 {
        FragKey6 {
            addr,
            id,
            protocol: leg << 8,
            ifindex,
        }
    }

    #[inline(always)]
    fn mix(addr: [[u32; 4]; 2]) -> u32 {
        let [a, b] = addr;
        (a[0] ^ a[1] ^ a[2] ^ a[3]) ^ (b[0] ^ b[1] ^ b[2] ^ b[3]).rotate_left(7)
    }

    #[inline(always)]
    fn wide(addr: [u32; 4]) -> [u32; 4] {
        addr
    }

    #[inline(always)]
    fn is_multicast(addr: [u32; 4]) -> bool {
        u32::from_be(addr[0]) >> 24 == 0xff
    }

    #[inline(always)]
    fn is_link_source(addr: [u32; 4]) -> bool {
        addr == [0; 4] || u32::from_be(addr[0]) >> 22 == 0xfe80 >> 6
    }

    /// Link-local (RFC 4291, 2.5.6), and multicast of no wider scope (2.7).
    #[inline(always)]
    fn is_link_destination(addr: [u32; 4]) -> bool {
        let head = u32::from_be(addr[0]) >> 16;
        head >> 6 == 0xfe80 >> 6 || (head >> 8 == 0xff && head & 0xf <= 2)
    }

    /// Destination unreachable, packet too big, time exceeded, parameter problem.
    #[inline(always)]
    fn is_error(protocol: u8, kind: u8) -> bool {
        protocol == protocol::ICMP6 && matches!(kind, 1..=4)
    }

    #[inline(always)]
    fn is_link_control<P: Packet>(packet: &P, network: &Network<Self>, from_workload: bool) -> bool {
        ipv6::is_neighbour_control(packet, network, from_workload)
    }

    #[inline(always)]
    fn advertised<P: Packet>(packet: &P, network: &Network<Self>) -> Option<[u32; 4]> {
        ipv6::advertised(packet, network)
    }
}
