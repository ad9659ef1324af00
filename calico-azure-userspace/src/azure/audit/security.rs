//! Whether security groups let flannel's tunnels through between nodes.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::azure::finding::{Check, Finding};
use crate::azure::network::Network;
use crate::azure::nodes::NodeState;
use crate::azure::security::{About, SecurityGroup, denied};
use crate::azure::snapshot::Snapshot;

/// Flannel's UDP port on Linux.
const PORT: u16 = 8472;

pub(super) fn check(snapshot: &Snapshot, findings: &mut Vec<Finding>) {
    if snapshot.networking.network != Network::Flannel {
        return;
    }
    for group in snapshot.security.values() {
        let near: Vec<&NodeState> = snapshot
            .nodes
            .iter()
            .filter(|node| snapshot.security_of(node).contains(&&group.id))
            .collect();
        for v4 in [true, false] {
            for inbound in [true, false] {
                direction(snapshot, group, &near, v4, inbound, findings);
            }
        }
    }
}

/// Nodes by what the rules are about: those that no rule tells apart are judged together, so that thousands of nodes are no trouble.
fn alike<'a>(
    nodes: impl Iterator<Item = &'a NodeState>,
    address: impl Fn(&NodeState) -> Option<IpAddr>,
    about: impl Fn(IpAddr) -> Vec<About>,
) -> BTreeMap<Vec<About>, Vec<&'a str>> {
    let mut classes: BTreeMap<Vec<About>, Vec<&'a str>> = BTreeMap::new();
    for node in nodes {
        if let Some(ip) = address(node) {
            classes.entry(about(ip)).or_default().push(&node.name);
        }
    }
    classes
}

fn direction(
    snapshot: &Snapshot,
    group: &SecurityGroup,
    near: &[&NodeState],
    v4: bool,
    inbound: bool,
    findings: &mut Vec<Finding>,
) {
    let rules = group.about(inbound, PORT);
    let address = |node: &NodeState| {
        let tunnels = node.pod_cidrs.iter().any(|cidr| cidr.addr().is_ipv4() == v4);
        let mut ips = node.internal_ips.iter().filter(|ip| ip.is_ipv4() == v4);
        ips.next().copied().filter(|_| tunnels)
    };
    let from = |ip: IpAddr| rules.iter().map(|rule| rule.from(ip)).collect::<Vec<_>>();
    let to = |ip: IpAddr| rules.iter().map(|rule| rule.to(ip)).collect::<Vec<_>>();
    let all = || snapshot.nodes.iter();
    let ours = || near.iter().copied();
    let (senders, receivers) = if inbound {
        (alike(all(), address, from), alike(ours(), address, to))
    } else {
        (alike(ours(), address, from), alike(all(), address, to))
    };
    let mut told: Vec<&str> = Vec::new();
    for (from, senders) in &senders {
        for (to, receivers) in &receivers {
            let about = from.iter().zip(to).map(|(from, to)| *from.min(to));
            let Some(rule) = denied(&rules, about) else {
                continue;
            };
            // A node sends nothing to itself.
            let mut pairs = senders
                .iter()
                .flat_map(|one| receivers.iter().map(move |other| (*one, *other)));
            let Some((one, other)) = pairs.find(|(one, other)| one != other) else {
                continue;
            };
            if told.contains(&rule.name.as_str()) {
                continue;
            }
            told.push(&rule.name);
            let way = if inbound { "inbound" } else { "outbound" };
            let evidence = format!(
                "its {way} rule {} (priority {}) denies UDP {PORT}, flannel's tunnels, from node {one} to node {other}; allow it between \
                 nodes by a rule with a smaller number",
                rule.name, rule.priority
            );
            let object = format!("security-group/{}", group.id.name());
            let family = if v4 { "IPv4" } else { "IPv6" };
            let part = format!("{} {way} {} {family}", group.id, rule.name);
            findings.push(Finding::new(Check::SecurityRule, object, evidence).part(part));
        }
    }
}
