//! The nodes' podCIDRs.

use ipnet::IpNet;

use super::some_of;
use crate::azure::finding::{Check, Finding};
use crate::azure::snapshot::Snapshot;

pub(super) fn check(snapshot: &Snapshot, findings: &mut Vec<Finding>) {
    let mut outside: Vec<IpNet> = Vec::new();
    let networks: Vec<IpNet> = snapshot
        .networks
        .iter()
        .flat_map(|n| n.prefixes.clone())
        .collect();
    for (place, node) in snapshot.nodes.iter().enumerate() {
        let object = format!("node/{}", node.name);
        if node.pod_cidrs.is_empty() {
            let evidence = "spec.podCIDRs is empty; is the controller manager run with --allocate-node-cidrs and --cluster-cidr?";
            findings.push(Finding::new(Check::PodCidrMissing, &object, evidence));
        }
        for v4 in [true, false] {
            let of_family: Vec<&IpNet> = node
                .pod_cidrs
                .iter()
                .filter(|net| net.addr().is_ipv4() == v4)
                .collect();
            if of_family.len() > 1 {
                let evidence = format!(
                    "{} prefixes of one family: {}",
                    of_family.len(),
                    some_of(&of_family)
                );
                findings.push(Finding::new(Check::PodCidrFamily, &object, evidence));
            }
        }
        for cidr in &node.pod_cidrs {
            for other in snapshot.nodes.iter().skip(place + 1) {
                for theirs in other.pod_cidrs.iter().filter(|theirs| overlap(cidr, theirs)) {
                    let evidence = format!("{cidr} and node {}'s {theirs} overlap", other.name);
                    findings.push(Finding::new(Check::PodCidrDuplicate, &object, evidence));
                }
            }
            for services in snapshot
                .settings
                .service_cidrs
                .iter()
                .filter(|net| overlap(cidr, net))
            {
                let evidence = format!("{cidr} and the services' {services} overlap");
                findings.push(Finding::new(Check::PodCidrOverlapsServices, &object, evidence));
            }
            for subnet in snapshot.networks.iter().flat_map(|network| &network.subnets) {
                for prefix in subnet.prefixes.iter().filter(|net| overlap(cidr, net)) {
                    let evidence = format!("{cidr} and subnet {}'s {prefix} overlap", subnet.id.name());
                    findings.push(Finding::new(Check::PodCidrOverlapsSubnet, &object, evidence));
                }
            }
            if !networks.is_empty() && !networks.iter().any(|net| net.contains(cidr)) {
                outside.push(*cidr);
            }
        }
    }
    if !outside.is_empty() {
        let evidence = format!(
            "{} in none of the virtual network's prefixes ({})",
            some_of(&outside),
            some_of(&networks)
        );
        findings.push(Finding::new(Check::PodCidrOutsideNetwork, "cluster", evidence));
    }
}

fn overlap(a: &IpNet, b: &IpNet) -> bool {
    a.contains(b) || b.contains(a)
}
