//! Interfaces, addresses, and what of all this matters on which network.

use super::*;
use crate::azure::network::{Found, Network};
use crate::azure::resource::EffectiveRoute;
use crate::azure::security::SecurityGroup;

#[test]
fn a_scale_sets_interface_is_mended_there() {
    let mut snapshot = healthy(1);
    let id = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/virtualMachineScaleSets/pool/virtualMachines/3/networkInterfaces/n";
    let nic = &mut snapshot.nics.as_mut().unwrap()[0];
    nic.id = Id::new(id);
    nic.forwarding = false;
    // Which of the scale set's interfaces it is, is not known.
    let finding = only(&snapshot);
    assert!(
        finding.fix.is_empty() && finding.evidence.contains("no command is given"),
        "{finding:?}"
    );
    snapshot.nics.as_mut().unwrap()[0].place = Some(1);
    let fix = only(&snapshot).fix;
    let property =
        "virtualMachineProfile.networkProfile.networkInterfaceConfigurations[1].enableIPForwarding=true";
    let update = format!("az vmss update --subscription s --resource-group g --name pool --set '{property}'");
    assert_eq!(fix[0], update);
    assert!(fix[1].ends_with("--name pool --instance-ids 3"), "{fix:?}");
    // Nobody may read them.
    snapshot.nics = None;
    assert_eq!(audit(&snapshot), []);
}

#[test]
fn both_families_and_what_the_fabric_does() {
    let mut snapshot = healthy(2);
    for (place, node) in snapshot.nodes.iter_mut().enumerate() {
        node.pod_cidrs.push(format!("fd00:{place}::/64").parse().unwrap());
        let address = format!("fd00:240::{place}").parse().unwrap();
        node.internal_ips.push(address);
        let configurations = &mut snapshot.nics.as_mut().unwrap()[place].configurations;
        configurations.push(IpConfiguration {
            address: Some(address),
            ..configurations[0].clone()
        });
        configurations[1].primary = false;
    }
    snapshot.networks.clear();
    snapshot.settings.cluster_cidrs.push("fd00::/16".parse().unwrap());
    let findings = audit(&snapshot);
    let created = "--name vm-11____fd00164 --address-prefix fd00:1::/64 --next-hop-type VirtualAppliance --next-hop-ip-address fd00:240::1";
    assert_eq!(findings.len(), 2, "{findings:#?}");
    assert!(findings[1].fix[0].ends_with(created), "{:?}", findings[1].fix);
    let wanted: Vec<_> = snapshot
        .wanted()
        .iter()
        .map(|wanted| wanted.name.clone())
        .collect();
    assert_eq!(wanted[2], "vm-11____1024411024");

    let mut snapshot = healthy(2);
    let effective = |number: u8, state: &str| EffectiveRoute {
        source: "User".into(),
        state: state.into(),
        address_prefix: vec![format!("10.244.{number}.0/24")],
        next_hop_type: VIRTUAL_APPLIANCE.into(),
        next_hop_ip_address: vec![format!("10.240.0.{number}")],
    };
    let at = nic(10).id;
    snapshot
        .effective
        .insert(at.clone(), vec![effective(10, "Active"), effective(11, "Active")]);
    assert_eq!(audit(&snapshot), []);
    snapshot
        .effective
        .insert(at, vec![effective(10, "Active"), effective(11, "Invalid")]);
    let finding = only(&snapshot);
    assert_eq!(finding.check, Check::RouteEffective);
    assert_eq!(finding.evidence, "no active route there to 10.244.11.0/24");
}

