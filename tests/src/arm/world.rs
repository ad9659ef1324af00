//! A cluster-in-a-box whose fabric does what the route table of the stand-in says, and `calico-azure doctor` about it.

#![expect(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::follower::Follower;
use super::{FakeArm, GROUP, NETWORK, PASSWORD, TABLE};
use crate::lab::{Cluster, ClusterSpec, FabricDrop, PodManifest, Port, binary, probe};

const SOON: Duration = Duration::from_secs(3);
/// How long Azure's fabric takes to do what Resource Manager holds.
const SETTLES: Duration = Duration::from_millis(100);
const NODES: [&str; 2] = ["node-1", "node-2"];

/// A cluster, what Azure says of it, and a fabric that does so a while later. Fields go in order, the follower first.
pub struct World {
    follower: Follower,
    pub cluster: Arc<Cluster>,
    pub arm: FakeArm,
    /// Node objects.
    pub nodes: Value,
    dir: tempfile::TempDir,
}

/// What the command said.
pub struct Said {
    pub code: i32,
    pub json: Value,
}

impl Said {
    pub fn checks(&self) -> Vec<(String, String)> {
        let findings = self.json["findings"].as_array().unwrap().iter();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        findings
            .map(|f| (text(&f["check"]), text(&f["object"])))
            .collect()
    }

    pub fn fixes(&self) -> Vec<String> {
        let findings = self.json["findings"].as_array().unwrap().iter();
        let fixes = findings.flat_map(|f| f["fix"].as_array().unwrap());
        fixes.map(|fix| fix.as_str().unwrap().to_owned()).collect()
    }
}

/// The id of a node's interface if its machine is a scale set's.
pub(super) fn set_nic(node: &str) -> String {
    let set = format!("{GROUP}/Microsoft.Compute/virtualMachineScaleSets/pool");
    format!("{set}/virtualMachines/3/networkInterfaces/nic-{node}")
}

impl World {
    pub fn start() -> Self {
        let mut cluster = Cluster::start(&ClusterSpec::default()).unwrap();
        for (name, node) in [("one", "node-1"), ("two", "node-2")] {
            let pod = PodManifest::new("a", name, node, &[], &[Port::Tcp(8080)]);
            cluster.add_pod(pod).unwrap();
        }
        let arm = FakeArm::start().unwrap();
        let (mut objects, mut routes, mut routed) = (Vec::new(), Vec::new(), BTreeMap::new());
        for name in NODES {
            let node = cluster.node(name).unwrap();
            arm.add_nic(name, &node.ips()[0].to_string());
            let nic = format!("{GROUP}/Microsoft.Network/networkInterfaces/nic-{name}");
            arm.store()
                .change(&nic, |nic| {
                    let second = json!({"name": "v6", "properties": {"privateIPAddress": node.ips()[1], "primary": false,
                        "subnet": {"id": format!("{NETWORK}/subnets/nodes")}}});
                    nic["properties"]["ipConfigurations"].as_array_mut().unwrap().push(second);
                })
                .unwrap();
            for (cidr, ip) in node.pod_cidrs().iter().zip(node.ips()) {
                let squeezed = cidr.to_string().replace(['.', ':', '/'], "");
                routes.push(json!({"name": format!("{name}____{squeezed}"), "properties": {
                    "addressPrefix": cidr, "nextHopType": "VirtualAppliance", "nextHopIpAddress": ip}}));
                routed.insert(*cidr, name.to_owned());
            }
            let addresses = node.ips().map(|ip| json!({"type": "InternalIP", "address": ip}));
            objects.push(
                json!({"kind": "Node", "metadata": {"name": name}, "spec": {"podCIDRs": node.pod_cidrs()},
                "status": {"addresses": addresses, "conditions": []}}),
            );
        }
        let cluster = Arc::new(cluster);
        let follower = Follower::start(Arc::clone(&cluster), arm.shared(), &NODES, routed, SETTLES);
        let mut world = Self {
            follower,
            cluster,
            arm,
            nodes: json!({"kind": "List", "items": objects}),
            dir: tempfile::tempdir().unwrap(),
        };
        world.change(TABLE, |table| table["properties"]["routes"] = json!(routes));
        world.change(NETWORK, |network| {
            network["properties"]["addressSpace"]["addressPrefixes"] =
                json!(["10.240.0.0/12", "fd00:10::/32"]);
        });
        world
    }

    /// Changes a resource, and waits until the fabric does so.
    pub fn change(&mut self, id: &str, change: impl FnOnce(&mut Value)) {
        self.arm.store().change(id, change).unwrap();
        self.follow();
    }

