//! Tiers and policies of all kinds, with rules that use every field.

use super::cluster::{ACCOUNTS, KEYS, VALUES, namespace, nets};
use super::{Rng, Shape};
use crate::model::{
    Action, Icmp, IpVersion, Key, Kind, Peer, Policy, PortRange, Resource, Rule, Tier, TierDefault,
};
use crate::policy::store::Event;
use crate::selector::Selector;

/// Tiers that policies name; `ghost` never exists.
const TIERS: [&str; 6] = ["default", "default", "first", "second", "second-twin", "ghost"];

pub(super) fn events(rng: &mut Rng, shape: &Shape) -> Vec<Event> {
    let mut resources: Vec<Resource> = tiers(rng).into_iter().map(Resource::Tier).collect();
    resources.extend((0..shape.policies).map(|place| Resource::Policy(policy(rng, shape, place))));
    resources.into_iter().map(Event::Upsert).collect()
}

fn tiers(rng: &mut Rng) -> Vec<Tier> {
    let mut tier = |name: &str, order, pass| Tier {
        name: name.to_owned(),
        order,
        default_action: if rng.chance(pass) {
            TierDefault::Pass
        } else {
            TierDefault::Deny
        },
    };
    let mut tiers = vec![
        tier("default", Some(1_000_000.0), 10),
        tier("first", Some(-5.5), 60),
        // Equal orders: the names decide.
        tier("second", Some(10.0), 60),
        tier("second-twin", Some(10.0), 60),
    ];
    if rng.chance(30) {
        let place = rng.below(tiers.len());
        if let Some(tier) = tiers.get_mut(place) {
            tier.order = None;
        }
    }
    if rng.chance(20) {
        tiers.remove(0);
    }
    tiers
}

fn policy(rng: &mut Rng, shape: &Shape, place: usize) -> Policy {
    let kind = rng.one_of([
        Kind::KubernetesNetworkPolicy,
        Kind::NetworkPolicy,
        Kind::NetworkPolicy,
        Kind::GlobalNetworkPolicy,
    ]);
    let own = (kind != Kind::GlobalNetworkPolicy).then(|| namespace(rng.below(shape.namespaces)));
    // Names that share a start, so that ties are broken at the separator.
    let name = format!("{}{place}", rng.one_of(["p", "p-", "p."]));
    let kubernetes = kind == Kind::KubernetesNetworkPolicy;
    let mut text = if rng.chance(35) {
        "all()".to_owned()
    } else {
        label_term(rng)
    };
    if let Some(namespace) = &own {
        text = format!("({text}) && projectcalico.org/namespace == '{namespace}'");
    }
    if kubernetes {
        text = format!("({text}) && projectcalico.org/orchestrator == 'k8s'");
    }
    let rules = |rng: &mut Rng, ingress: bool| {
        let count = rng.below(shape.rules + 1);
        (0..)
            .take(count)
            .map(|index| rule(rng, index, ingress, kubernetes, own.as_deref()))
            .collect()
    };
    let (ingress, egress) = rng.one_of([(true, true), (true, false), (false, true)]);
    Policy {
        key: Key {
            kind,
            namespace: own.clone(),
            name,
        },
        tier: if kubernetes { "default" } else { rng.one_of(TIERS) }.to_owned(),
        order: if kubernetes {
            Some(1000.0)
        } else {
            rng.one_of([None, Some(-1.0), Some(0.0), Some(1000.0)])
        },
        selector: selector(&text),
        ingress: ingress.then(|| rules(rng, true)),
        egress: egress.then(|| rules(rng, false)),
        staged: None,
        host: crate::model::HostRole::Normal,
    }
}

fn selector(text: &str) -> Selector {
    Selector::parse(text).expect("generated selectors are well-formed")
}

/// A selector over pods' own and inherited labels.
fn label_term(rng: &mut Rng) -> String {
    let prefix = rng.one_of(["", "", "", "pcns.", "pcsa."]);
    let (key, value, other) = (rng.one_of(KEYS), rng.one_of(VALUES), rng.one_of(VALUES));
    match rng.below(9) {
        0 => format!("has({prefix}{key})"),
        1 => format!("!has({prefix}{key})"),
        2 => format!("{prefix}{key} != '{value}'"),
        3 => format!("{prefix}{key} in {{'{value}', '{other}'}}"),
        4 => format!("{prefix}{key} not in {{'{value}', '{other}'}}"),
        5 => format!("({}) && ({})", label_term(rng), label_term(rng)),
        6 => format!("({}) || ({})", label_term(rng), label_term(rng)),
        7 => format!("projectcalico.org/serviceaccount == '{}'", rng.one_of(ACCOUNTS)),
        _ => format!("{prefix}{key} == '{value}'"),
    }
}

