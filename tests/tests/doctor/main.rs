//! `calico-azure doctor` in a cluster whose fabric does what the route table of a stand-in for Azure says: what is broken there
//! breaks traffic, is found, and the printed commands mend it.

#![expect(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod input;

use std::time::Duration;

use calico_azure_tests::arm::{Fault, GROUP, NETWORK, Said, TABLE, World};
use calico_azure_tests::lab::FabricDrop;
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(3);
const NEVER: Duration = Duration::from_millis(300);

fn drop_route(table: &mut Value, name: &str) {
    let routes = table["properties"]["routes"].as_array_mut().unwrap();
    routes.retain(|route| !route["name"].as_str().unwrap().starts_with(name));
}

#[test]
fn what_breaks_traffic_is_found_and_the_printed_commands_mend_it() {
    let mut world = World::start();
    world.is_well();

    // A route is missing: the fabric knows neither where to deliver nor the source.
    world.change(TABLE, |table| drop_route(table, "node-2____1024420"));
    assert_eq!(world.reach(NEVER), [false, true]);
    world.is_mended(&[("route-missing", "node/node-2")]);

    // The cloud controller's write was lost, and it says that it made the route.
    world.nodes["items"][1]["status"]["conditions"] =
        json!([{"type": "NetworkUnavailable", "status": "False", "reason": "RouteCreated"}]);
    world.change(TABLE, |table| drop_route(table, "node-2"));
    assert_eq!(world.reach(NEVER), [false; 2]);
    world.is_mended(&[("route-lost", "node/node-2"), ("route-lost", "node/node-2")]);
    world.nodes["items"][1]["status"]["conditions"] = json!([]);

    // The machine was made again with another address.
    let first = world.cluster.node("node-1").unwrap().ips()[0];
    world.change(TABLE, |table| {
        for route in table["properties"]["routes"].as_array_mut().unwrap() {
            if route["properties"]["addressPrefix"] == "10.244.2.0/24" {
                route["properties"]["nextHopIpAddress"] = json!(first);
            }
        }
    });
    assert_eq!(world.reach(NEVER), [false, true]);
    world.is_mended(&[("route-next-hop", "node/node-2")]);

    // Somebody's idea of a default.
    world.change(TABLE, |table| {
        for route in table["properties"]["routes"].as_array_mut().unwrap() {
            if route["properties"]["addressPrefix"] == "10.244.1.0/24" {
                route["properties"]["nextHopType"] = json!("VnetLocal");
                route["properties"]
                    .as_object_mut()
                    .unwrap()
                    .remove("nextHopIpAddress");
            }
        }
    });
    assert_eq!(world.reach(NEVER), [false, true]);
    world.is_mended(&[("route-kind", "node/node-1")]);

    // The fabric does not forward for the interface, and drops what it does not know.
    let before = world.dropped(FabricDrop::UnknownSource);
    let nic = format!("{GROUP}/Microsoft.Network/networkInterfaces/nic-node-1");
    world.change(&nic, |nic| nic["properties"]["enableIPForwarding"] = json!(false));
    assert_eq!(world.reach(NEVER), [false; 2]);
    assert!(world.dropped(FabricDrop::UnknownSource) > before);
    world.is_mended(&[("nic-forwarding", "node/node-1")]);

    // As a second `terraform apply` leaves it.
    world.change(NETWORK, |network| {
        let subnet = &mut network["properties"]["subnets"][0]["properties"];
        subnet.as_object_mut().unwrap().remove("routeTable");
    });
    world.change(TABLE, |table| table["properties"]["subnets"] = json!([]));
    assert_eq!(world.reach(NEVER), [false; 2]);
    world.is_mended(&[("table-association", "subnet/nodes")]);

    // A part of a node's prefix goes elsewhere, where there is nobody: by a route of somebody's, who has to be asked.
    world.change(TABLE, |table| {
        let routes = table["properties"]["routes"].as_array_mut().unwrap();
        routes.push(json!({"name": "lab", "properties": {"addressPrefix": "10.244.2.0/25", "nextHopType": "VirtualAppliance",
            "nextHopIpAddress": first}}));
    });
    assert_eq!(world.reach(NEVER), [false, true]);
    let said = world.doctor(&["--check", "route-overlap"]);
    assert_eq!(
        said.checks(),
        [("route-overlap".to_owned(), "node/node-2".to_owned())]
    );
    assert_eq!(said.fixes(), Vec::<String>::new());
    // By one that a node left there is a command.
    world.change(TABLE, |table| {
        let routes = table["properties"]["routes"].as_array_mut().unwrap();
        routes.last_mut().unwrap()["name"] = json!("node-7____102442025");
    });
    assert_eq!(world.reach(NEVER), [false, true]);
    let said = world.doctor(&["--check", "route-overlap"]);
    world.arm.az(&said.fixes()[0]).unwrap();
    world.follow();
    world.is_well();

    // The podCIDR was another node's, whose route is still there.
    world.change(TABLE, |table| {
        for route in table["properties"]["routes"].as_array_mut().unwrap() {
            if route["properties"]["addressPrefix"] == "10.244.2.0/24" {
                route["name"] = json!("node-7____102442024");
                route["properties"]["nextHopIpAddress"] = json!("10.240.0.99");
            }
        }
    });
    assert_eq!(world.reach(NEVER), [false, true]);
    world.is_mended(&[("route-next-hop", "node/node-2")]);

    // Everything is gone: one round makes the table, further ones what is in it.
    world.arm.store().remove(TABLE);
    world.change(NETWORK, |network| {
        let subnet = &mut network["properties"]["subnets"][0]["properties"];
        subnet.as_object_mut().unwrap().remove("routeTable");
    });
    assert_eq!(world.reach(NEVER), [false; 2]);
    for _ in 0..3 {
        for command in world.doctor(&[]).fixes() {
            // The subnet cannot use what is not there yet.
            let _again = world.arm.az(&command);
        }
    }
    world.follow();
    world.is_well();
}

