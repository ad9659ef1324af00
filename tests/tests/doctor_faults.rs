//! Faults of addresses and of the table's size: what they do to packets in the lab, what `calico-azure doctor` says of them, and that
//! packets pass again once they are mended.

#![expect(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::sync::Arc;
use std::time::Duration;

use calico_azure_tests::arm::{NETWORK, Said, TABLE, World};
use calico_azure_tests::lab::probe::{self, Server};
use calico_azure_tests::lab::{KubeProxy, Port, ServiceSpec};
use ipnet::IpNet;
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(3);
const NEVER: Duration = Duration::from_millis(300);

fn drop_route(table: &mut Value, name: &str) {
    let routes = table["properties"]["routes"].as_array_mut().unwrap();
    routes.retain(|route| !route["name"].as_str().unwrap().starts_with(name));
}

/// Of a machine that is gone, named as the cloud provider names routes. Its address is another's, or nobody's.
fn add_stale(table: &mut Value, node: &str, prefix: &str, hop: &str) {
    let name = format!("{node}____{}", prefix.replace(['.', '/'], ""));
    let routes = table["properties"]["routes"].as_array_mut().unwrap();
    routes.push(
        json!({"name": name, "properties": {"addressPrefix": prefix, "nextHopType": "VirtualAppliance",
        "nextHopIpAddress": hop}}),
    );
}

fn checks(said: &Said) -> Vec<String> {
    let mut checks: Vec<String> = said.checks().into_iter().map(|(check, _)| check).collect();
    checks.sort();
    checks
}

/// What is said of the check.
fn evidence(said: &Said, check: &str) -> String {
    let findings = said.json["findings"].as_array().unwrap();
    let found = findings.iter().find(|finding| finding["check"] == check).unwrap();
    found["evidence"].as_str().unwrap().to_owned()
}

