//! Packets for host endpoints, and flows between any two places.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::probes::Aim;
use crate::model::Rule;
use crate::policy::labels::EffectiveLabels;
use crate::policy::reference::{Flow, Traffic};
use crate::policy::store::Store;
use crate::policy::topology::Topology;
use crate::policy::{Direction, Probe};

/// A packet for one host endpoint's policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostCase {
    /// Its name.
    pub host: String,
    pub direction: Direction,
    pub traffic: Traffic,
    pub probe: Probe,
}

/// Ports that are failsafe somewhere, and common ones.
const PORTS: [u16; 6] = [22, 53, 67, 80, 443, 6443];

/// `per_rule` packets for each rule that governs each host endpoint, and as many besides. What passes through has the
/// address of a pod or of anybody.
#[must_use]
pub fn host_cases(store: &Store, seed: u64, per_rule: usize) -> Vec<HostCase> {
    let mut aim = Aim::new(store, seed);
    let topology = Topology::of(store);
    let mut behind: Vec<IpAddr> = topology
        .endpoints
        .iter()
        .flat_map(|pod| pod.addresses.clone())
        .collect();
    behind.extend(OUTSIDE);
    let mut cases = Vec::new();
    for host in store.host_endpoints() {
        let labels = EffectiveLabels::of_host_endpoint(store, host);
        for direction in Direction::ALL {
            let policies = store.policies().filter(|policy| policy.selector.matches(&labels));
            let rules = policies.filter_map(|policy| match direction {
                Direction::Ingress => policy.ingress.as_deref(),
                Direction::Egress => policy.egress.as_deref(),
            });
            for rule in rules.flatten().map(Some).chain([None]) {
                for _ in 0..per_rule {
                    let traffic = aim.rng.one_of(TRAFFIC);
                    let forwarded = matches!(traffic, Traffic::Forwarded | Traffic::PodForwarded);
                    let own = if forwarded || host.expected_ips.is_empty() {
                        &behind
                    } else {
                        &host.expected_ips
                    };
                    let Some(mut probe) = aim.probe(own, direction, rule) else {
                        continue;
                    };
                    if aim.rng.chance(15) {
                        (probe.protocol, probe.dport) = (aim.rng.one_of([6, 17]), aim.rng.one_of(PORTS));
                    }
                    cases.push(HostCase {
                        host: host.name.clone(),
                        direction,
                        traffic,
                        probe,
                    });
                }
            }
        }
    }
    cases
}

/// So many flows between pods, hosts and strangers; most of them are what some rule is about.
#[must_use]
pub fn flows(store: &Store, seed: u64, count: usize) -> Vec<Flow> {
    let mut aim = Aim::new(store, seed);
    let mut addresses: Vec<IpAddr> = store.pods().flat_map(|pod| pod.ips.clone()).collect();
    for _ in 0..3 {
        addresses.extend(store.nodes().flat_map(|node| &node.internal_ips));
        addresses.extend(store.host_endpoints().flat_map(|host| &host.expected_ips));
    }
    addresses.extend(OUTSIDE);
    let rules: Vec<(Direction, &Rule)> = store
        .policies()
        .flat_map(|policy| {
            let ingress = policy
                .ingress
                .iter()
                .flatten()
                .map(|rule| (Direction::Ingress, rule));
            let egress = policy
                .egress
                .iter()
                .flatten()
                .map(|rule| (Direction::Egress, rule));
            ingress.chain(egress)
        })
        .collect();
    let mut flows = Vec::with_capacity(count);
    while flows.len() < count {
        let rule = aim.rng.pick(&rules).copied();
        let direction = rule.map_or(Direction::Egress, |(direction, _)| direction);
        let rule = rule.map(|(_, rule)| rule);
        let Some(mut probe) = aim.probe(&addresses, direction, rule) else {
            return flows;
        };
        if aim.rng.chance(60) {
            // Between two known places, of the same family as a rule.
            let peer = aim.rng.pick(&addresses).copied().unwrap_or(probe.peer);
            if peer.is_ipv4() == probe.own.is_ipv4() || aim.rng.chance(2) {
                probe.peer = peer;
            }
        }
        if aim.rng.chance(15) {
            (probe.protocol, probe.dport) = (aim.rng.one_of([6, 17]), aim.rng.one_of(PORTS));
        }
        let (src, dst) = match direction {
            Direction::Ingress => (probe.peer, probe.own),
            Direction::Egress => (probe.own, probe.peer),
        };
        flows.push(Flow {
            src,
            dst,
            protocol: probe.protocol,
            sport: probe.sport,
            dport: probe.dport,
        });
    }
    flows
}

const TRAFFIC: [Traffic; 5] = [
    Traffic::Local,
    Traffic::Local,
    Traffic::Forwarded,
    Traffic::PodToHost,
    Traffic::PodForwarded,
];

const OUTSIDE: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(203, 0, 113, 9)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 9)),
];
