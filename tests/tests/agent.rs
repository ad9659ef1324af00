//! The agent on real pods: it dies, comes back and follows edits while traffic flows, and leaves nothing behind.

#![expect(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use calico_azure_tests::lab::probe::{self, Prober, Sample};
use calico_azure_tests::lab::{AgentSpec, Cluster, ClusterSpec, NetNs, PodManifest, Port};

const SOON: Duration = Duration::from_secs(60);
const NEVER: Duration = Duration::from_millis(300);
const TICK: Duration = Duration::from_millis(2);
const PORTS: [Port; 2] = [Port::Tcp(8080), Port::Udp(8125)];

const NAMESPACES: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: a}
---
apiVersion: v1
kind: Namespace
metadata: {name: b}
";

/// `b/three` hears `app: one` only.
fn policy(other: &str) -> String {
    format!(
        "
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {{name: three, namespace: b}}
spec:
  selector: app == 'three'
  types: [Ingress]
  ingress:
  - action: Allow
    source: {{selector: app == '{other}', namespaceSelector: all()}}
  - action: Allow
    source: {{selector: app == 'one', namespaceSelector: all()}}
"
    )
}

/// `a/one` and `a/two` on node-1, `b/three` on node-2, agents attached as told.
fn cluster(attach: &str) -> Cluster {
    let spec = AgentSpec::new().unwrap().args(["--attach", attach]);
    let mut cluster = Cluster::start(&ClusterSpec {
        agents: Some(spec),
        ..ClusterSpec::default()
    })
    .unwrap();
    cluster.source.write("namespaces.yaml", NAMESPACES).unwrap();
    cluster.source.write("policy.yaml", &policy("nobody")).unwrap();
    for (namespace, name, node) in [
        ("a", "one", "node-1"),
        ("a", "two", "node-1"),
        ("b", "three", "node-2"),
    ] {
        cluster
            .add_pod(PodManifest::new(namespace, name, node, &[("app", name)], &PORTS))
            .unwrap();
    }
    cluster.wait_endpoints(SOON).unwrap();
    wait(|| reaches(&cluster, "a/one", "b/three", false) && !reaches(&cluster, "a/two", "b/three", false));
    cluster
}

fn ns(cluster: &Cluster, pod: &str) -> NetNs {
    cluster.pod(pod).unwrap().net.ns().clone()
}

fn ip(cluster: &Cluster, pod: &str, v6: bool) -> IpAddr {
    cluster.pod(pod).unwrap().ip(v6).unwrap()
}

fn reaches(cluster: &Cluster, from: &str, to: &str, v6: bool) -> bool {
    probe::tcp(&ns(cluster, from), ip(cluster, to, v6), 8080, NEVER)
        .unwrap()
        .reached()
}

