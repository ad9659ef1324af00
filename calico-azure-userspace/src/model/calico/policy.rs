//! NetworkPolicy and GlobalNetworkPolicy.

use super::rule::{Broken, distrust, rule};
use super::{TOP, peer};
use crate::model::metadata::Metadata;
use crate::model::problem::{Problem, Severity};
use crate::model::report::{Fields, Read, Report, Reported, quote};
use crate::model::scalars;
use crate::model::types::{HostRole, Key, Kind, Policy, Rule, label};
use crate::model::yaml::Node;
use crate::selector::Selector;

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
const GLOBAL_FIELDS: [&str; 12] = [
    "tier",
    "order",
    "selector",
    "types",
    "ingress",
    "egress",
    "serviceAccountSelector",
    "performanceHints",
    "namespaceSelector",
    "doNotTrack",
    "preDNAT",
    "applyOnForward",
];
const DEFAULT_TIER: &str = "default";
/// What the API takes in one direction.
const MAX_RULES: usize = 1024;

/// Where an object comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::model) enum Group {
    /// `projectcalico.org/v3`.
    Api,
    /// `crd.projectcalico.org/v1`, which earlier releases store in.
    Crd,
}

/// A policy, and the tier it names with what to say if there is no such tier.
pub(in crate::model) struct ReadPolicy {
    pub(in crate::model) policy: Policy,
    pub(in crate::model) tier_missing: Problem,
}

/// `namespace` is `None` for a GlobalNetworkPolicy.
///
/// A policy exists however wrong it is, and does not open anything: what is wrong above its rules takes all its
/// Allow rules out and makes every other rule a Deny.
pub(in crate::model) fn policy<'t>(
    report: &mut Report<'t>,
    metadata: &Metadata<'_, 't>,
    object: &Node<'t>,
    namespace: Option<String>,
    group: Group,
) -> ReadPolicy {
    let mut broken = Broken(report.strict(object, &TOP).is_ok_and(|top| !top.complete));
    let kind = if namespace.is_some() {
        Kind::NetworkPolicy
    } else {
        Kind::GlobalNetworkPolicy
    };
    let name = metadata.name.clone();
    let mut policy = Policy {
        selector: scope(namespace.as_deref()),
        key: Key {
            kind,
            namespace,
            name,
        },
        tier: DEFAULT_TIER.to_owned(),
        order: None,
        ingress: Some(Vec::new()),
        egress: Some(Vec::new()),
        staged: None,
        host: HostRole::Normal,
    };
    let mut tier_place = object.place;
    match object.get("spec") {
        Some(spec) => report.within("spec", |report| {
            let known: &[_] = if kind == Kind::NetworkPolicy {
                &FIELDS
            } else {
                &GLOBAL_FIELDS
            };
            if let Ok(fields) = report.strict(spec, known) {
                tier_place = fields.get("tier").map_or(tier_place, |node| node.place);
                broken.0 |= !fields.complete;
                read_spec(report, &fields, &mut policy, broken);
            }
        }),
        None => {
            report.error(
                object.place,
                "spec is missing: the policy selects everything and allows nothing",
            );
        }
    }
    if group == Group::Crd
        && policy.tier == DEFAULT_TIER
        && let Some(name) = policy
            .key
            .name
            .strip_prefix("default.")
            .filter(|name| !name.is_empty())
    {
        policy.key.name = name.to_owned();
    }
    let tier_missing = report.within("spec", |report| {
        report.within("tier", |report| {
            let message = format!(
                "tier {} does not exist; the policy is enforced after all tiers, and what it does not decide is denied",
                quote(&policy.tier)
            );
            let help = "create the tier, or correct the name".to_owned();
            report.problem(Severity::Warning, tier_place, message, Some(help))
        })
    });
    ReadPolicy { policy, tier_missing }
}

/// What a policy can select at all.
fn scope(namespace: Option<&str>) -> Selector {
    namespace.map_or_else(Selector::all, |namespace| {
        Selector::eq(label::NAMESPACE, namespace)
    })
}

