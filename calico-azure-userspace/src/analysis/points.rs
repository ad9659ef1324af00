//! The reference asked at one point of every range that rules could tell from the next.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::connections::{Connections, has_ports, has_types};
use super::named::rules;
use crate::model::{Failsafe, Icmp, PortRange};
use crate::policy::compile::ranges::{self, Range};
use crate::policy::reference::{FAILSAFE_INBOUND, FAILSAFE_OUTBOUND, Flow, Oracle};
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
    pub(super) fn of(store: &Store) -> Self {
        let mut ports = BTreeSet::from([1]);
        let mut sources = BTreeSet::from([1]);
        let mut types = BTreeSet::from([0]);
        let mut protocols = BTreeSet::from([1, 6, 17, 58, 132]);
        let (mut names_on_source, mut names_on_destination) = (false, false);
        for rule in rules(store) {
            protocols.extend([rule.protocol, rule.not_protocol].into_iter().flatten());
            let ranges = |peer: &crate::model::Peer| [peer.ports.clone(), peer.not_ports.clone()].concat();
            cut(&mut sources, ranges(&rule.source));
            cut(&mut ports, ranges(&rule.destination));
            let named =
                |peer: &crate::model::Peer| !peer.named_ports.is_empty() || !peer.not_named_ports.is_empty();
            names_on_source |= named(&rule.source);
            names_on_destination |= named(&rule.destination);
            for icmp in [rule.icmp, rule.not_icmp].into_iter().flatten() {
                cut(&mut types, messages(icmp));
            }
        }
        let of_pods = store.pods().flat_map(|pod| &pod.ports);
        let of_hosts = store.host_endpoints().flat_map(|host| &host.ports);
        let named: Vec<PortRange> = of_pods.chain(of_hosts).map(|port| single(port.port)).collect();
        if names_on_source {
            cut(&mut sources, named.clone());
        }
        if names_on_destination {
            cut(&mut ports, named);
        }
        let subsets = store.backends().flat_map(|backends| &backends.subsets);
        cut(
            &mut ports,
            subsets
                .flat_map(|subset| &subset.ports)
                .map(|(_, port)| single(*port))
                .collect(),
        );
        let failsafes: Vec<Failsafe> = failsafes(store);
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
            oracle.path(&flow).allow
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

fn failsafes(store: &Store) -> Vec<Failsafe> {
    let configured = store.all_felix_configurations();
    let configured = configured.flat_map(|x| [&x.failsafe_inbound, &x.failsafe_outbound]);
    let configured = configured.flatten().flatten().copied();
    FAILSAFE_INBOUND
        .into_iter()
        .chain(FAILSAFE_OUTBOUND)
        .chain(configured)
        .collect()
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
