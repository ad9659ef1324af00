//! HostEndpoint.

use super::{Group, fields, labels};
use crate::model::metadata::Metadata;
use crate::model::port;
use crate::model::report::{Read, Report, quote};
use crate::model::scalars;
use crate::model::types::HostEndpoint;
use crate::model::yaml::Node;

const FIELDS: [&str; 5] = ["node", "interfaceName", "expectedIPs", "profiles", "ports"];
/// Linux' own limit.
const MAX_INTERFACE: usize = 15;

/// What is wrong with one leaves it with fewer profiles, that is with fewer Allows.
pub(super) fn host_endpoint<'t>(
    report: &mut Report<'t>,
    metadata: &Metadata<'_, 't>,
    object: &Node<'t>,
    group: Group,
) -> HostEndpoint {
    let mut endpoint = HostEndpoint {
        name: metadata.name.clone(),
        labels: labels::labels(report, metadata, group),
        ..HostEndpoint::default()
    };
    let read = fields::of_spec(report, object, &FIELDS, |report, spec| {
        let node = fields::one(report, spec, "node", scalars::name);
        endpoint.node = node.unwrap_or_default().to_owned();
        let interface = spec.read(report, "interfaceName", interface);
        endpoint.expected_ips =
            fields::each(report, spec, "expectedIPs", scalars::address).unwrap_or_default();
        let profiles = fields::each(report, spec, "profiles", scalars::name).unwrap_or_default();
        endpoint.profiles = profiles.into_iter().map(str::to_owned).collect();
        let ports = fields::each(report, spec, "ports", port::named).unwrap_or_default();
        endpoint.ports = ports.into_iter().flatten().collect();
        if spec.get("node").is_none() {
            let help = "add node: the name of the Kubernetes node";
            report.error_with_help(spec.place, "node is missing: the endpoint is nowhere", help);
        }
        if interface == Ok(None) && endpoint.expected_ips.is_empty() {
            let message = "the endpoint has no interface: expected interfaceName or expectedIPs";
            report.error_with_help(spec.place, message, "interfaceName: \"*\" stands for all");
        }
        endpoint.interface = interface.ok().flatten().map(str::to_owned);
    });
    if read.is_none() && object.get("spec").is_none() {
        report.error(object.place, "spec is missing: the endpoint is nowhere");
    }
    endpoint
}

fn interface<'n, 't>(report: &mut Report<'t>, node: &'n Node<'t>) -> Read<&'n str> {
    let name = report.string(node)?;
    let allowed = |b: u8| b.is_ascii_graphic() && b != b'/';
    if name == "*" || (1..=MAX_INTERFACE).contains(&name.len()) && name.bytes().all(allowed) {
        return Ok(name);
    }
    let message = format!(
        "{} is no interface: expected up to {MAX_INTERFACE} characters, or \"*\" for all of the host's",
        quote(name)
    );
    Err(report.error(node.place, message))
}
