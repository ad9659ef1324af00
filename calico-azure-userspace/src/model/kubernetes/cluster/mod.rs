//! The policies of a cluster's administrator: ClusterNetworkPolicy, and its predecessors AdminNetworkPolicy and
//! BaselineAdminNetworkPolicy.

mod peer;
mod protocols;
mod rule;

use super::pods;
use crate::model::calico::{TOP, distrust};
use crate::model::metadata::Metadata;
use crate::model::report::{Fields, Read, Report, Reported};
use crate::model::scalars;
use crate::model::types::{Action, HostRole, Key, Kind, Policy, Rule};
use crate::model::yaml::Node;

/// What the three kinds do not have in common.
struct Dialect {
    kind: Kind,
    /// Of the spec.
    fields: &'static [&'static str],
    actions: &'static [(&'static str, Action)],
    /// The field of a rule that holds protocols and ports.
    ports: &'static str,
    /// What the API takes in a list of rules, or of anything in them.
    most: usize,
    /// The tier, unless the policy names it.
    tier: Option<&'static str>,
}

static CLUSTER: Dialect = Dialect {
    kind: Kind::ClusterNetworkPolicy,
    fields: &["tier", "priority", "subject", "ingress", "egress"],
    actions: &[
        ("Accept", Action::Allow),
        ("Deny", Action::Deny),
        ("Pass", Action::Pass),
    ],
    ports: "protocols",
    most: 25,
    tier: None,
};
static ADMIN: Dialect = Dialect {
    kind: Kind::AdminNetworkPolicy,
    fields: &["priority", "subject", "ingress", "egress"],
    actions: &[
        ("Allow", Action::Allow),
        ("Deny", Action::Deny),
        ("Pass", Action::Pass),
    ],
    ports: "ports",
    most: 100,
    tier: Some("adminnetworkpolicy"),
};
static BASELINE: Dialect = Dialect {
    kind: Kind::BaselineAdminNetworkPolicy,
    fields: &["subject", "ingress", "egress"],
    actions: &[("Allow", Action::Allow), ("Deny", Action::Deny)],
    ports: "ports",
    most: 100,
    tier: Some("baselineadminnetworkpolicy"),
};

impl Dialect {
    fn has_priority(&self) -> bool {
        self.fields.contains(&"priority")
    }
}

const TIERS: [(&str, &str); 2] = [("Admin", "kube-admin"), ("Baseline", "kube-baseline")];
/// The tier of policies that name none that is known: their denies must not come later than they were meant to.
const FIRST: &str = "kube-admin";
const PRIORITIES: std::ops::RangeInclusive<i32> = 0..=1000;

/// Reads a policy. However wrong it is, it opens nothing.
///
/// * Subject, tier or priority not understood: it selects every pod, comes first of its tier, and its rules deny
///   whatever they would have denied or passed.
/// * A field of the spec not understood: which rules are missing is anybody's guess, so everything is denied.
pub(in crate::model) fn policy<'t>(
    report: &mut Report<'t>,
    metadata: &Metadata<'_, 't>,
    object: &Node<'t>,
    kind: Kind,
) -> Policy {
    let dialect = match kind {
        Kind::AdminNetworkPolicy => &ADMIN,
        Kind::BaselineAdminNetworkPolicy => &BASELINE,
        _ => &CLUSTER,
    };
    let deny_all = || Some(vec![Rule::everything(0, Action::Deny)]);
    let mut policy = Policy {
        key: Key {
            kind: dialect.kind,
            namespace: None,
            name: metadata.name.clone(),
        },
        tier: dialect.tier.unwrap_or(FIRST).to_owned(),
        order: dialect.has_priority().then_some(f64::NEG_INFINITY),
        selector: pods(),
        ingress: deny_all(),
        egress: deny_all(),
        staged: None,
        host: HostRole::Normal,
    };
    let broken = report.strict(object, &TOP).is_ok_and(|top| !top.complete);
    if kind == Kind::BaselineAdminNetworkPolicy {
        only_default(report, metadata);
    }
    match object.get("spec") {
        Some(spec) => report.within("spec", |report| {
            if let Ok(fields) = report.strict(spec, dialect.fields) {
                read(report, &fields, dialect, &mut policy, broken);
            }
        }),
        None => {
            let message = "spec is missing: the policy selects every pod and denies everything";
            report.error(object.place, message);
        }
    }
    policy
}

