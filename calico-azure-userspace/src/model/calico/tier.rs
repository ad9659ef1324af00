//! Tier.

use super::TOP;
use crate::model::metadata::Metadata;
use crate::model::report::Report;
use crate::model::scalars;
use crate::model::types::{Tier, TierDefault};
use crate::model::yaml::Node;

/// Longest name that the API takes.
const MAX_NAME: usize = 63;

/// What is wrong with a tier leaves it denying by default, or last.
pub(in crate::model) fn tier<'t>(
    report: &mut Report<'t>,
    metadata: &Metadata<'_, 't>,
    object: &Node<'t>,
) -> Tier {
    let mut tier = Tier {
        name: metadata.name.clone(),
        order: None,
        default_action: TierDefault::Deny,
    };
    if tier.name.len() > MAX_NAME || tier.name.contains('.') {
        let place = object
            .get("metadata")
            .and_then(|metadata| metadata.get("name"))
            .unwrap_or(object)
            .place;
        let message = format!("a tier's name has at most {MAX_NAME} characters and no dots");
        report.within("metadata", |report| {
            report.within("name", |report| report.error(place, message))
        });
    }
    let _reported = report.strict(object, &TOP);
    let Some(spec) = object.get("spec") else {
        return tier;
    };
    report.within("spec", |report| {
        let Ok(spec) = report.strict(spec, &["order", "defaultAction"]) else {
            return;
        };
        tier.order = spec.read(report, "order", Report::number).ok().flatten();
        let actions = [("Deny", TierDefault::Deny), ("Pass", TierDefault::Pass)];
        let action = spec.read(report, "defaultAction", |report, node| {
            scalars::word(report, node, &actions)
        });
        if let Ok(Some(action)) = action {
            tier.default_action = action;
        }
    });
    tier
}
