//! The nodes' network interfaces and their subnets.

use std::collections::BTreeMap;

use super::{az, some_of};
use crate::azure::finding::{Check, Finding};
use crate::azure::resource::{Id, SUCCEEDED};
use crate::azure::snapshot::Snapshot;

pub(super) fn check(snapshot: &Snapshot, findings: &mut Vec<Finding>) {
    if snapshot.nics.is_none() {
        return;
    }
    // By subnet, the nodes in it.
    let mut subnets: BTreeMap<&Id, Vec<&str>> = BTreeMap::new();
    for node in snapshot.nodes.iter().filter(|node| node.managed) {
        let object = format!("node/{}", node.name);
        let Some(nic) = snapshot.nic(node) else {
            let evidence = format!("no network interface has {}", some_of(&node.internal_ips));
            findings.push(Finding::new(Check::NicMissing, &object, evidence));
            continue;
        };
        if !nic.forwarding {
            let evidence = format!(
                "enableIPForwarding of network interface {} is false",
                nic.id.name()
            );
            findings.push(Finding::new(Check::NicForwarding, &object, evidence).fix(az::forwarding(nic)));
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
        if !associated {
            let instead = instead.map_or_else(
                || format!("not associated with route table {}", table.name()),
                |other| {
                    format!(
                        "associated with route table {}, not {}",
                        other.name(),
                        table.name()
                    )
                },
            );
            let evidence = format!("it is {instead}; in it are {}", some_of(&nodes));
            findings.push(
                Finding::new(
                    Check::TableAssociation,
                    format!("subnet/{}", subnet.name()),
                    evidence,
                )
                .fix([az::associate(subnet, table)]),
            );
        }
    }
}
