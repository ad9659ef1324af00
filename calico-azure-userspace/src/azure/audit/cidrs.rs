//! The nodes' podCIDRs.

use std::cmp::Ordering;

use ipnet::IpNet;

use super::{az, some_of};
use crate::azure::finding::{Check, Finding};
use crate::azure::snapshot::Snapshot;

pub(super) fn check(snapshot: &Snapshot, findings: &mut Vec<Finding>) {
    let network = snapshot.networking.network;
    if !network.has_pod_cidrs() {
        return;
    }
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
                let family = if v4 { "IPv4" } else { "IPv6" };
                findings.push(Finding::new(Check::PodCidrFamily, &object, evidence).part(family));
            }
        }
        for cidr in &node.pod_cidrs {
            for other in snapshot.nodes.iter().skip(place + 1) {
                for theirs in other.pod_cidrs.iter().filter(|theirs| overlap(cidr, theirs)) {
                    let evidence = format!("{cidr} and node {}'s {theirs} overlap", other.name);
                    let part = format!("{cidr} {}", other.name);
                    // Whose it was first may keep it.
                    let second = match node.created.cmp(&other.created) {
                        _ if node.created.is_empty() || other.created.is_empty() => None,
                        Ordering::Equal => None,
                        Ordering::Greater => Some(node),
                        Ordering::Less => Some(other),
                    };
                    let fix = second.and_then(az::rejoin).unwrap_or_default();
                    let finding = Finding::new(Check::PodCidrDuplicate, &object, evidence);
                    findings.push(finding.part(part).fix(fix));
                }
            }
            for services in snapshot
                .settings
                .service_cidrs
                .iter()
                .filter(|net| overlap(cidr, net))
            {
                let evidence = format!("{cidr} and the services' {services} overlap");
                findings.push(Finding::new(Check::PodCidrOverlapsServices, &object, evidence).part(cidr));
            }
            let of_family = |net: &&IpNet| net.addr().is_ipv4() == cidr.addr().is_ipv4();
            let cluster: Vec<&IpNet> = snapshot.settings.cluster_cidrs.iter().filter(of_family).collect();
            if !snapshot.settings.cluster_cidrs.is_empty() && !cluster.iter().any(|net| net.contains(cidr)) {
                let evidence = if cluster.is_empty() {
                    format!("{cidr} is in no --cluster-cidr: none is of its family")
                } else {
                    format!("{cidr} is not in --cluster-cidr {}", some_of(&cluster))
                };
                findings.push(Finding::new(Check::PodCidrOutsideCluster, &object, evidence).part(cidr));
            }
            for subnet in snapshot.networks.iter().flat_map(|network| &network.subnets) {
                for prefix in subnet.prefixes.iter().filter(|net| overlap(cidr, net)) {
                    let evidence = format!("{cidr} and subnet {}'s {prefix} overlap", subnet.id.name());
                    let part = format!("{cidr} {prefix}");
                    findings.push(Finding::new(Check::PodCidrOverlapsSubnet, &object, evidence).part(part));
                }
            }
            // Flannel's packets have nodes' addresses on the outside.
            if network.needs_forwarding()
                && !networks.is_empty()
                && !networks.iter().any(|net| net.contains(cidr))
            {
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
