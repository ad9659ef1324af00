//! Rules, and what becomes of those that are not understood.

use super::peer::{self, ReadPeer};
use crate::model::report::{Fields, Read, Report, Reported};
use crate::model::scalars::{self, Protocol};
use crate::model::types::{Action, Icmp, IpVersion, Rule};
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
const ICMP: u8 = 1;
const ICMP6: u8 = 58;
/// TCP, UDP, SCTP.
const WITH_PORTS: [u8; 3] = [6, 17, 132];

/// Which end of the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Source,
    Destination,
}

/// Whether anything was not understood.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Broken(pub(super) bool);

impl Broken {
    pub(super) fn or_default<T: Default>(&mut self, read: Read<T>) -> T {
        read.unwrap_or_else(|Reported| {
            self.0 = true;
            T::default()
        })
    }
}

/// Rules of a policy that was not understood as a whole: nothing is allowed, and whatever could be denied is.
pub(super) fn distrust(rules: &mut Vec<Rule>) {
    rules.retain(|rule| matches!(rule.action, Action::Deny | Action::Pass));
    for rule in rules {
        rule.action = Action::Deny;
    }
}

/// Reads a rule; `namespace` is that of the policy.
///
/// What is not understood never widens: an Allow or Log is `None` then; anything else denies whatever matches the
/// criteria that are left.
pub(super) fn rule<'t>(
    report: &mut Report<'t>,
    node: &Node<'t>,
    index: usize,
    namespace: Option<&str>,
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
    protocol(report, &fields, &mut rule, &mut broken);
    let mut sides = [(Side::Source, "source"), (Side::Destination, "destination")].map(|(side, key)| {
        let read = fields.read(report, key, |report, node| {
            Ok(peer::read(report, node, side, namespace, &mut broken))
        });
        broken.or_default(read).unwrap_or_default()
    });
    families(report, &mut sides, &mut broken);
    ports(report, &rule, &mut sides, &mut broken);
    if let Some(node) = fields.get("http") {
        report.within("http", |report| {
            report.error(node.place, "rules about HTTP are not supported yet")
        });
        broken.0 = true;
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

/// Everything above addresses and ports. Each of these criteria narrows the rule, so one that is wrong is left out.
fn protocol<'t>(report: &mut Report<'t>, fields: &Fields<'_, 't>, rule: &mut Rule, broken: &mut Broken) {
    let protocol = broken.or_default(fields.read(report, "protocol", scalars::protocol));
    let not_protocol = broken.or_default(fields.read(report, "notProtocol", scalars::protocol));
    rule.protocol = protocol.map(|protocol| protocol.number);
    rule.not_protocol = not_protocol.map(|protocol| protocol.number);
    for key in ["icmp", "notICMP"] {
        let read = fields.read(report, key, |report, node| icmp(report, node, rule.protocol));
        let icmp = broken.or_default(read).flatten();
        match key {
            "icmp" => rule.icmp = icmp,
            _ => rule.not_icmp = icmp,
        }
    }
    let by_type = rule.icmp.is_some() || rule.not_icmp.is_some();
    let implied = match protocol {
        Some(Protocol { number: ICMP, named }) if named || by_type => Some(IpVersion::V4),
        Some(Protocol { number: ICMP6, named }) if named || by_type => Some(IpVersion::V6),
        _ => None,
    };
    let version = fields.read(report, "ipVersion", |report, node| {
        let version = match report.integer(node, "4 or 6")? {
            4_u8 => IpVersion::V4,
            6 => IpVersion::V6,
            other => return Err(report.error(node.place, format!("expected 4 or 6, found {other}"))),
        };
        if implied.is_some_and(|implied| implied != version) {
            let help = "ICMP is ipVersion 4, ICMPv6 is ipVersion 6";
            return Err(report.error_with_help(
                node.place,
                "the rule's protocol belongs to the other IP version",
                help,
            ));
        }
        Ok(version)
    });
    if version.is_err() && implied.is_some() {
        // Either may be the wrong one.
        (rule.protocol, rule.icmp, rule.not_icmp) = (None, None, None);
        broken.0 = true;
    } else {
        rule.ip_version = broken.or_default(version).or(implied);
    }
}

/// `{}` says nothing, so it is no criterion.
fn icmp<'t>(report: &mut Report<'t>, node: &Node<'t>, protocol: Option<u8>) -> Read<Option<Icmp>> {
    let fields = report.strict(node, &["type", "code"])?;
    let kind = fields.read(report, "type", |report, node| {
        let expected = "an ICMP type from 0 to 254";
        match report.integer(node, expected)? {
            u8::MAX => Err(report.error(node.place, format!("expected {expected}, found 255"))),
            kind => Ok(kind),
        }
    });
    let code = fields.read(report, "code", |report, node| {
        report.integer(node, "an ICMP code from 0 to 255")
    });
    let (kind, code): (Option<u8>, Option<u8>) = (kind?, code?);
    if !fields.complete {
        return Err(Reported);
    }
    if kind.is_none() && code.is_some() {
        return Err(report.error(
            fields.place,
            "a code without a type: expected both, or a type alone",
        ));
    }
    if !matches!(protocol, Some(ICMP | ICMP6)) {
        let help = "add protocol: ICMP or protocol: ICMPv6";
        return Err(report.error_with_help(
            fields.place,
            "this needs the rule's protocol to be ICMP or ICMPv6",
            help,
        ));
    }
    Ok(kind.map(|_| Icmp { kind, code }))
}

/// The API refuses rules that name networks of both families, and nobody can tell what they mean.
fn families(report: &mut Report<'_>, sides: &mut [ReadPeer; 2], broken: &mut Broken) {
    let first = |family: usize, sides: &[ReadPeer; 2]| {
        sides
            .iter()
            .find_map(|side| side.nets_place.get(family).copied().flatten())
    };
    if let (Some(v4), Some(v6)) = (first(0, sides), first(1, sides)) {
        let later = if v4.byte > v6.byte { v4 } else { v6 };
        let message = "a rule cannot have both IPv4 and IPv6 networks";
        report.error_with_help(later, message, "make one rule for each IP version");
        broken.0 = true;
        for side in sides {
            side.peer.nets.clear();
            side.peer.not_nets.clear();
        }
    }
}

fn ports(report: &mut Report<'_>, rule: &Rule, sides: &mut [ReadPeer; 2], broken: &mut Broken) {
    for (side, key) in sides.iter_mut().zip(["source", "destination"]) {
        let Some(place) = side.ports_place else { continue };
        if rule
            .protocol
            .is_some_and(|protocol| WITH_PORTS.contains(&protocol))
            || broken.0 && rule.protocol.is_none()
        {
            continue;
        }
        report.within(key, |report| {
            let help = "add protocol: TCP, UDP or SCTP to the rule";
            report.error_with_help(
                place,
                "ports need the rule's protocol to be TCP, UDP or SCTP",
                help,
            )
        });
        broken.0 = true;
        side.peer.ports.clear();
        side.peer.not_ports.clear();
    }
}
