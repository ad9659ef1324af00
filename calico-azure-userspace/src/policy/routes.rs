//! What this node knows of addresses: whose they are, and which may be forwarded although nothing here owns them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use calico_azure_ebpf::abi::route;
use ipnet::IpNet;

use super::store::{Name, Store};
use crate::model::Node;

/// What says something about prefixes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Origin {
    Facts,
    Node(String),
    /// A pod of this node.
    Pod(Name),
}

/// Everything that is known, by who says it.
#[derive(Debug, Default)]
pub(super) struct Routes {
    said: HashMap<Origin, Vec<(IpNet, u32)>>,
    /// What is said of a prefix, as often as it is said.
    bits: BTreeMap<IpNet, Vec<u32>>,
    allowed: Vec<IpNet>,
    dirty: BTreeSet<IpNet>,
    /// This node's name.
    node: String,
    ignores_pod_cidrs: bool,
}

/// Of another node: see [`route::number`].
fn number(node: &Node) -> u32 {
    let addresses = || node.internal_ips.iter().chain(&node.tunnel_ips);
    let first = addresses().find(|ip| ip.is_ipv4()).or_else(|| addresses().next());
    first.map_or(0, |ip| route::number(*ip))
}

/// What several say of a prefix. What two nodes claim is neither's.
fn together(said: &[u32]) -> u32 {
    let kinds = said.iter().fold(0, |all, bits| all | bits & route::KINDS);
    let mut numbers = said
        .iter()
        .map(|bits| bits & !route::KINDS)
        .filter(|number| *number != 0);
    let first = numbers.next().unwrap_or(0);
    kinds
        | if numbers.all(|other| other == first) {
            first
        } else {
            0
        }
}

impl Routes {
    /// Follows the node's facts.
    pub(super) fn facts(&mut self, store: &Store) {
        let facts = store.facts();
        let hosts = facts
            .host_ips
            .iter()
            .map(|ip| (IpNet::from(*ip), route::LOCAL_HOST));
        let allowed = facts
            .allowed_sources
            .iter()
            .map(|net| (*net, route::ALLOWED_SOURCE));
        self.say(Origin::Facts, hosts.chain(allowed).collect());
        if self.allowed != facts.allowed_sources {
            self.allowed.clone_from(&facts.allowed_sources);
            self.dirty.extend(self.bits.keys());
        }
        if self.node != facts.node || self.ignores_pod_cidrs != facts.ignores_pod_cidrs {
            self.node.clone_from(&facts.node);
            self.ignores_pod_cidrs = facts.ignores_pod_cidrs;
            for node in store.nodes() {
                self.node(&node.name, Some(node));
            }
        }
    }

    /// Follows a node object.
    pub(super) fn node(&mut self, name: &str, node: Option<&Node>) {
        let (cidr, host) = if name == self.node {
            (route::LOCAL_POD_CIDR, route::LOCAL_HOST)
        } else {
            (route::REMOTE_POD_CIDR, route::REMOTE_HOST)
        };
        let ignored = self.ignores_pod_cidrs;
        let said = node.into_iter().flat_map(|node| {
            let number = if name == self.node { 0 } else { number(node) };
            let cidrs = node.pod_cidrs.iter().filter(move |_| !ignored);
            let hosts = node.internal_ips.iter().chain(&node.tunnel_ips);
            let cidrs = cidrs.map(move |net| (*net, cidr | number));
            cidrs.chain(hosts.map(move |ip| (IpNet::from(*ip), host | number)))
        });
        self.say(Origin::Node(name.to_owned()), said.collect());
    }

    /// Follows the addresses of a pod of this node.
    pub(super) fn pod(&mut self, name: &Name, addresses: &[IpAddr]) {
        let said = addresses
            .iter()
            .map(|ip| (IpNet::from(*ip), route::LOCAL_WORKLOAD));
        self.say(Origin::Pod(name.clone()), said.collect());
    }

    fn say(&mut self, origin: Origin, mut new: Vec<(IpNet, u32)>) {
        new.iter_mut().for_each(|(net, _)| *net = net.trunc());
        let old = if new.is_empty() {
            self.said.remove(&origin)
        } else {
            self.said.insert(origin, new.clone())
        };
        for (net, bits) in old.into_iter().flatten() {
            if let Some(said) = self.bits.get_mut(&net) {
                if let Some(place) = said.iter().position(|other| *other == bits) {
                    said.swap_remove(place);
                }
                if said.is_empty() {
                    self.bits.remove(&net);
                }
            }
            self.dirty.insert(net);
        }
        for (net, bits) in new {
            self.bits
                .entry(net)
                .or_insert_with(|| Vec::with_capacity(1))
                .push(bits);
            self.dirty.insert(net);
        }
    }

