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
            let ranges = Ranges::of(snapshot, cidr);
            // Made anew, the node gets what is free of the cluster's range.
            let elsewhere = |taken: &IpNet| {
                let frees = ranges.in_use && !ranges.cluster.iter().any(|net| overlap(net, taken));
                frees.then(|| az::rejoin(node)).flatten().unwrap_or_default()
            };
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
                let finding = Finding::new(Check::PodCidrOverlapsServices, &object, evidence).part(cidr);
                findings.push(finding.fix(elsewhere(services)));
            }
            let cluster = &ranges.cluster;
            if !snapshot.settings.cluster_cidrs.is_empty() && !cluster.iter().any(|net| net.contains(cidr)) {
                let evidence = if cluster.is_empty() {
                    format!("{cidr} is in no --cluster-cidr: none is of its family")
                } else {
                    format!("{cidr} is not in --cluster-cidr {}", some_of(cluster))
                };
                let finding = Finding::new(Check::PodCidrOutsideCluster, &object, evidence).part(cidr);
                findings.push(finding.fix(elsewhere(cidr)));
            }
            for subnet in snapshot.networks.iter().flat_map(|network| &network.subnets) {
                for prefix in subnet.prefixes.iter().filter(|net| overlap(cidr, net)) {
                    let evidence = format!("{cidr} and subnet {}'s {prefix} overlap", subnet.id.name());
                    let part = format!("{cidr} {prefix}");
                    let finding = Finding::new(Check::PodCidrOverlapsSubnet, &object, evidence).part(part);
                    findings.push(finding.fix(elsewhere(prefix)));
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
        let finding = Finding::new(Check::PodCidrOutsideNetwork, "cluster", evidence);
        findings.push(finding.fix(widened(snapshot, &outside)));
    }
}

/// The cluster's ranges of one family.
struct Ranges<'a> {
    cluster: Vec<&'a IpNet>,
    /// A node has its prefix of them: they are what the controller manager gives out.
    in_use: bool,
}

impl<'a> Ranges<'a> {
    fn of(snapshot: &'a Snapshot, cidr: &IpNet) -> Self {
        let of_family = |net: &&IpNet| net.addr().is_ipv4() == cidr.addr().is_ipv4();
        let cluster: Vec<&IpNet> = snapshot.settings.cluster_cidrs.iter().filter(of_family).collect();
        let mut given = snapshot.nodes.iter().flat_map(|node| &node.pod_cidrs);
        let in_use = given.any(|given| cluster.iter().any(|net| net.contains(given)));
        Self { cluster, in_use }
    }
}

/// The command that makes the cluster's ranges a part of the virtual network. `None`: it is one of several, or whose range a
/// podCIDR is of is not known, or a range is in part the network's already, and Azure takes no prefixes that overlap.
fn widened(snapshot: &Snapshot, outside: &[IpNet]) -> Option<String> {
    let [network] = snapshot.networks.as_slice() else {
        return None;
    };
    let mut added: Vec<IpNet> = Vec::new();
    for cidr in outside {
        let ranges = &snapshot.settings.cluster_cidrs;
        let range = ranges.iter().find(|range| range.contains(cidr))?;
        if network.prefixes.iter().any(|prefix| overlap(prefix, range)) {
            return None;
        }
        if !added.contains(range) {
            added.push(*range);
        }
    }
    let all: Vec<IpNet> = network.prefixes.iter().copied().chain(added).collect();
    Some(az::prefixes(&network.id, &all))
}

fn overlap(a: &IpNet, b: &IpNet) -> bool {
    a.contains(b) || b.contains(a)
}
