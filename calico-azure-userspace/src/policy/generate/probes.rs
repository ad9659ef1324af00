//! Packets that should hit a rule, packets that just miss it, and some that know nothing of it.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::rc::Rc;

use super::Rng;
use super::edges::{COMMON, edges, in_protocol, port};
use crate::model::{Icmp, Peer, Rule, ServiceName, Subset};
use crate::policy::labels::EffectiveLabels;
use crate::policy::store::Store;
use crate::policy::topology::Topology;
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
    let mut aim = Aim::new(store, seed);
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
                    let Some(probe) = aim.probe(&endpoint.addresses, direction, rule) else {
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

/// Draws packets that a rule is about.
pub(super) struct Aim<'a> {
    pub(super) rng: Rng,
    store: &'a Store,
    topology: Topology<'a>,
    /// Addresses that a selector is about.
    members: HashMap<Selector, Rc<Vec<IpAddr>>>,
}

impl<'a> Aim<'a> {
    pub(super) fn new(store: &'a Store, seed: u64) -> Self {
        Self {
            rng: Rng::new(seed),
            store,
            topology: Topology::of(store),
            members: HashMap::new(),
        }
    }

    /// A packet of an endpoint with these addresses; `None` if it has none.
    pub(super) fn probe(
        &mut self,
        addresses: &[IpAddr],
        direction: Direction,
        rule: Option<&Rule>,
    ) -> Option<Probe> {
        let own = *self.rng.pick(addresses)?;
        let far = rule.map(|rule| match direction {
            Direction::Ingress => &rule.source,
            Direction::Egress => &rule.destination,
        });
        let peer = self.peer(far, own.is_ipv4());
        let (source, destination) = match direction {
            Direction::Ingress => (peer, own),
            Direction::Egress => (own, peer),
        };
        let (protocol, sport, dport) = self.traffic(rule, source, destination);
        Some(Probe {
            peer,
            own,
            protocol,
            sport,
            dport,
        })
    }

    /// Protocol, source and destination port at an edge of what the rule is about.
    fn traffic(&mut self, rule: Option<&Rule>, source: IpAddr, destination: IpAddr) -> (u8, u16, u16) {
        let Some(rule) = rule else {
            let rng = &mut self.rng;
            let protocol = rng.one_of([1, 6, 17, 47, 58, 132, 136, 0, 255]);
            let (sport, dport) = (rng.port(), rng.port());
            return in_protocol(protocol, sport, dport);
        };
        // Of both sides at once: a name may mean one protocol here and another there.
        let far = self.named(&rule.source, source);
        let near = self.named(&rule.destination, destination);
        let rng = &mut self.rng;
        let mut protocol = rule.protocol.unwrap_or_else(|| {
            let named = rng.pick(&near).or(rng.pick(&far)).copied();
            named.map_or(rng.one_of(COMMON), |(protocol, _)| protocol)
        });
        if rng.chance(10) {
            protocol = rule.not_protocol.unwrap_or_else(|| rng.one_of(COMMON));
        }
        let sport = port(rng, protocol, &rule.source, &far, &[]);
        let icmp: Vec<Icmp> = rule.icmp.iter().chain(&rule.not_icmp).copied().collect();
        let dport = port(rng, protocol, &rule.destination, &near, &icmp);
        in_protocol(protocol, sport, dport)
    }

    /// Protocols and ports that the side's names and service may mean, the address's own ones several times.
    fn named(&self, peer: &Peer, address: IpAddr) -> Vec<(u8, u16)> {
        let names: Vec<&String> = peer.named_ports.iter().chain(&peer.not_named_ports).collect();
        let pods = self.topology.endpoints.iter();
        let pods = pods.map(|pod| (&pod.addresses, &pod.pod.ports));
        let hosts = self.store.host_endpoints();
        let hosts = hosts.map(|host| (&host.expected_ips, &host.ports));
        let mut found = Vec::new();
        for (addresses, ports) in pods.chain(hosts) {
            let times = if addresses.contains(&address) { 12 } else { 1 };
            for port in ports.iter().filter(|port| names.contains(&&port.name)) {
                found.extend(std::iter::repeat_n((port.protocol, port.port), times));
            }
        }
        for subset in self.subsets(peer.service.as_ref()) {
            let times = if subset.addresses.contains(&address) {
                12
            } else {
                1
            };
            for port in &subset.ports {
                found.extend(std::iter::repeat_n(*port, times));
            }
        }
        found
    }

    fn subsets(&self, service: Option<&ServiceName>) -> Vec<&'a Subset> {
        let Some(service) = service else { return Vec::new() };
        let own = self.store.backends().filter(|backends| {
            backends.service == service.name && backends.key.namespace.as_deref() == Some(&service.namespace)
        });
        own.flat_map(|backends| &backends.subsets).collect()
    }

    /// An address of the family: mostly one that the criteria are about.
    fn peer(&mut self, criteria: Option<&Peer>, v4: bool) -> IpAddr {
        let mut candidates = Vec::new();
        if let Some(Peer {
            nets,
            not_nets,
            selector,
            not_selector,
            service,
            ..
        }) = criteria
        {
            nets.iter()
                .chain(not_nets)
                .for_each(|net| edges(net, &mut candidates));
            let members = selector.as_ref().map(|selector| self.members(selector));
            let others = not_selector.as_ref().map(|selector| self.members(selector));
            candidates.extend(members.iter().chain(&others).flat_map(|members| members.iter()));
            let backends = self.subsets(service.as_ref());
            candidates.extend(backends.iter().flat_map(|subset| &subset.addresses));
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
            let hosts = self.store.host_endpoints();
            candidates.extend(hosts.flat_map(|host| &host.expected_ips));
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
        for host in self.store.host_endpoints() {
            if selector.matches(&EffectiveLabels::of_host_endpoint(self.store, host)) {
                members.extend(&host.expected_ips);
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
