//! Interfaces that are pods' by their names, and nobody knows which pods': closed, or open if the agent is told so.

#![expect(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use calico_azure_tests::lab::probe::{self, Server};
use calico_azure_tests::lab::{
    AgentSpec, Cluster, ClusterSpec, NetNs, Networking, PodManifest, PodNet, Port,
};

const SOON: Duration = Duration::from_secs(60);
const AT_ONCE: Duration = Duration::from_millis(500);
const WEB: u16 = 8080;
const PASSED: &str =
    "calico_azure_packets_total{hook=\"to-workload\",reason=\"unknown-interface\",verdict=\"pass\"}";

/// A node with a pod that has a network and no object; the agent says `word` of such.
fn with(word: &str) -> (Cluster, PodNet, Server) {
    let spec = AgentSpec::new().unwrap();
    let spec = spec.args(["--metrics", "--unknown-interfaces", word]);
    let mut cluster = Cluster::start(&ClusterSpec {
        nodes: 1,
        networking: Networking::AzureCni,
        agents: Some(spec),
        ..ClusterSpec::default()
    })
    .unwrap();
    let namespace = "apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n";
    cluster.source.write("namespaces.yaml", namespace).unwrap();
    let net = cluster.node("node-1").unwrap().add_pod("a", "stranger").unwrap();
    let server = Server::start(net.ns(), net.ips(), &[Port::Tcp(WEB)]).unwrap();
    let name = net.ifname().to_owned();
    let agent = cluster.agent("node-1").unwrap();
    agent
        .wait_for("attaches", SOON, |status| {
            status.attached.iter().filter(|one| one.interface == name).count() == 2
        })
        .unwrap();
    (cluster, net, server)
}

fn reached(cluster: &Cluster, net: &PodNet) -> [bool; 2] {
    let node = cluster.node("node-1").unwrap().ns();
    let ips = [net.ips()[0], net.ips()[1]];
    ips.map(|ip| probe::tcp(node, ip, WEB, AT_ONCE).unwrap().reached())
}

fn passed(node: &NetNs) -> u64 {
    let connected = node.run(|| TcpStream::connect(("127.0.0.1", 9091))).unwrap();
    let mut stream = connected.unwrap();
    let request = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(PASSED));
    line.map_or(0, |value| value.trim().parse().unwrap())
}

#[test]
fn they_are_closed_if_nothing_else_is_said() {
    let (cluster, net, _server) = with("deny");
    assert_eq!(reached(&cluster, &net), [false; 2]);
    assert_eq!(passed(cluster.node("node-1").unwrap().ns()), 0);
}

#[test]
fn they_are_open_on_demand_but_not_a_pod_that_is_to_have_no_traffic() {
    let (mut cluster, net, _server) = with("allow");
    assert_eq!(reached(&cluster, &net), [true; 2]);
    assert!(passed(cluster.node("node-1").unwrap().ns()) >= 2);
    // Known, and with policy of its own.
    let mut manifest = PodManifest::new("a", "stranger", "node-1", &[], &[]);
    let mut pod = manifest.running(net.ips());
    cluster
        .source
        .write_objects(&manifest.file(), &[pod.clone()])
        .unwrap();
    let deny = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: deny, namespace: a}\nspec: {podSelector: {}}\n";
    cluster.source.write("deny.yaml", deny).unwrap();
    cluster
        .agent("node-1")
        .unwrap()
        .wait_endpoint("a/stranger", SOON)
        .unwrap();
    let other = cluster.node("node-1").unwrap().add_pod("a", "other").unwrap();
    // It asks for sources of others, which it may not have, and gets no policy: not what strangers get.
    manifest.set_label("x", Some("y"));
    pod["metadata"]["annotations"] =
        serde_json::json!({"cni.projectcalico.org/allowedSourcePrefixes": "[\"192.0.2.0/24\"]"});
    cluster.source.write_objects(&manifest.file(), &[pod]).unwrap();
    let agent = cluster.agent("node-1").unwrap();
    let told = |problems: &[String]| {
        problems
            .iter()
            .any(|one| one.contains("--unknown-interfaces allow has no effect"))
    };
    agent
        .wait_for("says so", SOON, |status| told(&status.problems))
        .unwrap();
    let begun = Instant::now();
    while reached(&cluster, &net) != [false; 2] {
        assert!(begun.elapsed() < SOON);
    }
    drop(other);
}
