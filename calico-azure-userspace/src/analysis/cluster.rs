//! Everybody in a prepared cluster, and what is needed to tell whom they may talk to.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;

use calico_azure_ebpf::abi::{CLASS_DEFAULT_V4, CLASS_DEFAULT_V6};

use super::place::Place;
use super::prepare::Prepared;
use super::spans::{Family, Span, by_longest_prefix, number};
use super::tables::{CLOSED, OPEN};
use crate::model::{HostRole, Key, Kind, Resource};
use crate::policy::labels::EffectiveLabels;
use crate::policy::store::{Event, Store};
use crate::policy::topology::{Topology, pod_name};
use crate::policy::{Desired, lookup, wire};

/// One end of connections that has an address of its own.
#[derive(Debug)]
pub(super) struct Subject {
    pub(super) place: Place,
    /// Its key in the store, as `namespace/name`; empty for a host.
    pub(super) pod: String,
    pub(super) addresses: Vec<IpAddr>,
    /// Empty if it is on none that matters.
    pub(super) node: String,
    pub(super) is_host: bool,
    /// Policy sets, or [`OPEN`], or [`CLOSED`].
    pub(super) egress: u32,
    pub(super) ingress: u32,
    /// Peer classes of its addresses.
    pub(super) classes: Vec<(Family, u32)>,
    /// The tables do not tell all: a host endpoint's policies have a say in what it sends and gets.
    pub(super) bound: bool,
}

impl Subject {
    pub(super) fn has(&self, family: Family) -> bool {
        self.addresses
            .iter()
            .any(|address| Family::of(*address) == family)
    }
}

/// The same pods as if they were all on one node, with no doubt about who is an endpoint and has which address: that was
/// decided where they are.
#[must_use]
pub fn on_one_node(store: &Store, topology: &Topology<'_>) -> Store {
    let mut one = store.clone();
    for pod in store.pods() {
        one.apply(Event::Delete(Resource::Pod(pod.as_ref().clone()).key()));
    }
    for endpoint in store.workload_endpoints() {
        one.apply(Event::Delete(Key {
            kind: Kind::WorkloadEndpoint,
            namespace: Some(endpoint.pod.namespace.clone()),
            name: endpoint.name.clone(),
        }));
    }
    for endpoint in topology
        .endpoints
        .iter()
        .filter(|endpoint| !endpoint.addresses.is_empty())
    {
        let mut pod = endpoint.pod.as_ref().clone();
        pod.ips.clone_from(&endpoint.addresses);
        pod.allowed_sources.clear();
        one.apply(Event::Upsert(Resource::Pod(pod)));
    }
    one.on_one_node()
}

/// Every pod, host and workload, in the order in which they are listed.
pub(super) fn subjects(prepared: &Prepared, topology: &Topology<'_>, desired: &Desired) -> Vec<Subject> {
    let store = &prepared.store;
    let sets: HashMap<&str, (u32, u32)> = desired
        .endpoints
        .values()
        .map(|endpoint| (endpoint.pod.as_str(), (endpoint.egress, endpoint.ingress)))
        .collect();
    let hosts = hosts(store);
    let has_say = has_say_in_forwarding(store);
    let mut subjects: Vec<Subject> = Vec::new();
    let endpoints = topology
        .endpoints
        .iter()
        .map(|endpoint| (endpoint.pod, endpoint.addresses.clone()));
    let isolated = topology.isolated.iter().map(|pod| {
        let own = pod
            .ips
            .iter()
            .filter(|address| topology.owner(**address).is_none());
        (*pod, own.copied().collect())
    });
    for (pod, addresses) in endpoints.chain(isolated) {
        let name = pod_name(pod);
        let (egress, ingress) = sets.get(name.as_str()).copied().unwrap_or((CLOSED, CLOSED));
        let bound = has_say && hosts.get(pod.node.as_str()).is_some_and(|restricts| *restricts);
        subjects.push(Subject {
            place: prepared.place(&pod.namespace, &pod.name),
            pod: name,
            classes: classes(desired, &addresses),
            addresses,
            node: pod.node.clone(),
            is_host: false,
            egress,
            ingress,
            bound,
        });
    }
    for (node, bound) in hosts {
        let addresses = host_addresses(store, node);
        subjects.push(Subject {
            place: Place::Host {
                node: node.to_owned(),
            },
            pod: String::new(),
            classes: classes(desired, &addresses),
            addresses,
            node: node.to_owned(),
            is_host: true,
            egress: OPEN,
            ingress: OPEN,
            bound,
        });
    }
    subjects.sort_by(|a, b| a.place.cmp(&b.place));
    subjects
}