    /// Prefixes of which something else may be known than at the last call, with what is.
    pub(super) fn turnover(&mut self) -> Vec<(IpNet, Option<u32>)> {
        let dirty = std::mem::take(&mut self.dirty).into_iter();
        let known = |net: &IpNet| {
            let said = self.bits.get(net)?;
            let bits = together(said);
            // The kernel sees the longest prefix only, and an allowed source stays allowed inside a narrower one.
            let allowed = self.allowed.iter().any(|allowed| allowed.contains(net));
            Some(bits | if allowed { route::ALLOWED_SOURCE } else { 0 })
        };
        dirty.map(|net| (net, known(&net))).collect()
    }

    #[cfg(test)]
    pub(super) fn counts(&self) -> Vec<usize> {
        vec![
            self.said.len(),
            self.bits.len(),
            self.allowed.len(),
            self.dirty.len(),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Node, Pod, Resource};
    use crate::policy::store::{Event, Interface, Interfaces, NodeFacts};
    use crate::policy::{Compiler, wire};

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
            // Without an interface, so nothing is there.
            pod("p3", "n1", "10.1.0.6"),
        ]
        .into_iter()
        .collect();
        store.apply(Event::Node(NodeFacts {
            node: "n1".into(),
            host_ips: vec!["10.1.0.1".parse().unwrap(), "192.168.0.1".parse().unwrap()],
            allowed_sources: vec!["10.2.0.0/16".parse().unwrap()],
            ..NodeFacts::default()
        }));
        let interface = Interface {
            name: "veth1".into(),
            behind: vec!["10.1.0.5".parse().unwrap()],
            ..Interface::default()
        };
        store.apply(Event::Interfaces(Interfaces {
            by_ifindex: [(5, interface)].into(),
        }));
        let desired = Compiler::default().compile(&store).unwrap().desired;
        let routes: Vec<_> = desired
            .routes4
            .iter()
            .map(|((addr, len), bits)| (format!("{}/{len}", wire::ipv4(*addr)), *bits))
            .collect();
        let routes: BTreeMap<_, _> = routes.into_iter().collect();
        let other = route::number("192.168.0.2".parse().unwrap());
        let expected = [
            ("10.1.0.0/24", route::LOCAL_POD_CIDR),
            ("10.1.0.1/32", route::LOCAL_HOST),
            ("10.1.0.5/32", route::LOCAL_WORKLOAD),
            ("10.2.0.0/16", route::ALLOWED_SOURCE),
            (
                "10.2.0.0/24",
                route::REMOTE_POD_CIDR | route::ALLOWED_SOURCE | other,
            ),
            ("192.168.0.1/32", route::LOCAL_HOST),
            ("192.168.0.2/32", route::REMOTE_HOST | other),
        ];
        assert_eq!(routes, expected.map(|(net, bits)| (net.to_owned(), bits)).into());
    }

    #[test]
    fn what_two_nodes_claim_is_neithers() {
        let [one, two] = ["10.0.0.1", "10.0.0.2"].map(|ip| route::number(ip.parse().unwrap()));
        let (cidr, host) = (route::REMOTE_POD_CIDR, route::REMOTE_HOST);
        assert_eq!(together(&[cidr | one, cidr | one]), cidr | one);
        assert_eq!(together(&[cidr | one, cidr | two]), cidr);
        assert_eq!(
            together(&[cidr | one, route::LOCAL_POD_CIDR]),
            cidr | one | route::LOCAL_POD_CIDR
        );
        assert!(route::is_senders(host | one, cidr | one));
        assert!(route::is_senders(host | one, host | one));
        assert!(route::is_senders(0, route::ALLOWED_SOURCE));
        for (outer, inner) in [
            (host | one, cidr | two),
            (host | one, cidr),
            (host, cidr),
            (cidr | one, cidr | one),
            (host | one, route::LOCAL_POD_CIDR),
            (host | one, 0),
            (0, cidr | one),
        ] {
            assert!(!route::is_senders(outer, inner), "{outer:x} {inner:x}");
        }
    }

    #[test]
    fn a_node_that_uses_no_pod_cidrs_knows_none() {
        let node = Node {
            name: "n2".into(),
            pod_cidrs: vec!["10.2.0.0/24".parse().unwrap()],
            tunnel_ips: vec!["192.168.0.9".parse().unwrap()],
            ..Node::default()
        };
        let mut store: Store = [Resource::Node(node)].into_iter().collect();
        for ignores_pod_cidrs in [false, true] {
            store.apply(Event::Node(NodeFacts {
                node: "n1".into(),
                ignores_pod_cidrs,
                ..NodeFacts::default()
            }));
            let desired = Compiler::default().compile(&store).unwrap().desired;
            let lengths: Vec<u8> = desired.routes4.keys().map(|(_, length)| *length).collect();
            let expected: &[u8] = if ignores_pod_cidrs { &[32] } else { &[24, 32] };
            assert_eq!(lengths.len(), expected.len(), "{lengths:?}");
        }
    }
}
