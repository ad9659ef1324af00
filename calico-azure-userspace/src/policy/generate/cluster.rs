//! Namespaces, service accounts, pods, links, nodes and network sets.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{NODE, Rng, Shape, extras};
use crate::model::{Labels, NamedPort, Namespace, NetworkSet, Node, Pod, Resource, ServiceAccount};
use crate::policy::store::{Event, Interface, Interfaces, NodeFacts};
use crate::policy::topology::interface_name;

pub(super) const OTHER_NODE: &str = "node-2";
pub(super) const KEYS: [&str; 3] = ["app", "role", "zone"];
pub(super) const VALUES: [&str; 3] = ["a", "b", "c"];
pub(super) const ACCOUNTS: [&str; 2] = ["default", "web"];

/// Names that pods give to ports, each to several different ones.
pub(super) const PORT_NAMES: [&str; 3] = ["http", "dns", "admin"];
const PORTS: [u16; 4] = [80, 81, 443, 8080];
/// The last one exists nowhere.
pub(super) const SERVICES: [&str; 4] = ["front", "back", "old", "gone"];

pub(super) fn namespace(place: usize) -> String {
    format!("ns-{place}")
}

pub(super) fn labels(rng: &mut Rng) -> Labels {
    let mut labels = Labels::new();
    for key in KEYS {
        if rng.chance(60) {
            labels.insert(key.to_owned(), rng.one_of(VALUES).to_owned());
        }
    }
    labels
}

/// One to three ports with a name; not seldom the same name twice.
pub(super) fn ports(rng: &mut Rng) -> Vec<NamedPort> {
    (0..=rng.below(3))
        .map(|_| NamedPort {
            name: rng.one_of(PORT_NAMES).to_owned(),
            protocol: rng.one_of([6, 6, 6, 17, 132]),
            port: rng.one_of(PORTS),
        })
        .collect()
}

/// Pods live in 10.0.0.0/24 and fd00::/120, so that prefixes cut between them.
pub(super) fn pod_address(v4: bool, host: u8) -> IpAddr {
    if v4 {
        Ipv4Addr::new(10, 0, 0, host).into()
    } else {
        Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, u16::from(host)).into()
    }
}

/// A prefix that is likely to hold some pods but not others, or other prefixes.
pub(super) fn net(rng: &mut Rng, v4: bool) -> IpNet {
    let host = rng.byte();
    let net = match (v4, pod_address(v4, host)) {
        (true, IpAddr::V4(pod)) => {
            let len = rng.one_of([0, 1, 8, 16, 24, 25, 26, 28, 30, 31, 32, 32, 32]);
            let outside = Ipv4Addr::new(192, 0, 2, host);
            Ipv4Net::new(if rng.chance(75) { pod } else { outside }, len).map(IpNet::V4)
        }
        (_, address) => {
            let pod = match address {
                IpAddr::V6(pod) => pod,
                IpAddr::V4(pod) => pod.to_ipv6_mapped(),
            };
            let len = rng.one_of([0, 1, 7, 16, 64, 96, 120, 121, 124, 126, 127, 128, 128, 128]);
            let outside = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(host));
            Ipv6Net::new(if rng.chance(75) { pod } else { outside }, len).map(IpNet::V6)
        }
    };
    // The lengths above fit their families.
    net.map_or_else(|_| IpNet::from(pod_address(v4, host)), |net| net.trunc())
}

/// One to three prefixes, as a rule one family's only.
pub(super) fn nets(rng: &mut Rng) -> Vec<IpNet> {
    let v4 = rng.chance(60);
    (0..=rng.below(3))
        .map(|_| {
            if rng.chance(12) {
                net(rng, !v4)
            } else {
                net(rng, v4)
            }
        })
        .collect()
}

