//! A rule's protocols and ports.

use super::{Dialect, required};
use crate::model::kubernetes::expand::PortOf;
use crate::model::port::{self, PortMatch};
use crate::model::report::{Fields, Read, Report, Reported};
use crate::model::types::{Kind, PortRange};
use crate::model::yaml::Node;

/// TCP, UDP, SCTP.
const PROTOCOLS: [(&str, u8); 3] = [("tcp", 6), ("udp", 17), ("sctp", 132)];

/// One entry of `protocols`, or of `ports` of the older kinds.
pub(super) fn entry<'t>(report: &mut Report<'t>, node: &Node<'t>, dialect: &Dialect) -> Read<PortOf> {
    if dialect.kind == Kind::ClusterNetworkPolicy {
        protocol(report, node)
    } else {
        port(report, node)
    }
}

/// `tcp`, `udp` or `sctp` with a port, or the name of a port of any protocol.
fn protocol<'t>(report: &mut Report<'t>, node: &Node<'t>) -> Read<PortOf> {
    const KNOWN: [&str; 4] = ["tcp", "udp", "sctp", "destinationNamedPort"];
    let fields = only_one(report, node, &KNOWN)?;
    for (key, number) in PROTOCOLS {
        let port = fields.read(report, key, |report, node| {
            let fields = report.strict(node, &["destinationPort"])?;
            let port = fields.read(report, "destinationPort", number_or_range)?;
            if port.is_none() && fields.complete {
                // The API refuses it, but what it means is clear.
                let help = "to match part of the protocol, add destinationPort";
                report.error_with_help(fields.place, "destinationPort is missing", help);
            }
            if fields.complete { Ok(port) } else { Err(Reported) }
        })?;
        if let Some(port) = port {
            return Ok(PortOf {
                protocol: Some(number),
                port: port.map(PortMatch::Range),
            });
        }
    }
    name(report, &fields, "destinationNamedPort")
}

fn number_or_range<'t>(report: &mut Report<'t>, node: &Node<'t>) -> Read<PortRange> {
    let fields = only_one(report, node, &["number", "range"])?;
    if let Some(port) = fields.read(report, "number", port::number)? {
        return Ok(PortRange {
            first: port,
            last: port,
        });
    }
    required(report, &fields, "range", |report, node| {
        let fields = report.strict(node, &["start", "end"])?;
        range(report, &fields)
    })
}

/// An older kind's port.
fn port<'t>(report: &mut Report<'t>, node: &Node<'t>) -> Read<PortOf> {
    let fields = only_one(report, node, &["portNumber", "portRange", "namedPort"])?;
    let number = fields.read(report, "portNumber", |report, node| {
        let fields = report.strict(node, &["protocol", "port"])?;
        let protocol = fields.read(report, "protocol", port::protocol);
        let port = required(report, &fields, "port", port::number);
        of_protocol(
            &fields,
            protocol,
            port.map(|port| PortRange {
                first: port,
                last: port,
            }),
        )
    })?;
    if let Some(port) = number {
        return Ok(port);
    }
    let range = fields.read(report, "portRange", |report, node| {
        let fields = report.strict(node, &["protocol", "start", "end"])?;
        let protocol = fields.read(report, "protocol", port::protocol);
        let range = range(report, &fields);
        of_protocol(&fields, protocol, range)
    })?;
    match range {
        Some(port) => Ok(port),
        None => name(report, &fields, "namedPort"),
    }
}

fn of_protocol(fields: &Fields<'_, '_>, protocol: Read<Option<u8>>, range: Read<PortRange>) -> Read<PortOf> {
    let (protocol, range) = (protocol?.unwrap_or(port::TCP), range?);
    if !fields.complete {
        return Err(Reported);
    }
    Ok(PortOf {
        protocol: Some(protocol),
        port: Some(PortMatch::Range(range)),
    })
}

/// A port's name says which protocol is meant.
fn name<'t>(report: &mut Report<'t>, fields: &Fields<'_, 't>, key: &'static str) -> Read<PortOf> {
    let name = required(report, fields, key, port::name)?;
    Ok(PortOf {
        protocol: None,
        port: Some(PortMatch::Name(name.to_owned())),
    })
}

fn range<'t>(report: &mut Report<'t>, fields: &Fields<'_, 't>) -> Read<PortRange> {
    let first = required(report, fields, "start", port::number);
    let last = required(report, fields, "end", port::number);
    let (first, last) = (first?, last?);
    if last < first {
        return Err(report.error(
            fields.place,
            format!("the range ends before it begins: start {first}, end {last}"),
        ));
    }
    if last == first {
        // The API refuses it, but what it means is clear.
        report.error(fields.place, format!("the range is one port: {first}"));
    }
    if fields.complete {
        Ok(PortRange { first, last })
    } else {
        Err(Reported)
    }
}

/// A mapping with exactly one field.
fn only_one<'n, 't>(
    report: &mut Report<'t>,
    node: &'n Node<'t>,
    known: &[&'static str],
) -> Read<Fields<'n, 't>> {
    let fields = report.strict(node, known)?;
    let given = known.iter().filter(|key| fields.get(key).is_some()).count();
    match given {
        _ if !fields.complete => Err(Reported),
        1 => Ok(fields),
        _ => Err(report.error(
            fields.place,
            format!("expected exactly one of {}", known.join(", ")),
        )),
    }
}