/// There can be one baseline only.
fn only_default(report: &mut Report<'_>, metadata: &Metadata<'_, '_>) {
    if let Some(name) = metadata.get("name").filter(|_| metadata.name != "default") {
        let message = format!(
            "the API takes only one {}",
            Kind::BaselineAdminNetworkPolicy.as_str()
        );
        report.within("metadata", |report| {
            report.within("name", |report| {
                report.error_with_help(name.place, message, "name it default")
            })
        });
    }
}

fn read<'t>(
    report: &mut Report<'t>,
    fields: &Fields<'_, 't>,
    dialect: &Dialect,
    policy: &mut Policy,
    mut broken: bool,
) {
    let mut tier_known = true;
    if dialect.tier.is_none() {
        match required(report, fields, "tier", |report, node| {
            scalars::word(report, node, &TIERS)
        }) {
            Ok(tier) => tier.clone_into(&mut policy.tier),
            Err(Reported) => {
                broken = true;
                tier_known = false;
            }
        }
    }
    if dialect.has_priority() {
        let priority = required(report, fields, "priority", priority);
        // In a tier that it was not meant for, what comes before it could pass by its denies.
        let known = priority.ok().filter(|_| tier_known);
        policy.order = Some(known.map_or(f64::NEG_INFINITY, f64::from));
        broken |= priority.is_err();
    }
    match required(report, fields, "subject", peer::subject) {
        Ok(subject) => policy.selector = subject,
        Err(Reported) => broken = true,
    }
    for (key, is_ingress, into) in [
        ("ingress", true, &mut policy.ingress),
        ("egress", false, &mut policy.egress),
    ] {
        let rules = fields.read(report, key, |report, node| {
            rules(report, node, is_ingress, dialect)
        });
        match rules {
            // What cannot be read stays denied.
            Ok(_) if !fields.complete => {}
            Err(Reported) => {}
            Ok(rules) => {
                *into = rules.filter(|rules| !rules.is_empty());
                if let Some(rules) = into.as_mut().filter(|_| broken) {
                    distrust(rules);
                }
            }
        }
    }
}

/// The priority as a policy's order; one that the API does not take orders all the same.
fn priority<'t>(report: &mut Report<'t>, node: &Node<'t>) -> Read<i32> {
    let expected = "a number from 0 to 1000";
    let priority = report.integer(node, expected)?;
    if !PRIORITIES.contains(&priority) {
        report.error(node.place, format!("expected {expected}, found {priority}"));
    }
    Ok(priority)
}

fn required<'n, 't, T>(
    report: &mut Report<'t>,
    fields: &Fields<'n, 't>,
    key: &'static str,
    read: impl FnOnce(&mut Report<'t>, &'n Node<'t>) -> Read<T>,
) -> Read<T> {
    match fields.read(report, key, read)? {
        Some(value) => Ok(value),
        None => Err(report.error(fields.place, format!("{key} is missing"))),
    }
}

fn rules<'t>(
    report: &mut Report<'t>,
    node: &Node<'t>,
    is_ingress: bool,
    dialect: &Dialect,
) -> Read<Vec<Rule>> {
    let list = report.list(node)?;
    limit(report, node, list.len(), dialect.most);
    let mut rules = Vec::new();
    for (index, node) in list.iter().enumerate() {
        rules.extend(report.item(index, |report| {
            rule::rule(report, node, index, is_ingress, dialect)
        }));
    }
    Ok(rules)
}

/// More than the API takes is enforced all the same.
fn limit(report: &mut Report<'_>, node: &Node<'_>, length: usize, most: usize) {
    if length > most {
        let message = format!("the list has {length} entries; the API takes {most}");
        report.error_with_help(node.place, message, "split the policy");
    }
}
