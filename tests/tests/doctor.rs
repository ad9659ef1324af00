//! `calico-azure doctor` in a cluster whose fabric does what the route table of a stand-in for Azure says: what is broken there
//! breaks traffic, is found, and the printed commands mend it.

#![expect(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::process::Command;
use std::sync::mpsc;
use std::time::Duration;

use calico_azure_tests::arm::{FakeArm, GROUP, NETWORK, PASSWORD, Said, TABLE, World};
use calico_azure_tests::lab::{FabricDrop, binary};
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

    // A part of a node's prefix goes elsewhere, where there is nobody.
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
    world.arm.az(&said.fixes()[0]).unwrap();
    world.follow();
    world.is_well();

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
    let page = include_str!("../../docs/doctor.md");
    let example = page.split("```\n").nth(1).unwrap();
    assert_eq!(printed, example);
}

#[test]
fn what_will_break_is_found_too() {
    let mut world = World::start();
    world.change(TABLE, |table| {
        let routes = table["properties"]["routes"].as_array_mut().unwrap();
        routes.push(json!({"name": "node-9", "properties": {"addressPrefix": "10.244.9.0/24", "nextHopType": "VirtualAppliance",
            "nextHopIpAddress": "10.240.0.99"}}));
    });
    world.is_mended(&[("route-stale", "route/node-9")]);
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
    let auth = json!({"aadClientId": "app", "aadClientSecret": PASSWORD});
    let refused = Command::new(binary().unwrap())
        .args(["doctor", "--manage-routes", "apply", "--cloud-config"])
        .arg(world.file("azure.json", &world.arm.cloud_config(&auth)))
        .arg("--nodes")
        .arg(world.file("nodes.json", &world.nodes))
        .env("AZURE_AUTHORITY_HOST", world.arm.url())
        .output()
        .unwrap();
    assert_eq!(refused.status.code(), Some(2));
    let text = String::from_utf8(refused.stderr).unwrap();
    assert!(
        text.contains("a cloud controller makes this cluster's routes: node-1"),
        "{text}"
    );
    assert_eq!(world.arm.store().routes(TABLE), before);

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
fn wrong_input_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let run = |config: &str, more: &[&str]| {
        let path = dir.path().join("azure.json");
        std::fs::write(&path, config).unwrap();
        let nodes = dir.path().join("nodes.json");
        std::fs::write(&nodes, r#"{"kind": "List", "items": []}"#).unwrap();
        let mut command = Command::new(binary().unwrap());
        command
            .arg("doctor")
            .arg("--cloud-config")
            .arg(&path)
            .arg("--nodes")
            .arg(&nodes)
            .args(more);
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let managed = r#""subscriptionId":"s","resourceGroup":"g","useManagedIdentityExtension":true"#;
    for (config, more, said) in [
        ("{", &[][..], "azure.json: is neither JSON nor YAML"),
        ("{}", &[], "azure.json: does not say who we are"),
        (
            r#"{"useManagedIdentityExtension":true}"#,
            &[],
            "azure.json: subscriptionId is missing",
        ),
        (&format!("{{{managed}}}"), &[], "routeTableName is missing"),
        (
            &format!("{{{managed}}}"),
            &["--check", "nonsense"],
            "no such check; there are: table-missing,",
        ),
        (
            &format!("{{{managed}}}"),
            &["--cluster-cidr", "10.0.0.0"],
            "--cluster-cidr",
        ),
    ] {
        let (code, text) = run(config, more);
        assert_eq!(code, Some(2), "{text}");
        assert!(text.contains(said), "{text}");
    }
}

/// A proxy that lets nobody through; what it was asked for, a request's lines each.
fn proxy() -> (String, mpsc::Receiver<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://someone:opensesame@{}", listener.local_addr().unwrap());
    let (tell, told) = mpsc::channel();
    // Ends with the test.
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let lines = BufReader::new(&stream).lines().map_while(Result::ok);
            let lines: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
            let _gone = stream.write_all(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n");
            if tell.send(lines).is_err() {
                return;
            }
        }
    });
    (url, told)
}

#[test]
fn azure_is_asked_through_the_proxy_and_the_metadata_service_never() {
    let arm = FakeArm::start().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut config =
        arm.cloud_config(&json!({"useManagedIdentityExtension": true, "userAssignedIdentityID": "me"}));
    config["resourceManagerEndpoint"] = json!("https://management.invalid");
    let (azure, nodes) = (dir.path().join("azure.json"), dir.path().join("nodes.json"));
    std::fs::write(&azure, config.to_string()).unwrap();
    std::fs::write(&nodes, r#"{"kind": "List", "items": []}"#).unwrap();
    let (proxy, asked) = proxy();
    let run = |without: &str| {
        let granted = arm.store().granted;
        let output = Command::new(binary().unwrap())
            .args(["doctor", "--cluster-cidr", "10.244.0.0/16", "--cloud-config"])
            .arg(&azure)
            .arg("--nodes")
            .arg(&nodes)
            .env("AZURE_POD_IDENTITY_AUTHORITY_HOST", arm.url())
            .envs(["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"].map(|name| (name, &proxy)))
            .envs(["NO_PROXY", "no_proxy"].map(|name| (name, without)))
            .output()
            .unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(!text.contains("opensesame"), "{text}");
        assert!(arm.store().granted > granted, "a token is asked for directly");
        asked.try_iter().collect::<Vec<_>>()
    };
    let seen = run("");
    assert!(!seen.is_empty());
    for lines in seen {
        assert_eq!(lines[0], "CONNECT management.invalid:443 HTTP/1.1");
        // RFC 7617: the name and the password, in Base64.
        let who = lines.iter().find_map(|line| {
            line.to_lowercase()
                .starts_with("proxy-authorization:")
                .then(|| &line[20..])
        });
        assert_eq!(
            who.map(str::trim),
            Some("Basic c29tZW9uZTpvcGVuc2VzYW1l"),
            "{lines:?}"
        );
    }
    assert_eq!(run("management.invalid"), Vec::<Vec<String>>::new());
}