/// The commands that are to mend it.
fn fix(said: &Said, check: &str) -> Vec<String> {
    let findings = said.json["findings"].as_array().unwrap();
    let found = findings.iter().find(|finding| finding["check"] == check).unwrap();
    let commands = found["fix"].as_array().unwrap().iter();
    commands
        .map(|command| command.as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn a_stale_route_takes_a_nodes_packets_until_it_is_deleted() {
    let mut world = World::start();
    world.is_well();
    world.change(TABLE, |table| {
        add_stale(table, "node-9", "10.244.2.0/25", "10.240.0.4");
    });
    assert_eq!(world.reach(NEVER), [false, true]);
    let said = world.doctor(&[]);
    assert_eq!(checks(&said), ["route-overlap", "route-stale"], "{:#}", said.json);
    assert!(evidence(&said, "route-stale").contains("there is no node node-9"));
    for command in said.fixes() {
        // Both say to delete it.
        let _again = world.arm.az(&command);
    }
    world.follow();
    world.is_well();
}

/// Runs what is printed; how many of these commands ARM would not take, because the table is full.
fn refused(world: &World, args: &[&str]) -> usize {
    let mut refused = 0;
    for command in world.doctor(args).fixes() {
        let full = {
            let store = world.arm.store();
            store.routes(TABLE).len() >= store.route_limit
        };
        if full && command.contains(" route create ") {
            refused += 1;
        } else {
            world.arm.az(&command).unwrap();
        }
    }
    refused
}

#[test]
fn a_full_table_keeps_a_node_out_until_what_is_stale_is_deleted() {
    let mut world = World::start();
    world.arm.store().route_limit = 4;
    world.change(TABLE, |table| {
        drop_route(table, "node-2");
        add_stale(table, "node-8", "10.244.8.0/24", "10.240.0.98");
        add_stale(table, "node-9", "10.244.9.0/24", "10.240.0.99");
    });
    assert_eq!(world.reach(NEVER), [false; 2]);
    let limited = ["--route-limit", "4"];
    let said = world.doctor(&limited);
    let all = [
        "route-limit",
        "route-missing",
        "route-missing",
        "route-stale",
        "route-stale",
    ];
    assert_eq!(checks(&said), all, "{:#}", said.json);
    assert!(evidence(&said, "route-limit").contains("4 routes, 6 with those that are missing, of 4"));
    // The commands as they are printed, as often as they are needed.
    assert_eq!(refused(&world, &limited), 2, "a full table takes nothing");
    assert_eq!(refused(&world, &limited), 0);
    world.follow();
    assert_eq!(
        checks(&world.doctor(&limited)),
        ["route-limit"],
        "it is still as full as it may be"
    );
    world.arm.store().route_limit = 1000;
    world.is_well();
}

#[test]
fn two_nodes_with_one_pod_cidr_are_found_and_the_second_is_reached_again_with_its_own() {
    let mut world = World::start();
    let own = world.nodes["items"][1]["spec"]["podCIDRs"].clone();
    let machine = "/subscriptions/s1/resourceGroups/cluster/providers/Microsoft.Compute/virtualMachines/vm-2";
    for (place, created) in [(0, "2026-11-01T00:00:00Z"), (1, "2026-11-02T00:00:00Z")] {
        world.nodes["items"][place]["metadata"]["creationTimestamp"] = created.into();
        world.nodes["items"][place]["spec"]["providerID"] = format!("azure://{machine}").into();
    }
    // Node IPAM gave node-1's prefix again, and the cloud controller deleted the route that is nobody's.
    world.nodes["items"][1]["spec"]["podCIDRs"][0] = world.nodes["items"][0]["spec"]["podCIDRs"][0].clone();
    world.change(TABLE, |table| drop_route(table, "node-2____1024420"));
    assert_eq!(world.reach(NEVER), [false, true]);
    let said = world.doctor(&[]);
    assert!(
        checks(&said).contains(&"pod-cidr-duplicate".to_owned()),
        "{:#}",
        said.json
    );
    let text = evidence(&said, "pod-cidr-duplicate");
    assert!(
        text.contains("10.244.1.0/24 and node node-2's 10.244.1.0/24 overlap"),
        "{text}"
    );
    let commands = fix(&said, "pod-cidr-duplicate");
    let expected = [
        "kubectl drain node-2 --ignore-daemonsets --delete-emptydir-data".to_owned(),
        "kubectl delete node node-2".to_owned(),
        format!("az vm restart --ids {machine}"),
    ];
    assert_eq!(commands, expected, "the one that came later");
    // Then it joins anew, and node IPAM gives it what is free.
    world.nodes["items"][1]["spec"]["podCIDRs"] = own;
    world.is_mended(&[("route-missing", "node/node-2")]);
}

#[test]
fn pod_cidrs_outside_the_network_live_by_their_routes_alone() {
    let mut world = World::start();
    world.change(NETWORK, |network| {
        network["properties"]["addressSpace"]["addressPrefixes"] = json!(["10.240.0.0/16", "fd00:10::/32"]);
    });
    assert_eq!(world.reach(SOON), [true; 2], "routes are enough");
    let said = world.doctor(&[]);
    assert_eq!(checks(&said), ["pod-cidr-outside-network"], "{:#}", said.json);
    let text = evidence(&said, "pod-cidr-outside-network");
    assert!(
        text.contains("10.244.1.0/24") && text.contains("10.244.2.0/24"),
        "{text}"
    );
    let commands = fix(&said, "pod-cidr-outside-network");
    let all = "10.240.0.0/16 fd00:10::/32 10.244.0.0/16";
    assert!(
        matches!(commands.as_slice(), [one] if one.starts_with("az network vnet update --ids ") && one.ends_with(all)),
        "{commands:?}"
    );
    world.change(TABLE, |table| drop_route(table, "node-2____1024420"));
    assert_eq!(world.reach(NEVER), [false, true]);
    world.is_mended(&[
        ("route-missing", "node/node-2"),
        ("pod-cidr-outside-network", "cluster"),
    ]);
}

#[test]
fn a_node_whose_pods_have_services_addresses_is_made_anew() {
    let mut world = World::start();
    // Of a time when services were elsewhere: a prefix of what is theirs now, on the way that leads to the node.
    let own = world.nodes["items"][1]["spec"]["podCIDRs"].clone();
    let taken: IpNet = "10.96.2.0/24".parse().unwrap();
    let machine = "/subscriptions/s1/resourceGroups/cluster/providers/Microsoft.Compute/virtualMachines/vm-2";
    world.nodes["items"][1]["spec"]["podCIDRs"][0] = json!(taken);
    world.nodes["items"][1]["spec"]["providerID"] = json!(format!("azure://{machine}"));
    world.change(TABLE, |table| {
        for route in table["properties"]["routes"].as_array_mut().unwrap() {
            if route["properties"]["addressPrefix"] == "10.244.2.0/24" {
                route["name"] = json!("node-2____10962024");
                route["properties"]["addressPrefix"] = json!(taken);
            }
        }
    });
    let cluster = Arc::clone(&world.cluster);
    let node = cluster.node("node-2").unwrap();
    let cidrs = [taken, node.pod_cidrs()[1]];
    let old = node.add_pod_of(cidrs, "a", "old").unwrap();
    let _server = Server::start(old.ns(), old.ips(), &[Port::Tcp(8080)]).unwrap();
    let one = cluster.pod("a/one").unwrap();
    let reached = |patience| {
        probe::tcp(one.net.ns(), old.ips()[0], 8080, patience)
            .unwrap()
            .reached()
    };
    assert!(reached(SOON));
    // A service gets the address that the pod has.
    let service = ServiceSpec {
        address: old.ips()[0],
        port: Port::Tcp(8080),
        backend: "10.244.2.250:8080".parse().unwrap(),
        masquerade: false,
    };
    let at = world.cluster.node("node-1").unwrap();
    KubeProxy::Nftables.install(at, &[service]).unwrap();
    assert!(!reached(NEVER));
    let said = world.doctor(&["--check", "pod-cidr-overlaps-services"]);
    let text = evidence(&said, "pod-cidr-overlaps-services");
    assert!(
        text.contains("10.96.2.0/24 and the services' 10.96.0.0/16 overlap"),
        "{text}"
    );
    let expected = [
        "kubectl drain node-2 --ignore-daemonsets --delete-emptydir-data".to_owned(),
        "kubectl delete node node-2".to_owned(),
        format!("az vm restart --ids {machine}"),
    ];
    assert_eq!(fix(&said, "pod-cidr-overlaps-services"), expected);
    // Then it joins anew, node IPAM gives it what is free of the cluster's range, and its pods have addresses of that.
    world.nodes["items"][1]["spec"]["podCIDRs"] = own;
    assert_eq!(world.reach(NEVER), [false, true]);
    drop(old);
    world.is_mended(&[
        ("route-missing", "node/node-2"),
        ("route-stale", "route/node-2____10962024"),
    ]);
}

#[test]
fn ranges_that_overlap_as_a_whole_have_no_command() {
    let world = World::start();
    let said = world.doctor(&["--service-cidr", "10.244.2.0/26"]);
    assert_eq!(checks(&said), ["pod-cidr-overlaps-services"], "{:#}", said.json);
    // What the node would get instead may be a service's as well.
    assert_eq!(fix(&said, "pod-cidr-overlaps-services"), [""; 0]);
}
