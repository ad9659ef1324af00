//! NetworkPolicy and GlobalNetworkPolicy, and the staged kinds of both.

use super::rules::{Broken, deny_everything};
use super::{Group, TOP, spec};
use crate::model::metadata::Metadata;
use crate::model::problem::{Problem, Severity};
use crate::model::report::{Report, quote};
use crate::model::types::{HostRole, Key, Kind, Policy, StagedAction, Tier};
use crate::model::yaml::Node;

/// How Calico names its copies of Kubernetes' policies.
const COPY: &str = "knp.default.";

/// Whether this is Calico's own copy of a Kubernetes NetworkPolicy, which counts itself.
pub(super) fn is_copy(kind: Kind, name: &str) -> bool {
    kind.enforced().unwrap_or(kind) == Kind::NetworkPolicy && name.starts_with(COPY)
}

/// A policy, and the tier it names with what to say if there is no such tier.
///
/// A policy exists however wrong it is, and does not open anything: what is wrong above its rules takes all its
/// Allow rules out and makes every other rule a Deny; where it was meant to be is not known, and it comes first, if that is
/// what is wrong.
pub(super) fn policy<'t>(
    report: &mut Report<'t>,
    metadata: &Metadata<'_, 't>,
    object: &Node<'t>,
    kind: Kind,
    namespace: Option<String>,
    group: Group,
) -> (Policy, Problem) {
    let broken = Broken(report.strict(object, &TOP).is_ok_and(|top| !top.complete));
    let mut policy = Policy {
        selector: spec::scope(namespace.as_deref()),
        // What it governs before anything is known of it: everything.
        host: match namespace {
            Some(_) => HostRole::Normal,
            None => HostRole::Forward,
        },
        key: Key {
            kind,
            namespace,
            name: metadata.name.clone(),
        },
        tier: Tier::UNKNOWN.to_owned(),
        order: Some(f64::NEG_INFINITY),
        ingress: Some(deny_everything()),
        egress: Some(deny_everything()),
        staged: kind.enforced().map(|_| StagedAction::Set),
    };
    let mut tier_place = object.place;
    match object.get("spec") {
        Some(node) => report.within("spec", |report| {
            if let Ok(fields) = report.strict(node, &spec::fields(kind)) {
                tier_place = fields.get("tier").map_or(tier_place, |node| node.place);
                spec::read(report, &fields, &mut policy, Broken(broken.0 || !fields.complete));
            }
        }),
        None => {
            let message = "spec is missing: the policy selects everything and denies everything";
            report.error(object.place, message);
        }
    }
    if group == Group::Crd
        && policy.tier == spec::DEFAULT_TIER
        && let Some(name) = policy.key.name.strip_prefix("default.")
        && !name.is_empty()
    {
        policy.key.name = name.to_owned();
    }
    let tier_missing = report.within("spec", |report| {
        report.within("tier", |report| {
            let tier = quote(&policy.tier);
            let message = if policy.staged.is_some() {
                format!("tier {tier} does not exist; the policy would come after all tiers")
            } else {
                format!(
                    "tier {tier} does not exist; the policy is enforced after all tiers, and what it does not decide is denied"
                )
            };
            let help = "create the tier, or correct the name".to_owned();
            report.problem(Severity::Warning, tier_place, message, Some(help))
        })
    });
    (policy, tier_missing)
}
