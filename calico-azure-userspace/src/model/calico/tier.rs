//! Tier.

use super::TOP;
use crate::model::metadata::Metadata;
use crate::model::report::{Fields, Read, Report, quote};
use crate::model::scalars;
use crate::model::types::{Tier, TierDefault};
use crate::model::yaml::Node;

/// Longest name that the API takes.
const MAX_NAME: usize = 63;

fn is_name(name: &str) -> bool {
    name.len() <= MAX_NAME && !name.contains('.')
}

/// The name of a tier in a policy. No tier can have a wrong one, but what such a policy means is clear.
pub(super) fn reference<'n, 't>(report: &mut Report<'t>, node: &'n Node<'t>) -> Read<&'n str> {
    let name = report.string(node)?;
    if !is_name(name) {
        let message = format!(
            "{} is no tier: the name of one has at most {MAX_NAME} characters and no dots",
            quote(name)
        );
        report.error(node.place, message);
    }
    Ok(name)
}

/// What is wrong with a tier leaves it denying by default, or last.
pub(super) fn tier<'t>(report: &mut Report<'t>, metadata: &Metadata<'_, 't>, object: &Node<'t>) -> Tier {
    let builtin = Tier::builtin(&metadata.name);
    let mut tier = Tier {
        name: metadata.name.clone(),
        order: None,
        default_action: TierDefault::Deny,
    };
    if !is_name(&tier.name) {
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
    let fields = object.get("spec").and_then(|spec| {
        report.within("spec", |report| {
            report.strict(spec, &["order", "defaultAction"]).ok()
        })
    });
    let Some(fields) = fields else {
        return builtin.unwrap_or(tier);
    };
    report.within("spec", |report| {
        tier.order = fields.read(report, "order", Report::number).ok().flatten();
        let actions = [("Deny", TierDefault::Deny), ("Pass", TierDefault::Pass)];
        let action = fields.read(report, "defaultAction", |report, node| {
            scalars::word(report, node, &actions)
        });
        match (action, &builtin) {
            (Ok(Some(action)), _) => tier.default_action = action,
            (Ok(None), Some(builtin)) => tier.default_action = builtin.default_action,
            _ => {}
        }
        if let Some(builtin) = &builtin {
            pinned(report, &fields, &mut tier, builtin);
        }
    });
    tier
}

/// Nobody can move Calico's own tiers. An object that tries leaves them where they are; one that asks for Deny where
/// Calico passes gets it, because it is the stricter.
fn pinned<'t>(report: &mut Report<'t>, fields: &Fields<'_, 't>, tier: &mut Tier, builtin: &Tier) {
    let help = "leave it as it is, and make a tier of your own";
    if let (Some(node), Some(order)) = (fields.get("order"), builtin.order)
        && tier
            .order
            .is_some_and(|written| written.total_cmp(&order).is_ne())
    {
        let message = format!("the order of tier {} is always {order}", builtin.name);
        report.within("order", |report| {
            report.error_with_help(node.place, message, help)
        });
    }
    tier.order = builtin.order;
    if let Some(node) = fields.get("defaultAction")
        && tier.default_action != builtin.default_action
        && node.text().is_some_and(|text| matches!(text, "Deny" | "Pass"))
    {
        let message = format!(
            "the default action of tier {} is always {:?}",
            builtin.name, builtin.default_action
        );
        report.within("defaultAction", |report| {
            report.error_with_help(node.place, message, help)
        });
        tier.default_action = TierDefault::Deny;
    }
}
