//! Pods that come while no agent runs: their interfaces have no programs, and yet nothing new passes between them and pods whose interfaces
//! have, on their own node or on another. Once an agent runs, what policy allows does.

#![expect(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::time::Duration;

use calico_azure_tests::lab::{
    AgentSpec, Cluster, ClusterSpec, Networking, Plugin, PodManifest, Port, attachments, probe,
};

const SOON: Duration = Duration::from_secs(60);
const NEVER: Duration = Duration::from_millis(700);
const WEB: u16 = 8080;

/// Policy would allow all of it.
const NAMESPACE: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: a}
";

#[test]
fn on_routes_of_ones_own() {
    for attach in attachments() {
        nobody_new_is_reached(Networking::Udr, Plugin::Ptp, &["--attach", attach]);
    }
}

#[test]
fn on_a_bridge() {
    nobody_new_is_reached(Networking::HostLocal, Plugin::Bridge, &[]);
}

#[test]
fn in_a_tunnel() {
    nobody_new_is_reached(Networking::Flannel, Plugin::Bridge, &[]);
}

#[test]
fn on_azures_own_network() {
    nobody_new_is_reached(Networking::AzureCni, Plugin::Ptp, &[]);
}

#[test]
fn on_azures_overlay() {
    nobody_new_is_reached(Networking::AzureOverlay, Plugin::Ptp, &[]);
}

fn nobody_new_is_reached(networking: Networking, plugin: Plugin, args: &[&str]) {
    let mut cluster = Cluster::start(&ClusterSpec {
        networking,
        plugin,
        agents: Some(AgentSpec::new().unwrap().args(args.iter().copied())),
        serve: vec![Port::Tcp(WEB)],
        ..ClusterSpec::default()
    })
    .unwrap();
    cluster.source.write("policies.yaml", NAMESPACE).unwrap();
    for (name, node) in [("near", "node-1"), ("far", "node-2")] {
        let pod = PodManifest::new("a", name, node, &[], &[]);
        cluster.add_pod(pod).unwrap();
    }
    cluster.wait_endpoints(SOON).unwrap();
    cluster.agent("node-1").unwrap().kill9().unwrap();
    let new = PodManifest::new("a", "new", "node-1", &[], &[]);
    cluster.add_pod(new).unwrap();

    let pairs = [("new", "near"), ("near", "new"), ("new", "far"), ("far", "new")];
    for (from, to) in pairs {
        for v6 in [false, true] {
            assert!(
                !reaches(&cluster, from, to, v6, NEVER),
                "{from} to {to}, v6: {v6}"
            );
        }
    }
    // What was there goes on, and the host reaches its pods.
    for v6 in [false, true] {
        assert!(reaches(&cluster, "far", "near", v6, SOON), "v6: {v6}");
        assert!(reaches(&cluster, "near", "far", v6, SOON), "v6: {v6}");
        let new = cluster.pod("a/new").unwrap().ip(v6).unwrap();
        let host = cluster.node("node-1").unwrap().ns();
        assert!(probe::tcp(host, new, WEB, SOON).unwrap().reached(), "v6: {v6}");
    }

    let agent = cluster.agent("node-1").unwrap();
    agent.restart().unwrap();
    agent.wait_endpoint("a/new", SOON).unwrap();
    for (from, to) in pairs {
        for v6 in [false, true] {
            assert!(reaches(&cluster, from, to, v6, SOON), "{from} to {to}, v6: {v6}");
        }
    }
}

fn reaches(cluster: &Cluster, from: &str, to: &str, v6: bool, timeout: Duration) -> bool {
    let from = cluster.pod(&format!("a/{from}")).unwrap().net.ns();
    let to = cluster.pod(&format!("a/{to}")).unwrap().ip(v6).unwrap();
    probe::tcp(from, to, WEB, timeout).unwrap().reached()
}
