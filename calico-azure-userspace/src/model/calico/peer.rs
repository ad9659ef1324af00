//! One side of a rule.

use ipnet::IpNet;

use super::ports::{self, PortList};
use super::rule::Context;
use super::rules::{Broken, limit};
use super::{selectors, services};
use crate::model::report::{Fields, Report};
use crate::model::scalars;
use crate::model::types::{IpVersion, Peer};
use crate::model::yaml::{Node, Place};

const FIELDS: [&str; 9] = [
    "nets",
    "notNets",
    "ports",
    "notPorts",
    "selector",
    "notSelector",
    "namespaceSelector",
    "serviceAccounts",
    "services",
];
/// What the API takes in one list.
const MAX_NETS: usize = 256;

/// Which end of the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Source,
    Destination,
}

/// A side as far as it was understood, and what the rule around it has to know.
#[derive(Default)]
pub(super) struct ReadPeer {
    pub(super) peer: Peer,
    /// `ports` and `notPorts`, if there is anything in them.
    pub(super) port_lists: [Option<PortList>; 2],
    /// Of the first network of each family.
    pub(super) nets_place: [Option<Place>; 2],
}

/// What cannot be understood is left out, so that the rest matches more.
pub(super) fn read<'t>(
    report: &mut Report<'t>,
    node: &Node<'t>,
    side: Side,
    context: &Context<'_>,
    broken: &mut Broken,
) -> ReadPeer {
    let mut read = ReadPeer::default();
    let Ok(fields) = report.strict(node, &FIELDS) else {
        broken.0 = true;
        return read;
    };
    broken.0 |= !fields.complete;
    nets(report, &fields, &mut read, broken);
    ports::read(report, &fields, &mut read, broken);
    read.peer.service = services::read(report, &fields, side, context, broken);
    selectors::read(report, &fields, context.namespace, &mut read.peer, broken);
    read
}

fn nets<'t>(report: &mut Report<'t>, fields: &Fields<'_, 't>, read: &mut ReadPeer, broken: &mut Broken) {
    for key in ["nets", "notNets"] {
        let mut understood: Vec<IpNet> = Vec::new();
        let result = fields.read(report, key, |report, node| {
            let list = report.list(node)?;
            limit(report, node, list.len(), MAX_NETS);
            let (nets, complete) = report.each(list, |report, node| {
                let net = scalars::net(report, node)?;
                if key == "notNets" && net.prefix_len() == 0 {
                    let message = format!("{net} excludes every address, so the rule would match nothing");
                    return Err(report.error(node.place, message));
                }
                let place = read.nets_place.get_mut(usize::from(matches!(net, IpNet::V6(_))));
                if let Some(place) = place {
                    place.get_or_insert(node.place);
                }
                Ok(net)
            });
            understood = nets;
            complete
        });
        if broken.or_default(result).is_none() && key == "nets" {
            // One network less would match less.
            understood.clear();
        }
        match key {
            "nets" => read.peer.nets = understood,
            _ => read.peer.not_nets = understood,
        }
    }
}

/// The API refuses rules that name networks of both families, and nobody can tell what they mean. Those of the family
/// that the rule is not about leave nothing that it could match.
pub(super) fn one_family(
    report: &mut Report<'_>,
    version: Option<IpVersion>,
    sides: &mut [ReadPeer; 2],
    broken: &mut Broken,
) {
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
        return;
    }
    let other = match version {
        Some(IpVersion::V4) => first(1, sides),
        Some(IpVersion::V6) => first(0, sides),
        None => None,
    };
    if let Some(place) = other {
        let message = "the rule matches nothing: this network belongs to the other IP version";
        report.warning(
            place,
            message,
            "make the rule's networks, ipVersion and protocol agree",
        );
    }
}
