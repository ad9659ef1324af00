//! One rule.

use super::{Dialect, limit, peer, protocols, required};
use crate::model::kubernetes::expand::{PortOf, expand};
use crate::model::port::PortMatch;
use crate::model::report::{Fields, Read, Report, Reported};
use crate::model::scalars;
use crate::model::types::{Action, Peer, Rule};
use crate::model::yaml::Node;

/// What the API takes.
const LONGEST_NAME: usize = 100;

/// A rule that is not understood allows nothing, and denies everything if it was to deny or to pass.
pub(super) fn rule<'t>(
    report: &mut Report<'t>,
    node: &Node<'t>,
    index: usize,
    is_ingress: bool,
    dialect: &Dialect,
) -> Vec<Rule> {
    let side = if is_ingress { "from" } else { "to" };
    let deny_all = || vec![Rule::everything(index, Action::Deny)];
    let Ok(fields) = report.strict(node, &["name", "action", side, dialect.ports]) else {
        return deny_all();
    };
    let action = required(report, &fields, "action", |report, node| {
        scalars::word(report, node, dialect.actions)
    });
    let converted = criteria(report, &fields, side, is_ingress, dialect);
    match (action, converted) {
        (Ok(action), Ok((peers, ports))) => expand(index, action, is_ingress, &peers, ports),
        (Ok(Action::Allow), Err(Reported)) => Vec::new(),
        _ => deny_all(),
    }
}

fn criteria<'t>(
    report: &mut Report<'t>,
    fields: &Fields<'_, 't>,
    side: &'static str,
    is_ingress: bool,
    dialect: &Dialect,
) -> Read<(Vec<Peer>, Vec<PortOf>)> {
    let name = fields.read(report, "name", name);
    let peers = required(report, fields, side, |report, node| {
        some(report, node, dialect, |report, node| {
            peer::peer(report, node, is_ingress)
        })
    });
    let ports = fields.read(report, dialect.ports, |report, node| {
        some(report, node, dialect, |report, node| {
            protocols::entry(report, node, dialect)
        })
    });
    let (_, peers, ports) = (name?, peers?, ports?.unwrap_or_default());
    let has_names = ports
        .iter()
        .any(|port| matches!(port.port, Some(PortMatch::Name(_))));
    if has_names && peers.iter().any(|peer| !peer.nets.is_empty()) {
        let message = "networks have no named ports: expected port numbers, or peers that are pods";
        return Err(report.error_with_help(fields.place, message, "make two rules"));
    }
    if fields.complete {
        Ok((peers, ports))
    } else {
        Err(Reported)
    }
}

/// The items of a list that must not be empty.
pub(super) fn some<'n, 't, T>(
    report: &mut Report<'t>,
    node: &'n Node<'t>,
    dialect: &Dialect,
    read: impl FnMut(&mut Report<'t>, &'n Node<'t>) -> Read<T>,
) -> Read<Vec<T>> {
    let items = report.all(node, read)?;
    limit(report, node, items.len(), dialect.most);
    if items.is_empty() {
        return Err(report.error(node.place, "the list is empty: expected at least one entry"));
    }
    Ok(items)
}

/// It only names the rule for its readers.
fn name<'t>(report: &mut Report<'t>, node: &Node<'t>) -> Read<()> {
    let name = report.string(node)?;
    if name.chars().count() > LONGEST_NAME {
        report.error(
            node.place,
            format!("expected a name of at most {LONGEST_NAME} characters"),
        );
    }
    Ok(())
}
