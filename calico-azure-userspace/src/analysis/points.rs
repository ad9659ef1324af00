//! The reference asked at one point of every range that rules could tell from the next.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::connections::{Connections, domain, has_ports, has_types};
use super::named::failsafes;
use crate::model::{Failsafe, Icmp, Peer, PortRange, Rule, ServiceName};
use crate::policy::compile::ranges::{self, Range};
use crate::policy::reference::{Flow, Oracle};
use crate::policy::store::Store;

/// What to ask.
#[derive(Debug)]
pub(super) struct Points {
    named: Vec<Asked>,
    /// A protocol that nothing names stands for all of those.
    unnamed: Option<u8>,
}

/// What to ask about one protocol.
#[derive(Debug)]
struct Asked {
    protocol: u8,
    /// Destination ports, or types and codes, cut where an answer may change.
    ranges: Vec<Range>,
    /// One source port of each kind.
    sources: Vec<u16>,
}

/// Where the ports of a protocol are cut.
#[derive(Default)]
struct Cuts {
    ports: BTreeSet<u16>,
    sources: BTreeSet<u16>,
}

impl Points {
    /// For what the rules say, and failsafe ports.
    pub(super) fn new(store: &Store, rules: &[&Rule]) -> Self {
        let mut cuts: BTreeMap<u8, Cuts> = [1, 6, 17, 58, 132]
            .map(|protocol| (protocol, Cuts::default()))
            .into();
        let failsafes = failsafes(store);
        let named = rules
            .iter()
            .flat_map(|rule| [rule.protocol, rule.not_protocol])
            .flatten();
        for protocol in named.chain(failsafes.iter().map(|failsafe| failsafe.protocol)) {
            cuts.entry(protocol).or_default();
        }
        for rule in rules {
            let (sources, ports) = (ports_of(store, &rule.source), ports_of(store, &rule.destination));
            let backends = rule
                .destination
                .service
                .as_ref()
                .map(|service| backend_ports(store, service));
            let types = [rule.icmp, rule.not_icmp]
                .into_iter()
                .flatten()
                .flat_map(messages);
            let types: Vec<PortRange> = types.collect();
            let governed = |protocol: &u8| rule.protocol.is_none_or(|wanted| wanted == *protocol);
            for (protocol, cuts) in cuts.iter_mut().filter(|(protocol, _)| governed(protocol)) {
                if has_ports(*protocol) {
                    cut(&mut cuts.sources, &sources);
                    cut(&mut cuts.ports, &ports);
                    cut(&mut cuts.ports, backends.as_deref().unwrap_or_default());
                } else if has_types(*protocol) {
                    cut(&mut cuts.ports, &types);
                }
            }
        }
        for Failsafe { protocol, port, .. } in &failsafes {
            if let Some(cuts) = cuts.get_mut(protocol).filter(|_| has_ports(*protocol)) {
                cut(&mut cuts.ports, &[single(*port)]);
            }
        }
        let unnamed = (2..=u8::MAX).find(|protocol| !cuts.contains_key(protocol));
        let named = cuts.into_iter().map(|(protocol, Cuts { ports, sources })| Asked {
            protocol,
            ranges: between(domain(protocol), &ports),
            sources: between(domain(6), &sources)
                .into_iter()
                .map(|(first, _)| first)
                .collect(),
        });
        Self {
            named: named.collect(),
            unnamed,
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
        let named = self.named.iter().map(|asked| {
            let Asked {
                protocol,
                ranges,
                sources,
            } = asked;
            let sources: &[u16] = if has_ports(*protocol) { sources } else { &[0] };
            let open = |range: &&Range| sources.iter().any(|sport| allows(*protocol, *sport, range.0));
            (
                *protocol,
                ranges::union(ranges.iter().filter(open).copied().collect()),
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

fn backend_ports(store: &Store, service: &ServiceName) -> Vec<PortRange> {
    let own = store.backends().filter(|backends| {
        backends.service == service.name && backends.key.namespace.as_deref() == Some(&service.namespace)
    });
    let ports = own
        .flat_map(|backends| &backends.subsets)
        .flat_map(|subset| &subset.ports);
    let ports: BTreeSet<u16> = ports.map(|(_, port)| *port).collect();
    ports.into_iter().map(single).collect()
}

fn single(port: u16) -> PortRange {
    PortRange {
        first: port,
        last: port,
    }
}

/// The message types and codes as ports.
fn messages(icmp: Icmp) -> Vec<PortRange> {
    if icmp.kind.is_none() && icmp.code.is_none() {
        return Vec::new();
    }
    let kinds = icmp.kind.map_or(0..=u8::MAX, |kind| kind..=kind);
    let codes = icmp.code.map_or((0, u8::MAX), |code| (code, code));
    let range = |kind| PortRange {
        first: u16::from_be_bytes([kind, codes.0]),
        last: u16::from_be_bytes([kind, codes.1]),
    };
    kinds.map(range).collect()
}

fn cut(starts: &mut BTreeSet<u16>, ranges: &[PortRange]) {
    for PortRange { first, last } in ranges {
        starts.insert(*first);
        starts.extend(last.checked_add(1));
    }
}

/// The domain, cut before each start.
fn between(domain: &[Range], starts: &BTreeSet<u16>) -> Vec<Range> {
    let mut cut = Vec::new();
    for (first, last) in domain {
        let mut next = *first;
        for start in starts.iter().filter(|start| first < *start && *start <= last) {
            cut.push((next, start - 1));
            next = *start;
        }
        cut.push((next, *last));
    }
    cut
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domain_is_cut_before_every_start() {
        let mut starts = BTreeSet::new();
        cut(
            &mut starts,
            &[
                single(0),
                single(80),
                PortRange {
                    first: 1,
                    last: u16::MAX,
                },
            ],
        );
        assert_eq!(between(domain(6), &starts), [(1, 79), (80, 80), (81, u16::MAX)]);
        assert_eq!(between(domain(47), &starts), [(0, 0)]);
        assert_eq!(between(domain(1), &BTreeSet::new()), [(0, u16::MAX)]);
    }
}
