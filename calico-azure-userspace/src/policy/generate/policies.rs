//! Tiers and policies of all kinds.

use super::cluster::{ACCOUNTS, KEYS, VALUES, namespace};
use super::rules::rule;
use super::{Rng, Shape};
use crate::model::{HostRole, Key, Kind, Policy, Resource, StagedAction, Tier, TierDefault};
use crate::policy::store::Event;
use crate::selector::Selector;

/// Tiers that policies name; `ghost` never exists.
const TIERS: [&str; 6] = ["default", "default", "first", "second", "second-twin", "ghost"];

pub(super) fn events(rng: &mut Rng, shape: &Shape) -> Vec<Event> {
    let mut resources: Vec<Resource> = tiers(rng).into_iter().map(Resource::Tier).collect();
    let policies: Vec<Policy> = (0..shape.policies)
        .map(|place| policy(rng, shape, place))
        .collect();
    if shape.features.staged {
        resources.extend(staged(rng, shape, &policies).into_iter().map(Resource::Policy));
    }
    resources.extend(policies.into_iter().map(Resource::Policy));
    resources.into_iter().map(Event::Upsert).collect()
}

/// Previews of some of the policies, and of some that are not there.
fn staged(rng: &mut Rng, shape: &Shape, policies: &[Policy]) -> Vec<Policy> {
    let mut staged = Vec::new();
    for (place, enforced) in policies.iter().enumerate() {
        if !rng.chance(30) {
            continue;
        }
        let mut preview = policy(rng, shape, place);
        if rng.chance(75) {
            preview.key = enforced.key.clone();
        }
        preview.key.kind = match preview.key.kind {
            Kind::KubernetesNetworkPolicy => Kind::StagedKubernetesNetworkPolicy,
            Kind::NetworkPolicy => Kind::StagedNetworkPolicy,
            _ => Kind::StagedGlobalNetworkPolicy,
        };
        let actions = [
            StagedAction::Set,
            StagedAction::Set,
            StagedAction::Delete,
            StagedAction::Learn,
            StagedAction::Ignore,
        ];
        preview.staged = Some(rng.one_of(actions));
        staged.push(preview);
    }
    staged
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
            .map(|index| rule(rng, &shape.features, index, ingress, kubernetes, own.as_deref()))
            .collect()
    };
    let (ingress, mut egress) = rng.one_of([(true, true), (true, false), (false, true)]);
    let mut host = HostRole::Normal;
    if shape.features.host_roles && own.is_none() {
        host = rng.one_of([
            HostRole::Normal,
            HostRole::Normal,
            HostRole::Forward,
            HostRole::PreDnat,
            HostRole::Untracked,
        ]);
        egress &= host != HostRole::PreDnat;
    }
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
        host,
    }
}

pub(super) fn selector(text: &str) -> Selector {
    Selector::parse(text).expect("generated selectors are well-formed")
}

/// A selector over pods' own and inherited labels.
pub(super) fn label_term(rng: &mut Rng) -> String {
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
