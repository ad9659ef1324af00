//! The nodes' network interfaces and their subnets.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::{az, some_of};
use crate::azure::finding::{Check, Finding};
use crate::azure::nodes::NodeState;
use crate::azure::resource::{Id, Nic, SUCCEEDED};
use crate::azure::snapshot::Snapshot;

pub(super) fn check(snapshot: &Snapshot, findings: &mut Vec<Finding>) {
    if snapshot.nics.is_none() {
        return;
    }
    let network = snapshot.networking.network;
    // By subnet, the nodes in it.
    let mut subnets: BTreeMap<&Id, Vec<&str>> = BTreeMap::new();
    for node in snapshot.nodes.iter().filter(|node| node.managed) {
        let object = format!("node/{}", node.name);
        let Some(nic) = snapshot.nic(node) else {
            let evidence = format!("no network interface has {}", some_of(&node.internal_ips));
            findings.push(Finding::new(Check::NicMissing, &object, evidence));
            continue;
        };
        addresses(snapshot, node, nic, findings);
        if network.needs_forwarding() && !nic.forwarding {
            let fix = az::forwarding(nic);
            let unknown = if fix.is_some() {
                ""
            } else {
                "; its scale set's model has no interface of that name, so no command is given"
            };
            let evidence = format!(
                "enableIPForwarding of network interface {} is false{unknown}",
                nic.id.name()
            );
            let finding = Finding::new(Check::NicForwarding, &object, evidence);
            findings.push(finding.fix(fix.into_iter().flatten()));
        }
        if !nic.state.is_empty() && nic.state != SUCCEEDED {
            let evidence = format!(
                "provisioningState of network interface {} is {}",
                nic.id.name(),
                nic.state
            );
            findings.push(Finding::new(Check::NicState, &object, evidence));
        }
        let own = nic.configurations.iter().filter(|configuration| {
            configuration
                .address
                .is_some_and(|address| node.internal_ips.contains(&address))
        });
        for subnet in own.filter_map(|configuration| configuration.subnet.as_ref()) {
            let nodes = subnets.entry(subnet).or_default();
            if !nodes.contains(&node.name.as_str()) {
                nodes.push(&node.name);
            }
        }
    }
    if network.needs_routes() {
        associations(snapshot, &subnets, findings);
    }
}

/// Azure delivers to addresses that it has given to an interface, and routes lead to the node's.
fn addresses(snapshot: &Snapshot, node: &NodeState, nic: &Nic, findings: &mut Vec<Finding>) {
    let object = format!("node/{}", node.name);
    for v4 in [true, false] {
        let of_family = |ip: &&IpAddr| ip.is_ipv4() == v4;
        let Some(ip) = node.internal_ips.iter().find(of_family) else {
            continue;
        };
        if !nic.has(*ip) {
            let whose = snapshot.nic_with(*ip).map_or_else(
                || "no network interface has it".to_owned(),
                |other| format!("network interface {} has it", other.id.name()),
            );
            let evidence = format!(
                "InternalIP {ip} is none of network interface {}'s addresses: {whose}",
                nic.id.name()
            );
            findings.push(Finding::new(Check::NicAddress, &object, evidence).part(ip));
            continue;
        }
        let first = nic.first(v4).filter(|first| first != ip);
        if let Some(first) = first {
            let evidence = format!(
                "InternalIP {ip} is not the primary address of network interface {}, which is {first}; start the kubelet with --node-ip {first}",
                nic.id.name()
            );
            findings.push(Finding::new(Check::NicPrimary, &object, evidence).part(ip));
        }
    }
    let of_machine = |other: &&Nic| other.primary && other.machine.is_some() && other.machine == nic.machine;
    let primary = snapshot.nics.iter().flatten().find(of_machine);
    if let Some(primary) = primary.filter(|_| !nic.primary) {
        let evidence = format!(
            "InternalIP is of network interface {}, and the machine's primary one is {}",
            nic.id.name(),
            primary.id.name()
        );
        findings.push(Finding::new(Check::NicPrimary, &object, evidence).part(nic.id.name()));
    }
}

fn associations(snapshot: &Snapshot, subnets: &BTreeMap<&Id, Vec<&str>>, findings: &mut Vec<Finding>) {
    // What does not exist cannot be associated; that it does not is another finding, whose mending comes first.
    for (subnet, nodes) in subnets {
        let (table, known) = (&snapshot.table_id, snapshot.subnet(subnet));
        let (associated, instead) = match known {
            Some(known) => (
                known.route_table.as_ref() == Some(table),
                known.route_table.as_ref(),
            ),
            None => (
                snapshot.table.iter().any(|table| table.subnets.contains(subnet)),
                None,
            ),
        };
        if associated {
            continue;
        }
        let rest = format!("in it are {}", some_of(nodes));
        let (evidence, fix) = match (known, instead) {
            (_, Some(other)) => (
                format!(
                    "it is associated with route table {}, not {}; {rest}; the other table is somebody's, who has to say whether these \
                     routes go into it or the subnet gets another table: no command is given",
                    other.name(),
                    table.name()
                ),
                None,
            ),
            (Some(_), None) => (
                format!("it is not associated with route table {}; {rest}", table.name()),
                Some(az::associate(subnet, table)),
            ),
            (None, None) => (
                format!(
                    "it is not associated with route table {}; {rest}; whether it has another table could not be seen: no command is given",
                    table.name()
                ),
                None,
            ),
        };
        let object = format!("subnet/{}", subnet.name());
        findings.push(
            Finding::new(Check::TableAssociation, object, evidence)
                .part(subnet)
                .fix(fix),
        );
    }
}
