//! A healthy cluster has no findings; each fault in it has exactly those that it must have, alone and beside others.

mod nics;
mod ranges;
mod whose;

use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::json;

use super::audit;
use crate::azure::finding::{Check, Finding};
use crate::azure::nodes::NodeState;
use crate::azure::plan::{applied, others_at_work, plan};
use crate::azure::resource::{
    Id, IpConfiguration, Nic, Route, RouteTable, SUCCEEDED, Subnet, VIRTUAL_APPLIANCE, VirtualNetwork,
};
use crate::azure::snapshot::{Settings, Snapshot};

const TABLE: &str = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Network/routeTables/rt";
const SUBNET: &str =
    "/subscriptions/s/resourceGroups/g/providers/Microsoft.Network/virtualNetworks/v/subnets/nodes";

fn nic(number: u8) -> Nic {
    let machine = format!(
        "/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/virtualMachines/vm-{number:02}"
    );
    Nic {
        id: Id::new(format!(
            "/subscriptions/s/resourceGroups/g/providers/Microsoft.Network/networkInterfaces/nic-{number:02}"
        )),
        state: SUCCEEDED.into(),
        forwarding: true,
        primary: true,
        machine: Some(Id::new(machine)),
        place: None,
        security_group: None,
        configurations: vec![IpConfiguration {
            address: Some(format!("10.240.0.{number}").parse().unwrap()),
            primary: true,
            subnet: Some(Id::new(SUBNET)),
        }],
    }
}

fn node(number: u8) -> NodeState {
    NodeState {
        name: format!("vm-{number:02}"),
        pod_cidrs: vec![format!("10.244.{number}.0/24").parse().unwrap()],
        internal_ips: vec![format!("10.240.0.{number}").parse().unwrap()],
        managed: true,
        ..NodeState::default()
    }
}

fn route(number: u8) -> Route {
    Route {
        name: format!("vm-{number:02}"),
        prefix: format!("10.244.{number}.0/24"),
        kind: VIRTUAL_APPLIANCE.into(),
        next_hop: Some(format!("10.240.0.{number}")),
        state: SUCCEEDED.into(),
    }
}

/// The table's body, as ARM would have it.
fn with_body(mut snapshot: Snapshot) -> Snapshot {
    if let Some(table) = &mut snapshot.table {
        let routes = table.routes.iter().map(|route| {
            json!({"name": route.name, "properties": {"addressPrefix": route.prefix, "nextHopType": route.kind,
                "nextHopIpAddress": route.next_hop, "provisioningState": route.state}})
        });
        let routes: Vec<_> = routes.collect();
        let subnets: Vec<_> = table.subnets.iter().map(|id| json!({"id": id})).collect();
        table.body = json!({"id": table.id, "name": table.name, "etag": table.etag, "location": "here", "tags": {"a": "b"},
            "properties": {"provisioningState": table.state, "routes": routes, "subnets": subnets}});
    }
    snapshot
}

fn healthy(nodes: u8) -> Snapshot {
    let numbers = || 10..10 + nodes;
    let foreign = Route {
        name: "to-firewall".into(),
        prefix: "0.0.0.0/0".into(),
        kind: VIRTUAL_APPLIANCE.into(),
        next_hop: Some("10.240.1.4".into()),
        state: SUCCEEDED.into(),
    };
    Snapshot {
        nodes: numbers().map(node).collect(),
        table_id: Id::new(TABLE),
        location: "here".into(),
        table: Some(RouteTable {
            // Providers change the case.
            id: Id::new(TABLE.to_ascii_uppercase()),
            name: "rt".into(),
            etag: "W/\"1\"".into(),
            state: SUCCEEDED.into(),
            routes: numbers().map(route).chain([foreign]).collect(),
            subnets: vec![Id::new(SUBNET.to_ascii_lowercase())],
            ..RouteTable::default()
        }),
        networks: vec![VirtualNetwork {
            id: Id::new(SUBNET).parent().unwrap(),
            prefixes: vec!["10.240.0.0/12".parse().unwrap()],
            subnets: vec![Subnet {
                id: Id::new(SUBNET),
                prefixes: vec!["10.240.0.0/16".parse().unwrap()],
                route_table: Some(Id::new(TABLE.to_ascii_lowercase())),
                security_group: None,
            }],
        }],
        nics: Some(numbers().map(nic).collect()),
        settings: Settings {
            cluster_cidrs: vec!["10.244.0.0/16".parse().unwrap()],
            service_cidrs: vec!["10.0.0.0/16".parse().unwrap()],
            ..Settings::default()
        },
        ..Snapshot::default()
    }
}

