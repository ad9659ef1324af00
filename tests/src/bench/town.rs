//! A large cluster: namespaces with applications of many pods each, and policies between them.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use calico_azure_userspace::model::{
    Action, HostRole, Key, Kind, Labels, Namespace, NetworkSet, Node, Peer, Pod, Policy, PortRange, Resource,
    Rule, ServiceAccount,
};
use calico_azure_userspace::policy::{Event, Interface, Interfaces, NodeFacts};
use calico_azure_userspace::selector::Selector;
use ipnet::{IpNet, Ipv4Net};

pub(super) const PODS: u32 = 100_000;
pub(super) const NODES: u32 = 5_000;
pub(super) const POLICIES: u32 = 1_000;
pub(super) const LOCAL: u32 = 110;
const NAMESPACES: u32 = 200;
const APPS: u32 = 10;
const NETS: u32 = 10_000;

fn namespace(i: u32) -> String {
    format!("team-{}", i % NAMESPACES)
}

fn labels(pairs: &[(&str, String)]) -> Labels {
    pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), value.clone()))
        .collect()
}

fn address(i: u32) -> IpAddr {
    Ipv4Addr::from_bits(0x0a00_0000 + 256 + i).into()
}

/// Pods of an application are spread over the nodes; each namespace has some on this one.
fn pod(i: u32) -> Pod {
    let app = i / NAMESPACES % APPS;
    let node = if i < LOCAL { 0 } else { 1 + i % (NODES - 1) };
    Pod {
        namespace: namespace(i),
        name: format!("app-{app}-7d4b9c6f5d-{i:05x}"),
        labels: labels(&[
            ("app", format!("app-{app}")),
            ("app.kubernetes.io/instance", namespace(i)),
            ("pod-template-hash", "7d4b9c6f5d".to_owned()),
            ("version", format!("v{}", app % 3)),
        ])
        .into(),
        service_account: "default".into(),
        node: format!("node-{node}"),
        ips: vec![address(i)],
        ..Pod::default()
    }
}

fn peer(text: &str) -> Peer {
    Peer {
        selector: Selector::parse(text).ok(),
        ..Peer::default()
    }
}

fn rule(index: u32, source: Peer, destination: Peer, port: u16) -> Rule {
    let ports = vec![PortRange {
        first: port,
        last: port,
    }];
    Rule {
        index,
        action: Action::Allow,
        ip_version: None,
        protocol: Some(6),
        not_protocol: None,
        icmp: None,
        not_icmp: None,
        source,
        destination: Peer { ports, ..destination },
    }
}

/// Five for each namespace: about one application each, which two others, and all of another team's, may reach.
fn policy(i: u32, app: u32, first_peer: u32, port: u16) -> Event {
    let own = namespace(i);
    let scoped = |app: u32| {
        format!(
            "app == 'app-{}' && projectcalico.org/namespace == '{own}'",
            app % APPS
        )
    };
    let ingress = vec![
        rule(0, peer(&scoped(first_peer)), Peer::default(), port),
        rule(1, peer(&scoped(first_peer + 1)), Peer::default(), 9090),
        rule(
            2,
            peer(&format!("pcns.team == 'team-{}'", (i + 1) % NAMESPACES)),
            Peer::default(),
            443,
        ),
        rule(
            3,
            peer("partner == 'yes' && !has(projectcalico.org/namespace)"),
            Peer::default(),
            8443,
        ),
    ];
    let egress = vec![
        rule(0, Peer::default(), peer(&scoped(first_peer + 2)), 5432),
        rule(1, Peer::default(), peer("pcns.purpose == 'dns'"), 53),
    ];
    Event::Upsert(Resource::Policy(Policy {
        key: Key {
            kind: Kind::NetworkPolicy,
            namespace: Some(own.clone()),
            name: format!("policy-{i}"),
        },
        tier: "default".into(),
        order: Some(f64::from(i)),
        selector: Selector::parse(&scoped(app)).unwrap_or_else(|_| Selector::all()),
        ingress: Some(ingress),
        egress: Some(egress),
        staged: None,
        host: HostRole::Normal,
    }))
}

/// For every pod: the monitoring network may reach a port.
fn global(port: u16) -> Event {
    let source = Peer {
        nets: vec![Ipv4Net::new_assert(Ipv4Addr::new(172, 20, 0, 0), 14).into()],
        ..Peer::default()
    };
    Event::Upsert(Resource::Policy(Policy {
        key: Key {
            kind: Kind::GlobalNetworkPolicy,
            namespace: None,
            name: "monitoring".into(),
        },
        tier: "default".into(),
        order: Some(0.5),
        selector: Selector::all(),
        ingress: Some(vec![rule(0, source, Peer::default(), port)]),
        egress: None,
        staged: None,
        host: HostRole::Normal,
    }))
}

/// The application that the policy is about: for the first of each namespace, the one with a local pod.
fn app_of(i: u32) -> u32 {
    i / NAMESPACES * 2 % APPS
}

fn namespace_event(i: u32, purpose: &str) -> Event {
    Event::Upsert(Resource::Namespace(Namespace {
        name: namespace(i),
        labels: labels(&[("team", namespace(i)), ("purpose", purpose.to_owned())]),
    }))
}

fn network_set(first: u32) -> Event {
    let nets = (0..NETS).map(|i| {
        let address = Ipv4Addr::from_bits(0x6440_0000 + first * 0x10_0000 + i * 16);
        IpNet::from(Ipv4Net::new_assert(address, 28))
    });
    Event::Upsert(Resource::NetworkSet(NetworkSet {
        namespace: None,
        name: "partners".into(),
        labels: labels(&[("partner", "yes".to_owned())]),
        nets: nets.collect(),
    }))
}