#[track_caller]
fn wait(mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + SOON;
    while !condition() {
        assert!(Instant::now() < end, "did not come true in {SOON:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Datagrams to `b/three` in both families: from `a/one`, all of which must be answered, and from `a/two`, none.
struct Traffic {
    allowed: Vec<Prober>,
    denied: Vec<Prober>,
}

impl Traffic {
    fn start(cluster: &Cluster) -> Self {
        let probers = |from: &str| {
            let start = |v6| {
                let to = SocketAddr::from((ip(cluster, "b/three", v6), 8125));
                Prober::start(&ns(cluster, from), to, TICK).unwrap()
            };
            [false, true].map(start).into()
        };
        Self {
            allowed: probers("a/one"),
            denied: probers("a/two"),
        }
    }

    #[track_caller]
    fn finish(self, what: &str) {
        let grace = Duration::from_millis(300);
        let settled = |prober: Prober| -> Vec<Sample> {
            let samples = prober.finish(grace);
            samples
                .into_iter()
                .filter(|sample| sample.sent.elapsed() >= grace)
                .collect()
        };
        for prober in self.allowed {
            let samples = settled(prober);
            let lost = samples.iter().filter(|sample| sample.answered.is_none()).count();
            assert!(
                samples.len() > 100,
                "{what}: only {} datagrams were sent",
                samples.len()
            );
            assert_eq!(lost, 0, "{what}: of {} allowed datagrams", samples.len());
        }
        for prober in self.denied {
            let samples = settled(prober);
            let passed = samples.iter().filter(|sample| sample.answered.is_some()).count();
            assert!(
                samples.len() > 100,
                "{what}: only {} datagrams were sent",
                samples.len()
            );
            assert_eq!(passed, 0, "{what}: of {} denied datagrams", samples.len());
        }
    }
}

#[track_caller]
fn survives_ten_restarts_and_constant_edits(attach: &str) {
    let mut cluster = cluster(attach);
    let attached = cluster
        .agent("node-1")
        .unwrap()
        .status()
        .unwrap()
        .unwrap()
        .attached;
    assert!(
        attached.len() >= 6,
        "two pods and a fabric interface, two programs each: {attached:?}"
    );
    assert!(attached.iter().all(|a| a.how == attach), "{attached:?}");

    let traffic = Traffic::start(&cluster);
    for round in 0..10 {
        for node in ["node-1", "node-2"] {
            let agent = cluster.agent(node).unwrap();
            agent.kill9().unwrap();
            if round % 2 == 0 {
                std::thread::sleep(Duration::from_millis(50));
            }
            agent.restart().unwrap();
            agent.wait_ready(SOON).unwrap();
        }
    }
    cluster.wait_endpoints(SOON).unwrap();
    traffic.finish("ten kills and restarts of both agents");

    let traffic = Traffic::start(&cluster);
    let applies = |cluster: &mut Cluster| {
        let agent = cluster.agent("node-2").unwrap();
        agent.status().unwrap().unwrap().applies
    };
    let (before, begun) = (applies(&mut cluster), Instant::now());
    let mut edits = 0;
    while begun.elapsed() < Duration::from_secs(4) || applies(&mut cluster) < before + 20 {
        assert!(
            begun.elapsed() < SOON,
            "{edits} edits led to {} applies only",
            applies(&mut cluster) - before
        );
        edits += 1;
        cluster
            .source
            .write("policy.yaml", &policy(&format!("nobody-{edits}")))
            .unwrap();
        std::thread::sleep(Duration::from_millis(50));
    }
    traffic.finish("an edit every 50 ms");
}

#[test]
fn tcx_survives_ten_restarts_and_constant_edits() {
    survives_ten_restarts_and_constant_edits("tcx");
}

#[test]
fn clsact_survives_ten_restarts_and_constant_edits() {
    survives_ten_restarts_and_constant_edits("clsact");
}

#[test]
fn a_pod_that_nobody_announced_is_cut_off_from_its_first_packet() {
    let mut cluster = cluster("auto");
    let deny = "
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: no-egress}
spec: {selector: app == 'late', types: [Egress]}
";
    cluster.source.write("deny.yaml", deny).unwrap();
    let target = SocketAddr::from((ip(&cluster, "a/one", false), 8125));
    for round in 0..5 {
        // The plug-in returns, and the container speaks at once; its Pod object comes later.
        let name = format!("late-{round}");
        let pod = cluster.node("node-1").unwrap().add_pod("a", &name).unwrap();
        let early = Prober::start(pod.ns(), target, TICK).unwrap();
        std::thread::sleep(Duration::from_millis(100));
        let manifest = PodManifest::new("a", &name, "node-1", &[("app", "late")], &PORTS);
        let running = manifest.running(pod.ips());
        cluster
            .source
            .write_objects(&manifest.file(), &[running])
            .unwrap();
        let known = format!("a/{name}");
        cluster
            .agent("node-1")
            .unwrap()
            .wait_endpoint(&known, SOON)
            .unwrap();
        std::thread::sleep(Duration::from_millis(100));
        let samples = early.finish(NEVER);
        assert!(samples.len() > 50, "{}", samples.len());
        assert_eq!(
            samples.iter().filter(|sample| sample.answered.is_some()).count(),
            0,
            "{name}"
        );
        cluster.source.remove(&manifest.file()).unwrap();
    }
}

#[test]
fn input_that_breaks_later_changes_nothing_until_it_is_mended() {
    let mut cluster = cluster("auto");
    cluster.source.write("policy.yaml", "kind: [").unwrap();
    let agent = cluster.agent("node-2").unwrap();
    let says = |status: &calico_azure_tests::lab::AgentStatus| {
        status
            .problems
            .iter()
            .any(|problem| problem.contains("policy.yaml"))
    };
    agent.wait_for("lists the broken file", SOON, says).unwrap();
    for v6 in [false, true] {
        assert!(reaches(&cluster, "a/one", "b/three", v6));
        assert!(!reaches(&cluster, "a/two", "b/three", v6));
    }
    // A rule that is not understood closes; what it closes is only what it opened.
    let typo = policy("nobody").replace(
        "source: {selector: app == 'one'",
        "source: {selector: app = 'one'",
    );
    cluster.source.write("policy.yaml", &typo).unwrap();
    wait(|| !reaches(&cluster, "a/one", "b/three", false));
    assert!(!reaches(&cluster, "a/two", "b/three", false));
    cluster.source.write("policy.yaml", &policy("two")).unwrap();
    wait(|| reaches(&cluster, "a/one", "b/three", false) && reaches(&cluster, "a/two", "b/three", true));
}

#[test]
fn a_second_agent_refuses_and_cleanup_removes_exactly_what_is_ours() {
    for attach in ["tcx", "clsact"] {
        let mut cluster = cluster(attach);
        let node = cluster.node("node-1").unwrap().ns().clone();
        let pod = cluster.pod("a/one").unwrap().net.ns().clone();
        let foreign = |ns: &NetNs| {
            [
                ns.ip(&["route"]).unwrap(),
                ns.ip(&["-6", "route"]).unwrap(),
                ns.exec("nft", &["-s", "list", "ruleset"]).unwrap(),
            ]
        };
        let before = foreign(&node);
        // Somebody else's filter beside ours.
        let device = cluster
            .agent("node-1")
            .unwrap()
            .status()
            .unwrap()
            .unwrap()
            .attached;
        let device = device
            .iter()
            .find(|a| a.program == "from_workload")
            .unwrap()
            .interface
            .clone();
        if attach == "tcx" {
            node.exec("tc", &["qdisc", "add", "dev", &device, "clsact"])
                .unwrap();
        }
        let filter = [
            "filter", "add", "dev", &device, "ingress", "prio", "7", "protocol", "all",
        ];
        // Classic BPF for "go on": every kernel with our own classifier has it.
        let program = ["bpf", "da", "bytecode", "1,6 0 0 4294967295"];
        node.exec("tc", &[&filter[..], &program].concat()).unwrap();

        let agent = cluster.agent("node-1").unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        for run_dir in [agent.run_dir(), elsewhere.path()] {
            let mut second = node.command(calico_azure_tests::lab::binary().unwrap());
            second.args(["agent", "--node", "node-1", "--pin-name", &agent.pin_name()]);
            second.args(["--source", "/"]).arg("--run-dir").arg(run_dir);
            let output = second.output().unwrap();
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(2), "{text}");
            assert!(text.contains("another agent for node-1"), "{text}");
        }

        agent.terminate().unwrap();
        let filters = node
            .exec("tc", &["filter", "show", "dev", &device, "ingress"])
            .unwrap();
        assert!(filters.contains("bytecode"), "{filters}");
        assert!(
            !reaches(&cluster, "a/two", "b/three", false),
            "enforced without an agent"
        );
        let said = cluster.agent("node-1").unwrap().cleanup().unwrap();
        assert!(said.contains("removed"), "{said}");
        let filters = node
            .exec("tc", &["filter", "show", "dev", &device, "ingress"])
            .unwrap();
        assert!(
            filters.contains("bytecode") && !filters.contains("from_workload"),
            "{filters}"
        );
        let filters = node
            .exec("tc", &["filter", "show", "dev", &device, "egress"])
            .unwrap();
        assert!(!filters.contains("to_workload"), "{filters}");
        assert_eq!(foreign(&node), before, "routes and rules are not ours to change");
        // Nothing of ours judges what leaves node-1 any more, not even a source that is nobody's.
        let one = ip(&cluster, "a/one", false);
        assert!(probe::tcp(&pod, one, 8080, SOON).unwrap().reached());
        assert!(
            cluster.agent("node-1").unwrap().status().unwrap().is_none(),
            "the status file is gone"
        );
    }
}

#[test]
fn bulk_data_passes_in_large_segments() {
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};

    const BYTES: usize = 64 << 20;
    let cluster = cluster("auto");
    for (to, v6) in [("b/three", false), ("b/three", true), ("a/two", false)] {
        let address = SocketAddr::from((ip(&cluster, to, v6), 9000));
        let listener = ns(&cluster, to)
            .run(|| TcpListener::bind(address))
            .unwrap()
            .unwrap();
        let receiver = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut buffer = vec![0; 1 << 20];
            let mut received = 0;
            loop {
                match stream.read(&mut buffer).unwrap() {
                    0 => return received,
                    count => received += count,
                }
            }
        });
        let begun = Instant::now();
        let mut stream = ns(&cluster, "a/one")
            .run(|| TcpStream::connect(address))
            .unwrap()
            .unwrap();
        let block = vec![7; 1 << 20];
        for _ in 0..BYTES / block.len() {
            stream.write_all(&block).unwrap();
        }
        drop(stream);
        assert_eq!(receiver.join().unwrap(), BYTES);
        println!("{} MiB to {address} in {:.0?}", BYTES >> 20, begun.elapsed());
    }
}