/// What can be wrong with one node, and what must be found then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    RouteGone,
    RouteLost,
    OldAddress,
    ToInternet,
    Unfinished,
    PartElsewhere,
    ForwardingOff,
    NicFailed,
    NicUnknown,
    NoCidr,
    TwoCidrs,
}

const FAULTS: [Fault; 11] = [
    Fault::RouteGone,
    Fault::RouteLost,
    Fault::OldAddress,
    Fault::ToInternet,
    Fault::Unfinished,
    Fault::PartElsewhere,
    Fault::ForwardingOff,
    Fault::NicFailed,
    Fault::NicUnknown,
    Fault::NoCidr,
    Fault::TwoCidrs,
];

impl Fault {
    /// Breaks the node; the checks that must fail for it, and the objects.
    fn inject(self, snapshot: &mut Snapshot, place: usize) -> Vec<(Check, String)> {
        let number = 10 + u8::try_from(place).unwrap();
        let table = snapshot.table.as_mut().unwrap();
        let nic = &mut snapshot.nics.as_mut().unwrap()[place];
        let node = &mut snapshot.nodes[place];
        let (of_node, name) = (format!("node/{}", node.name), node.name.clone());
        let of_route = table.routes.iter().position(|route| route.name == name).unwrap();
        let one = |check| vec![(check, of_node.clone())];
        match self {
            Self::RouteGone => {
                table.routes.remove(of_route);
                one(Check::RouteMissing)
            }
            Self::RouteLost => {
                table.routes.remove(of_route);
                node.route_created = true;
                one(Check::RouteLost)
            }
            Self::OldAddress => {
                table.routes[of_route].next_hop = Some("10.240.0.250".into());
                one(Check::RouteNextHop)
            }
            Self::ToInternet => {
                table.routes[of_route].kind = "Internet".into();
                table.routes[of_route].next_hop = None;
                one(Check::RouteKind)
            }
            Self::Unfinished => {
                table.routes[of_route].state = "Updating".into();
                one(Check::RouteState)
            }
            Self::PartElsewhere => {
                table.routes.push(Route {
                    name: format!("my-{number}"),
                    prefix: format!("10.244.{number}.128/25"),
                    kind: VIRTUAL_APPLIANCE.into(),
                    next_hop: Some("10.240.1.9".into()),
                    state: SUCCEEDED.into(),
                });
                // Inside the cluster's range and no node's: what a node left, for all that can be told.
                vec![
                    (Check::RouteOverlap, of_node),
                    (Check::RouteStale, format!("route/my-{number}")),
                ]
            }
            Self::ForwardingOff => {
                nic.forwarding = false;
                one(Check::NicForwarding)
            }
            Self::NicFailed => {
                nic.state = "Failed".into();
                one(Check::NicState)
            }
            Self::NicUnknown => {
                nic.configurations.clear();
                one(Check::NicMissing)
            }
            Self::NoCidr => {
                node.pod_cidrs.clear();
                vec![
                    (Check::PodCidrMissing, of_node),
                    (Check::RouteStale, format!("route/{name}")),
                ]
            }
            Self::TwoCidrs => {
                let second = format!("10.245.{number}.0/24");
                node.pod_cidrs.push(second.parse().unwrap());
                vec![
                    (Check::PodCidrFamily, of_node.clone()),
                    (Check::PodCidrOutsideCluster, of_node.clone()),
                    (Check::RouteMissing, of_node),
                ]
            }
        }
    }
}

fn found(findings: &[Finding]) -> BTreeSet<(Check, String)> {
    findings
        .iter()
        .map(|finding| (finding.check, finding.object.clone()))
        .collect()
}

