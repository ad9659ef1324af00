//! podCIDRs that overlap what is somebody else's, or are outside what they should be in: which commands are certain to help.

use super::{SUBNET, audit, healthy};
use crate::azure::finding::Check;
use crate::azure::resource::Id;
use crate::azure::snapshot::Snapshot;

fn fix(snapshot: &Snapshot, check: Check) -> Vec<String> {
    let mut findings = audit(snapshot).into_iter();
    findings.find(|finding| finding.check == check).unwrap().fix
}

/// Node 1 of 3 has the prefix, and the machine that it runs on is known.
fn with(prefix: &str) -> Snapshot {
    let vm = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/virtualMachines/vm-11";
    let mut snapshot = healthy(3);
    snapshot.nodes[1].pod_cidrs = vec![prefix.parse().unwrap()];
    snapshot.nodes[1].machine = Some(Id::new(vm));
    snapshot
}

#[test]
fn a_node_is_made_anew_if_it_then_gets_a_prefix_that_is_nobodys() {
    for (prefix, check, taken) in [
        ("10.0.5.0/24", Check::PodCidrOverlapsServices, "10.0.0.0/8"),
        ("10.240.7.0/24", Check::PodCidrOverlapsSubnet, "10.240.0.0/12"),
        ("172.16.0.0/24", Check::PodCidrOutsideCluster, "10.0.0.0/8"),
    ] {
        let snapshot = with(prefix);
        let commands = fix(&snapshot, check);
        assert_eq!(commands.len(), 3, "{check}: {commands:?}");
        assert_eq!(commands[1], "kubectl delete node vm-11", "{check}");
        // The cluster's range overlaps as well.
        if check != Check::PodCidrOutsideCluster {
            let mut same = snapshot.clone();
            same.settings.cluster_cidrs = vec![taken.parse().unwrap()];
            assert_eq!(fix(&same, check), [""; 0], "{check}");
        }
        // No node has its prefix of that range: maybe the flag is what is wrong.
        let mut other = snapshot.clone();
        other.settings.cluster_cidrs = vec!["192.168.0.0/16".parse().unwrap()];
        assert_eq!(fix(&other, check), [""; 0], "{check}");
        // Where it runs is not known.
        let mut lost = snapshot.clone();
        lost.nodes[1].machine = None;
        assert_eq!(fix(&lost, check), [""; 0], "{check}");
    }
}

#[test]
fn the_network_is_widened_by_ranges_that_are_no_part_of_it() {
    const CHECK: Check = Check::PodCidrOutsideNetwork;
    let mut snapshot = healthy(2);
    snapshot.networks[0].prefixes = vec!["10.240.0.0/16".parse().unwrap()];
    let network = Id::new(SUBNET).parent().unwrap();
    let command = format!(
        "az network vnet update --ids {} --address-prefixes 10.240.0.0/16 10.244.0.0/16",
        network.as_str()
    );
    assert_eq!(fix(&snapshot, CHECK), [command]);
    // A part of the range is the network's.
    let mut part = snapshot.clone();
    part.networks[0].prefixes = ["10.240.0.0/16", "10.244.10.0/24"]
        .map(|net| net.parse().unwrap())
        .into();
    assert_eq!(fix(&part, CHECK), [""; 0]);
    // Which range it is of nobody said.
    let mut unknown = snapshot.clone();
    unknown.settings.cluster_cidrs.clear();
    assert_eq!(fix(&unknown, CHECK), [""; 0]);
    // Which network is to have it.
    let mut two = snapshot.clone();
    two.networks.push(two.networks[0].clone());
    assert_eq!(fix(&two, CHECK), [""; 0]);
}
