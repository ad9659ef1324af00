//! One rule.

use super::peer::{self, Side};
use super::rules::Broken;
use super::{http, ports, protocol};
use crate::model::report::{Fields, Read, Report, Reported};
use crate::model::scalars;
use crate::model::types::{Action, Rule};
use crate::model::yaml::Node;

const FIELDS: [&str; 10] = [
    "action",
    "ipVersion",
    "protocol",
    "icmp",
    "notProtocol",
    "notICMP",
    "source",
    "destination",
    "http",
    "metadata",
];

/// Where a rule is.
pub(super) struct Context<'p> {
    /// That of the policy.
    pub(super) namespace: Option<&'p str>,
    pub(super) is_ingress: bool,
}

/// Reads a rule.
///
/// What is not understood never widens: an Allow or Log is `None` then; anything else denies whatever matches the
/// criteria that are left.
pub(super) fn rule<'t>(
    report: &mut Report<'t>,
    node: &Node<'t>,
    index: usize,
    context: &Context<'_>,
) -> Option<Rule> {
    let mut broken = Broken::default();
    let index = u32::try_from(index).unwrap_or(u32::MAX);
    let mut rule = Rule {
        index,
        action: Action::Deny,
        ip_version: None,
        protocol: None,
        not_protocol: None,
        icmp: None,
        not_icmp: None,
        source: Default::default(),
        destination: Default::default(),
    };
    let Ok(fields) = report.strict(node, &FIELDS) else {
        return Some(rule);
    };
    broken.0 |= !fields.complete;
    let action = action(report, &fields);
    protocol::read(report, &fields, &mut rule, &mut broken);
    let mut sides = [(Side::Source, "source"), (Side::Destination, "destination")].map(|(side, key)| {
        let read = fields.read(report, key, |report, node| {
            Ok(peer::read(report, node, side, context, &mut broken))
        });
        broken.or_default(read).unwrap_or_default()
    });
    peer::one_family(report, rule.ip_version, &mut sides, &mut broken);
    ports::check(report, rule.protocol, &mut sides, &mut broken);
    http::refuse(report, &fields, action, rule.protocol, context, &mut broken);
    if broken.0 {
        // What a name excludes depends on the selector beside it, which may be what is missing.
        for side in &mut sides {
            side.peer.not_named_ports.clear();
        }
    }
    let [source, destination] = sides;
    rule.source = source.peer;
    rule.destination = destination.peer;
    match action {
        Ok(action) if !broken.0 => rule.action = action,
        Ok(Action::Allow | Action::Log) => return None,
        Ok(Action::Deny | Action::Pass) | Err(Reported) => {}
    }
    Some(rule)
}

fn action<'t>(report: &mut Report<'t>, fields: &Fields<'_, 't>) -> Read<Action> {
    let actions = [
        ("Allow", Action::Allow),
        ("Deny", Action::Deny),
        ("Log", Action::Log),
        ("Pass", Action::Pass),
    ];
    let action = fields.read(report, "action", |report, node| {
        scalars::word(report, node, &actions)
    })?;
    action.ok_or_else(|| {
        report.error(
            fields.place,
            "action is missing: expected Allow, Deny, Log or Pass",
        )
    })
}
