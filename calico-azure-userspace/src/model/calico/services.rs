//! A rule's `services`: the backends of one Kubernetes service.

use super::peer::Side;
use super::rule::Context;
use super::rules::Broken;
use crate::model::report::{Fields, Read, Report, Reported};
use crate::model::scalars;
use crate::model::types::ServiceName;
use crate::model::yaml::Node;

/// What a service says itself.
const EXCLUDED: [&str; 6] = [
    "selector",
    "notSelector",
    "namespaceSelector",
    "nets",
    "notNets",
    "serviceAccounts",
];
/// What it says on the destination's side, too.
const EXCLUDED_DESTINATION: [&str; 2] = ["ports", "notPorts"];

pub(super) fn read<'t>(
    report: &mut Report<'t>,
    fields: &Fields<'_, 't>,
    side: Side,
    context: &Context<'_>,
    broken: &mut Broken,
) -> Option<ServiceName> {
    let service = fields.read(report, "services", |report, node| {
        let service = name(report, node, context.namespace);
        alone(report, fields, node, side, context)?;
        service
    });
    broken.or_default(service)
}

fn name<'t>(report: &mut Report<'t>, node: &Node<'t>, own: Option<&str>) -> Read<ServiceName> {
    let fields = report.strict(node, &["name", "namespace"])?;
    let read = |report: &mut Report<'t>, key| match fields.get(key) {
        // Empty is as good as absent, as in the API's own writing of it.
        Some(node) if node.text() == Some("") => Ok(None),
        _ => fields.read(report, key, scalars::name),
    };
    let (name, namespace) = (read(report, "name"), read(report, "namespace"));
    let (name, namespace) = (name?, namespace?);
    if !fields.complete {
        return Err(Reported);
    }
    let Some(name) = name else {
        return Err(report.error(fields.place, "name is missing: expected the name of a service"));
    };
    let Some(namespace) = namespace.or(own) else {
        let message = "the service's namespace is missing: only a NetworkPolicy has one of its own";
        return Err(report.error_with_help(fields.place, message, "add namespace"));
    };
    Ok(ServiceName {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    })
}

/// Whether the service is where it may be, and nothing beside it that it excludes.
fn alone<'t>(
    report: &mut Report<'t>,
    fields: &Fields<'_, 't>,
    node: &Node<'t>,
    side: Side,
    context: &Context<'_>,
) -> Read<()> {
    let mut good = Ok(());
    if context.is_ingress != (side == Side::Source) {
        let message =
            "services are matched as the source of ingress rules and the destination of egress rules";
        let help = "move it to the other side, or select the pods by their labels";
        good = Err(report.error_with_help(node.place, message, help));
    }
    let destination = EXCLUDED_DESTINATION
        .into_iter()
        .filter(|_| side == Side::Destination);
    for key in EXCLUDED.into_iter().chain(destination) {
        let beside = fields
            .get(key)
            .is_some_and(|node| node.text() != Some("") && !report.is_empty_list(node));
        if beside {
            let message = format!("services cannot be combined with {key}");
            good = Err(report.error_with_help(node.place, message, "make two rules"));
        }
    }
    good
}