proptest! {
    #[test]
    fn each_fault_is_found_and_nothing_else(faults in prop::collection::vec(prop::option::of(prop::sample::select(&FAULTS[..])), 1..9)) {
        let mut snapshot = healthy(u8::try_from(faults.len()).unwrap());
        let mut expected = BTreeSet::new();
        for (place, fault) in faults.iter().enumerate() {
            if let Some(fault) = fault {
                expected.extend(fault.inject(&mut snapshot, place));
            }
        }
        prop_assert_eq!(found(&audit(&snapshot)), expected);
    }

    /// What the plan writes leaves nothing to write, and no finding that routes could mend; routes of others stay as they are.
    #[test]
    fn the_plan_mends_what_routes_can(faults in prop::collection::vec(prop::option::of(prop::sample::select(&FAULTS[..])), 1..9)) {
        let mut snapshot = healthy(u8::try_from(faults.len()).unwrap());
        for (place, fault) in faults.iter().enumerate() {
            if let Some(fault) = fault {
                fault.inject(&mut snapshot, place);
            }
        }
        let mut snapshot = with_body(snapshot);
        let table = snapshot.table.clone().unwrap();
        let planned = plan(&snapshot);
        let body = applied(table.body.clone(), &planned.changes);
        prop_assert_eq!(&body["tags"], &table.body["tags"]);
        let mut now = RouteTable::read(body).unwrap();
        // What ARM would say of what it has written.
        now.routes.iter_mut().for_each(|route| route.state = SUCCEEDED.into());
        let firewall = |table: &RouteTable| table.routes.iter().find(|route| route.name == "to-firewall").cloned();
        prop_assert_eq!(firewall(&now), firewall(&table));
        snapshot.table = Some(now);
        prop_assert_eq!(plan(&snapshot).changes, vec![]);
        let of_routes = [Check::RouteMissing, Check::RouteLost, Check::RouteNextHop, Check::RouteKind, Check::RouteOverlap,
            Check::RouteStale];
        let excused = |finding: &Finding| {
            // A stranger's route in a node's prefix is not ours to remove.
            planned.left.iter().any(|left| left.object == finding.object || finding.evidence.contains(left.object.trim_start_matches("route/")))
        };
        let left: Vec<Finding> =
            audit(&snapshot).into_iter().filter(|f| of_routes.contains(&f.check) && !excused(f)).collect();
        prop_assert_eq!(left, vec![]);
        let strangers = |table: &RouteTable| table.routes.iter().filter(|route| route.name.starts_with("my-")).count();
        prop_assert_eq!(strangers(snapshot.table.as_ref().unwrap()), strangers(&table));
    }
}

fn only(snapshot: &Snapshot) -> Finding {
    let mut findings = audit(snapshot);
    assert_eq!(findings.len(), 1, "{findings:#?}");
    findings.remove(0)
}

#[test]
fn the_table_itself() {
    let mut snapshot = healthy(2);
    snapshot.table = None;
    let finding = only(&snapshot);
    assert_eq!(finding.check, Check::TableMissing);
    let create =
        "az network route-table create --subscription s --resource-group g --name rt --location here";
    assert_eq!(finding.fix, [create]);

    let mut snapshot = healthy(2);
    snapshot.networks[0].subnets[0].route_table = None;
    let finding = only(&snapshot);
    assert_eq!(
        (finding.check, finding.object.as_str()),
        (Check::TableAssociation, "subnet/nodes")
    );
    assert_eq!(
        finding.fix,
        [format!(
            "az network vnet subnet update --ids {SUBNET} --route-table {TABLE}"
        )]
    );
    // Nobody may read the network: the table tells.
    snapshot.networks.clear();
    assert_eq!(audit(&snapshot), []);
    snapshot.table.as_mut().unwrap().subnets.clear();
    let finding = only(&snapshot);
    assert_eq!((finding.check, finding.fix.len()), (Check::TableAssociation, 0));
    assert!(finding.evidence.contains("could not be seen"), "{finding:?}");
    // It is somebody's, who has other routes in it.
    let mut snapshot = healthy(2);
    snapshot.networks[0].subnets[0].route_table = Some(Id::new(TABLE.replace("/rt", "/theirs")));
    let finding = only(&snapshot);
    assert_eq!((finding.check, finding.fix.len()), (Check::TableAssociation, 0));
    assert!(
        finding.evidence.contains("route table theirs, not rt"),
        "{finding:?}"
    );

    let mut snapshot = healthy(2);
    let table = snapshot.table.as_mut().unwrap();
    table.state = "Updating".into();
    table.no_gateway_routes = true;
    table.routes[2].kind = "None".into();
    let checks = [
        (Check::TableState, "route-table/rt".to_owned()),
        (Check::GatewayRoutes, "route-table/rt".to_owned()),
        (Check::DefaultRoute, "route/to-firewall".to_owned()),
    ];
    assert_eq!(found(&audit(&snapshot)), checks.into());
}

#[test]
fn the_limit_counts_what_is_missing() {
    let mut snapshot = healthy(8);
    snapshot.settings.route_limit = 11;
    assert_eq!(audit(&snapshot), []);
    snapshot.settings.route_limit = 10;
    assert_eq!(only(&snapshot).check, Check::RouteLimit);
    snapshot.table.as_mut().unwrap().routes.truncate(7);
    let finding = audit(&snapshot)
        .into_iter()
        .find(|f| f.check == Check::RouteLimit);
    let finding = finding.map(|finding| finding.evidence);
    assert_eq!(finding, None, "8 of 10 is not near");
    snapshot.settings.route_limit = 7;
    let finding = audit(&snapshot)
        .into_iter()
        .find(|f| f.check == Check::RouteLimit)
        .unwrap();
    assert_eq!(finding.evidence, "7 routes, 8 with those that are missing, of 7");
    let planned = plan(&with_body(snapshot));
    assert_eq!(planned.changes, []);
    assert_eq!(planned.left[0].why, "the table is full: 7 routes");
}