#[test]
fn the_documented_example_is_what_is_printed() {
    let mut world = World::start();
    world.change(TABLE, |table| drop_route(table, "node-2____1024420"));
    let nic = format!("{GROUP}/Microsoft.Network/networkInterfaces/nic-node-1");
    world.change(&nic, |nic| nic["properties"]["enableIPForwarding"] = json!(false));
    let (code, printed) = world.run(&[]);
    assert_eq!(code, 1);
    let page = include_str!("../../../docs/doctor.md");
    let example = page.split("```\n").nth(1).unwrap();
    assert_eq!(printed, example);
}

#[test]
fn what_will_break_is_found_too() {
    let mut world = World::start();
    world.change(TABLE, |table| {
        let routes = table["properties"]["routes"].as_array_mut().unwrap();
        routes.push(
            json!({"name": "node-9____102449024", "properties": {"addressPrefix": "10.244.9.0/24",
            "nextHopType": "VirtualAppliance", "nextHopIpAddress": "10.240.0.99"}}),
        );
    });
    world.is_mended(&[("route-stale", "route/node-9____102449024")]);
    let found = |said: Said| {
        said.checks()
            .into_iter()
            .map(|(check, _)| check)
            .collect::<Vec<_>>()
    };
    assert_eq!(found(world.doctor(&["--route-limit", "4"])), ["route-limit"]);
    assert_eq!(found(world.doctor(&["--route-limit", "5"])), Vec::<String>::new());
    assert_eq!(
        found(world.doctor(&["--service-cidr", "10.244.2.128/25"])),
        ["pod-cidr-overlaps-services"]
    );
    world.nodes["items"][1]["spec"]["podCIDRs"] = world.nodes["items"][0]["spec"]["podCIDRs"].clone();
    let checks = found(world.doctor(&[]));
    assert_eq!(
        checks
            .iter()
            .filter(|check| *check == "pod-cidr-duplicate")
            .count(),
        2,
        "{checks:?}"
    );
    world.arm.store().forbidden.push("networkInterfaces".into());
    let said = world.doctor(&["--check", "nic-forwarding"]);
    assert_eq!((said.code, said.checks().len()), (1, 0));
    let unread = said.json["unread"][0].as_str().unwrap();
    assert!(unread.contains("AuthorizationFailed"), "{unread}");
}

