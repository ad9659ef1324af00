//! The spec of a policy: selectors, order, types, rules.

use super::rule::Context;
use super::rules::{Broken, deny_everything, distrust, rules};
use super::{host_role, selectors, tier};
use crate::model::report::{Fields, Read, Report, Reported};
use crate::model::scalars;
use crate::model::types::{Kind, Policy, Rule, StagedAction, Tier, label};
use crate::model::yaml::Node;
use crate::selector::Selector;

pub(super) const DEFAULT_TIER: &str = "default";
const FIELDS: [&str; 8] = [
    "tier",
    "order",
    "selector",
    "types",
    "ingress",
    "egress",
    "serviceAccountSelector",
    "performanceHints",
];
const GLOBAL_FIELDS: [&str; 4] = ["namespaceSelector", "doNotTrack", "preDNAT", "applyOnForward"];
pub(super) const STAGED_ACTION: &str = "stagedAction";

/// The fields of a kind of policy.
pub(super) fn fields(kind: Kind) -> Vec<&'static str> {
    let enforced = kind.enforced().unwrap_or(kind);
    let is_global = enforced == Kind::GlobalNetworkPolicy;
    let global = GLOBAL_FIELDS.into_iter().filter(|_| is_global);
    let staged = [STAGED_ACTION].into_iter().filter(|_| enforced != kind);
    FIELDS.into_iter().chain(global).chain(staged).collect()
}

/// What a policy can select at all.
pub(super) fn scope(namespace: Option<&str>) -> Selector {
    namespace.map_or_else(Selector::all, |namespace| {
        Selector::eq(label::NAMESPACE, namespace)
    })
}

/// What a staged policy would do; `Set` if it does not say so.
pub(super) fn staged_action<'t>(report: &mut Report<'t>, node: &Node<'t>) -> Read<StagedAction> {
    let actions = [
        ("Set", StagedAction::Set),
        ("Delete", StagedAction::Delete),
        ("Learn", StagedAction::Learn),
        ("Ignore", StagedAction::Ignore),
    ];
    scalars::word(report, node, &actions)
}

/// Reads what is in the spec into a policy that denies everything in its scope, in both directions, before all others.
pub(super) fn read<'t>(
    report: &mut Report<'t>,
    fields: &Fields<'_, 't>,
    policy: &mut Policy,
    mut broken: Broken,
) {
    let namespace = policy.key.namespace.clone();
    if policy.staged.is_some() {
        let action = broken.or_default(fields.read(report, STAGED_ACTION, staged_action));
        policy.staged = Some(action.unwrap_or(StagedAction::Set));
    }
    policy.tier = match fields.read(report, "tier", tier::reference) {
        Ok(Some(tier)) if !tier.is_empty() => tier,
        // A field that nobody knows may have been meant to be this one.
        Ok(_) if fields.complete => DEFAULT_TIER,
        Ok(_) => Tier::UNKNOWN,
        Err(Reported) => {
            broken.0 = true;
            Tier::UNKNOWN
        }
    }
    .to_owned();
    match fields.read(report, "order", Report::number) {
        Ok(None) if !fields.complete => {}
        Ok(order) => policy.order = order,
        Err(Reported) => {
            // Only denies will be left, and they must not come later than they were meant to: it stays the first.
            broken.0 = true;
        }
    }
    let _hints = broken.or_default(fields.read(report, "performanceHints", |report, node| {
        report.all(node, |report, node| {
            scalars::word(report, node, &[("AssumeNeededOnEveryNode", ())])
        })
    }));
    match selector(report, fields, namespace.as_deref()) {
        Ok(selector) => policy.selector = selector,
        Err(Reported) => broken.0 = true,
    }
    let types = fields.read(report, "types", |report, node| {
        report.all(node, |report, node| {
            scalars::word(report, node, &[("Ingress", true), ("Egress", false)])
        })
    });
    let types = match types {
        Ok(types) => types.filter(|types| !types.is_empty()),
        Err(Reported) => {
            broken.0 = true;
            Some(vec![true, false])
        }
    };
    let [ingress, egress] = [("ingress", true), ("egress", false)].map(|(key, is_ingress)| {
        let context = Context {
            namespace: namespace.as_deref(),
            is_ingress,
        };
        let rules = fields.read(report, key, |report, node| rules(report, node, &context));
        match rules {
            Ok(None) if !fields.complete => deny_everything(),
            Ok(rules) => rules.unwrap_or_default(),
            Err(Reported) => {
                broken.0 = true;
                deny_everything()
            }
        }
    });
    if namespace.is_none() {
        policy.host = host_role::read(report, fields, &mut broken);
    }
    let has_rules =
        |report: &Report<'t>, key| fields.get(key).is_some_and(|node| !report.is_empty_list(node));
    let governs = match &types {
        Some(types) => [types.contains(&true), types.contains(&false)],
        // Which directions were meant may have been in what was not understood.
        None if broken.0 => [true, true],
        None => {
            let egress = has_rules(report, "egress");
            [has_rules(report, "ingress") || !egress, egress]
        }
    };
    let [governs_ingress, governs_egress] = governs;
    let mut finish = |mut rules: Vec<Rule>, governs: bool, key| {
        if broken.0 {
            distrust(&mut rules);
        }
        if !governs && has_rules(report, key) {
            ignored_direction(report, fields, key);
        }
        governs.then_some(rules)
    };
    policy.ingress = finish(ingress, governs_ingress, "ingress");
    policy.egress = finish(egress, governs_egress, "egress");
}

fn ignored_direction<'t>(report: &mut Report<'t>, fields: &Fields<'_, 't>, key: &'static str) {
    let Some(node) = fields.get(key) else { return };
    let name = if key == "ingress" { "Ingress" } else { "Egress" };
    let message = format!("these rules are not in force: the policy's types do not name {name}");
    report.within(key, |report| {
        report.warning(node.place, message, format!("add {name} to spec.types"));
    });
}

/// The policy's own selectors and its scope, or nothing if one of them is wrong.
fn selector<'t>(report: &mut Report<'t>, fields: &Fields<'_, 't>, namespace: Option<&str>) -> Read<Selector> {
    let mut read = |key| {
        let selector = fields.read(report, key, scalars::selector_without_global)?;
        Ok(selector.filter(|_| fields.get(key).is_some_and(|node| node.text() != Some(""))))
    };
    let (own, accounts) = (read("selector"), read("serviceAccountSelector"));
    let namespaces = if namespace.is_none() {
        read("namespaceSelector")
    } else {
        Ok(None)
    };
    let selector = own?.unwrap_or_default().and(&scope(namespace));
    let namespaces = namespaces?.map_or_else(Selector::all, |selector| selectors::namespaces(&selector));
    let accounts = accounts?.map_or_else(Selector::all, |selector| selectors::service_accounts(&selector));
    Ok(selector.and(&namespaces).and(&accounts))
}
