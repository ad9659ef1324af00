//! What the inputs name: CIDRs, ports, protocols.

use std::collections::BTreeSet;

use ipnet::IpNet;

use crate::model::{Backends, Failsafe, Rule};
use crate::policy::reference::{FAILSAFE_INBOUND, FAILSAFE_OUTBOUND};
use crate::policy::store::Store;

/// Every CIDR of a rule, network set, failsafe port or backend, and host endpoints' addresses.
pub(super) fn named_nets(store: &Store) -> Vec<IpNet> {
    let mut nets = nets_of_policy(store);
    let backends = store.backends().flat_map(|backends| addresses(backends));
    nets.extend(backends.map(IpNet::from));
    let hosts = store.host_endpoints().flat_map(|host| &host.expected_ips);
    nets.extend(hosts.copied().map(IpNet::from));
    nets
}

fn addresses(backends: &Backends) -> impl Iterator<Item = std::net::IpAddr> {
    backends
        .subsets
        .iter()
        .flat_map(|subset| subset.addresses.iter().copied())
}

/// Every CIDR of a rule, network set or failsafe port.
pub(super) fn nets_of_policy(store: &Store) -> Vec<IpNet> {
    let mut nets = BTreeSet::new();
    for rule in rules(store) {
        for peer in [&rule.source, &rule.destination] {
            nets.extend(peer.nets.iter().chain(&peer.not_nets).map(IpNet::trunc));
        }
    }
    nets.extend(store.network_sets().flat_map(|set| &set.nets).map(IpNet::trunc));
    nets.extend(
        failsafes(store)
            .iter()
            .filter_map(|failsafe| failsafe.net)
            .map(|net| net.trunc()),
    );
    nets.into_iter().collect()
}

/// Every failsafe port of any node.
pub(super) fn failsafes(store: &Store) -> Vec<Failsafe> {
    let configured = store.all_felix_configurations();
    let configured = configured.flat_map(|x| [&x.failsafe_inbound, &x.failsafe_outbound]);
    let configured = configured.flatten().flatten().copied();
    FAILSAFE_INBOUND
        .into_iter()
        .chain(FAILSAFE_OUTBOUND)
        .chain(configured)
        .collect()
}

/// Every rule of every policy, staged or not, and of every profile.
pub(super) fn rules(store: &Store) -> impl Iterator<Item = &Rule> {
    let policies = store
        .policies()
        .flat_map(|policy| [&policy.ingress, &policy.egress]);
    let profiles = store
        .profiles()
        .flat_map(|profile| profile.ingress.iter().chain(&profile.egress));
    policies.flatten().flatten().chain(profiles)
}
