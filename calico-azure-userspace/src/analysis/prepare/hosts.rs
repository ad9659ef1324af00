//! The nodes of host endpoints: each has at least the addresses that its endpoints are expected to have.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::model::{Node, Resource};
use crate::policy::store::{Event, Store};

pub(super) fn add_nodes(store: &mut Store) {
    let mut expected: BTreeMap<String, Vec<IpAddr>> = BTreeMap::new();
    for host in store.host_endpoints() {
        let addresses = expected.entry(host.node.clone()).or_default();
        addresses.extend(host.expected_ips.iter().filter(|ip| !ip.is_unspecified()));
    }
    for (name, addresses) in expected {
        let known = store.nodes().find(|node| node.name == name).cloned();
        let mut node = known.unwrap_or_else(|| Node {
            name,
            ..Node::default()
        });
        if node.internal_ips.is_empty() {
            node.internal_ips = addresses;
        }
        store.apply(Event::Upsert(Resource::Node(node)));
    }
}
