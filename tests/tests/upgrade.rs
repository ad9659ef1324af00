//! An agent whose tables have another layout, or other sizes, takes over: nothing that policy denies passes meanwhile, nothing that
//! it allows is lost, and the flows of the earlier one are known.
//!
//! `CALICO_AZURE_EARLIER_BIN` names an earlier version's binary, to be taken over for real; without it the earlier layout is this
//! one's under another name.

#![expect(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use calico_azure_tests::lab::probe::{Prober, Sample};
use calico_azure_tests::lab::{AgentSpec, Cluster, ClusterSpec, NetNs, PodManifest, Port, binary};
use calico_azure_userspace::dataplane::pins::Pins;

const SOON: Duration = Duration::from_secs(60);
const TICK: Duration = Duration::from_millis(2);
const GRACE: Duration = Duration::from_millis(300);
const SERVED: u16 = 8125;
/// Where the server speaks first, some time after the client connected.
const LATER: u16 = 7000;

/// Nobody may begin anything with a client: what it hears are replies.
const POLICIES: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: a}
---
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: servers, namespace: a}
spec:
  selector: app == 'server'
  types: [Ingress, Egress]
  ingress:
  - {action: Allow, source: {selector: app == 'client'}}
---
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: clients, namespace: a}
spec:
  selector: app in {'client', 'stranger'}
  types: [Ingress, Egress]
  egress:
  - {action: Allow}
";

/// An earlier version.
fn earlier() -> Option<PathBuf> {
    std::env::var_os("CALICO_AZURE_EARLIER_BIN").map(PathBuf::from)
}

fn cluster(attach: &str) -> Cluster {
    let mut spec = AgentSpec::new().unwrap();
    spec.binary = earlier().unwrap_or(spec.binary);
    let spec = spec.args(["--attach", attach, "--conntrack-entries", "4096"]);
    let mut cluster = Cluster::start(&ClusterSpec {
        agents: Some(spec),
        ..ClusterSpec::default()
    })
    .unwrap();
    cluster.source.write("policies.yaml", POLICIES).unwrap();
    for (name, app, node) in [
        ("server", "server", "node-1"),
        ("near", "client", "node-1"),
        ("far", "client", "node-2"),
        ("stranger", "stranger", "node-1"),
    ] {
        let ports = [Port::Udp(SERVED)];
        let pod = PodManifest::new("a", name, node, &[("app", app)], &ports);
        cluster.add_pod(pod).unwrap();
    }
    cluster.wait_endpoints(SOON).unwrap();
    cluster
}

fn ns(cluster: &Cluster, pod: &str) -> NetNs {
    cluster.pod(&format!("a/{pod}")).unwrap().net.ns().clone()
}

fn address(cluster: &Cluster, pod: &str, v6: bool, port: u16) -> SocketAddr {
    let ip = cluster.pod(&format!("a/{pod}")).unwrap().ip(v6).unwrap();
    (ip, port).into()
}

/// A connection on which nobody has said anything yet.
fn connection(cluster: &Cluster, client: &str, v6: bool) -> (TcpStream, TcpStream) {
    let to = address(cluster, "server", v6, LATER);
    let listener = ns(cluster, "server")
        .run(|| TcpListener::bind(to))
        .unwrap()
        .unwrap();
    let connect = || TcpStream::connect_timeout(&to, SOON);
    let near = ns(cluster, client).run(connect).unwrap().unwrap();
    let (far, _) = listener.accept().unwrap();
    near.set_read_timeout(Some(SOON)).unwrap();
    (near, far)
}

fn answered(samples: &[Sample]) -> (usize, usize) {
    let settled: Vec<_> = samples
        .iter()
        .filter(|sample| sample.sent.elapsed() >= GRACE)
        .collect();
    let answered = settled.iter().filter(|sample| sample.answered.is_some()).count();
    (settled.len(), answered)
}

fn layouts(cluster: &mut Cluster, node: &str) -> Vec<std::path::PathBuf> {
    let name = cluster.agent(node).unwrap().pin_name();
    Pins::new(Path::new("/sys/fs/bpf"), &name)
        .unwrap()
        .all_layouts()
        .unwrap()
}

/// Runs `change` between the end of one agent of node-1 and the start of the next, under traffic.
fn survives(attach: &str, change: impl FnOnce(&mut Cluster)) {
    let mut cluster = cluster(attach);
    let probers: Vec<_> = [("near", true), ("far", true), ("stranger", false)]
        .into_iter()
        .flat_map(|(pod, allowed)| [false, true].map(|v6| (pod, allowed, v6)))
        .map(|(pod, allowed, v6)| {
            let to = address(&cluster, "server", v6, SERVED);
            (
                pod,
                allowed,
                v6,
                Prober::start(&ns(&cluster, pod), to, TICK).unwrap(),
            )
        })
        .collect();
    let connections: Vec<_> = [("near", false), ("near", true), ("far", false), ("far", true)]
        .into_iter()
        .map(|(pod, v6)| (pod, v6, connection(&cluster, pod, v6)))
        .collect();
    std::thread::sleep(GRACE);

    cluster.agent("node-1").unwrap().kill9().unwrap();
    change(&mut cluster);
    let agent = cluster.agent("node-1").unwrap();
    let binary = binary().unwrap();
    agent.respecify(|spec| AgentSpec { binary, ..spec });
    agent.restart().unwrap();
    agent.wait_ready(SOON).unwrap();
    let log = fs::read_to_string(agent.log_path()).unwrap();
    assert!(log.contains("took over flows of an earlier layout"), "{log}");
    assert!(log.contains("removed an earlier layout"), "{log}");
    assert_eq!(layouts(&mut cluster, "node-1").len(), 1);

    for (pod, v6, (mut client, mut server)) in connections {
        server.write_all(b"first").unwrap();
        let mut heard = [0; 5];
        client
            .read_exact(&mut heard)
            .unwrap_or_else(|error| panic!("{pod}, IPv6 {v6}: {error}"));
        assert_eq!(&heard, b"first");
    }
    for (pod, allowed, v6, prober) in probers {
        let (sent, passed) = answered(&prober.finish(GRACE));
        assert!(sent > 100, "{pod}: {sent}");
        if allowed {
            assert_eq!(
                sent, passed,
                "{pod}, IPv6 {v6}: some of what policy allows was lost"
            );
        } else {
            assert_eq!(passed, 0, "{pod}, IPv6 {v6}: of what policy denies");
        }
    }
}

/// As if the programs and tables of node-1 were those of an agent with another layout.
fn age(cluster: &mut Cluster) {
    if earlier().is_some() {
        return;
    }
    let mut dirs = layouts(cluster, "node-1");
    assert_eq!(dirs.len(), 1);
    let dir = dirs.remove(0);
    let name = dir.file_name().unwrap().to_str().unwrap();
    let (node, _hash) = name.rsplit_once('-').unwrap();
    fs::rename(&dir, dir.with_file_name(format!("{node}-0123456789abcdef"))).unwrap();
}

#[test]
fn an_earlier_layout_is_taken_over_tcx() {
    survives("tcx", age);
}

#[test]
fn an_earlier_layout_is_taken_over_clsact() {
    survives("clsact", age);
}

#[test]
fn other_sizes_are_taken_over() {
    survives("tcx", |cluster| {
        let agent = cluster.agent("node-1").unwrap();
        agent.respecify(|spec| AgentSpec {
            args: Vec::new(),
            ..spec
        });
        agent.respecify(|spec| spec.args(["--attach", "tcx", "--conntrack-entries", "8192"]));
    });
}
