//! A rule's `http`. It takes a proxy beside each pod to look into requests, and there is none.

use super::rule::Context;
use super::rules::{Broken, limit};
use crate::model::report::{Fields, Read, Report};
use crate::model::types::Action;

const TCP: u8 = 6;
/// What the API takes in one list.
const MAX_MATCHES: usize = 20;

pub(super) fn refuse<'t>(
    report: &mut Report<'t>,
    fields: &Fields<'_, 't>,
    action: Read<Action>,
    protocol: Option<u8>,
    context: &Context<'_>,
    broken: &mut Broken,
) {
    let Some(node) = fields.get("http") else { return };
    broken.0 = true;
    report.within("http", |report| {
        let help = "match the destination's ports, and leave requests to the application";
        report.error_with_help(node.place, "HTTP requests cannot be matched", help);
        for key in ["methods", "paths"] {
            if let Some(list) = node.get(key)
                && let Ok(matches) = report.within(key, |report| report.list(list))
            {
                report.within(key, |report| limit(report, list, matches.len(), MAX_MATCHES));
            }
        }
        if !matches!(action, Ok(Action::Allow) | Err(_)) {
            report.error(node.place, "http needs the action Allow");
        }
        if protocol.is_some_and(|protocol| protocol != TCP) {
            report.error(node.place, "http needs the rule's protocol to be TCP");
        }
        if !context.is_ingress {
            report.error(node.place, "http is for ingress rules");
        }
    });
}
