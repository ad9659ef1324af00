//! Settings of Felix's that are changed while the agent runs: each counts for packets and interfaces, and back again.

#![expect(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use calico_azure_ebpf::abi::TIMEOUT_UDP;
use calico_azure_tests::lab::probe::{self, Server};
use calico_azure_tests::lab::{AgentSpec, AgentStatus, Cluster, ClusterSpec, PodManifest, Port, binary};
use calico_azure_userspace::dataplane::live::Live;
use calico_azure_userspace::dataplane::pins::Pins;

const SOON: Duration = Duration::from_secs(60);
const AT_ONCE: Duration = Duration::from_millis(300);
const NODE_PORT: u16 = 7777;

/// A node whose interface lets in what is failsafe and nothing else.
const HOST: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: a}
---
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: one-eth0}
spec: {node: node-1, interfaceName: eth0}
";

/// The agent without the prefixes that the lab tells it, which would win.
fn untold(dir: &Path) -> AgentSpec {
    const SCRIPT: &str = r#"#!/bin/sh
left=$#
while [ "$left" -gt 0 ]; do
    word=$1; shift; left=$((left - 1))
    if [ "$word" = --interface-prefix ]; then shift; left=$((left - 1)); else set -- "$@" "$word"; fi
done
exec BINARY "$@"
"#;
    let script = SCRIPT.replace("BINARY", &binary().unwrap().display().to_string());
    let path = dir.join("agent");
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    AgentSpec {
        binary: path,
        ..AgentSpec::new().unwrap()
    }
}

fn cluster() -> Cluster {
    with(AgentSpec::new().unwrap())
}

fn with(agents: AgentSpec) -> Cluster {
    let mut cluster = Cluster::start(&ClusterSpec {
        agents: Some(agents),
        ..ClusterSpec::default()
    })
    .unwrap();
    cluster.source.write("host.yaml", HOST).unwrap();
    cluster
        .add_pod(PodManifest::new("a", "one", "node-1", &[], &[Port::Tcp(8080)]))
        .unwrap();
    cluster.wait_endpoints(SOON).unwrap();
    cluster
}

/// FelixConfiguration `default` says this.
fn set(cluster: &Cluster, spec: &str) {
    let text = format!(
        "apiVersion: projectcalico.org/v3\nkind: FelixConfiguration\nmetadata: {{name: default}}\nspec: {spec}\n"
    );
    cluster.source.write("felix.yaml", &text).unwrap();
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < SOON, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn prefixes_of_interfaces() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = with(untold(dir.path()));
    let node = cluster.node("node-1").unwrap().ns().clone();
    node.ip(&[
        "link", "add", "tst123", "type", "veth", "peer", "name", "other123",
    ])
    .unwrap();
    let attached = |status: &AgentStatus| -> Vec<String> {
        let found = status.attached.iter().filter(|one| one.interface == "tst123");
        found.map(|one| one.program.clone()).collect()
    };
    let agent = cluster.agent("node-1").unwrap();
    assert_eq!(attached(&agent.wait_ready(SOON).unwrap()), Vec::<String>::new());
    set(&cluster, "{interfacePrefix: 'cali,tst'}");
    let agent = cluster.agent("node-1").unwrap();
    agent
        .wait_for("attaches", SOON, |status| attached(status).len() == 2)
        .unwrap();
    // What has programs keeps them, and is nobody's.
    set(&cluster, "{interfacePrefix: cali}");
    let agent = cluster.agent("node-1").unwrap();
    let status = agent.wait_ready(SOON).unwrap();
    assert_eq!(attached(&status), ["from_workload", "to_workload"]);
}

#[test]
fn timeouts_and_the_mask_of_marks() {
    let mut cluster = cluster();
    let pins = Pins::new(
        Path::new("/sys/fs/bpf"),
        &cluster.agent("node-1").unwrap().pin_name(),
    )
    .unwrap();
    let live = Live::open(&pins).unwrap();
    let config = || live.read().unwrap().config;
    let before = config();
    assert_eq!(
        (before.timeouts[TIMEOUT_UDP], before.mark_mask),
        (60_000_000_000, 0xffff_0000)
    );
    set(
        &cluster,
        "{bpfConntrackTimeouts: {udpTimeout: 90s}, iptablesMarkMask: 0x0fff0000}",
    );
    until("both are in the kernel", || {
        let now = config();
        (now.timeouts[TIMEOUT_UDP], now.mark_mask) == (90_000_000_000, 0x0fff_0000)
    });
    cluster.source.remove("felix.yaml").unwrap();
    until("as before", || {
        let now = config();
        (now.timeouts, now.mark_mask) == (before.timeouts, before.mark_mask)
    });
}

#[test]
fn failsafe_ports() {
    let cluster = cluster();
    let [one, two] = ["node-1", "node-2"].map(|name| cluster.node(name).unwrap());
    let _server = Server::start(one.ns(), &one.ips(), &[Port::Tcp(NODE_PORT)]).unwrap();
    let reached = |port| {
        one.ips()
            .map(|ip| probe::tcp(two.ns(), ip, port, AT_ONCE).unwrap().reached())
    };
    assert_eq!(reached(NODE_PORT), [false; 2]);
    set(
        &cluster,
        "{failsafeInboundHostPorts: [{protocol: tcp, port: 7777}]}",
    );
    until("it is open", || reached(NODE_PORT) == [true; 2]);
    set(&cluster, "{failsafeInboundHostPorts: []}");
    until("it is closed", || reached(NODE_PORT) == [false; 2]);
}

#[test]
fn source_spoofing() {
    let mut cluster = cluster();
    let pod = cluster.pod("a/one").unwrap();
    let mut object = pod.manifest.running(pod.net.ips());
    object["metadata"]["annotations"] =
        serde_json::json!({"cni.projectcalico.org/allowedSourcePrefixes": "[\"192.0.2.0/24\"]"});
    cluster
        .source
        .write_objects(&pod.manifest.file(), &[object])
        .unwrap();
    let known = |status: &AgentStatus| status.endpoints.iter().any(|one| one.pod == "a/one");
    let wait = |cluster: &mut Cluster, what: &str, is: bool| {
        let agent = cluster.agent("node-1").unwrap();
        agent.wait_for(what, SOON, |status| known(status) == is).unwrap();
    };
    wait(&mut cluster, "gives it no policy", false);
    set(&cluster, "{workloadSourceSpoofing: Any}");
    wait(&mut cluster, "lets it", true);
    set(&cluster, "{workloadSourceSpoofing: Disabled}");
    wait(&mut cluster, "gives it no policy again", false);
}
