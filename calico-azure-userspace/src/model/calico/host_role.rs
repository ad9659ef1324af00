//! What a GlobalNetworkPolicy does at host endpoints: `doNotTrack`, `preDNAT`, `applyOnForward`.

use super::rules::Broken;
use crate::model::report::{Fields, Report, Reported};
use crate::model::types::HostRole;
use crate::model::yaml::{Node, Value};

/// A policy whose role is unclear governs all that it may have been meant for: pods, the host's own traffic, and
/// what is forwarded. It is `broken`, so that none of its Allow rules is left.
pub(super) fn read<'t>(report: &mut Report<'t>, fields: &Fields<'_, 't>, broken: &mut Broken) -> HostRole {
    let mut flag = |key| {
        let set = fields.read(report, key, Report::boolean);
        set.map(|set| set.filter(|set| *set).and_then(|_| fields.get(key)))
    };
    let flags = (flag("doNotTrack"), flag("preDNAT"), flag("applyOnForward"));
    let (Ok(untracked), Ok(pre_dnat), Ok(forward)) = flags else {
        broken.0 = true;
        return HostRole::Forward;
    };
    let mut clear = fields.complete;
    let mut refuse = |key, node: &Node<'t>, message: String, help: &str| {
        let Reported = report.within(key, |report| report.error_with_help(node.place, message, help));
        clear = false;
    };
    for (key, flag) in [("doNotTrack", untracked), ("preDNAT", pre_dnat)] {
        if let (Some(node), None) = (flag, forward) {
            let message = format!("{key} needs applyOnForward: true");
            refuse(key, node, message, "add applyOnForward: true");
        }
    }
    if let (Some(_), Some(node)) = (untracked, pre_dnat) {
        let message = "preDNAT and doNotTrack exclude each other".to_owned();
        refuse("preDNAT", node, message, "make two policies");
    }
    if pre_dnat.is_some() {
        for (key, message) in [
            ("types", "a preDNAT policy cannot have the type Egress"),
            ("egress", "a preDNAT policy cannot have egress rules"),
        ] {
            if let Some(node) = fields.get(key).filter(|node| about_egress(key, node)) {
                refuse(key, node, message.to_owned(), "make another policy of it");
            }
        }
    }
    match (clear, untracked, pre_dnat, forward) {
        (false, ..) => {
            broken.0 = true;
            HostRole::Forward
        }
        (true, Some(_), ..) => HostRole::Untracked,
        (true, None, Some(_), _) => HostRole::PreDnat,
        (true, None, None, Some(_)) => HostRole::Forward,
        (true, None, None, None) => HostRole::Normal,
    }
}

/// Whether the types name it, or there are rules.
fn about_egress(key: &str, node: &Node<'_>) -> bool {
    let Value::List(items) = &node.value else {
        return false;
    };
    if key == "types" {
        items.iter().any(|item| item.text() == Some("Egress"))
    } else {
        !items.is_empty()
    }
}
