//! Which rules, and which CIDRs, can have a say in what a subject sends or gets: only those cut the questions that the
//! reference is asked.

use std::collections::{BTreeSet, HashSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::cluster::Subject;
use super::named::failsafes;
use crate::model::{Policy, Rule};
use crate::policy::Direction;
use crate::policy::labels::EffectiveLabels;
use crate::policy::store::Store;

/// Of the policies that govern the subject in this direction, of those that govern host endpoints of its node, and of
/// all profiles.
pub(super) fn rules_of<'a>(store: &'a Store, subject: &Subject, direction: Direction) -> Vec<&'a Rule> {
    let pod = subject
        .pod
        .split_once('/')
        .and_then(|(namespace, name)| store.pod(namespace, name));
    let pod = pod.map(|pod| EffectiveLabels::of_pod(store, pod));
    let hosts = store.host_endpoints().filter(|host| host.node == subject.node);
    let hosts: Vec<_> = hosts
        .map(|host| EffectiveLabels::of_host_endpoint(store, host))
        .collect();
    let mut rules = Vec::new();
    for policy in store.policies().filter(|policy| policy.staged.is_none()) {
        let Policy { ingress, egress, .. } = policy.as_ref();
        let (own, other) = match direction {
            Direction::Ingress => (ingress, egress),
            Direction::Egress => (egress, ingress),
        };
        // What is forwarded to a pod leaves by a host endpoint, and the other way round.
        let of_hosts = hosts.iter().any(|labels| policy.selector.matches(labels));
        if of_hosts || pod.as_ref().is_some_and(|labels| policy.selector.matches(labels)) {
            rules.extend(own.iter().flatten());
        }
        if of_hosts {
            rules.extend(other.iter().flatten());
        }
    }
    rules.extend(
        store
            .profiles()
            .flat_map(|profile| profile.ingress.iter().chain(&profile.egress)),
    );
    rules
}

/// CIDRs that the rules ask about: their own, those of network sets and of backends.
pub(super) fn nets_of(store: &Store, rules: &[&Rule]) -> BTreeSet<IpNet> {
    let peers = || rules.iter().flat_map(|rule| [&rule.source, &rule.destination]);
    let mut nets: BTreeSet<IpNet> = peers()
        .flat_map(|peer| peer.nets.iter().chain(&peer.not_nets))
        .map(IpNet::trunc)
        .collect();
    let selectors = peers()
        .flat_map(|peer| [&peer.selector, &peer.not_selector])
        .flatten();
    let mut seen = HashSet::new();
    let selectors: Vec<_> = selectors
        .filter(|selector| seen.insert(selector.canonical()))
        .collect();
    for set in store.network_sets() {
        let labels = EffectiveLabels::of_network_set(store, set);
        if selectors.iter().any(|selector| selector.matches(&labels)) {
            nets.extend(set.nets.iter().map(IpNet::trunc));
        }
    }
    let services: BTreeSet<_> = peers().filter_map(|peer| peer.service.as_ref()).collect();
    for backends in store.backends() {
        let of_backends = |service: &&crate::model::ServiceName| {
            service.name == backends.service && backends.key.namespace.as_deref() == Some(&service.namespace)
        };
        if services.iter().copied().any(|service| of_backends(&service)) {
            let addresses = backends.subsets.iter().flat_map(|subset| &subset.addresses);
            nets.extend(addresses.copied().map(IpNet::from));
        }
    }
    nets.extend(
        failsafes(store)
            .iter()
            .filter_map(|failsafe| failsafe.net)
            .map(|net| net.trunc()),
    );
    nets
}

/// Whether the prefix is one address, and somebody's.
pub(super) fn is_owned(net: &IpNet, owned: &HashSet<IpAddr>) -> bool {
    net.prefix_len() == net.max_prefix_len() && owned.contains(&net.network())
}
