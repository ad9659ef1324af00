//! Ports of one side of a rule: numbers, ranges, and names that endpoints give them.

use super::peer::ReadPeer;
use super::rules::{Broken, limit};
use crate::model::port::{self, PortMatch, WITH_PORTS};
use crate::model::report::{Fields, Report};
use crate::model::types::{Peer, PortRange};
use crate::model::yaml::Place;

/// What the API takes in one list.
const MAX_PORTS: usize = 50;

/// A list of ports with something in it.
#[derive(Clone, Copy)]
pub(super) struct PortList {
    place: Place,
    /// Not only names.
    has_numbers: bool,
}

const LISTS: [&str; 2] = ["ports", "notPorts"];

fn split(list: Vec<PortMatch>) -> (Vec<PortRange>, Vec<String>) {
    let (mut ranges, mut names) = (Vec::new(), Vec::new());
    for port in list {
        match port {
            PortMatch::Range(range) => ranges.push(range),
            PortMatch::Name(name) => names.push(name),
        }
    }
    (ranges, names)
}

pub(super) fn read<'t>(
    report: &mut Report<'t>,
    fields: &Fields<'_, 't>,
    read: &mut ReadPeer,
    broken: &mut Broken,
) {
    for (key, place) in LISTS.into_iter().zip(&mut read.port_lists) {
        let mut understood = Vec::new();
        let result = fields.read(report, key, |report, node| {
            let list = report.list(node)?;
            limit(report, node, list.len(), MAX_PORTS);
            let (ports, complete) = report.each(list, port::port_match);
            *place = (!list.is_empty()).then(|| PortList {
                place: node.place,
                has_numbers: ports.iter().any(|port| matches!(port, PortMatch::Range(_))),
            });
            understood = ports;
            complete
        });
        if broken.or_default(result).is_none() && key == "ports" {
            // One port less would match less.
            understood.clear();
        }
        let (ranges, names) = split(understood);
        let Peer {
            ports,
            not_ports,
            named_ports,
            not_named_ports,
            ..
        } = &mut read.peer;
        match key {
            "ports" => (*ports, *named_ports) = (ranges, names),
            _ => (*not_ports, *not_named_ports) = (ranges, names),
        }
    }
}

/// Numbers need a protocol that has ports; a name brings its own, and must not meet another.
pub(super) fn check(
    report: &mut Report<'_>,
    protocol: Option<u8>,
    sides: &mut [ReadPeer; 2],
    broken: &mut Broken,
) {
    for (side, side_key) in sides.iter_mut().zip(["source", "destination"]) {
        for (key, list) in LISTS.into_iter().zip(side.port_lists) {
            let Some(PortList { place, has_numbers }) = list else {
                continue;
            };
            let fits = match protocol {
                Some(protocol) => WITH_PORTS.contains(&protocol),
                // The protocol may be in what was not understood.
                None => !has_numbers || broken.0,
            };
            if fits {
                continue;
            }
            let help = "add protocol: TCP, UDP or SCTP to the rule";
            let message = "ports need the rule's protocol to be TCP, UDP or SCTP";
            report.within(side_key, |report| {
                report.within(key, |report| report.error_with_help(place, message, help))
            });
            broken.0 = true;
            match key {
                "ports" => {
                    side.peer.ports.clear();
                    side.peer.named_ports.clear();
                }
                _ => {
                    side.peer.not_ports.clear();
                    side.peer.not_named_ports.clear();
                }
            }
        }
    }
}
