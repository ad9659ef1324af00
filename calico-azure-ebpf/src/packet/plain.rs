//! What most packets are: whole, TCP or UDP, with nothing before the IP header but Ethernet and nothing between the headers.
//! Read here in one go; everything else takes the parser, which reads these all the same.

use super::{ETHERNET, Packet, protocol};

/// The headers of such a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plain<A> {
    /// Source.
    pub src: A,
    /// Destination.
    pub dst: A,
    /// TCP or UDP.
    pub protocol: u8,
    /// Source port, host order.
    pub sport: u16,
    /// Destination port, host order.
    pub dport: u16,
    /// TCP flags; 0 for UDP.
    pub flags: u8,
    /// Where the transport header begins, in bytes from the start of the frame.
    pub l4: u32,
}

/// Reads a plain IPv4 packet; `None` also where anything about it is odd.
#[inline(always)]
pub(super) fn ipv4<P: Packet>(packet: &P) -> Option<Plain<u32>> {
    const HEADER: u32 = 20;
    const FRAGMENT: u32 = 0x3fff;
    let [w0, w1, w2, src, dst, ports] = packet.words::<6>(ETHERNET)?;
    let (w0, w1, w2) = (u32::from_be(w0), u32::from_be(w1), u32::from_be(w2));
    let length = w0 & 0xffff;
    if w0 >> 24 != 0x45 || w1 & FRAGMENT != 0 || length < HEADER || ETHERNET + length > packet.len() {
        return None;
    }
    let protocol = (w2 >> 16) as u8;
    let flags = transport(packet, protocol, ETHERNET + HEADER, length - HEADER)?;
    Some(with_ports(src, dst, protocol, ports, flags, ETHERNET + HEADER))
}

/// As [`ipv4`].
#[inline(always)]
pub(super) fn ipv6<P: Packet>(packet: &P) -> Option<Plain<[u32; 4]>> {
    const HEADER: u32 = 40;
    let [w0, w1, a, b, c, d, e, f, g, h, ports] = packet.words::<11>(ETHERNET)?;
    let (w0, w1) = (u32::from_be(w0), u32::from_be(w1));
    let length = w1 >> 16;
    if w0 >> 28 != 6 || ETHERNET + HEADER + length > packet.len() {
        return None;
    }
    let protocol = (w1 >> 8) as u8;
    let flags = transport(packet, protocol, ETHERNET + HEADER, length)?;
    Some(with_ports(
        [a, b, c, d],
        [e, f, g, h],
        protocol,
        ports,
        flags,
        ETHERNET + HEADER,
    ))
}

/// TCP flags of a transport header at `start` that fits into `length` bytes.
#[inline(always)]
fn transport<P: Packet>(packet: &P, protocol: u8, start: u32, length: u32) -> Option<u8> {
    match protocol {
        protocol::TCP => {
            let [word] = packet.words::<1>(start + 12)?;
            let word = u32::from_be(word);
            let header = (word >> 28) * 4;
            (header >= 20 && header <= length).then_some((word >> 16) as u8)
        }
        protocol::UDP if length >= 8 => Some(0),
        _ => None,
    }
}

#[inline(always)]
fn with_ports<A>(src: A, dst: A, protocol: u8, ports: u32, flags: u8, l4: u32) -> Plain<A> {
    let ports = u32::from_be(ports);
    Plain {
        src,
        dst,
        protocol,
        sport: (ports >> 16) as u16,
        dport: ports as u16,
        flags,
        l4,
    }
}
