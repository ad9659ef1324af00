//! One Kubernetes rule: every peer with every protocol.

use std::collections::BTreeMap;

use ipnet::IpNet;

use super::{pods, pods_of, selector};
use crate::model::report::{Read, Report, Reported, quote};
use crate::model::scalars;
use crate::model::types::{Action, Peer, PortRange, Rule, label};
use crate::model::yaml::{Node, Resolved, Value};
use crate::selector::Selector;

const TCP: u8 = 6;
const PROTOCOLS: [(&str, u8); 3] = [("TCP", TCP), ("UDP", 17), ("SCTP", 132)];

/// Ports by protocol; an empty list is every port.
type Ports = BTreeMap<u8, Vec<PortRange>>;

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
    let (mut peers, ports) = (peers?.unwrap_or_default(), ports?.unwrap_or_default());
    if !fields.complete {
        return Err(Reported);
    }
    if peers.is_empty() {
        peers.push(Peer::default());
    }
    let by_protocol = merged(ports);
    let protocols: Vec<(Option<u8>, &[PortRange])> = if by_protocol.is_empty() {
        vec![(None, &[])]
    } else {
        by_protocol
            .iter()
            .map(|(protocol, ports)| (Some(*protocol), ports.as_slice()))
            .collect()
    };
    let mut rules = Vec::with_capacity(peers.len() * protocols.len());
    for (protocol, ports) in protocols {
        for peer in &peers {
            let (mut source, mut destination) = (Peer::default(), Peer::default());
            *(if is_ingress { &mut source } else { &mut destination }) = peer.clone();
            destination.ports = ports.to_vec();
            rules.push(Rule {
                index: u32::try_from(index).unwrap_or(u32::MAX),
                action: Action::Allow,
                ip_version: None,
                protocol,
                not_protocol: None,
                icmp: None,
                not_icmp: None,
                source,
                destination,
            });
        }
    }
    Ok(rules)
}

/// Sorted, overlaps joined; a protocol that is named without a port once has every port.
fn merged(ports: Vec<(u8, Option<PortRange>)>) -> Ports {
    let mut by_protocol: BTreeMap<u8, Vec<Option<PortRange>>> = BTreeMap::new();
    for (protocol, range) in ports {
        by_protocol.entry(protocol).or_default().push(range);
    }
    let join = |ranges: Vec<Option<PortRange>>| {
        let Some(mut ranges) = ranges.into_iter().collect::<Option<Vec<PortRange>>>() else {
            return Vec::new();
        };
        ranges.sort_unstable();
        let mut joined: Vec<PortRange> = Vec::with_capacity(ranges.len());
        for range in ranges {
            match joined.last_mut() {
                Some(last) if range.first <= last.last.saturating_add(1) => {
                    last.last = last.last.max(range.last);
                }
                _ => joined.push(range),
            }
        }
        joined
    };
    by_protocol
        .into_iter()
        .map(|(protocol, ranges)| (protocol, join(ranges)))
        .collect()
}

fn port<'t>(report: &mut Report<'t>, node: &Node<'t>) -> Read<(u8, Option<PortRange>)> {
    let fields = report.strict(node, &["protocol", "port", "endPort"])?;
    let protocol = fields.read(report, "protocol", |report, node| {
        scalars::word(report, node, &PROTOCOLS)
    });
    let first = fields.read(report, "port", number);
    let last = fields.read(report, "endPort", number);
    let (protocol, first, last) = (protocol?.unwrap_or(TCP), first?, last?);
    if !fields.complete {
        return Err(Reported);
    }
    match (first, last) {
        (None, None) => Ok((protocol, None)),
        (None, Some(_)) => {
            Err(report.error(fields.place, "endPort without port: expected both, or port alone"))
        }
        (Some(first), Some(last)) if last < first => {
            Err(report.error(fields.place, format!("endPort {last} is below port {first}")))
        }
        (Some(first), last) => Ok((
            protocol,
            Some(PortRange {
                first,
                last: last.unwrap_or(first),
            }),
        )),
    }
}

/// A port's number; a string is a port's name here, even if it has only digits.
fn number<'t>(report: &mut Report<'t>, node: &Node<'t>) -> Read<u16> {
    let expected = "a port number from 1 to 65535";
    if let Value::Scalar(scalar) = &node.value
        && scalar.resolve() == Resolved::Text
    {
        let message = format!(
            "named port {}: named ports are not supported yet",
            quote(&scalar.text)
        );
        return Err(report.error_with_help(node.place, message, "give the port's number, not in quotes"));
    }
    match report.integer(node, expected)? {
        0 => Err(report.error(node.place, format!("expected {expected}, found 0"))),
        port => Ok(port),
    }
}

fn peer<'t>(report: &mut Report<'t>, node: &Node<'t>, namespace: &str) -> Read<Peer> {
    let fields = report.strict(node, &["podSelector", "namespaceSelector", "ipBlock"])?;
    let of_pods = fields.read(report, "podSelector", selector::labels);
    let of_namespaces = fields.read(report, "namespaceSelector", selector::labels);
    let block = fields.read(report, "ipBlock", block);
    let (of_pods, of_namespaces, block) = (of_pods?, of_namespaces?, block?);
    if !fields.complete {
        return Err(Reported);
    }
    match (of_pods, of_namespaces, block) {
        (None, None, None) => Err(report.error_with_help(
            fields.place,
            "this peer is empty: expected podSelector, namespaceSelector or ipBlock",
            "leave the whole list out to allow every peer",
        )),
        (None, None, Some((net, except))) => Ok(Peer {
            nets: vec![net],
            not_nets: except,
            ..Peer::default()
        }),
        (_, _, Some(_)) => Err(report.error_with_help(
            fields.place,
            "ipBlock cannot be combined with a selector in one peer",
            "make two peers",
        )),
        (of_pods, of_namespaces, None) => {
            let scope = match of_namespaces {
                None => pods_of(namespace),
                // Everything with a namespace, and that is what pods are.
                Some(selector) => pods()
                    .and(&Selector::has(label::NAMESPACE))
                    .and(&selector.with_key_prefix(label::NAMESPACE_PREFIX)),
            };
            let selector = of_pods.unwrap_or_default().and(&scope);
            Ok(Peer {
                selector: Some(selector),
                ..Peer::default()
            })
        }
    }
}

fn block<'t>(report: &mut Report<'t>, node: &Node<'t>) -> Read<(IpNet, Vec<IpNet>)> {
    let fields = report.strict(node, &["cidr", "except"])?;
    let cidr = fields.read(report, "cidr", scalars::net)?;
    let Some(cidr) = cidr else {
        return Err(report.error(fields.place, "cidr is missing"));
    };
    let except = fields.read(report, "except", |report, node| {
        report.all(node, |report, node| {
            let net = scalars::net(report, node)?;
            if net == cidr || !cidr.contains(&net) {
                let message = format!("{net} is not a part of {cidr}");
                return Err(report.error(node.place, message));
            }
            Ok(net)
        })
    })?;
    if fields.complete {
        Ok((cidr, except.unwrap_or_default()))
    } else {
        Err(Reported)
    }
}
