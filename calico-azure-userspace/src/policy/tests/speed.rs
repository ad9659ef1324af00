//! How long the compiler takes where it is worst; the limits are far above what an optimised build needs.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use crate::model::{
    Action, Key, Kind, Labels, Namespace, Peer, Pod, Policy, PortRange, Resource, Rule, Tier, TierDefault,
};
use crate::policy::store::{Event, Interface, Interfaces, NodeFacts};
use crate::policy::{Compiler, Store};
use crate::selector::Selector;

fn pod(place: u32, node: &str, app: String) -> Pod {
    Pod {
        namespace: "a".into(),
        name: format!("pod-{place}"),
        labels: Labels::from([("app".to_owned(), app)]).into(),
        service_account: "default".into(),
        node: node.into(),
        ips: vec![Ipv4Addr::from(0x0a00_0000 + place).into()],
        ..Pod::default()
    }
}

fn policy(name: String, selector: Selector, rules: Vec<Rule>) -> Resource {
    Resource::Policy(Policy {
        key: Key {
            kind: Kind::NetworkPolicy,
            namespace: Some("a".into()),
            name,
        },
        tier: "default".into(),
        order: None,
        selector,
        ingress: Some(rules),
        egress: None,
        staged: None,
        host: crate::model::HostRole::Normal,
    })
}

fn rule(index: u32, source: Peer, port: u16) -> Rule {
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
        destination: Peer {
            ports,
            ..Peer::default()
        },
    }
}

fn from_app(app: u32) -> Peer {
    Peer {
        selector: Some(Selector::eq("app", &format!("app-{app}"))),
        ..Peer::default()
    }
}

/// `local` pods on this node, each with an interface.
fn store(pods: impl Iterator<Item = Pod>, policies: Vec<Resource>) -> Store {
    let tier = Tier {
        name: "default".into(),
        order: None,
        default_action: TierDefault::Deny,
    };
    let namespace = Namespace {
        name: "a".into(),
        ..Namespace::default()
    };
    let mut links = Interfaces::default();
    let mut store: Store = policies
        .into_iter()
        .chain([Resource::Tier(tier), Resource::Namespace(namespace)])
        .collect();
    for (ifindex, pod) in (1..).zip(pods) {
        if pod.node == "n1" {
            let interface = Interface {
                name: format!("veth{ifindex}"),
                behind: pod.ips.clone(),
                ..Interface::default()
            };
            links.by_ifindex.insert(ifindex, interface);
        }
        store.apply(Event::Upsert(Resource::Pod(pod)));
    }
    store.apply(Event::Interfaces(links));
    store.apply(Event::Node(NodeFacts {
        node: "n1".into(),
        ..NodeFacts::default()
    }));
    store
}

fn timed(what: &str, limit: Duration, compiler: &mut Compiler, store: &Store) -> crate::policy::Output {
    let start = Instant::now();
    let output = compiler.compile(store).unwrap();
    let took = start.elapsed();
    println!(
        "{what}: {took:?}; {} classes, {} pairs, {} port entries",
        output.desired.class4.len() + output.desired.cidr4.len(),
        output.desired.policy.len(),
        output.desired.ports.len()
    );
    assert!(took < limit, "{what} took {took:?}");
    output
}

#[test]
fn ten_thousand_rules_for_one_endpoint_and_ten_thousand_classes() {
    let rules = (0..10_000)
        .map(|i| rule(i, from_app(i), u16::try_from(i).unwrap()))
        .collect();
    let web = Selector::eq("app", "web");
    let pods = (1..=10_000).map(|i| pod(i, "n2", format!("app-{}", i - 1)));
    let store = store(
        pods.chain([pod(0, "n1", "web".into())]),
        vec![policy("p".into(), web, rules)],
    );
    let mut compiler = Compiler::default();
    let output = timed("10,000 rules", Duration::from_secs(20), &mut compiler, &store);
    assert_eq!(output.desired.class4.len(), 10_000);
    // Each class has a table of its own: one port, and the default.
    assert_eq!(output.desired.policy.len(), 10_000 + 4);
    let again = timed("the same again", Duration::from_secs(20), &mut compiler, &store);
    assert_eq!(again, output);
}

#[test]
fn rules_for_everybody_between_rules_for_some() {
    // Every class is painted through all rules that hold for everybody, and its table repeats their ports.
    let rules = (0..10_000).map(|i| {
        let source = if i % 2 == 0 { from_app(i) } else { Peer::default() };
        rule(i, source, u16::try_from(i).unwrap())
    });
    let web = Selector::eq("app", "web");
    let pods = (1..=200).map(|i| pod(i, "n2", format!("app-{}", i * 2)));
    let pods = pods.chain([pod(0, "n1", "web".into())]);
    let store = store(pods, vec![policy("p".into(), web, rules.collect())]);
    let output = timed(
        "interleaved",
        Duration::from_secs(20),
        &mut Compiler::default(),
        &store,
    );
    assert_eq!(output.desired.class4.len(), 200);
}

#[test]
fn ten_thousand_ports_open_to_everybody() {
    let rules = (0..10_000)
        .map(|i| rule(i, Peer::default(), u16::try_from(i * 5).unwrap()))
        .collect();
    let store = store(
        [pod(0, "n1", "web".into())].into_iter(),
        vec![policy("p".into(), Selector::all(), rules)],
    );
    let output = timed(
        "10,000 ports",
        Duration::from_secs(20),
        &mut Compiler::default(),
        &store,
    );
    assert!(output.desired.ports.len() >= 10_000);
}

#[test]
fn a_hundred_thousand_pods_and_a_thousand_policies() {
    let pods = (0..100_000).map(|i| {
        let node = if i < 100 { "n1" } else { "n2" };
        pod(i, node, format!("app-{}", i % 1000))
    });
    let policies = (0..1000).map(|i| {
        let rules = (0..3)
            .map(|r| rule(r, from_app((i * 7 + r) % 1000), 80))
            .collect();
        policy(format!("p-{i}"), Selector::eq("app", &format!("app-{i}")), rules)
    });
    let store = store(pods, policies.collect());
    let mut compiler = Compiler::default();
    let output = timed("100,000 pods", Duration::from_secs(30), &mut compiler, &store);
    assert_eq!(output.desired.endpoints.len(), 100);
    timed(
        "100,000 pods again",
        Duration::from_secs(30),
        &mut compiler,
        &store,
    );
}
