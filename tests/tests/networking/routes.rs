//! `calico-azure routes` where the kernel, the node, nodes' objects and Azure do not agree.

use std::path::Path;

use calico_azure_tests::arm::{FakeArm, PASSWORD, TABLE};
use calico_azure_tests::lab::{NetNs, Networking, binary};
use serde_json::{Value, json};

use crate::world::World;

/// Rows, and the exit code.
fn routes(world: &World, args: &[&str], authority: &str) -> (Vec<Value>, i32) {
    let agent = world
        .cluster
        .agents
        .iter()
        .find(|agent| agent.node() == "node-1")
        .unwrap();
    let mut command = world
        .cluster
        .node("node-1")
        .unwrap()
        .ns()
        .command(binary().unwrap());
    command.args([
        "routes",
        "--node",
        "node-1",
        "--bpffs",
        "/sys/fs/bpf",
        "-o",
        "json",
    ]);
    command.args(["--pin-name", &agent.pin_name(), "--run-dir"]);
    let output = command
        .arg(agent.run_dir())
        .args(args)
        .env("AZURE_AUTHORITY_HOST", authority)
        .output()
        .unwrap();
    let rows = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    (rows, output.status.code().unwrap())
}

/// A stand-in for Azure inside a namespace, where it ends, too.
struct Inside(NetNs, Option<FakeArm>);

impl Inside {
    fn start(ns: &NetNs) -> Self {
        Self(ns.clone(), Some(ns.run(FakeArm::start).unwrap().unwrap()))
    }

    fn arm(&self) -> &FakeArm {
        self.1.as_ref().unwrap()
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        let arm = self.1.take();
        let _ended = self.0.run(move || drop(arm));
    }
}

/// Prefix and drift of each row that has one.
fn drifts(rows: &[Value]) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let with = rows.iter().filter(|row| !row["drift"].is_null());
    with.map(|row| (text(&row["prefix"]), text(&row["drift"])))
        .collect()
}

fn drift(prefix: &str, what: &str) -> (String, String) {
    (prefix.to_owned(), what.to_owned())
}

fn row<'r>(rows: &'r [Value], prefix: &str) -> &'r Value {
    rows.iter().find(|row| row["prefix"] == prefix).unwrap()
}

fn written(dir: &Path, name: &str, value: &Value) -> String {
    let path = dir.join(name);
    std::fs::write(&path, value.to_string()).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn whoever_says_otherwise_is_named() {
    let mut world = World::start(Networking::Udr);
    let dir = tempfile::tempdir().unwrap();
    let mut nodes = json!({"kind": "List", "items": world.cluster.objects().unwrap()});
    let file = written(dir.path(), "nodes.json", &nodes);
    let (rows, code) = routes(&world, &["--nodes", &file], "");
    assert_eq!((drifts(&rows), code), (vec![], 0));
    assert_eq!(row(&rows, "10.244.2.0/24")["node"], "node-2");
    // The stranger is a pod of node-2 that policy tells apart: it may not reach servers, and the client may.
    let policy = "{apiVersion: projectcalico.org/v3, kind: NetworkPolicy, metadata: {name: strangers, namespace: a},\n\
        spec: {selector: app == 'client', types: [Ingress], ingress: [{action: Allow, source: {selector: app == 'stranger'}}]}}\n";
    world.cluster.source.write("strangers.yaml", policy).unwrap();
    let stranger = format!("{}/32", world.ip("stranger", false));
    let end = std::time::Instant::now() + crate::world::SOON;
    let remote = loop {
        let (rows, _) = routes(&world, &[], "");
        if let Some(row) = rows.iter().find(|row| row["prefix"] == *stranger) {
            break row.clone();
        }
        assert!(std::time::Instant::now() < end, "{stranger}: {rows:#?}");
    };
    assert_eq!(
        (&remote["kinds"], &remote["origins"]),
        (&json!(["remote-workload"]), &json!(["pod"]))
    );

    let inside = Inside::start(world.cluster.node("node-1").unwrap().ns());
    let arm = inside.arm();
    let hops = ["node-1", "node-2"].map(|name| world.cluster.node(name).unwrap().ips());
    let udr = |name: &str, prefix: &str, hop: String| json!({"name": name, "properties": {"addressPrefix": prefix, "nextHopType": "VirtualAppliance", "nextHopIpAddress": hop}});
    let all = [
        udr("node-1", "10.244.1.0/24", hops[0][0].to_string()),
        udr("node-1-v6", "fd00:10:244:1::/64", hops[0][1].to_string()),
        udr("node-2", "10.244.2.0/24", hops[1][0].to_string()),
        udr("node-2-v6", "fd00:10:244:2::/64", hops[1][1].to_string()),
    ];
    arm.store()
        .change(TABLE, |table| table["properties"]["routes"] = json!(all))
        .unwrap();
    let auth = json!({"aadClientId": "app", "aadClientSecret": PASSWORD});
    let cloud = written(dir.path(), "azure.json", &arm.cloud_config(&auth));
    let asked = ["--nodes", file.as_str(), "--cloud-config", cloud.as_str()];
    let (rows, code) = routes(&world, &asked, &arm.url());
    assert_eq!((drifts(&rows), code), (vec![], 0));
    assert_eq!(
        row(&rows, "10.244.2.0/24")["azure"],
        format!("{} (route node-2)", hops[1][0])
    );
    assert!(
        rows.iter().any(|row| row["kinds"] == json!(["vnet"])),
        "{rows:#?}"
    );
    arm.store()
        .change(TABLE, |table| {
            let routes = table["properties"]["routes"].as_array_mut().unwrap();
            routes[2]["properties"]["nextHopIpAddress"] = json!("10.240.0.99");
            routes.remove(3);
            routes.push(udr("mine", "192.0.2.0/24", "10.240.0.99".to_owned()));
        })
        .unwrap();
    let (rows, code) = routes(&world, &asked, &arm.url());
    let expected = [
        drift(
            "10.244.2.0/24",
            "Azure's route node-2 sends it to 10.240.0.99; expected 10.240.0.5, of node-2",
        ),
        drift("fd00:10:244:2::/64", "Azure's route table has no route to it"),
    ];
    assert_eq!((drifts(&rows), code), (expected.to_vec(), 1));
    assert_eq!(row(&rows, "192.0.2.0/24")["kinds"], json!(["user-defined-route"]));

    // The agent is not there to see what changes now.
    for agent in &mut world.cluster.agents {
        agent.terminate().unwrap();
    }
    nodes["items"][1]["spec"]["podCIDRs"][0] = json!("10.244.7.0/24");
    let file = written(dir.path(), "nodes.json", &nodes);
    let near = world.ip("near", false);
    let node = world.cluster.node("node-1").unwrap().ns();
    node.ip(&["route", "del", &near.to_string()]).unwrap();
    node.ip(&["-6", "addr", "del", &format!("{}/128", hops[0][1]), "dev", "eth0"])
        .unwrap();
    let (rows, code) = routes(&world, &["--nodes", &file], "");
    let expected = [
        drift(&format!("{near}/32"), "the node has no host route to it"),
        drift("10.244.2.0/24", "no node of the API's has it"),
        drift("10.244.7.0/24", "the kernel's tables do not have it"),
        drift(&format!("{}/128", hops[0][1]), "no interface of the node has it"),
    ];
    assert_eq!((drifts(&rows), code), (expected.to_vec(), 1));
}
