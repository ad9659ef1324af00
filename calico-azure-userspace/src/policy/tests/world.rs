//! A small world, and questions to both engines about it.

use std::net::IpAddr;
use std::path::Path;

use calico_azure_ebpf::abi::Reason;

use crate::model::load::parse_text;
use crate::model::{
    Action, HostEndpoint, Key, Kind, Labels, Namespace, NetworkSet, Node, Pod, Policy, Resource, Rule, Tier,
    TierDefault,
};
use crate::policy::reference::Flow;
use crate::policy::store::{Event, Interface, Interfaces, NodeFacts};
use crate::policy::{Compiler, Direction, Probe, Store, lookup, reference};
use crate::selector::Selector;

pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;

pub(super) fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

pub(super) fn pod(namespace: &str, name: &str, last: u8) -> Resource {
    let ips = [format!("10.0.0.{last}"), format!("fd00::{last:x}")];
    Resource::Pod(Pod {
        namespace: namespace.into(),
        name: name.into(),
        labels: labels(&[("app", name)]).into(),
        service_account: "default".into(),
        node: "n1".into(),
        ips: ips.map(|ip| ip.parse().unwrap()).into(),
        ..Pod::default()
    })
}

pub(super) fn tier(name: &str, order: Option<f64>, default_action: TierDefault) -> Resource {
    Resource::Tier(Tier {
        name: name.into(),
        order,
        default_action,
    })
}

pub(super) fn network_set(namespace: Option<&str>, own: &[(&str, &str)], nets: &[&str]) -> Resource {
    Resource::NetworkSet(NetworkSet {
        namespace: namespace.map(Into::into),
        name: "set".into(),
        labels: labels(own),
        nets: nets.iter().map(|net| net.parse().unwrap()).collect(),
    })
}

/// Two namespaces, three pods (`blue/web` .1, `blue/db` .2, `red/job` .3), the default tier, and `more`.
pub(super) fn world(more: impl IntoIterator<Item = Resource>) -> Store {
    let namespace = |name: &str, team: &str| {
        Resource::Namespace(Namespace {
            name: name.into(),
            labels: labels(&[("team", team)]),
        })
    };
    let base = [
        namespace("blue", "sea"),
        namespace("red", "sun"),
        pod("blue", "web", 1),
        pod("blue", "db", 2),
        pod("red", "job", 3),
        tier("default", Some(1_000_000.0), TierDefault::Deny),
    ];
    let mut store: Store = base.into_iter().chain(more).collect();
    let link = |last: u32| {
        let behind = vec![format!("10.0.0.{last}").parse().unwrap()];
        (
            last,
            Interface {
                name: format!("veth{last}"),
                behind,
                ..Interface::default()
            },
        )
    };
    store.apply(Event::Interfaces(Interfaces {
        by_ifindex: [1, 2, 3].map(link).into(),
    }));
    store.apply(Event::Node(NodeFacts {
        node: "n1".into(),
        ..NodeFacts::default()
    }));
    store
}

pub(super) fn rule(action: Action, edit: impl FnOnce(&mut Rule)) -> Rule {
    let mut rule = Rule {
        index: 0,
        action,
        ip_version: None,
        protocol: None,
        not_protocol: None,
        icmp: None,
        not_icmp: None,
        source: Default::default(),
        destination: Default::default(),
    };
    edit(&mut rule);
    rule
}

pub(super) fn allow() -> Rule {
    rule(Action::Allow, |_| {})
}

pub(super) fn deny() -> Rule {
    rule(Action::Deny, |_| {})
}

pub(super) fn selector(text: &str) -> Selector {
    Selector::parse(text).unwrap()
}

/// A global policy of the default tier for everything, ingress only.
pub(super) fn policy(name: &str, ingress: Vec<Rule>) -> Policy {
    let numbered = (0..).zip(ingress).map(|(index, rule)| Rule { index, ..rule });
    Policy {
        key: Key {
            kind: Kind::GlobalNetworkPolicy,
            namespace: None,
            name: name.into(),
        },
        tier: "default".into(),
        order: None,
        selector: Selector::all(),
        ingress: Some(numbered.collect()),
        egress: None,
        staged: None,
        host: crate::model::HostRole::Normal,
    }
}