#[test]
fn routes_are_managed_when_told_to_and_when_nobody_else_does() {
    let mut world = World::start();
    world.change(TABLE, |table| {
        drop_route(table, "node-2");
        let routes = table["properties"]["routes"].as_array_mut().unwrap();
        let route = |name: &str, prefix: &str| {
            json!({"name": name, "properties": {"addressPrefix": prefix, "nextHopType": "VirtualAppliance",
                "nextHopIpAddress": "10.240.0.99"}})
        };
        routes.extend([route("node-9", "10.244.9.0/24"), route("mine", "192.168.0.0/24")]);
    });
    assert_eq!(world.reach(NEVER), [false; 2]);
    let before = world.arm.store().routes(TABLE);
    let said = world.doctor(&["--manage-routes"]);
    assert_eq!(
        said.json["plan"]["changes"].as_array().unwrap().len(),
        2,
        "{:#}",
        said.json
    );
    assert_eq!(world.arm.store().routes(TABLE), before, "that was a rehearsal");

    world.nodes["items"][0]["status"]["conditions"] =
        json!([{"type": "NetworkUnavailable", "status": "False", "reason": "RouteCreated"}]);
    // What is wrong is said all the same: who may not write is not blind.
    let refused = world.doctor(&["--manage-routes", "apply"]);
    assert_eq!(refused.code, 1, "{:#}", refused.json);
    let missing = refused.checks();
    assert!(
        missing.contains(&("route-missing".to_owned(), "node/node-2".to_owned())),
        "{missing:?}"
    );
    assert_eq!(refused.json["plan"]["changes"].as_array().unwrap().len(), 2);
    let why = refused.json["unwritten"].as_str().unwrap();
    assert!(
        why.contains("a cloud controller makes this cluster's routes: node node-1"),
        "{why}"
    );
    assert_eq!(
        (&refused.json["written"], world.arm.store().routes(TABLE)),
        (&Value::Null, before.clone())
    );
    let (code, text) = world.run(&["--manage-routes", "apply"]);
    assert!(
        code == 1 && text.contains("not written: a cloud controller"),
        "{text}"
    );
    // So it is if somebody else is always faster, or there is no time.
    world.nodes["items"][0]["status"]["conditions"] = json!([]);
    for (fault, said) in [
        (Fault::Changed, "8 times in a row"),
        (Fault::Throttled(60), "ARM asks to wait 60 s"),
    ] {
        world.arm.store().write_faults.extend(vec![fault; 50]);
        let refused = world.doctor(&["--manage-routes", "apply", "--patience", "30"]);
        world.arm.store().write_faults.clear();
        assert_eq!((refused.code, refused.checks()), (1, missing.clone()));
        let why = refused.json["unwritten"].as_str().unwrap();
        assert!(why.contains(said), "{why}");
    }
    world.nodes["items"][0]["status"]["conditions"] =
        json!([{"type": "NetworkUnavailable", "status": "False", "reason": "RouteCreated"}]);
    assert_eq!(world.arm.store().routes(TABLE).len(), before.len());

    let beside = world.doctor(&["--manage-routes", "apply", "--beside-cloud-controller"]);
    assert_eq!(
        beside.json["written"].as_array().unwrap().len(),
        2,
        "{:#}",
        beside.json
    );
    world.follow();
    assert_eq!(world.reach(SOON), [true; 2]);
    let names = |world: &World| -> Vec<String> {
        world
            .arm
            .store()
            .routes(TABLE)
            .into_iter()
            .map(|(name, ..)| name)
            .collect()
    };
    assert!(
        names(&world).contains(&"node-9".to_owned()),
        "nothing is deleted beside another writer"
    );

    world.nodes["items"][0]["status"]["conditions"] = json!([]);
    // A file may not name all nodes.
    let alone = world.doctor(&["--manage-routes", "apply"]);
    assert_eq!(alone.json["written"], Value::Null, "{:#}", alone.json);
    let left = &alone.json["plan"]["left"][0];
    assert_eq!(left["object"], "route/node-9", "{:#}", alone.json);
    let names = names(&world);
    assert!(
        names.contains(&"mine".to_owned()) && names.contains(&"node-9".to_owned()),
        "{names:?}"
    );
}

