//! The reference asked at one point of every range that rules could tell from the next.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::connections::{Connections, has_ports, has_types};
use super::named::failsafes;
use crate::model::{Icmp, Peer, PortRange, Rule};
use crate::policy::compile::ranges::{self, Range};
use crate::policy::reference::{Flow, Oracle};
use crate::policy::store::Store;

/// What to ask.
#[derive(Debug)]
pub(super) struct Points {
    /// Each protocol's destination ports (or types and codes), cut where an answer may change.
    named: Vec<(u8, Vec<Range>)>,
    /// A protocol that nothing names stands for all of those.
    unnamed: Option<u8>,
    /// One source port of each kind.
    sources: Vec<u16>,
}

impl Points {
    /// For what the rules say, and failsafe ports.
    pub(super) fn new(store: &Store, rules: &[&Rule]) -> Self {
        let mut ports = BTreeSet::from([1]);
        let mut sources = BTreeSet::from([1]);
        let mut types = BTreeSet::from([0]);
        let mut protocols = BTreeSet::from([1, 6, 17, 58, 132]);
        let mut services = BTreeSet::new();
        for rule in rules {
            protocols.extend([rule.protocol, rule.not_protocol].into_iter().flatten());
            cut(&mut sources, ports_of(store, &rule.source));
            cut(&mut ports, ports_of(store, &rule.destination));
            services.extend(&rule.destination.service);
            for icmp in [rule.icmp, rule.not_icmp].into_iter().flatten() {
                cut(&mut types, messages(icmp));
            }
        }
        for backends in store.backends() {
            let namespace = backends.key.namespace.as_deref();
            if services
                .iter()
                .any(|x| x.name == backends.service && Some(x.namespace.as_str()) == namespace)
            {
                let all = backends.subsets.iter().flat_map(|subset| &subset.ports);
                cut(&mut ports, all.map(|(_, port)| single(*port)).collect());
            }
        }
        let failsafes = failsafes(store);
        protocols.extend(failsafes.iter().map(|failsafe| failsafe.protocol));
        cut(
            &mut ports,
            failsafes.iter().map(|failsafe| single(failsafe.port)).collect(),
        );

        let (ports, types) = (between(&ports), between(&types));
        let ranges = |protocol| match protocol {
            _ if has_ports(protocol) => ports.clone(),
            _ if has_types(protocol) => types.clone(),
            _ => vec![(0, 0)],
        };
        Self {
            named: protocols
                .iter()
                .map(|protocol| (*protocol, ranges(*protocol)))
                .collect(),
            unnamed: (2..=u8::MAX).find(|protocol| !protocols.contains(protocol)),
            sources: between(&sources).into_iter().map(|(first, _)| first).collect(),
        }
    }

    /// What the reference lets through from one address to another.
    pub(super) fn connections(&self, oracle: &Oracle<'_>, src: IpAddr, dst: IpAddr) -> Connections {
        let allows = |protocol, sport, dport| {
            let flow = Flow {
                src,
                dst,
                protocol,
                sport,
                dport,
            };
            oracle.passes(&flow)
        };
        let named = self.named.iter().map(|(protocol, all)| {
            let sources: &[u16] = if has_ports(*protocol) { &self.sources } else { &[0] };
            let open = |range: &&Range| sources.iter().any(|sport| allows(*protocol, *sport, range.0));
            (
                *protocol,
                ranges::union(all.iter().filter(open).copied().collect()),
            )
        });
        Connections::new(self.unnamed.is_some_and(|protocol| allows(protocol, 0, 0)), named)
    }
}

/// The ports that a rule asks for on one side, by number or by name.
fn ports_of(store: &Store, peer: &Peer) -> Vec<PortRange> {
    let mut ranges = [peer.ports.as_slice(), &peer.not_ports].concat();
    let names: Vec<&String> = peer.named_ports.iter().chain(&peer.not_named_ports).collect();
    if !names.is_empty() {
        let of_pods = store.pods().flat_map(|pod| &pod.ports);
        let of_hosts = store.host_endpoints().flat_map(|host| &host.ports);
        let named = of_pods.chain(of_hosts).filter(|port| names.contains(&&port.name));
        ranges.extend(named.map(|port| single(port.port)).collect::<BTreeSet<_>>());
    }
    ranges
}

fn single(port: u16) -> PortRange {
    PortRange {
        first: port,
        last: port,
    }
}

/// The message types and codes as ports.
fn messages(icmp: Icmp) -> Vec<PortRange> {
    let kinds = icmp.kind.map_or(0..=u8::MAX, |kind| kind..=kind);
    let codes = icmp.code.map_or((0, u8::MAX), |code| (code, code));
    let range = |kind| PortRange {
        first: u16::from_be_bytes([kind, codes.0]),
        last: u16::from_be_bytes([kind, codes.1]),
    };
    kinds.map(range).collect()
}

fn cut(starts: &mut BTreeSet<u16>, ranges: Vec<PortRange>) {
    for PortRange { first, last } in ranges {
        // Where all begin, nothing is cut; port 0 is none.
        starts.extend((first > 0).then_some(first));
        starts.extend(last.checked_add(1));
    }
}

/// From each start to before the next.
fn between(starts: &BTreeSet<u16>) -> Vec<Range> {
    let ends = starts.iter().skip(1).map(|start| start - 1).chain([u16::MAX]);
    starts.iter().copied().zip(ends).collect()
}
