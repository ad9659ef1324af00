//! What manifests mean, and what becomes of wrong ones.

mod api;
mod broken;
mod calico;
mod cluster;
mod cluster_broken;
mod excess;
mod hosts;
mod kubernetes;
mod limits;
mod loading;
mod objects;
mod places;
mod pods;
mod roles;
mod rule_fields;
mod services;
mod settings;
mod workloads;

use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::Path;

use super::load::{Loaded, parse_text};
use super::*;

fn load(text: &str) -> Loaded {
    parse_text(Path::new("a.yaml"), text)
}

/// The resources of a text in which nothing is wrong.
#[track_caller]
fn good(text: &str) -> Vec<Resource> {
    let loaded = load(text);
    let problems: Vec<String> = loaded.problems.iter().map(ToString::to_string).collect();
    assert!(
        problems.is_empty() && !loaded.unreadable,
        "{}",
        problems.join("\n")
    );
    loaded.resources
}

fn policies(resources: Vec<Resource>) -> Vec<Policy> {
    let policy = |resource| match resource {
        Resource::Policy(policy) => Some(policy),
        _ => None,
    };
    resources.into_iter().filter_map(policy).collect()
}

/// The one policy of a text in which nothing is wrong.
#[track_caller]
fn policy(text: &str) -> Policy {
    let mut policies = policies(good(text));
    assert_eq!(policies.len(), 1, "{text}");
    policies.remove(0)
}

/// The one policy of a text, and how many errors there are.
#[track_caller]
fn bad_policy(text: &str) -> (Policy, usize) {
    let loaded = load(text);
    let errors = loaded
        .problems
        .iter()
        .filter(|problem| problem.severity == Severity::Error)
        .count();
    let mut policies = policies(loaded.resources);
    assert_eq!(policies.len(), 1, "{text}");
    (policies.remove(0), errors)
}

/// A Calico NetworkPolicy in namespace `shop`.
fn np(spec: &str) -> String {
    calico("NetworkPolicy", "name: p, namespace: shop", spec)
}

fn gnp(spec: &str) -> String {
    calico("GlobalNetworkPolicy", "name: p", spec)
}

fn calico(kind: &str, metadata: &str, spec: &str) -> String {
    let spec: String = spec
        .trim_matches('\n')
        .lines()
        .map(|line| format!("  {line}\n"))
        .collect();
    format!("apiVersion: projectcalico.org/v3\nkind: {kind}\nmetadata: {{{metadata}}}\nspec:\n{spec}")
}

/// A Kubernetes NetworkPolicy in namespace `shop`.
fn knp(spec: &str) -> String {
    np(spec).replace("projectcalico.org/v3", "networking.k8s.io/v1")
}

/// The text with either group of Calico.
fn both_groups(text: &str) -> [String; 2] {
    [
        text.to_owned(),
        text.replace("projectcalico.org/v3", "crd.projectcalico.org/v1"),
    ]
}

/// The resources of a text, and its problems as `field: message`.
fn read(text: &str) -> (Vec<Resource>, Vec<String>) {
    let loaded = load(text);
    let shown = |problem: &Problem| {
        let field = problem.field.clone().unwrap_or_default();
        format!("{field}: {}", problem.message)
    };
    (loaded.resources, loaded.problems.iter().map(shown).collect())
}

fn port(name: &str, protocol: u8, port: u16) -> NamedPort {
    NamedPort {
        name: name.into(),
        protocol,
        port,
    }
}

fn labels(key: &str, value: &str) -> Labels {
    Labels::from([(key.to_owned(), value.to_owned())])
}

/// Rules as compact text; `None` is no rule list at all.
fn show(rules: Option<&Vec<Rule>>) -> Vec<String> {
    rules.map_or_else(
        || vec!["not governed".into()],
        |rules| rules.iter().map(show_rule).collect(),
    )
}

fn show_rule(rule: &Rule) -> String {
    let Rule {
        index,
        action,
        ip_version,
        protocol,
        not_protocol,
        icmp,
        not_icmp,
        source,
        destination,
    } = rule;
    let mut text = format!("{index} {action:?}");
    let mut add = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            let _ok = write!(text, " {name}={value}");
        }
    };
    add("version", ip_version.map(|version| format!("{version:?}")));
    add("protocol", protocol.map(|protocol| protocol.to_string()));
    add("!protocol", not_protocol.map(|protocol| protocol.to_string()));
    let icmp_text = |icmp: Icmp| {
        let part = |value: Option<u8>| value.map_or_else(|| "*".into(), |value| value.to_string());
        format!("{}/{}", part(icmp.kind), part(icmp.code))
    };
    add("icmp", icmp.map(icmp_text));
    add("!icmp", not_icmp.map(icmp_text));
    for (name, peer) in [("src", source), ("dst", destination)] {
        let Peer {
            nets,
            not_nets,
            selector,
            not_selector,
            ports,
            not_ports,
            named_ports,
            not_named_ports,
            service,
        } = peer;
        let range = |range: &PortRange| match (range.first, range.last) {
            (first, last) if first == last => first.to_string(),
            (first, last) => format!("{first}-{last}"),
        };
        let list = |items: Vec<String>| (!items.is_empty()).then(|| items.join(","));
        add(
            &format!("{name}.nets"),
            list(nets.iter().map(ToString::to_string).collect()),
        );
        add(
            &format!("{name}.!nets"),
            list(not_nets.iter().map(ToString::to_string).collect()),
        );
        add(&format!("{name}.sel"), selector.as_ref().map(ToString::to_string));
        add(
            &format!("{name}.!sel"),
            not_selector.as_ref().map(ToString::to_string),
        );
        add(&format!("{name}.ports"), list(ports.iter().map(range).collect()));
        add(
            &format!("{name}.!ports"),
            list(not_ports.iter().map(range).collect()),
        );
        add(&format!("{name}.named"), list(named_ports.clone()));
        add(&format!("{name}.!named"), list(not_named_ports.clone()));
        add(
            &format!("{name}.svc"),
            service
                .as_ref()
                .map(|ServiceName { namespace, name }| format!("{namespace}/{name}")),
        );
    }
    text
}