#[test]
fn nodes_addresses_are_their_interfaces_first_ones() {
    let address = |text: &str, primary| IpConfiguration {
        address: Some(text.parse().unwrap()),
        primary,
        subnet: Some(Id::new(SUBNET)),
    };
    let mut snapshot = healthy(2);
    snapshot.settings.cluster_cidrs.push("fd00::/48".parse().unwrap());
    for (place, node) in snapshot.nodes.iter_mut().enumerate() {
        node.pod_cidrs
            .push(format!("fd00:0:0:{place}::/64").parse().unwrap());
        node.internal_ips
            .push(format!("fd00:240::{place}").parse().unwrap());
        let nic = &mut snapshot.nics.as_mut().unwrap()[place];
        nic.configurations
            .push(address(&format!("fd00:240::{place}"), false));
        let route = Route {
            name: format!("vm-{}____fd0000{place}64", 10 + place),
            prefix: format!("fd00:0:0:{place}::/64"),
            next_hop: Some(format!("fd00:240::{place}")),
            ..route(10)
        };
        snapshot.table.as_mut().unwrap().routes.push(route);
    }
    snapshot.networks[0].prefixes.push("fd00::/32".parse().unwrap());
    assert_eq!(audit(&snapshot), []);
    // The IPv4 address is there, and the next hop of the node's IPv6 pods is not.
    let mut without = snapshot.clone();
    without.nics.as_mut().unwrap()[1].configurations.pop();
    let finding = only(&without);
    assert_eq!(
        (finding.check, finding.object.as_str()),
        (Check::NicAddress, "node/vm-11")
    );
    assert_eq!(finding.part, "fd00:240::1");
    // It has moved to another interface.
    let moved = nic(77);
    without.nics.as_mut().unwrap().push(Nic {
        configurations: vec![address("fd00:240::1", false)],
        ..moved
    });
    let finding = only(&without);
    assert!(
        finding.evidence.ends_with("network interface nic-77 has it"),
        "{finding:?}"
    );
    // The node says one address, and the interface's primary one is another.
    let mut second = snapshot.clone();
    let nics = second.nics.as_mut().unwrap();
    nics[0].configurations[0].primary = false;
    nics[0].configurations.insert(0, address("10.240.0.200", true));
    let finding = only(&second);
    assert_eq!(
        (finding.check, finding.part.as_str()),
        (Check::NicPrimary, "10.240.0.10")
    );
    assert!(finding.evidence.contains("--node-ip 10.240.0.200"), "{finding:?}");
    // Of the machine's two interfaces the other one is primary.
    let mut other = snapshot;
    let nics = other.nics.as_mut().unwrap();
    nics[0].primary = false;
    let machine = nics[0].machine.clone();
    nics.push(Nic {
        machine,
        configurations: vec![address("10.240.0.201", true)],
        ..nic(78)
    });
    let finding = only(&other);
    assert_eq!(
        (finding.check, finding.part.as_str()),
        (Check::NicPrimary, "nic-10")
    );
}

#[test]
fn only_what_the_network_needs_is_asked_of_azure() {
    let on = |network: Network, snapshot: &Snapshot| {
        let networking = Found::named(network);
        // Where no routes are needed, no table is read.
        let table = snapshot.table.clone().filter(|_| network.needs_routes());
        found(&audit(&Snapshot {
            networking,
            table,
            ..snapshot.clone()
        }))
        .into_iter()
        .map(|(check, _)| check)
        .collect::<BTreeSet<_>>()
    };
    // No forwarding, no association, no routes, podCIDRs that are no part of the virtual network.
    let mut snapshot = healthy(2);
    snapshot.settings.cluster_cidrs = vec!["172.16.0.0/16".parse().unwrap()];
    for (place, node) in snapshot.nodes.iter_mut().enumerate() {
        node.pod_cidrs = vec![format!("172.16.{place}.0/24").parse().unwrap()];
        snapshot.nics.as_mut().unwrap()[place].forwarding = false;
    }
    snapshot.networks[0].subnets[0].route_table = None;
    assert_eq!(on(Network::Flannel, &snapshot), BTreeSet::new());
    assert_eq!(on(Network::AzureCni, &snapshot), BTreeSet::new());
    let checks = [Check::NicForwarding, Check::PodCidrOutsideNetwork];
    assert_eq!(on(Network::HostLocal, &snapshot), checks.into());
    assert!(on(Network::Udr, &snapshot).is_superset(&[Check::RouteMissing, Check::TableAssociation].into()));
    let planned = plan(&Snapshot {
        networking: Found::named(Network::Flannel),
        ..snapshot.clone()
    });
    assert!(
        planned.changes.is_empty() && planned.left[0].why.contains("needs no routes"),
        "{planned:?}"
    );
    // Without podCIDRs flannel has nothing to go by; Azure's plug-in does not ask for them.
    snapshot.nodes[0].pod_cidrs.clear();
    assert_eq!(on(Network::Flannel, &snapshot), [Check::PodCidrMissing].into());
    assert_eq!(on(Network::AzureCni, &snapshot), BTreeSet::new());
    snapshot.nics.as_mut().unwrap()[1].state = "Failed".into();
    assert_eq!(on(Network::AzureCni, &snapshot), [Check::NicState].into());
    snapshot.nodes[1].pod_cidrs = vec!["10.0.1.0/24".parse().unwrap()];
    let checks = [
        Check::PodCidrMissing,
        Check::NicState,
        Check::PodCidrOutsideCluster,
        Check::PodCidrOverlapsServices,
    ];
    assert_eq!(on(Network::Flannel, &snapshot), checks.into());
}

