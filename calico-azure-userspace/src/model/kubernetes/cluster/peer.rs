//! Whom a policy is about, and whom its rules are about.

use super::limit;
use crate::model::kubernetes::{pods_in, selector};
use crate::model::report::{Fields, Read, Report, Reported};
use crate::model::scalars;
use crate::model::types::Peer;
use crate::model::yaml::Node;
use crate::selector::Selector;

/// What the API takes.
const MAX_NETWORKS: usize = 25;

/// The pods that a policy selects.
pub(super) fn subject<'t>(report: &mut Report<'t>, node: &Node<'t>) -> Read<Selector> {
    let fields = one_of(report, node, &["namespaces", "pods"], "subject")?;
    let selector = of_pods(report, &fields)?;
    selector.ok_or(Reported)
}

/// One entry of `from` or `to`.
pub(super) fn peer<'t>(report: &mut Report<'t>, node: &Node<'t>, is_ingress: bool) -> Read<Peer> {
    let known: &[&str] = if is_ingress {
        &["namespaces", "pods"]
    } else {
        &["namespaces", "pods", "networks", "nodes", "domainNames"]
    };
    let fields = one_of(report, node, known, "peer")?;
    for (key, help) in [
        ("nodes", "list the nodes' addresses in networks"),
        ("domainNames", "list the addresses in networks"),
    ] {
        if let Some(node) = fields.get(key) {
            let message = format!("{key} cannot be matched");
            return Err(report.within(key, |report| report.error_with_help(node.place, message, help)));
        }
    }
    let nets = fields.read(report, "networks", |report, node| {
        let nets = report.all(node, scalars::net)?;
        limit(report, node, nets.len(), MAX_NETWORKS);
        if nets.is_empty() {
            return Err(report.error(node.place, "the list is empty: expected at least one network"));
        }
        Ok(nets)
    })?;
    Ok(Peer {
        nets: nets.unwrap_or_default(),
        selector: of_pods(report, &fields)?,
        ..Peer::default()
    })
}

/// A mapping with exactly one field.
fn one_of<'n, 't>(
    report: &mut Report<'t>,
    node: &'n Node<'t>,
    known: &[&'static str],
    what: &str,
) -> Read<Fields<'n, 't>> {
    let fields = report.strict(node, known)?;
    let given = known.iter().filter(|key| fields.get(key).is_some()).count();
    if !fields.complete {
        return Err(Reported);
    }
    let expected = known.join(", ");
    match given {
        1 => Ok(fields),
        0 => Err(report.error(
            fields.place,
            format!("the {what} is empty: expected one of {expected}"),
        )),
        _ => Err(report.error(
            fields.place,
            format!("the {what} is ambiguous: expected only one of {expected}"),
        )),
    }
}

fn of_pods<'t>(report: &mut Report<'t>, fields: &Fields<'_, 't>) -> Read<Option<Selector>> {
    let namespaces = fields.read(report, "namespaces", selector::labels)?;
    if let Some(namespaces) = namespaces {
        return Ok(Some(pods_in(&namespaces)));
    }
    fields.read(report, "pods", |report, node| {
        let fields = report.strict(node, &["namespaceSelector", "podSelector"])?;
        let namespaces = fields.read(report, "namespaceSelector", selector::labels);
        let pods = fields.read(report, "podSelector", selector::labels);
        let (namespaces, pods) = (namespaces?.unwrap_or_default(), pods?);
        // As the API's own types have it: a selector that is left out is an empty one.
        let pods = pods.unwrap_or_else(|| {
            if fields.complete {
                let help = "write podSelector: {} to say so";
                report.warning(
                    fields.place,
                    "podSelector is missing: every pod of these namespaces is meant",
                    help,
                );
            }
            Selector::all()
        });
        if fields.complete {
            Ok(pods.and(&pods_in(&namespaces)))
        } else {
            Err(Reported)
        }
    })
}