fn interfaces(count: u32) -> Event {
    let links = (0..count).map(|i| {
        let interface = Interface {
            name: format!("veth{i}"),
            behind: vec![address(i)],
            ..Interface::default()
        };
        (10 + i, interface)
    });
    Event::Interfaces(Interfaces {
        by_ifindex: links.collect(),
    })
}

fn delete(pod: Pod) -> Event {
    Event::Delete(Resource::Pod(pod).key())
}

/// Everything.
pub(super) fn events() -> Vec<Event> {
    let mut events: Vec<Event> = (0..NAMESPACES)
        .map(|i| namespace_event(i, if i == 7 { "dns" } else { "work" }))
        .collect();
    events.extend((0..NAMESPACES).map(|i| {
        Event::Upsert(Resource::ServiceAccount(ServiceAccount {
            namespace: namespace(i),
            name: "default".into(),
            labels: Labels::new(),
        }))
    }));
    events.extend((0..NODES).map(|i| {
        Event::Upsert(Resource::Node(Node {
            name: format!("node-{i}"),
            labels: Labels::new(),
            pod_cidrs: vec![Ipv4Net::new_assert(Ipv4Addr::from_bits(0x0b00_0000 + i * 256), 24).into()],
            internal_ips: vec![Ipv4Addr::from_bits(0xac10_0000 + i).into()],
            ..Node::default()
        }))
    }));
    events.extend((0..PODS).map(|i| Event::Upsert(Resource::Pod(pod(i)))));
    events.extend((0..POLICIES).map(|i| policy(i, app_of(i), i, 8080)));
    events.push(global(9100));
    events.push(network_set(0));
    events.push(interfaces(LOCAL));
    events.push(Event::Node(NodeFacts {
        node: "node-0".into(),
        interface_prefixes: vec!["azv".into()],
        ..NodeFacts::default()
    }));
    events
}

/// Changes that go to and fro.
#[derive(Default)]
pub(super) struct Town;

fn small(i: usize) -> u32 {
    u32::try_from(i).unwrap_or(0)
}

impl Town {
    /// Of a policy that governs a local pod.
    pub(super) fn edit_ports(&self, i: usize) -> Vec<Event> {
        let i = small(i);
        let place = i / 2 % LOCAL;
        vec![policy(
            place,
            app_of(place),
            place,
            if i.is_multiple_of(2) { 8081 } else { 8080 },
        )]
    }

    /// Others may reach the application, whom no rule named so far.
    pub(super) fn edit_peers(&self, i: usize) -> Vec<Event> {
        let i = small(i);
        let place = i / 2 % LOCAL;
        vec![policy(
            place,
            app_of(place),
            place + if i.is_multiple_of(2) { 5 } else { 0 },
            8080,
        )]
    }

    pub(super) fn edit_selector(&self, i: usize) -> Vec<Event> {
        let i = small(i);
        let place = i / 2 % LOCAL;
        vec![policy(
            place,
            app_of(place) + if i.is_multiple_of(2) { 1 } else { 0 },
            place,
            8080,
        )]
    }

    /// Of a policy that governs every local pod.
    pub(super) fn edit_global(&self, i: usize) -> Vec<Event> {
        vec![global(if i.is_multiple_of(2) { 9101 } else { 9100 })]
    }

    pub(super) fn remote_pod(&self, i: usize) -> Vec<Event> {
        let pod = pod(PODS + small(i) / 2 % LOCAL);
        vec![if i.is_multiple_of(2) {
            Event::Upsert(Resource::Pod(pod))
        } else {
            delete(pod)
        }]
    }

    /// One more like the first pod, with its link.
    pub(super) fn local_replica(&self, i: usize) -> Vec<Event> {
        let pod = Pod {
            name: "app-0-7d4b9c6f5d-extra".into(),
            node: "node-0".into(),
            ips: vec![address(LOCAL)],
            ..pod(0)
        };
        Self::local(i, pod)
    }

    /// The first of its team here, so that the team's policies matter to this node.
    pub(super) fn local_pod(&self, i: usize) -> Vec<Event> {
        let pod = Pod {
            node: "node-0".into(),
            ..pod(LOCAL)
        };
        Self::local(i, pod)
    }

    fn local(i: usize, pod: Pod) -> Vec<Event> {
        if i.is_multiple_of(2) {
            vec![Event::Upsert(Resource::Pod(pod)), interfaces(LOCAL + 1)]
        } else {
            vec![delete(pod), interfaces(LOCAL)]
        }
    }

    /// Of an application that a policy in force here asks about.
    pub(super) fn relabel(&self, i: usize) -> Vec<Event> {
        let team = small(i) / 2 % LOCAL;
        let mut pod = pod(team + team % APPS * NAMESPACES + NAMESPACES * APPS);
        if i.is_multiple_of(2) {
            Arc::make_mut(&mut pod.labels).insert("app".into(), "app-other".into());
        }
        vec![Event::Upsert(Resource::Pod(pod))]
    }

    /// Half a thousand pods come into or go out of what rules everywhere ask for.
    pub(super) fn namespace(&self, i: usize) -> Vec<Event> {
        vec![namespace_event(
            20,
            if i.is_multiple_of(2) { "dns" } else { "work" },
        )]
    }

    /// Not one of its prefixes stays.
    pub(super) fn network_set(&self, i: usize) -> Vec<Event> {
        vec![network_set(small(i + 1) % 2)]
    }
}