/// Asks both engines about a packet of `blue/web`; they must agree. `+` or `-`, `!` if logged, and what decided.
pub(super) fn ask(store: &Store, direction: Direction, peer: &str, protocol: u8, dport: u16) -> String {
    let peer: IpAddr = peer.parse().unwrap();
    let own: IpAddr = if peer.is_ipv4() { "10.0.0.1" } else { "fd00::1" }
        .parse()
        .unwrap();
    let pod = store.pod("blue", "web").unwrap();
    let packet = Probe {
        peer,
        own,
        protocol,
        sport: 0,
        dport,
    };
    let verdict = reference::verdict(store, pod, direction, &packet);
    let output = Compiler::default().compile(store).unwrap();
    let compiled = lookup::verdict(&output.desired, 1, direction, &packet);
    let reason = if verdict.allow {
        Reason::PolicyAllow
    } else {
        Reason::PolicyDeny
    };
    assert_eq!(
        (compiled.reason, compiled.log, output.rules.get(&compiled.rule)),
        (reason, verdict.log, Some(&verdict.rule)),
        "the tables against {:#?}",
        verdict.trace
    );
    let sign = if verdict.allow { '+' } else { '-' };
    let log = if verdict.log { "!" } else { "" };
    format!("{sign}{log} {}", verdict.rule)
}

pub(super) fn ingress(store: &Store, peer: &str) -> String {
    ask(store, Direction::Ingress, peer, TCP, 80)
}

pub(super) fn gnp(name: &str, index: u32, tier: &str) -> String {
    format!("tier {tier} / GlobalNetworkPolicy {name} / ingress[{index}]")
}

/// The resources of manifests in which nothing is wrong.
#[track_caller]
pub(super) fn yaml(text: &str) -> Vec<Resource> {
    let loaded = parse_text(Path::new("facts.yaml"), text);
    let problems: Vec<String> = loaded.problems.iter().map(ToString::to_string).collect();
    assert!(problems.is_empty() && !loaded.unreadable, "{problems:#?}");
    loaded.resources
}

/// A Calico object; `spec` in YAML's flow style.
pub(super) fn calico(kind: &str, metadata: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: projectcalico.org/v3\nkind: {kind}\nmetadata: {{{metadata}}}\nspec: {{{spec}}}\n"
    )
}

/// [`world`], two nodes `n1` (192.168.0.1) and `n2` (192.168.0.2), a pod `red/far` (.4) on `n2`, and `more`.
pub(super) fn nodes(more: impl IntoIterator<Item = Resource>) -> Store {
    let node = |name: &str, last: u8| {
        Resource::Node(Node {
            name: name.into(),
            internal_ips: vec![IpAddr::from([192, 168, 0, last])],
            ..Node::default()
        })
    };
    let Resource::Pod(far) = pod("red", "far", 4) else {
        unreachable!()
    };
    let far = Resource::Pod(Pod {
        node: "n2".into(),
        ..far
    });
    world([node("n1", 1), node("n2", 2), far].into_iter().chain(more))
}

/// A host endpoint of `n1` for all its interfaces, with label `role: host`.
pub(super) fn host(edit: impl FnOnce(&mut HostEndpoint)) -> Resource {
    let mut host = HostEndpoint {
        name: "host1".into(),
        labels: labels(&[("role", "host")]),
        node: "n1".into(),
        interface: Some("*".into()),
        expected_ips: vec![IpAddr::from([192, 168, 0, 1])],
        ..HostEndpoint::default()
    };
    edit(&mut host);
    Resource::HostEndpoint(host)
}

/// Asks the reference about a flow's whole way: `+` or `-`, then where it was decided, and what decided.
pub(super) fn way(store: &Store, src: &str, dst: &str, protocol: u8, dport: u16) -> String {
    let flow = Flow {
        src: src.parse().unwrap(),
        dst: dst.parse().unwrap(),
        protocol,
        sport: 40_000,
        dport,
    };
    let path = reference::path(store, &flow);
    let decided = path.denied_at().or(path.legs.last());
    let sign = if path.allow { '+' } else { '-' };
    match decided {
        Some(leg) => format!("{sign} {} {}: {}", leg.at, leg.stage, leg.verdict.rule),
        None => format!("{sign} nobody has a say"),
    }
}

pub(super) const END: &str = "- tier default / default action";
pub(super) const PROFILE: &str = "+ profile kns.blue";