    /// Waits until the fabric does what Azure holds now.
    pub fn follow(&self) {
        let version = self.arm.store().version();
        let end = Instant::now() + SOON * 10;
        while !self.follower.has(version) {
            assert!(Instant::now() < end, "the fabric is still doing something else");
            std::thread::sleep(SETTLES / 10);
        }
    }

    /// The node's machine is one of a scale set's, whose model has another interface before this one's.
    pub fn move_to_scale_set(&mut self, node: &str) {
        let (nic, set) = (
            format!("{GROUP}/Microsoft.Network/networkInterfaces/nic-{node}"),
            format!("{GROUP}/Microsoft.Compute/virtualMachineScaleSets/pool"),
        );
        let interface = |name: String| json!({"name": name, "properties": {"enableIPForwarding": true}});
        let interfaces = [interface("mgmt".into()), interface(format!("nic-{node}"))];
        {
            let mut store = self.arm.store();
            let body = store.get(&nic).cloned().unwrap();
            store.remove(&nic);
            store.put(&set_nic(node), body);
            let other = set_nic(node).replace(&format!("/nic-{node}"), "/mgmt");
            store.put(
                &other,
                json!({"properties": {"enableIPForwarding": true, "ipConfigurations": []}}),
            );
            store.put(
                &set,
                json!({"location": "westeurope", "properties": {"virtualMachineProfile": {
                    "networkProfile": {"networkInterfaceConfigurations": interfaces}}}}),
            );
        }
        self.follow();
    }

    /// Whether pods of the two nodes reach each other, over IPv4 and IPv6.
    pub fn reach(&self, patience: Duration) -> [bool; 2] {
        [false, true].map(|v6| {
            let (one, two) = (
                self.cluster.pod("a/one").unwrap(),
                self.cluster.pod("a/two").unwrap(),
            );
            let tcp = probe::tcp(one.net.ns(), two.ip(v6).unwrap(), 8080, patience);
            tcp.unwrap().reached()
        })
    }

    pub fn file(&self, name: &str, value: &Value) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, value.to_string()).unwrap();
        path
    }

    pub fn doctor(&self, more: &[&str]) -> Said {
        let (code, out) = self.run(&[more, &["-o", "json"]].concat());
        Said {
            code,
            json: serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}")),
        }
    }

    pub fn run(&self, more: &[&str]) -> (i32, String) {
        let auth = json!({"aadClientId": "app", "aadClientSecret": PASSWORD});
        let output = Command::new(binary().unwrap())
            .arg("doctor")
            .arg("--cloud-config")
            .arg(self.file("azure.json", &self.arm.cloud_config(&auth)))
            .arg("--nodes")
            .arg(self.file("nodes.json", &self.nodes))
            .args(["--cluster-cidr", "10.244.0.0/16,fd00:10:244::/48"])
            .args(["--service-cidr", "10.96.0.0/16"])
            .args(more)
            .env("AZURE_AUTHORITY_HOST", self.arm.url())
            .env("CALICO_AZURE_LOG", "trace")
            .output()
            .unwrap();
        let (out, err) = (
            String::from_utf8(output.stdout).unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        );
        for secret in [PASSWORD, "secret-token"] {
            assert!(!out.contains(secret) && !err.contains(secret), "{out}{err}");
        }
        (output.status.code().unwrap_or_else(|| panic!("{err}")), out)
    }

    /// Finds exactly this, runs what is printed, and all is well.
    pub fn is_mended(&mut self, expected: &[(&str, &str)]) {
        let said = self.doctor(&[]);
        let checks = said.checks();
        let checks: Vec<_> = checks
            .iter()
            .map(|(check, object)| (check.as_str(), object.as_str()))
            .collect();
        assert_eq!(checks, expected, "{:#}", said.json);
        assert_eq!(said.code, 1);
        for command in said.fixes() {
            self.arm.az(&command).unwrap();
        }
        self.follow();
        self.is_well();
    }

    pub fn is_well(&self) {
        assert_eq!(self.reach(SOON), [true; 2]);
        let said = self.doctor(&[]);
        assert_eq!(said.code, 0, "{:#}", said.json);
        assert_eq!(said.json["findings"], json!([]));
        assert_eq!(
            (&said.json["nodes"], &said.json["routes"]),
            (&json!(2), &json!(4))
        );
    }

    pub fn dropped(&self, why: FabricDrop) -> u64 {
        let count = |name: &&str| {
            let node = self.cluster.node(name).unwrap();
            self.cluster.fabric.dropped(node, why).unwrap()
        };
        NODES.iter().map(count).sum()
    }
}
