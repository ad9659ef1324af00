//! One peer of a NetworkPolicy's rule.

use ipnet::IpNet;

use super::{pods_in, pods_of, selector};
use crate::model::report::{Read, Report, Reported};
use crate::model::scalars;
use crate::model::types::Peer;
use crate::model::yaml::Node;

pub(super) fn peer<'t>(report: &mut Report<'t>, node: &Node<'t>, namespace: &str) -> Read<Peer> {
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
                Some(selector) => pods_in(&selector),
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
