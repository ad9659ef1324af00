//! Every peer of a rule with every protocol: Calico's rules have one of each.

use std::collections::BTreeMap;

use crate::model::port::PortMatch;
use crate::model::types::{Action, Peer, PortRange, Rule};

/// One entry of a list of ports. Without a protocol it is a port's name, whatever protocol that has.
pub(super) struct PortOf {
    pub(super) protocol: Option<u8>,
    /// `None`: every port.
    pub(super) port: Option<PortMatch>,
}

/// Numbers and names that one rule can match.
#[derive(Clone, Default)]
struct Ports {
    ranges: Vec<PortRange>,
    names: Vec<String>,
}

/// The rules that do what one of Kubernetes' does. No peers are all peers, no ports all ports.
pub(super) fn expand(
    index: usize,
    action: Action,
    is_ingress: bool,
    peers: &[Peer],
    ports: Vec<PortOf>,
) -> Vec<Rule> {
    let any = [Peer::default()];
    let peers = if peers.is_empty() { &any } else { peers };
    let mut rules = Vec::new();
    for (protocol, ports) in merged(ports) {
        for peer in peers {
            let mut rule = Rule::everything(index, action);
            rule.protocol = protocol;
            *(if is_ingress {
                &mut rule.source
            } else {
                &mut rule.destination
            }) = peer.clone();
            rule.destination.ports.clone_from(&ports.ranges);
            rule.destination.named_ports.clone_from(&ports.names);
            rules.push(rule);
        }
    }
    rules
}

/// By protocol, sorted, overlaps joined; a protocol that is named without a port once has every port.
fn merged(ports: Vec<PortOf>) -> BTreeMap<Option<u8>, Ports> {
    if ports.is_empty() {
        return [(None, Ports::default())].into();
    }
    let mut by_protocol: BTreeMap<Option<u8>, Vec<Option<PortMatch>>> = BTreeMap::new();
    for PortOf { protocol, port } in ports {
        by_protocol.entry(protocol).or_default().push(port);
    }
    by_protocol
        .into_iter()
        .map(|(protocol, ports)| {
            let listed: Option<Vec<PortMatch>> = ports.into_iter().collect();
            (protocol, listed.map(split).unwrap_or_default())
        })
        .collect()
}

fn split(ports: Vec<PortMatch>) -> Ports {
    let mut split = Ports::default();
    for port in ports {
        match port {
            PortMatch::Range(range) => split.ranges.push(range),
            PortMatch::Name(name) => split.names.push(name),
        }
    }
    split.ranges.sort_unstable();
    split.ranges.dedup_by(|next, kept| {
        let joins = next.first <= kept.last.saturating_add(1);
        if joins {
            kept.last = kept.last.max(next.last);
        }
        joins
    });
    split.names.sort_unstable();
    split.names.dedup();
    split
}
