//! What Azure's own CNI plug-in answers, which names the pod's end of the interface and not where that is: no interface of the host is anybody's
//! by that, and the chained plug-in finds the pod's all the same.

#![expect(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::fs;
use std::io::Write as _;
use std::net::IpAddr;
use std::os::unix::fs::symlink;
use std::process::Stdio;
use std::time::{Duration, Instant};

use calico_azure_tests::lab::{
    AgentSpec, Cluster, ClusterSpec, Networking, PodManifest, PodNet, Port, probe,
};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(20);
/// Less than a second, after which TCP sends a lost SYN again.
const AT_ONCE: Duration = Duration::from_millis(500);
const WEB: u16 = 8080;

const POLICIES: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: a}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: server, namespace: a}
spec:
  podSelector: {matchLabels: {app: server}}
  ingress:
  - from: [{podSelector: {matchLabels: {app: client}}}]
    ports: [{port: 8080}]
";

/// As azure-vnet prints it: the interface's name, without its sandbox and its link-layer address.
fn answer(ips: &[IpAddr]) -> Value {
    let ips: Vec<Value> = ips
        .iter()
        .map(|ip| match ip {
            IpAddr::V4(ip) => json!({"version": "4", "address": format!("{ip}/16"), "gateway": "10.240.0.1"}),
            IpAddr::V6(ip) => json!({"version": "6", "address": format!("{ip}/64"), "gateway": "fd00::1"}),
        })
        .collect();
    json!({"cniVersion": "0.3.0", "interfaces": [{"name": "eth0"}], "ips": ips,
        "routes": [{"dst": "0.0.0.0/0", "gw": "10.240.0.1"}], "dns": {}})
}

/// Keeps an answer as containerd does.
fn keep(cluster: &Cluster, pod: &str, ips: &[IpAddr]) {
    let results = cluster.node("node-1").unwrap().results();
    fs::create_dir_all(&results).unwrap();
    let cached = json!({"kind": "cniCacheV1", "containerId": pod, "config": "e30=", "ifName": "eth0", "networkName": "azure",
        "cniArgs": [["K8S_POD_NAMESPACE", "a"], ["K8S_POD_NAME", pod]], "result": answer(ips)});
    fs::write(results.join(format!("azure-{pod}-eth0")), cached.to_string()).unwrap();
}

fn bind(cluster: &Cluster, name: &str) {
    let manifest = PodManifest::new("a", name, "node-1", &[("app", "client")], &[]);
    let objects = [manifest.bound()];
    cluster.source.write_objects(&manifest.file(), &objects).unwrap();
}

/// Runs a pod as containerd does with a chain of azure-vnet and ours, which may wait for `timeout` seconds: its network, and what ours says.
fn start(cluster: &Cluster, name: &str, timeout: f64) -> (PodNet, bool, String) {
    let node = cluster.node("node-1").unwrap();
    let net = node.add_pod("a", name).unwrap();
    let program = cluster.agents[0].run_dir().join("calico-azure-cni");
    if !program.exists() {
        symlink(calico_azure_tests::lab::binary().unwrap(), &program).unwrap();
    }
    let configuration = json!({"cniVersion": "0.3.0", "name": "azure", "type": "calico-azure-cni", "node": "node-1",
        "runDir": cluster.agents[0].run_dir(), "timeout": timeout, "prevResult": answer(net.ips())});
    let mut child = node
        .ns()
        .command(&program)
        .env("CNI_COMMAND", "ADD")
        .env("CNI_CONTAINERID", format!("c-{name}"))
        .env("CNI_NETNS", net.ns().path())
        .env("CNI_IFNAME", "eth0")
        .env(
            "CNI_ARGS",
            format!("IgnoreUnknown=1;K8S_POD_NAMESPACE=a;K8S_POD_NAME={name}"),
        )
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(configuration.to_string().as_bytes()).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    (net, output.status.success(), said)
}

fn cluster() -> Cluster {
    let mut cluster = Cluster::start(&ClusterSpec {
        networking: Networking::AzureCni,
        agents: Some(AgentSpec::new().unwrap()),
        ..ClusterSpec::default()
    })
    .unwrap();
    cluster.source.write("policies.yaml", POLICIES).unwrap();
    let server = PodManifest::new("a", "server", "node-1", &[("app", "server")], &[Port::Tcp(WEB)]);
    cluster.add_pod(server).unwrap();
    cluster.wait_endpoints(SOON).unwrap();
    cluster
}

#[test]
fn the_nodes_own_interface_is_no_pods() {
    let mut cluster = cluster();
    let other = cluster.node("node-2").unwrap().ips();
    let node = cluster.node("node-1").unwrap().ns().clone();
    // Its link is not there: it is being deleted, or the answer is from before the machine's last start.
    bind(&cluster, "ghost");
    let agent = cluster.agent("node-1").unwrap();
    let seen = agent.status().unwrap().unwrap().inputs_seen;
    keep(&cluster, "ghost", &["10.240.0.99".parse().unwrap()]);
    let agent = cluster.agent("node-1").unwrap();
    agent
        .wait_for("has read the answer", SOON, |status| status.inputs_seen > seen)
        .unwrap();
    let check = |cluster: &mut Cluster| {
        let status = cluster.agent("node-1").unwrap().wait_ready(SOON).unwrap();
        let at_nic = status.endpoints.iter().find(|one| one.interface == "eth0");
        assert_eq!(at_nic, None);
        let programs = status.attached.iter().filter(|one| one.interface == "eth0");
        let programs: Vec<&str> = programs.map(|one| one.program.as_str()).collect();
        assert!(
            !programs.is_empty() && programs.iter().all(|program| program.ends_with("fabric")),
            "{programs:?}"
        );
        for to in other {
            assert!(probe::icmp(&node, to, AT_ONCE).unwrap().reached(), "{to}");
        }
    };
    check(&mut cluster);
    // Nor after a restart, which begins with that answer.
    let agent = cluster.agent("node-1").unwrap();
    agent.kill9().unwrap();
    agent.restart().unwrap();
    check(&mut cluster);
}

#[test]
fn the_chained_plug_in_finds_the_interface_by_its_computed_name() {
    let mut cluster = cluster();
    let to = cluster.pod("a/server").unwrap().ip(false).unwrap();
    for name in ["one", "two"] {
        bind(&cluster, name);
        let begun = Instant::now();
        let (net, started, said) = start(&cluster, name, 10.0);
        assert!(started, "{said}");
        println!("{name}: held for {:?}", begun.elapsed());
        let said: Value = serde_json::from_str(&said).unwrap();
        assert_eq!(said, answer(net.ips()));
        let reached = probe::tcp(net.ns(), to, WEB, AT_ONCE).unwrap().reached();
        assert!(reached, "{name}");
    }
    // The next pod of that name, and nobody who could know it: the last agent's status tells of the one before.
    bind(&cluster, "one");
    let (net, started, said) = start(&cluster, "one", 10.0);
    assert!(started, "{said}");
    let agent = cluster.agent("node-1").unwrap();
    agent.wait_endpoint("a/one", SOON).unwrap();
    agent.kill9().unwrap();
    drop(net);
    let (_net, started, said) = start(&cluster, "one", 0.5);
    assert!(!started && said.contains("no policy for a/one"), "{said}");
}