fn read_spec<'t>(report: &mut Report<'t>, fields: &Fields<'_, 't>, policy: &mut Policy, mut broken: Broken) {
    let namespace = policy.key.namespace.clone();
    let hosts_only = namespace.is_none() && host_fields(report, fields, &mut broken);
    if let Some(tier) = broken
        .or_default(fields.read(report, "tier", Report::string))
        .filter(|tier| !tier.is_empty())
    {
        policy.tier = tier.to_owned();
    }
    match fields.read(report, "order", Report::number) {
        Ok(order) => policy.order = order,
        Err(Reported) => {
            // Only denies will be left, and they must not come later than they were meant to.
            policy.order = Some(f64::NEG_INFINITY);
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
    let [ingress, egress] = ["ingress", "egress"].map(|key| {
        let rules = fields.read(report, key, |report, node| {
            rules(report, node, namespace.as_deref())
        });
        let given = !matches!(rules, Ok(None));
        (broken.or_default(rules).unwrap_or_default(), given)
    });
    let governs = match &types {
        Some(types) => [types.contains(&true), types.contains(&false)],
        // Which directions were meant may have been in what was not understood.
        None if broken.0 => [true, true],
        None => {
            let has_rules = |key| fields.get(key).is_some_and(|node| !report.is_empty_list(node));
            [has_rules("ingress") || !has_rules("egress"), has_rules("egress")]
        }
    };
    for ((mut rules, given), governs, key, into) in [
        (ingress, governs.first(), "ingress", &mut policy.ingress),
        (egress, governs.last(), "egress", &mut policy.egress),
    ] {
        let governs = governs.copied().unwrap_or(true) && !hosts_only;
        if broken.0 {
            distrust(&mut rules);
        }
        if !governs && given && !hosts_only {
            ignored_direction(report, fields, key);
        }
        *into = governs.then_some(rules);
    }
}

fn ignored_direction<'t>(report: &mut Report<'t>, fields: &Fields<'_, 't>, key: &'static str) {
    let Some(node) = fields.get(key).filter(|node| !report.is_empty_list(node)) else {
        return;
    };
    let name = if key == "ingress" { "Ingress" } else { "Egress" };
    let message = format!("these rules are not in force: the policy's types do not name {name}");
    report.within(key, |report| {
        report.warning(node.place, message, format!("add {name} to spec.types"));
    });
}

/// Fields that concern host endpoints, which are not supported yet. Policies of the first two kinds never govern a
/// pod's own traffic; those of the third do, like any other.
fn host_fields<'t>(report: &mut Report<'t>, fields: &Fields<'_, 't>, broken: &mut Broken) -> bool {
    let mut hosts_only = false;
    for key in ["doNotTrack", "preDNAT", "applyOnForward"] {
        let set = broken.or_default(fields.read(report, key, |report, node| {
            let set = report.boolean(node)?;
            if set {
                let help = "pods are governed exactly as Calico would: such a policy is for host endpoints";
                report.error_with_help(node.place, format!("{key} is not supported yet"), help);
            }
            Ok(set)
        }));
        hosts_only |= set.unwrap_or_default() && key != "applyOnForward";
    }
    hosts_only && !broken.0
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
    let namespaces = namespaces?.map_or_else(Selector::all, |selector| peer::namespaces(&selector));
    let accounts = accounts?.map_or_else(Selector::all, |selector| peer::service_accounts(&selector));
    Ok(selector.and(&namespaces).and(&accounts))
}

/// The rules that mean something; `Err` if it is no list at all.
fn rules<'t>(report: &mut Report<'t>, node: &Node<'t>, namespace: Option<&str>) -> Read<Vec<Rule>> {
    let list = report.list(node)?;
    if list.len() > MAX_RULES {
        let message = format!(
            "the policy has {} rules in this direction; the API takes {MAX_RULES}",
            list.len()
        );
        report.error_with_help(node.place, message, "split the policy");
    }
    let mut rules = Vec::with_capacity(list.len());
    for (index, node) in list.iter().enumerate() {
        rules.extend(report.item(index, |report| rule(report, node, index, namespace)));
    }
    Ok(rules)
}
