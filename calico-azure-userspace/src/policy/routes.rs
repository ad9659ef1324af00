//! What this node knows of addresses, and who may send from which.

use std::collections::BTreeMap;
use std::net::IpAddr;

use calico_azure_ebpf::abi::{OwnerKey4, OwnerKey6, route};
use ipnet::IpNet;

use super::store::Store;
use super::topology::Topology;
use super::{Desired, wire};

/// Fills in routes and owners.
pub(super) fn fill(desired: &mut Desired, store: &Store, topology: &Topology<'_>) {
    for (net, bits) in known(store, topology) {
        match net {
            IpNet::V4(net) => desired.routes4.insert(wire::prefix4(net), bits),
            IpNet::V6(net) => desired.routes6.insert(wire::prefix6(net), bits),
        };
    }
    for endpoint in &topology.endpoints {
        let Some(ifindex) = endpoint.ifindex else { continue };
        for address in &endpoint.addresses {
            match address {
                IpAddr::V4(ip) => desired.owners4.insert(
                    OwnerKey4 {
                        ifindex,
                        addr: wire::addr4(*ip),
                    },
                    1,
                ),
                IpAddr::V6(ip) => desired.owners6.insert(
                    OwnerKey6 {
                        ifindex,
                        addr: wire::addr6(*ip),
                    },
                    1,
                ),
            };
        }
    }
}

fn known(store: &Store, topology: &Topology<'_>) -> BTreeMap<IpNet, u32> {
    let mut known: BTreeMap<IpNet, u32> = BTreeMap::new();
    let mut add = |net: IpNet, bits| *known.entry(net.trunc()).or_default() |= bits;
    let facts = store.facts();
    for endpoint in topology.endpoints.iter().filter(|endpoint| endpoint.local) {
        endpoint
            .addresses
            .iter()
            .for_each(|ip| add(IpNet::from(*ip), route::LOCAL_WORKLOAD));
    }
    for node in store.nodes() {
        let (cidr, host) = if node.name == facts.node {
            (route::LOCAL_POD_CIDR, route::LOCAL_HOST)
        } else {
            (route::REMOTE_POD_CIDR, route::REMOTE_HOST)
        };
        node.pod_cidrs.iter().for_each(|net| add(*net, cidr));
        node.internal_ips
            .iter()
            .for_each(|ip| add(IpNet::from(*ip), host));
    }
    facts
        .host_ips
        .iter()
        .for_each(|ip| add(IpNet::from(*ip), route::LOCAL_HOST));
    facts
        .allowed_sources
        .iter()
        .for_each(|net| add(*net, route::ALLOWED_SOURCE));
    // The kernel sees the longest prefix only, and an allowed source stays allowed inside a narrower one.
    for (net, bits) in &mut known {
        if facts.allowed_sources.iter().any(|allowed| allowed.contains(net)) {
            *bits |= route::ALLOWED_SOURCE;
        }
    }
    known
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Node, Pod, Resource};
    use crate::policy::store::{Event, NodeFacts};

    #[test]
    fn routes_of_own_and_other_nodes() {
        let node = |name: &str, cidr: &str, ip: &str| {
            Resource::Node(Node {
                name: name.into(),
                pod_cidrs: vec![cidr.parse().unwrap()],
                internal_ips: vec![ip.parse().unwrap()],
                ..Node::default()
            })
        };
        let pod = |name: &str, node: &str, ip: &str| {
            Resource::Pod(Pod {
                namespace: "a".into(),
                name: name.into(),
                node: node.into(),
                ips: vec![ip.parse().unwrap()],
                ..Pod::default()
            })
        };
        let mut store: Store = [
            node("n1", "10.1.0.0/24", "192.168.0.1"),
            node("n2", "10.2.0.0/24", "192.168.0.2"),
            pod("p1", "n1", "10.1.0.5"),
            pod("p2", "n2", "10.2.0.5"),
        ]
        .into_iter()
        .collect();
        store.apply(Event::Node(NodeFacts {
            node: "n1".into(),
            host_ips: vec!["10.1.0.1".parse().unwrap(), "192.168.0.1".parse().unwrap()],
            allowed_sources: vec!["10.2.0.0/16".parse().unwrap()],
            ..NodeFacts::default()
        }));
        let mut desired = Desired::default();
        fill(&mut desired, &store, &Topology::of(&store));
        let routes: Vec<_> = desired
            .routes4
            .iter()
            .map(|((addr, len), bits)| (format!("{}/{len}", wire::ipv4(*addr)), *bits))
            .collect();
        let routes: BTreeMap<_, _> = routes.into_iter().collect();
        let expected = [
            ("10.1.0.0/24", route::LOCAL_POD_CIDR),
            ("10.1.0.1/32", route::LOCAL_HOST),
            ("10.1.0.5/32", route::LOCAL_WORKLOAD),
            ("10.2.0.0/16", route::ALLOWED_SOURCE),
            ("10.2.0.0/24", route::REMOTE_POD_CIDR | route::ALLOWED_SOURCE),
            ("192.168.0.1/32", route::LOCAL_HOST),
            ("192.168.0.2/32", route::REMOTE_HOST),
        ];
        assert_eq!(routes, expected.map(|(net, bits)| (net.to_owned(), bits)).into());
        assert!(desired.owners4.is_empty(), "the pod has no interface yet");
    }
}
