//! Addresses and ports at the edges of what a rule is about.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::Rng;
use crate::model::{Icmp, Peer, PortRange};

/// The prefix's first and last address, and the ones just outside.
pub(super) fn edges(net: &IpNet, into: &mut Vec<IpAddr>) {
    match net {
        IpNet::V4(net) => {
            let (first, last) = (u32::from(net.network()), u32::from(net.broadcast()));
            let all = [Some(first), Some(last), first.checked_sub(1), last.checked_add(1)];
            into.extend(
                all.into_iter()
                    .flatten()
                    .map(|ip| IpAddr::from(Ipv4Addr::from(ip))),
            );
        }
        IpNet::V6(net) => {
            let (first, last) = (u128::from(net.network()), u128::from(net.broadcast()));
            let all = [Some(first), Some(last), first.checked_sub(1), last.checked_add(1)];
            into.extend(
                all.into_iter()
                    .flatten()
                    .map(|ip| IpAddr::from(Ipv6Addr::from(ip))),
            );
        }
    }
}

pub(super) const COMMON: [u8; 8] = [1, 6, 17, 58, 132, 136, 47, 200];

/// A port at an edge of what the side is about, or of types and codes.
pub(super) fn port(rng: &mut Rng, protocol: u8, peer: &Peer, named: &[(u8, u16)], icmp: &[Icmp]) -> u16 {
    let mut ports: Vec<u16> = Vec::new();
    for PortRange { first, last } in peer.ports.iter().chain(&peer.not_ports) {
        ports.extend([*first, *last, first.wrapping_sub(1), last.wrapping_add(1)]);
    }
    // Those of another protocol must not match either.
    let named: Vec<u16> = named
        .iter()
        .filter(|(of, _)| *of == protocol || rng.chance(20))
        .map(|(_, port)| *port)
        .collect();
    if let Some(port) = rng.pick(&named)
        && rng.chance(60)
    {
        return *port;
    }
    for Icmp { kind, code } in icmp {
        let kind = kind.unwrap_or_else(|| rng.byte());
        let code = code.unwrap_or_else(|| rng.byte());
        ports.extend([
            u16::from_be_bytes([kind, code]),
            u16::from_be_bytes([kind, code.wrapping_add(1)]),
            u16::from_be_bytes([kind.wrapping_add(1), code]),
        ]);
    }
    let random = rng.port();
    if rng.chance(90) {
        rng.pick(&ports).copied().unwrap_or(random)
    } else {
        random
    }
}

/// What of it a packet of the protocol carries.
pub(super) fn in_protocol(protocol: u8, sport: u16, dport: u16) -> (u8, u16, u16) {
    match protocol {
        6 | 17 | 132 | 136 => (protocol, sport, dport),
        1 | 58 => (protocol, 0, dport),
        _ => (protocol, 0, 0),
    }
}
