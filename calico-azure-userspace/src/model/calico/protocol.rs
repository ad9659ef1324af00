//! Protocol, ICMP type and IP version of a rule.

use super::rules::Broken;
use crate::model::report::{Fields, Read, Report, Reported};
use crate::model::scalars::{self, Protocol};
use crate::model::types::{Icmp, IpVersion, Rule};
use crate::model::yaml::Node;

const ICMP: u8 = 1;
const ICMP6: u8 = 58;

/// Everything above addresses and ports. Each of these criteria narrows the rule, so one that is wrong is left out.
pub(super) fn read<'t>(
    report: &mut Report<'t>,
    fields: &Fields<'_, 't>,
    rule: &mut Rule,
    broken: &mut Broken,
) {
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