#[test]
fn status_and_counters_tell_who_dropped_what() {
    let mut cluster = cluster("auto");
    assert!(!reaches(&cluster, "a/two", "b/three", false));
    let node = cluster.node("node-2").unwrap().ns().clone();
    let agent = cluster.agent("node-2").unwrap();
    let (pin_name, run_dir) = (agent.pin_name(), agent.run_dir().to_owned());
    let run = |command: &str| {
        let mut process = node.command(calico_azure_tests::lab::binary().unwrap());
        process.args([
            command,
            "--node",
            "node-2",
            "--pin-name",
            &pin_name,
            "-o",
            "json",
            "--run-dir",
        ]);
        let output = process.arg(&run_dir).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{command}: {text}{error}");
        serde_json::from_str::<serde_json::Value>(&text).unwrap()
    };
    let status = run("status");
    assert_eq!(
        (&status["ready"], &status["endpoints"][0]["pod"]),
        (&true.into(), &"b/three".into())
    );
    let counters = run("counters");
    let drops = counters["drops"].as_array().unwrap();
    let denied = drops.iter().find(|drop| drop["reason"] == "policy-deny").unwrap();
    assert_eq!(
        (&denied["endpoint"], &denied["hook"]),
        (&"b/three".into(), &"to-workload".into())
    );
    assert!(denied["packets"].as_u64().unwrap() > 0);
    let total = |reason: &str| {
        let totals = counters["totals"].as_array().unwrap();
        let of_reason = totals.iter().filter(|total| total["reason"] == reason);
        of_reason
            .map(|total| total["packets"].as_u64().unwrap())
            .sum::<u64>()
    };
    assert!(
        total("policy-allow") > 0 && total("established") > 0,
        "{counters}"
    );
}