#[test]
fn prefixes_that_are_not_the_nodes_alone() {
    let mut snapshot = healthy(3);
    snapshot.nodes[1].pod_cidrs = snapshot.nodes[0].pod_cidrs.clone();
    let checks = [
        (Check::PodCidrDuplicate, "node/vm-10".to_owned()),
        // The route of the prefix that it had.
        (Check::RouteStale, "route/vm-11".to_owned()),
    ];
    assert_eq!(found(&audit(&snapshot)), checks.into());
    let planned = plan(&with_body(snapshot));
    let left: Vec<_> = planned.left.iter().map(|left| left.object.as_str()).collect();
    assert_eq!(left, ["node/vm-10", "node/vm-11"]);

    for (prefix, check) in [
        ("10.0.5.0/24", Check::PodCidrOverlapsServices),
        ("10.240.7.0/24", Check::PodCidrOverlapsSubnet),
        ("172.16.0.0/24", Check::PodCidrOutsideNetwork),
    ] {
        let mut snapshot = healthy(2);
        snapshot.nodes[0].pod_cidrs = vec![prefix.parse().unwrap()];
        snapshot.table.as_mut().unwrap().routes[0].prefix = prefix.into();
        let checks: BTreeSet<Check> = audit(&snapshot).iter().map(|finding| finding.check).collect();
        let outside = check == Check::PodCidrOverlapsServices;
        let also = outside.then_some(Check::PodCidrOutsideNetwork);
        let always = [check, Check::PodCidrOutsideCluster];
        assert_eq!(checks, also.into_iter().chain(always).collect(), "{prefix}");
    }
}

#[test]
fn of_two_nodes_with_one_prefix_the_later_one_makes_room_if_it_can_come_back() {
    let vm = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/virtualMachines/vm 11";
    let set = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/virtualMachineScaleSets/set";
    let of_set = format!("{set}/virtualMachines/3");
    let (first, second) = ("2026-11-01T10:00:00Z", "2026-11-02T09:00:00Z");
    let restarted = |command: String| {
        [
            "kubectl drain vm-11 --ignore-daemonsets --delete-emptydir-data".to_owned(),
            "kubectl delete node vm-11".to_owned(),
            command,
        ]
        .to_vec()
    };
    for (created, machine, expected) in [
        (
            [first, second],
            vm,
            restarted(format!("az vm restart --ids '{vm}'")),
        ),
        (
            [first, second],
            of_set.as_str(),
            restarted(format!("az vmss restart --ids {set} --instance-ids 3")),
        ),
        // It is not known how this one comes back, of those which is the later, and of that one where it runs.
        ([first, second], "/vm-11", Vec::new()),
        ([first, first], vm, Vec::new()),
        (["", second], vm, Vec::new()),
        ([second, first], vm, Vec::new()),
    ] {
        let mut snapshot = healthy(2);
        snapshot.nodes[1].pod_cidrs = snapshot.nodes[0].pod_cidrs.clone();
        snapshot.nodes[1].machine = Some(Id::new(machine));
        for (node, created) in snapshot.nodes.iter_mut().zip(created) {
            node.created = created.into();
        }
        let findings = audit(&snapshot);
        let finding = findings
            .iter()
            .find(|finding| finding.check == Check::PodCidrDuplicate)
            .unwrap();
        assert_eq!(finding.fix, expected, "{created:?}, {machine}");
    }
}

#[test]
fn names_that_begin_alike_and_nodes_that_are_nobodys() {
    let mut snapshot = healthy(2);
    snapshot.nodes[1].name = "VM-101".into();
    snapshot.table.as_mut().unwrap().routes[1].name = "vm-101".into();
    let finding = only(&snapshot);
    assert_eq!(
        (finding.check, finding.object.as_str()),
        (Check::RouteName, "node/vm-10")
    );
    assert_eq!(finding.evidence, "names of other nodes begin with it: VM-101");
    // An unmanaged node has no route, and that is as it should be.
    snapshot.nodes[1].managed = false;
    snapshot.table.as_mut().unwrap().routes.remove(1);
    assert_eq!(audit(&snapshot), []);
}

#[test]
fn a_cloud_controller_that_fails_is_at_work() {
    let mut snapshot = healthy(2);
    assert!(others_at_work(&snapshot).is_empty());
    snapshot.nodes[1].route_refused = true;
    assert_eq!(others_at_work(&snapshot), ["vm-11"]);
}
