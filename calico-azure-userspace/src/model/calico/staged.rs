//! StagedKubernetesNetworkPolicy: Kubernetes' spec, and what would be done with it.

use super::spec::{STAGED_ACTION, staged_action};
use crate::model::kubernetes;
use crate::model::metadata::Metadata;
use crate::model::report::{Fields, Read, Report, Reported};
use crate::model::types::{Kind, Policy, StagedAction};
use crate::model::yaml::{Node, Value};

pub(super) fn kubernetes_policy<'t>(
    report: &mut Report<'t>,
    metadata: &Metadata<'_, 't>,
    object: &Node<'t>,
    namespace: String,
) -> Policy {
    let spec = object.get("spec");
    let action = spec.and_then(|spec| report.within("spec", |report| action(report, spec)).transpose());
    let mut object = object.clone();
    if let Value::Map(entries) = &mut object.value {
        for entry in entries.iter_mut().filter(|entry| entry.key == "spec") {
            if let Value::Map(spec) = &mut entry.node.value {
                spec.retain(|entry| entry.key != STAGED_ACTION);
            }
        }
    }
    let mut policy = kubernetes::policy(report, metadata, &object, namespace);
    policy.key.kind = Kind::StagedKubernetesNetworkPolicy;
    let set = StagedAction::Set;
    policy.staged = Some(
        action
            .as_ref()
            .map_or(set, |action| *action.as_ref().unwrap_or(&set)),
    );
    if action == Some(Err(Reported)) {
        // Nobody knows what it would do, so it does not promise to allow anything.
        for rules in [&mut policy.ingress, &mut policy.egress].into_iter().flatten() {
            rules.clear();
        }
    }
    policy
}

fn action<'t>(report: &mut Report<'t>, spec: &Node<'t>) -> Read<Option<StagedAction>> {
    // What is no mapping is reported with the rest.
    let Value::Map(entries) = &spec.value else {
        return Ok(None);
    };
    let mut given = entries.iter().filter(|entry| entry.key == STAGED_ACTION);
    if let (Some(_), Some(second)) = (given.next(), given.next()) {
        return Err(report.error(
            second.key_place,
            format!("field \"{STAGED_ACTION}\" is given twice"),
        ));
    }
    let fields = Fields {
        entries,
        place: spec.place,
        complete: true,
    };
    fields.read(report, STAGED_ACTION, staged_action)
}