/// A rule's selector: restricted to a namespace, to things without one, or not at all.
fn peer_selector(rng: &mut Rng, own: Option<&str>) -> Selector {
    let term = if rng.chance(20) {
        "all()".to_owned()
    } else {
        label_term(rng)
    };
    let scope = match (rng.below(4), own) {
        (0 | 1, Some(own)) => format!("projectcalico.org/namespace == '{own}'"),
        (2, _) => "!has(projectcalico.org/namespace)".to_owned(),
        (3, _) => "has(projectcalico.org/namespace)".to_owned(),
        _ => return selector(&term),
    };
    selector(&format!("({term}) && {scope}"))
}

fn rule(rng: &mut Rng, index: u32, ingress: bool, kubernetes: bool, own: Option<&str>) -> Rule {
    let action = match rng.below(100) {
        _ if kubernetes => Action::Allow,
        0..45 => Action::Allow,
        45..70 => Action::Deny,
        70..85 => Action::Pass,
        _ => Action::Log,
    };
    let protocol = rng.maybe(60, |rng| match rng.below(20) {
        0..9 => 6,
        9..12 => 17,
        12 => 132,
        13..15 => 1,
        15..17 => 58,
        17 => 136,
        18 => 47,
        _ => rng.byte(),
    });
    let icmp = matches!(protocol, Some(1 | 58));
    // Without a protocol only a rule that lost a criterion has ports or types; it still means something.
    let ports = matches!(protocol, Some(6 | 17 | 132)) || rng.chance(3);
    let percent = |yes: bool, percent: usize| if yes { percent } else { 1 };
    let far = peer(rng, own, [25, 15, 35, 15]);
    let near = peer(rng, own, [5, 4, 5, 4]);
    let (mut source, mut destination) = if ingress { (far, near) } else { (near, far) };
    if ports {
        destination.ports = rng.maybe(60, port_ranges).unwrap_or_default();
        destination.not_ports = rng.maybe(20, port_ranges).unwrap_or_default();
    }
    if kubernetes {
        source.not_selector = None;
        destination.not_selector = None;
    }
    Rule {
        index,
        action,
        ip_version: rng.maybe(10, |rng| rng.one_of([IpVersion::V4, IpVersion::V6])),
        protocol,
        not_protocol: rng.maybe(8, |rng| rng.one_of([1, 6, 17, 58, 47, 132])),
        icmp: rng.maybe(percent(icmp, 60), icmp_criterion),
        not_icmp: rng.maybe(percent(icmp, 25), icmp_criterion),
        source,
        destination,
    }
}

fn peer(rng: &mut Rng, own: Option<&str>, percent: [usize; 4]) -> Peer {
    let [in_nets, in_not_nets, in_selector, in_not_selector] = percent;
    Peer {
        nets: rng.maybe(in_nets, nets).unwrap_or_default(),
        not_nets: rng.maybe(in_not_nets, nets).unwrap_or_default(),
        selector: rng.maybe(in_selector, |rng| peer_selector(rng, own)),
        not_selector: rng.maybe(in_not_selector, |rng| peer_selector(rng, own)),
        ports: Vec::new(),
        not_ports: Vec::new(),
        ..Peer::default()
    }
}

fn icmp_criterion(rng: &mut Rng) -> Icmp {
    // Code alone is not valid in the API, but what it would mean is clear.
    let kind = rng.maybe(92, |rng| rng.one_of([0, 3, 8, 128, 129, 254, 255]));
    Icmp {
        kind,
        code: rng.maybe(40, |rng| rng.one_of([0, 1, 4, 255])),
    }
}

fn port_ranges(rng: &mut Rng) -> Vec<PortRange> {
    let range = |rng: &mut Rng| {
        let edges = [
            0, 1, 80, 81, 255, 256, 257, 443, 511, 512, 1023, 8080, 32767, 65279, 65280, 65534, 65535,
        ];
        let first = if rng.chance(85) {
            rng.one_of(edges)
        } else {
            rng.port()
        };
        let last = match rng.below(4) {
            0 | 1 => first,
            2 => first.saturating_add(u16::from(rng.byte())),
            _ => rng.one_of(edges).max(first),
        };
        PortRange { first, last }
    };
    (0..=rng.below(3)).map(|_| range(rng)).collect()
}