/// Nodes that have host endpoints, and whether those restrict anything.
fn hosts(store: &Store) -> BTreeMap<&str, bool> {
    const ALLOWS: &str = "projectcalico-default-allow";
    let mut hosts = BTreeMap::new();
    for host in store.host_endpoints() {
        let labels = EffectiveLabels::of_host_endpoint(store, host);
        let mut policies = store.policies().filter(|policy| policy.staged.is_none());
        let allows =
            host.profiles.first().is_some_and(|name| name == ALLOWS) && store.profile(ALLOWS).is_none();
        let restricts = !allows || policies.any(|policy| policy.selector.matches(&labels));
        *hosts.entry(host.node.as_str()).or_default() |= restricts;
    }
    hosts
}

/// Whether any policy can judge at a host endpoint what pods send and get.
fn has_say_in_forwarding(store: &Store) -> bool {
    let mut policies = store.policies().filter(|policy| policy.staged.is_none());
    policies.any(|policy| policy.host != HostRole::Normal)
}

fn host_addresses(store: &Store, name: &str) -> Vec<IpAddr> {
    let of_nodes = store
        .nodes()
        .filter(|node| node.name == name)
        .flat_map(|node| &node.internal_ips);
    let of_hosts = store
        .host_endpoints()
        .filter(|host| host.node == name)
        .flat_map(|host| &host.expected_ips);
    let addresses: BTreeSet<IpAddr> = of_nodes.chain(of_hosts).copied().collect();
    addresses.into_iter().collect()
}

fn classes(desired: &Desired, addresses: &[IpAddr]) -> Vec<(Family, u32)> {
    let class = |address: &IpAddr| (Family::of(*address), lookup::class_of(desired, *address));
    let classes: BTreeSet<(Family, u32)> = addresses.iter().map(class).collect();
    classes.into_iter().collect()
}

pub(super) fn default_class(family: Family) -> u32 {
    match family {
        Family::V4 => CLASS_DEFAULT_V4,
        Family::V6 => CLASS_DEFAULT_V6,
    }
}

/// The family's addresses by peer class, those of subjects aside: there the class of what is around them counts.
pub(super) fn outside(desired: &Desired, family: Family, owned: &HashSet<IpAddr>) -> Vec<Span<u32>> {
    let span = |address: IpAddr, len: u8, class: u32| {
        let net = ipnet::IpNet::new(address, len).ok()?;
        let (first, last) = super::spans::bounds(&net);
        Some((first, last, class))
    };
    let single = |address: IpAddr, class: u32| {
        let at = number(address);
        (!owned.contains(&address)).then_some((at, at, class))
    };
    let prefixes = match family {
        Family::V4 => {
            let wide = desired.cidr4.iter();
            let wide = wide.filter_map(|((ip, len), class)| span(wire::ipv4(*ip).into(), *len, *class));
            let exact = desired
                .class4
                .iter()
                .filter_map(|(ip, class)| single(wire::ipv4(*ip).into(), *class));
            wide.chain(exact).collect()
        }
        Family::V6 => {
            let wide = desired.cidr6.iter();
            let wide = wide.filter_map(|((ip, len), class)| span(wire::ipv6(*ip).into(), *len, *class));
            let exact = desired
                .class6
                .iter()
                .filter_map(|(ip, class)| single(wire::ipv6(*ip).into(), *class));
            wide.chain(exact).collect()
        }
    };
    by_longest_prefix(family, prefixes, default_class(family))
}
