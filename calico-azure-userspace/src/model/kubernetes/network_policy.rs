//! NetworkPolicy: tier `default`, order 1000, only Allow rules.

use super::{pods_of, rule, selector};
use crate::model::calico::TOP;
use crate::model::metadata::Metadata;
use crate::model::report::{Fields, Read, Report, Reported};
use crate::model::scalars;
use crate::model::types::{HostRole, Key, Kind, Policy, Rule};
use crate::model::yaml::Node;

const FIELDS: [&str; 4] = ["podSelector", "policyTypes", "ingress", "egress"];
const TIER: &str = "default";
const ORDER: f64 = 1000.0;

/// Reads a policy. What is wrong with a rule takes the rule out; what is wrong above them takes all of them out, in
/// both directions if it is not certain which were meant.
pub(in crate::model) fn policy<'t>(
    report: &mut Report<'t>,
    metadata: &Metadata<'_, 't>,
    object: &Node<'t>,
    namespace: String,
) -> Policy {
    let mut broken = report.strict(object, &TOP).is_ok_and(|top| !top.complete);
    let mut policy = Policy {
        selector: pods_of(&namespace),
        key: Key {
            kind: Kind::KubernetesNetworkPolicy,
            namespace: Some(namespace.clone()),
            name: metadata.name.clone(),
        },
        tier: TIER.to_owned(),
        order: Some(ORDER),
        ingress: Some(Vec::new()),
        egress: Some(Vec::new()),
        staged: None,
        host: HostRole::Normal,
    };
    let Some(spec) = object.get("spec") else {
        report.error(
            object.place,
            "spec is missing: the policy selects every pod of its namespace and allows nothing",
        );
        return policy;
    };
    report.within("spec", |report| {
        let Ok(fields) = report.strict(spec, &FIELDS) else {
            return;
        };
        broken |= !fields.complete;
        match fields.read(report, "podSelector", selector::labels) {
            Ok(selector) => policy.selector = selector.unwrap_or_default().and(&policy.selector),
            Err(Reported) => broken = true,
        }
        read_rules(report, &fields, &mut policy, broken);
    });
    policy
}

fn read_rules<'t>(report: &mut Report<'t>, fields: &Fields<'_, 't>, policy: &mut Policy, mut broken: bool) {
    let namespace = policy.key.namespace.clone().unwrap_or_default();
    let types = fields.read(report, "policyTypes", |report, node| {
        report.all(node, |report, node| {
            scalars::word(report, node, &[("Ingress", true), ("Egress", false)])
        })
    });
    broken |= types.is_err();
    let types = types.ok().flatten().filter(|types| !types.is_empty());
    for (is_ingress, key, into) in [
        (true, "ingress", &mut policy.ingress),
        (false, "egress", &mut policy.egress),
    ] {
        let rules = fields.read(report, key, |report, node| {
            rules(report, node, is_ingress, &namespace)
        });
        broken |= rules.is_err();
        let rules = rules.ok().flatten().unwrap_or_default();
        let has_rules = fields.get(key).is_some_and(|node| !report.is_empty_list(node));
        let governs = match &types {
            Some(types) => types.contains(&is_ingress),
            None => is_ingress || has_rules || broken,
        };
        if let (false, Some(node)) = (governs, fields.get(key).filter(|_| has_rules)) {
            let name = if is_ingress { "Ingress" } else { "Egress" };
            let message = format!("these rules are not in force: policyTypes does not name {name}");
            report.within(key, |report| {
                report.warning(node.place, message, format!("add {name} to spec.policyTypes"));
            });
        }
        *into = governs.then_some(rules);
    }
    if broken {
        for rules in [&mut policy.ingress, &mut policy.egress].into_iter().flatten() {
            rules.clear();
        }
    }
}

fn rules<'t>(report: &mut Report<'t>, node: &Node<'t>, is_ingress: bool, namespace: &str) -> Read<Vec<Rule>> {
    let list = report.list(node)?;
    let mut rules = Vec::new();
    for (index, node) in list.iter().enumerate() {
        let read = report.item(index, |report| {
            rule::rule(report, node, index, is_ingress, namespace)
        });
        rules.extend(read.unwrap_or_default());
    }
    Ok(rules)
}