#[test]
fn what_kubernetes_says_itself() {
    let mut snapshot = healthy(2);
    snapshot.nodes[1].unavailable = Some("NoRouteCreated RouteController failed to create a route".into());
    let finding = only(&snapshot);
    assert_eq!(
        (finding.check, finding.object.as_str()),
        (Check::NetworkUnavailable, "node/vm-11")
    );
    assert!(
        finding
            .evidence
            .ends_with("NoRouteCreated RouteController failed to create a route"),
        "{finding:?}"
    );
    let mut snapshot = healthy(2);
    snapshot.settings.cluster_cidrs = vec![
        "10.244.0.0/20".parse().unwrap(),
        "10.244.11.0/24".parse().unwrap(),
    ];
    assert_eq!(audit(&snapshot), []);
    snapshot.settings.cluster_cidrs = vec!["10.244.10.0/24".parse().unwrap()];
    let finding = only(&snapshot);
    assert_eq!(
        (finding.check, finding.object.as_str()),
        (Check::PodCidrOutsideCluster, "node/vm-11")
    );
    assert_eq!(
        finding.evidence,
        "10.244.11.0/24 is not in --cluster-cidr 10.244.10.0/24"
    );
}

#[test]
fn security_groups_have_to_let_tunnels_through() {
    let group = |name: &str, direction: &str, properties: serde_json::Value| {
        let id = format!(
            "/subscriptions/s/resourceGroups/g/providers/Microsoft.Network/networkSecurityGroups/{name}"
        );
        let mut rule = json!({"protocol": "Udp", "access": "Deny", "direction": direction, "priority": 300, "sourcePortRange": "*",
            "destinationPortRange": "*", "sourceAddressPrefix": "*", "destinationAddressPrefix": "*"});
        rule.as_object_mut()
            .unwrap()
            .extend(properties.as_object().unwrap().clone());
        let rules = [json!({"name": "no", "properties": rule})];
        SecurityGroup::read(&json!({"id": id, "properties": {"securityRules": rules}})).unwrap()
    };
    let with = |nodes: u8, group: &SecurityGroup, network: Network, of_nic: bool| {
        let mut snapshot = healthy(nodes);
        snapshot.networking = Found::named(network);
        snapshot.table = None;
        if of_nic {
            snapshot.nics.as_mut().unwrap()[0].security_group = Some(group.id.clone());
        } else {
            snapshot.networks[0].subnets[0].security_group = Some(group.id.clone());
        }
        snapshot.security.insert(group.id.clone(), group.clone());
        audit(&snapshot)
            .into_iter()
            .filter(|finding| finding.check == Check::SecurityRule)
            .collect::<Vec<_>>()
    };
    let all = group("all", "Inbound", json!({}));
    let findings = with(200, &all, Network::Flannel, false);
    assert_eq!(findings.len(), 1, "{findings:#?}");
    assert_eq!(findings[0].object, "security-group/all");
    assert!(
        findings[0]
            .evidence
            .contains("inbound rule no (priority 300) denies UDP 8472"),
        "{findings:?}"
    );
    // Azure's routes and plug-in carry no tunnels, and one node alone sends none.
    assert_eq!(with(3, &all, Network::Udr, false), []);
    assert_eq!(with(1, &all, Network::Flannel, false), []);
    // At one machine's interface, by address: from it and to it.
    for (direction, said) in [
        ("Inbound", "from node vm-11 to node vm-10"),
        ("Outbound", "from node vm-10 to node vm-11"),
    ] {
        let far = if direction == "Inbound" {
            "sourceAddressPrefix"
        } else {
            "destinationAddressPrefix"
        };
        let one = group("one", direction, json!({far: "10.240.0.11/32"}));
        let findings = with(3, &one, Network::Flannel, true);
        assert_eq!(findings.len(), 1, "{findings:#?}");
        assert!(findings[0].evidence.contains(said), "{findings:?}");
        let other = group("one", direction, json!({far: "10.240.0.99/32"}));
        assert_eq!(with(3, &other, Network::Flannel, true), []);
    }
}
