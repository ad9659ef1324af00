//! Who is where, prepared for many questions.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use super::answer::{Answer, reason};
use crate::model::{Key, Kind, Pod, Resource};
use crate::policy::reference::{Flow, Oracle};
use crate::policy::store::{Event, Store};
use crate::policy::topology::{interface_name, pod_name, source_spoofing};
use crate::policy::{Interface, Interfaces, NodeFacts};

/// A prefix for names of interfaces that pods do not really have.
const PREFIX: &str = "cali";

/// What an address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// One of [`Cluster::pods`].
    Pod(usize),
    /// A node's own, or a pod's that gets and sends nothing: the reference knows.
    Special,
    Outside,
}

/// One state of what is known.
pub struct Cluster<'a> {
    pub(super) store: &'a Store,
    pub(super) oracle: Oracle<'a>,
    pods: Vec<Member<'a>>,
    by_name: HashMap<String, usize>,
    by_address: HashMap<IpAddr, usize>,
    /// Addresses that no endpoint owns, but somebody has.
    special: HashMap<IpAddr, Place>,
    /// Host endpoints have a say on the way between pods.
    pub(super) hosts: bool,
}

/// A pod that policy applies to, scheduled or not, with an address or not.
#[derive(Debug)]
pub(super) struct Member<'a> {
    pub(super) pod: &'a Arc<Pod>,
    addresses: Vec<IpAddr>,
    /// It asks for source prefixes that it may not have, so nothing reaches or leaves it.
    pub(super) isolated: bool,
}

impl<'a> Cluster<'a> {
    /// Everybody in the store.
    #[must_use]
    pub fn new(store: &'a Store) -> Self {
        Self::with(store, Oracle::new(store))
    }

    fn with(store: &'a Store, oracle: Oracle<'a>) -> Self {
        let topology = oracle.topology();
        let owned: HashMap<(&str, &str), &[IpAddr]> = topology
            .endpoints
            .iter()
            .map(|endpoint| {
                let pod = endpoint.pod;
                let name = (pod.namespace.as_str(), pod.name.as_str());
                (name, endpoint.addresses.as_slice())
            })
            .collect();
        let members = store.pods().filter(|pod| !pod.host_network && !pod.finished);
        let pods: Vec<Member<'a>> = members
            .map(|pod| {
                let own = owned.get(&(pod.namespace.as_str(), pod.name.as_str()));
                Member {
                    pod,
                    addresses: own.map(|own| own.to_vec()).unwrap_or_default(),
                    isolated: !pod.allowed_sources.is_empty() && !source_spoofing(store, &pod.node),
                }
            })
            .collect();
        let by_name = pods
            .iter()
            .enumerate()
            .map(|(place, member)| (pod_name(member.pod), place));
        let by_address = pods.iter().enumerate().flat_map(|(place, member)| {
            let own = member.addresses.iter();
            own.map(move |address| (*address, place))
        });
        let by_address: HashMap<IpAddr, usize> = by_address.collect();
        let nodes = store.nodes().flat_map(|node| node.internal_ips.iter());
        let hosts = store.host_endpoints().flat_map(|host| host.expected_ips.iter());
        let isolated = topology.isolated.iter().flat_map(|pod| pod.ips.iter());
        let special = nodes.chain(hosts).chain(&store.facts().host_ips).chain(isolated);
        let special = special.map(|address| (*address, Place::Special)).collect();
        Self {
            by_name: by_name.collect(),
            special,
            hosts: store.host_endpoints().next().is_some(),
            by_address,
            pods,
            oracle,
            store,
        }
    }

    /// The evaluator over the same state.
    #[must_use]
    pub fn oracle(&self) -> &Oracle<'a> {
        &self.oracle
    }

    /// What becomes of a packet about which nobody is asked.
    #[must_use]
    pub fn unasked(&self, flow: &Flow) -> Answer {
        let [src, dst] = [flow.src, flow.dst].map(|address| self.place(address));
        if src == dst && matches!(src, Place::Pod(_)) {
            return Answer::bare(true, reason::WITHIN_POD);
        }
        let [src, dst] = [flow.src, flow.dst].map(|address| self.oracle.host_of(address));
        let within = src.is_some() && src == dst;
        Answer::bare(
            true,
            if within {
                reason::WITHIN_HOST
            } else {
                reason::OUTSIDE
            },
        )
    }

    pub(super) fn place(&self, address: IpAddr) -> Place {
        match self.by_address.get(&address) {
            Some(place) => Place::Pod(*place),
            None => self.special.get(&address).copied().unwrap_or(Place::Outside),
        }
    }

    /// The pod of that `namespace/name`, if policy applies to it.
    pub(super) fn named(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    pub(super) fn member(&self, place: usize) -> Option<&Member<'a>> {
        self.pods.get(place)
    }

    /// Whether the pod may send from the address: one of its own, or an allowed source prefix of it.
    pub(super) fn owns(&self, place: usize, address: IpAddr) -> bool {
        self.by_address.get(&address) == Some(&place)
            || self.pods.get(place).is_some_and(|member| {
                let mut prefixes = member.pod.allowed_sources.iter();
                prefixes.any(|net| net.contains(&address))
            })
    }

    /// The same pods as if they were all on one node, each behind an interface of its own, with no doubt about who is
    /// an endpoint and has which address: that was decided where they are.
    pub(super) fn on_one_node(&self) -> Store {
        let mut one = self.store.clone();
        for pod in self.store.pods() {
            one.apply(Event::Delete(Resource::Pod(pod.as_ref().clone()).key()));
        }
        for endpoint in self.store.workload_endpoints() {
            one.apply(Event::Delete(Key {
                kind: Kind::WorkloadEndpoint,
                namespace: Some(endpoint.pod.namespace.clone()),
                name: endpoint.name.clone(),
            }));
        }
        for member in &self.pods {
            let mut pod = member.pod.as_ref().clone();
            pod.ips.clone_from(&member.addresses);
            pod.allowed_sources.clear();
            one.apply(Event::Upsert(Resource::Pod(pod)));
        }
        let mut one = one.on_one_node();
        // Interfaces by name, since a pod without an address has no route to it.
        let interfaces = (1..).zip(one.pods()).map(|(ifindex, pod)| {
            let interface = Interface {
                name: interface_name(PREFIX, pod),
                behind: pod.ips.clone(),
                ..Interface::default()
            };
            (ifindex, interface)
        });
        let by_ifindex: BTreeMap<u32, Interface> = interfaces.collect();
        let facts = NodeFacts {
            interface_prefixes: vec![PREFIX.to_owned()],
            ..one.facts().clone()
        };
        one.apply(Event::Interfaces(Interfaces { by_ifindex }));
        one.apply(Event::Node(facts));
        one
    }
}
