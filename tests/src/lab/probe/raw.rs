//! Packets that no honest socket would send: someone else's source, IP in IP, multicast.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};

use crate::lab::{LabError, NetNs, Result};

const ICMP: u8 = 1;
const IPIP: u8 = 4;
const UDP: u8 = 17;
const ICMP6: u8 = 58;

/// A packet to be sent as it is, source included. Both addresses are of one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Crafted {
    pub src: IpAddr,
    pub dst: IpAddr,
    pub payload: Payload,
}

/// What a [`Crafted`] packet carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    /// Eight bytes.
    Udp { sport: u16, dport: u16 },
    /// An echo request.
    Echo,
    /// An IPv4 packet in an IPv4 packet, as Calico's IPIP networking sends.
    Ipip(Box<Crafted>),
    /// Any protocol.
    Other { protocol: u8, bytes: Vec<u8> },
}

impl Crafted {
    /// Sends the packet from `from`. Whether anybody forwards it is the question that the caller asks.
    pub fn send(&self, from: &NetNs) -> Result<()> {
        let bytes = self.bytes()?;
        let send = || -> std::io::Result<()> {
            let domain = if self.dst.is_ipv6() {
                Domain::IPV6
            } else {
                Domain::IPV4
            };
            // IPPROTO_RAW: the header is ours, in both families.
            let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(libc::IPPROTO_RAW)))?;
            socket.set_broadcast(true)?;
            socket
                .send_to(&bytes, &SocketAddr::from((self.dst, 0)).into())
                .map(drop)
        };
        let what = format!(
            "cannot send a crafted packet from {} to {} in {}",
            self.src,
            self.dst,
            from.name()
        );
        from.run(send)?.map_err(LabError::io(what))
    }

    /// The packet from its IP header on.
    pub fn bytes(&self) -> Result<Vec<u8>> {
        match (self.src, self.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                let (protocol, payload) = self.payload_bytes()?;
                Ok(ipv4(src, dst, protocol, &payload))
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                let (protocol, mut payload) = self.payload_bytes()?;
                checksum_v6(src, dst, protocol, &mut payload);
                Ok(ipv6(src, dst, protocol, &payload))
            }
            (src, dst) => Err(LabError::Unknown {
                kind: "address family of source",
                name: src.to_string(),
                known: format!("that of destination {dst}"),
            }),
        }
    }

    fn payload_bytes(&self) -> Result<(u8, Vec<u8>)> {
        Ok(match &self.payload {
            Payload::Udp { sport, dport } => {
                // Without a checksum, which IPv4 allows; IPv6 gets one later.
                let mut bytes = [sport.to_be_bytes(), dport.to_be_bytes(), [0, 16], [0, 0]].concat();
                bytes.extend_from_slice(b"crafted!");
                (UDP, bytes)
            }
            Payload::Echo if self.dst.is_ipv6() => (ICMP6, echo_request(true, super::token())),
            Payload::Echo => (ICMP, echo_request(false, super::token())),
            Payload::Ipip(inner) => (IPIP, inner.bytes()?),
            Payload::Other { protocol, bytes } => (*protocol, bytes.clone()),
        })
    }
}

/// An echo request; for ICMPv6 the kernel or [`checksum_v6`] fills in the checksum.
pub(super) fn echo_request(v6: bool, token: u64) -> Vec<u8> {
    let token = token.to_be_bytes();
    let mut message = vec![if v6 { 128 } else { 8 }, 0, 0, 0];
    // Identifier and sequence number, then the token: together unique in a namespace.
    message.extend_from_slice(&token[4..]);
    message.extend_from_slice(&token);
    if !v6 {
        let sum = checksum(&[&message]);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    message
}

fn ipv4(src: Ipv4Addr, dst: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let len = u16::try_from(20 + payload.len())
        .unwrap_or(u16::MAX)
        .to_be_bytes();
    let mut header = [0; 20];
    header[0] = 0x45;
    header[2..4].copy_from_slice(&len);
    header[8] = 64;
    header[9] = protocol;
    header[12..16].copy_from_slice(&src.octets());
    header[16..20].copy_from_slice(&dst.octets());
    let sum = checksum(&[&header]);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    [&header, payload].concat()
}

fn ipv6(src: Ipv6Addr, dst: Ipv6Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let len = u16::try_from(payload.len()).unwrap_or(u16::MAX).to_be_bytes();
    [
        &[0x60, 0, 0, 0, len[0], len[1], protocol, 64],
        src.octets().as_slice(),
        &dst.octets(),
        payload,
    ]
    .concat()
}

/// UDP and ICMPv6 must carry a checksum over a pseudo header.
fn checksum_v6(src: Ipv6Addr, dst: Ipv6Addr, protocol: u8, payload: &mut [u8]) {
    let at = match protocol {
        UDP => 6,
        ICMP6 => 2,
        _ => return,
    };
    let len = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes();
    let sum = checksum(&[&src.octets(), &dst.octets(), &len, &[0, 0, 0, protocol], payload]);
    // UDP spells a sum of zero as all ones, because zero means none.
    let sum = if protocol == UDP && sum == 0 { 0xffff } else { sum };
    if let Some(field) = payload.get_mut(at..at + 2) {
        field.copy_from_slice(&sum.to_be_bytes());
    }
}

/// The Internet checksum over parts of even length (only the last may be odd).
fn checksum(parts: &[&[u8]]) -> u16 {
    let words = parts.iter().flat_map(|part| part.chunks(2));
    let mut sum: u32 = words
        .map(|w| u32::from(w[0]) << 8 | u32::from(w.get(1).copied().unwrap_or(0)))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_right() {
        // The worked example of RFC 1071, section 3.
        assert_eq!(
            checksum(&[&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]]),
            !0xddf2
        );
        assert_eq!(
            checksum(&[&[0x00, 0x01, 0xf2, 0x03], &[0xf4, 0xf5, 0xf6, 0xf7]]),
            !0xddf2
        );
        let packet = Crafted {
            src: "10.0.0.1".parse().unwrap(),
            dst: "10.0.0.2".parse().unwrap(),
            payload: Payload::Echo,
        };
        let bytes = packet.bytes().unwrap();
        assert_eq!(
            checksum(&[&bytes[..20]]),
            0,
            "a header sums to zero with its checksum"
        );
        assert_eq!(checksum(&[&bytes[20..]]), 0);
    }

    #[test]
    fn ip_in_ip_carries_a_whole_packet() {
        let inner = Crafted {
            src: "10.244.1.2".parse().unwrap(),
            dst: "10.244.2.2".parse().unwrap(),
            payload: Payload::Udp { sport: 1, dport: 2 },
        };
        let outer = Crafted {
            payload: Payload::Ipip(Box::new(inner.clone())),
            ..inner.clone()
        };
        let bytes = outer.bytes().unwrap();
        assert_eq!(bytes[9], 4);
        assert_eq!(bytes[20..], inner.bytes().unwrap());
        assert_eq!(usize::from(u16::from_be_bytes([bytes[2], bytes[3]])), bytes.len());
    }

    #[test]
    fn families_do_not_mix() {
        let mixed = Crafted {
            src: "::1".parse().unwrap(),
            dst: "10.0.0.2".parse().unwrap(),
            payload: Payload::Echo,
        };
        assert!(mixed.bytes().is_err());
    }
}
