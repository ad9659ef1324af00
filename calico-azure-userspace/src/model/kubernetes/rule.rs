//! One rule of a NetworkPolicy.

use super::expand::{PortOf, expand};
use super::peer::peer;
use crate::model::port::{self, PortMatch};
use crate::model::report::{Read, Report, Reported};
use crate::model::types::{Action, PortRange, Rule};
use crate::model::yaml::Node;

/// Reads a rule; if any of it is not understood, it allows nothing.
pub(super) fn rule<'t>(
    report: &mut Report<'t>,
    node: &Node<'t>,
    index: usize,
    is_ingress: bool,
    namespace: &str,
) -> Read<Vec<Rule>> {
    let side = if is_ingress { "from" } else { "to" };
    let fields = report.strict(node, &[side, "ports"])?;
    let peers = fields.read(report, side, |report, node| {
        report.all(node, |report, node| peer(report, node, namespace))
    });
    let ports = fields.read(report, "ports", |report, node| report.all(node, port));
    let (peers, ports) = (peers?.unwrap_or_default(), ports?.unwrap_or_default());
    if !fields.complete {
        return Err(Reported);
    }
    Ok(expand(index, Action::Allow, is_ingress, &peers, ports))
}

fn port<'t>(report: &mut Report<'t>, node: &Node<'t>) -> Read<PortOf> {
    let fields = report.strict(node, &["protocol", "port", "endPort"])?;
    let protocol = fields.read(report, "protocol", port::protocol);
    let first = fields.read(report, "port", port::number_or_name);
    let last = fields.read(report, "endPort", port::number);
    let (protocol, first, last) = (Some(protocol?.unwrap_or(port::TCP)), first?, last?);
    if !fields.complete {
        return Err(Reported);
    }
    let port = match (first, last) {
        (None, Some(_)) => {
            return Err(report.error(fields.place, "endPort without port: expected both, or port alone"));
        }
        (Some(PortMatch::Name(_)), Some(_)) => {
            let message = "endPort beside the name of a port: expected the first port's number";
            return Err(report.error(fields.place, message));
        }
        (Some(PortMatch::Range(PortRange { first, .. })), Some(last)) if last < first => {
            return Err(report.error(fields.place, format!("endPort {last} is below port {first}")));
        }
        (Some(PortMatch::Range(PortRange { first, .. })), Some(last)) => {
            Some(PortMatch::Range(PortRange { first, last }))
        }
        (port, None) => port,
    };
    Ok(PortOf { protocol, port })
}