#[test]
fn a_write_that_azure_lost_reaches_no_packet() {
    let mut world = World::start();
    world.change(TABLE, |table| drop_route(table, "node-2"));
    assert_eq!(world.reach(NEVER), [false; 2]);
    // Somebody writes what is printed, ARM says that it succeeded, and it did not: packets go on being lost.
    let planned = world.doctor(&["--manage-routes"]);
    let mut body = world.arm.store().get(TABLE).cloned().unwrap();
    for change in planned.json["plan"]["changes"].as_array().unwrap() {
        let route = json!({"name": change["name"], "properties": {"addressPrefix": change["prefix"],
            "nextHopType": "VirtualAppliance", "nextHopIpAddress": change["next_hop"]}});
        body["properties"]["routes"].as_array_mut().unwrap().push(route);
    }
    world.arm.store().write_faults.push_back(Fault::Lost);
    assert_eq!(world.arm.put(TABLE, &body).unwrap(), 200);
    world.follow();
    assert_eq!(world.reach(NEVER), [false; 2]);
    // The doctor's own first write is lost, too; it looks, and writes again.
    world.arm.store().write_faults.push_back(Fault::Lost);
    let written = world.doctor(&["--manage-routes", "apply"]);
    assert_eq!(written.json["unwritten"], Value::Null, "{:#}", written.json);
    world.follow();
    world.is_well();
}

#[test]
fn the_fabric_is_asked_after_writing_until_it_does_so() {
    let mut world = World::start();
    world.change(TABLE, |table| drop_route(table, "node-2"));
    let nic = format!("{GROUP}/Microsoft.Network/networkInterfaces/nic-node-1");
    let active = |routes: Vec<(String, String, String)>| {
        let effective = routes.into_iter().map(|(_, prefix, hop)| {
            json!({"source": "User", "state": "Active", "addressPrefix": [prefix], "nextHopType": "VirtualAppliance",
                "nextHopIpAddress": [hop]})
        });
        json!(effective.collect::<Vec<_>>())
    };
    let old = active(world.arm.store().routes(TABLE));
    world.arm.store().effective.insert(nic.clone(), old);
    let shared = world.arm.shared();
    // The fabric takes two seconds longer than ARM.
    let late = std::thread::spawn(move || {
        while shared.lock().routes(TABLE).len() < 4 {
            std::thread::sleep(Duration::from_millis(10));
        }
        std::thread::sleep(Duration::from_secs(2));
        let mut store = shared.lock();
        let now = active(store.routes(TABLE));
        store.effective.insert(nic, now);
    });
    let said = world.doctor(&["--manage-routes", "apply", "--effective-routes", "node-1"]);
    late.join().unwrap();
    assert_eq!((said.code, said.checks()), (0, vec![]), "{:#}", said.json);
    assert_eq!(said.json["written"].as_array().unwrap().len(), 2);
}

#[test]
fn a_scale_sets_interface_is_mended_by_what_is_printed() {
    let mut world = World::start();
    world.move_to_scale_set("node-1");
    world.is_well();
    let set = format!("{GROUP}/Microsoft.Compute/virtualMachineScaleSets/pool");
    world.change(&set, |set| {
        let profile = &mut set["properties"]["virtualMachineProfile"]["networkProfile"];
        profile["networkInterfaceConfigurations"][1]["properties"]["enableIPForwarding"] = json!(false);
    });
    let nic = format!("{set}/virtualMachines/3/networkInterfaces/nic-node-1");
    world.change(&nic, |nic| nic["properties"]["enableIPForwarding"] = json!(false));
    assert_eq!(world.reach(NEVER), [false; 2]);
    world.is_mended(&[("nic-forwarding", "node/node-1")]);
}

#[test]
fn flannel_needs_neither_routes_nor_forwarding() {
    let mut world = World::start();
    // As kube-flannel annotates nodes; there is no table, and nothing forwards.
    for node in world.nodes["items"].as_array_mut().unwrap() {
        node["metadata"]["annotations"] = json!({"flannel.alpha.coreos.com/backend-type": "vxlan"});
    }
    world.arm.store().remove(TABLE);
    for name in ["node-1", "node-2"] {
        let nic = format!("{GROUP}/Microsoft.Network/networkInterfaces/nic-{name}");
        world.change(&nic, |nic| nic["properties"]["enableIPForwarding"] = json!(false));
    }
    let said = world.doctor(&["--manage-routes", "apply"]);
    assert_eq!((said.code, said.checks()), (0, vec![]), "{:#}", said.json);
    assert_eq!(said.json["networking"], "flannel");
    let (_, text) = world.run(&[]);
    assert!(
        text.contains("networking flannel: node node-1 has flannel's annotations"),
        "{text}"
    );
    let said = world.doctor(&["--networking", "udr"]);
    let checks: Vec<_> = said.checks().into_iter().map(|(check, _)| check).collect();
    assert_eq!(checks, ["table-missing", "nic-forwarding", "nic-forwarding"]);
}