pub(super) fn events(rng: &mut Rng, shape: &Shape) -> Vec<Event> {
    let mut resources = Vec::new();
    for place in 0..shape.namespaces {
        // Pods of an unknown namespace must be closed, so now and then one is missing.
        if !rng.chance(8) {
            resources.push(Resource::Namespace(Namespace {
                name: namespace(place),
                labels: labels(rng),
            }));
        }
        for name in ACCOUNTS {
            if rng.chance(80) {
                let (namespace, labels) = (namespace(place), labels(rng));
                resources.push(Resource::ServiceAccount(ServiceAccount {
                    namespace,
                    name: name.to_owned(),
                    labels,
                }));
            }
        }
    }
    for place in 0..shape.network_sets {
        let namespace = rng.maybe(50, |rng| namespace(rng.below(shape.namespaces)));
        let mut labels = labels(rng);
        if rng.chance(10) {
            labels.insert("pcns.zone".to_owned(), rng.one_of(VALUES).to_owned());
        }
        let nets = (0..rng.below(5)).flat_map(|_| nets(rng)).collect();
        resources.push(Resource::NetworkSet(NetworkSet {
            namespace,
            name: format!("set-{place}"),
            labels,
            nets,
        }));
    }
    let mut interfaces = Interfaces::default();
    let pods = pods(rng, shape, &mut interfaces);
    for (name, third) in [(NODE, 0), (OTHER_NODE, 1)] {
        resources.push(Resource::Node(Node {
            name: name.to_owned(),
            labels: Labels::new(),
            pod_cidrs: vec![net24(third)],
            internal_ips: host_addresses(third, shape.features.host_endpoints),
            ..Node::default()
        }));
    }
    resources.extend(extras::resources(rng, shape, pods));
    let facts = NodeFacts {
        node: NODE.to_owned(),
        host_ips: vec![Ipv4Addr::new(192, 168, 0, 0).into()],
        interface_prefixes: vec!["cali".to_owned(), "azv".to_owned()],
        ..NodeFacts::default()
    };
    let mut events: Vec<Event> = resources.into_iter().map(Event::Upsert).collect();
    events.push(Event::Interfaces(interfaces));
    events.push(Event::Node(facts));
    events
}

/// Of a node's own interface.
pub(super) fn host_addresses(last: u8, both: bool) -> Vec<IpAddr> {
    let v6 = Ipv6Addr::new(0xfd01, 0, 0, 0, 0, 0, 0, u16::from(last));
    let mut addresses: Vec<IpAddr> = vec![Ipv4Addr::new(192, 168, 0, last).into()];
    addresses.extend(both.then_some(IpAddr::from(v6)));
    addresses
}

fn net24(third: u8) -> IpNet {
    let net = Ipv4Net::new_assert(Ipv4Addr::new(10, 0, third, 0), 24);
    net.into()
}

fn pods(rng: &mut Rng, shape: &Shape, interfaces: &mut Interfaces) -> Vec<Pod> {
    let mut hosts: Vec<u8> = (0..=u8::MAX).collect();
    rng.shuffle(&mut hosts);
    let mut by_ifindex = BTreeMap::new();
    let mut pods = Vec::new();
    for (place, host) in (0..shape.pods).zip(hosts) {
        let (v4, v6) = rng.one_of([(true, true), (true, true), (true, false), (false, true)]);
        let mut pod = Pod {
            namespace: namespace(rng.below(shape.namespaces)),
            name: format!("pod-{place}"),
            labels: labels(rng).into(),
            service_account: rng.one_of(ACCOUNTS).to_owned(),
            node: if rng.chance(55) { NODE } else { OTHER_NODE }.to_owned(),
            ips: Vec::new(),
            host_network: rng.chance(4),
            finished: rng.chance(4),
            ..Pod::default()
        };
        pod.ips.extend(v4.then(|| pod_address(true, host)));
        pod.ips.extend(v6.then(|| pod_address(false, host)));
        if shape.features.named_ports && rng.chance(70) {
            pod.ports = ports(rng);
        }
        if pod.node == NODE {
            let prefix = rng.one_of(["cali", "azv", ""]);
            let name = if prefix.is_empty() {
                format!("veth{place}")
            } else {
                interface_name(prefix, &pod)
            };
            let mut interface = Interface {
                name,
                behind: pod.ips.clone(),
                ..Interface::default()
            };
            if rng.chance(40) {
                interface.pod = Some((pod.namespace.clone(), pod.name.clone()));
                if rng.chance(30) {
                    interface.behind.clear();
                }
            }
            let told = !prefix.is_empty() || interface.pod.is_some();
            if told && !interface.behind.is_empty() && rng.chance(15) {
                pod.ips.clear();
            }
            by_ifindex.insert(u32::from(host) + 10, interface);
        }
        pods.push(pod);
    }
    for (ifindex, name, addresses) in [(2, "eth0", host_addresses(0, true)), (3, "eth1", Vec::new())] {
        let interface = Interface {
            name: name.to_owned(),
            addresses,
            ..Interface::default()
        };
        by_ifindex.insert(ifindex, interface);
    }
    interfaces.by_ifindex = by_ifindex;
    pods
}
