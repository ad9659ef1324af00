//! Packets that should hit a rule, packets that just miss it, and some that know nothing of it.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::rc::Rc;

use ipnet::IpNet;

use super::Rng;
use crate::model::{Icmp, Peer, PortRange, Rule};
use crate::policy::labels::EffectiveLabels;
use crate::policy::store::Store;
use crate::policy::topology::{Endpoint, Topology};
use crate::policy::{Direction, Probe};
use crate::selector::Selector;

/// A packet for one pod's policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// Namespace of the pod.
    pub namespace: String,
    /// Its name.
    pub pod: String,
    /// Its interface.
    pub ifindex: u32,
    pub direction: Direction,
    pub probe: Probe,
}

/// `per_rule` packets for each rule that governs each pod with an interface, and as many for each pod besides.
#[must_use]
pub fn probes(store: &Store, seed: u64, per_rule: usize) -> Vec<Case> {
    let mut aim = Aim {
        rng: Rng::new(seed),
        store,
        topology: Topology::of(store),
        members: HashMap::new(),
    };
    let mut cases = Vec::new();
    for endpoint in &aim.topology.clone().endpoints {
        let Some(ifindex) = endpoint.ifindex else { continue };
        let labels = EffectiveLabels::of_pod(store, endpoint.pod);
        for direction in Direction::ALL {
            let rules = store.policies().filter(|policy| policy.selector.matches(&labels));
            let rules = rules.filter_map(|policy| match direction {
                Direction::Ingress => policy.ingress.as_deref(),
                Direction::Egress => policy.egress.as_deref(),
            });
            for rule in rules.flatten().map(Some).chain([None]) {
                for _ in 0..per_rule {
                    let Some(probe) = aim.probe(endpoint, direction, rule) else {
                        continue;
                    };
                    cases.push(Case {
                        namespace: endpoint.pod.namespace.clone(),
                        pod: endpoint.pod.name.clone(),
                        ifindex,
                        direction,
                        probe,
                    });
                }
            }
        }
    }
    cases
}

struct Aim<'a> {
    rng: Rng,
    store: &'a Store,
    topology: Topology<'a>,
    /// Addresses that a selector is about.
    members: HashMap<Selector, Rc<Vec<IpAddr>>>,
}

impl Aim<'_> {
    /// `None` if the pod has no address.
    fn probe(&mut self, endpoint: &Endpoint<'_>, direction: Direction, rule: Option<&Rule>) -> Option<Probe> {
        let rng = &mut self.rng;
        let own = *rng.pick(&endpoint.addresses)?;
        let (protocol, dport) = match rule {
            Some(rule) => traffic(rng, rule),
            None => (rng.one_of([1, 6, 17, 47, 58, 132, 136, 0, 255]), rng.port()),
        };
        let dport = if matches!(protocol, 1 | 6 | 17 | 58 | 132 | 136) {
            dport
        } else {
            0
        };
        let far = rule.map(|rule| match direction {
            Direction::Ingress => &rule.source,
            Direction::Egress => &rule.destination,
        });
        let peer = self.peer(far, own.is_ipv4());
        Some(Probe {
            peer,
            own,
            protocol,
            sport: 0,
            dport,
        })
    }

    /// An address of the family: mostly one that the criteria are about.
    fn peer(&mut self, criteria: Option<&Peer>, v4: bool) -> IpAddr {
        let mut candidates = Vec::new();
        if let Some(Peer {
            nets,
            not_nets,
            selector,
            not_selector,
            ..
        }) = criteria
        {
            nets.iter()
                .chain(not_nets)
                .for_each(|net| edges(net, &mut candidates));
            let members = selector.as_ref().map(|selector| self.members(selector));
            let others = not_selector.as_ref().map(|selector| self.members(selector));
            candidates.extend(members.iter().chain(&others).flat_map(|members| members.iter()));
            // An address that all criteria hold for, if one is among them.
            let hits = |ip: &IpAddr| {
                (nets.is_empty() || nets.iter().any(|net| net.contains(ip)))
                    && !not_nets.iter().any(|net| net.contains(ip))
                    && members.as_ref().is_none_or(|members| members.contains(ip))
            };
            candidates.retain(|ip| ip.is_ipv4() == v4);
            let hitting: Vec<IpAddr> = candidates.iter().copied().filter(hits).collect();
            if self.rng.chance(60)
                && let Some(peer) = self.rng.pick(&hitting)
            {
                return *peer;
            }
        }
        if candidates.is_empty() || self.rng.chance(25) {
            candidates.extend(
                self.topology
                    .endpoints
                    .iter()
                    .flat_map(|endpoint| &endpoint.addresses),
            );
            self.store
                .network_sets()
                .flat_map(|set| &set.nets)
                .for_each(|net| edges(net, &mut candidates));
        }
        candidates.retain(|ip| ip.is_ipv4() == v4);
        match self.rng.pick(&candidates) {
            Some(peer) if !self.rng.chance(10) => *peer,
            _ if v4 => Ipv4Addr::new(10, 0, self.rng.byte() & 1, self.rng.byte()).into(),
            _ => Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, self.rng.port() & 0x1ff).into(),
        }
    }

    /// Of everything that the selector matches: addresses of pods, edges of network sets' prefixes.
    fn members(&mut self, selector: &Selector) -> Rc<Vec<IpAddr>> {
        if let Some(members) = self.members.get(selector) {
            return Rc::clone(members);
        }
        let mut members = Vec::new();
        for endpoint in &self.topology.endpoints {
            if selector.matches(&EffectiveLabels::of_pod(self.store, endpoint.pod)) {
                members.extend(&endpoint.addresses);
            }
        }
        for set in self.store.network_sets() {
            if selector.matches(&EffectiveLabels::of_network_set(self.store, set)) {
                set.nets.iter().for_each(|net| edges(net, &mut members));
            }
        }
        let members = Rc::new(members);
        self.members.insert(selector.clone(), Rc::clone(&members));
        members
    }
}

/// The prefix's first and last address, and the ones just outside.
fn edges(net: &IpNet, into: &mut Vec<IpAddr>) {
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

/// A protocol and port at an edge of what the rule is about.
fn traffic(rng: &mut Rng, rule: &Rule) -> (u8, u16) {
    let common = [1, 6, 17, 58, 132, 136, 47, 200];
    let mut protocol = rule.protocol.unwrap_or_else(|| rng.one_of(common));
    if rng.chance(10) {
        protocol = rule.not_protocol.unwrap_or_else(|| rng.one_of(common));
    }
    let mut ports: Vec<u16> = Vec::new();
    for PortRange { first, last } in rule.destination.ports.iter().chain(&rule.destination.not_ports) {
        ports.extend([*first, *last, first.wrapping_sub(1), last.wrapping_add(1)]);
    }
    for Icmp { kind, code } in rule.icmp.iter().chain(&rule.not_icmp) {
        let kind = kind.unwrap_or_else(|| rng.byte());
        let code = code.unwrap_or_else(|| rng.byte());
        ports.extend([
            u16::from_be_bytes([kind, code]),
            u16::from_be_bytes([kind, code.wrapping_add(1)]),
            u16::from_be_bytes([kind.wrapping_add(1), code]),
        ]);
    }
    let random = rng.port();
    let dport = if rng.chance(90) {
        rng.pick(&ports).copied().unwrap_or(random)
    } else {
        random
    };
    (protocol, dport)
}
