//! What a node does to an agent: programs of others on the same hooks, tables that are full, interfaces that vanish.

#![expect(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::net::IpAddr;
use std::time::{Duration, Instant};

use aya::Ebpf;
use aya::programs::tc::TcAttachOptions;
use aya::programs::{LinkOrder, SchedClassifier, TcAttachType};
use calico_azure_tests::harness::built;
use calico_azure_tests::lab::probe;
use calico_azure_tests::lab::{AgentSpec, Cluster, ClusterSpec, NetNs, PodManifest, Port, binary};
use calico_azure_userspace::dataplane::pins::Pins;

const SOON: Duration = Duration::from_secs(60);
const NEVER: Duration = Duration::from_millis(300);
const PORT: u16 = 8080;

/// `server` hears clients, and whatever else `rule` says.
fn policy(rule: &str) -> String {
    format!(
        "
apiVersion: v1
kind: Namespace
metadata: {{name: a}}
---
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {{name: server, namespace: a}}
spec:
  selector: app == 'server'
  types: [Ingress]
  ingress:
  - {{action: Allow, source: {{selector: app == 'client'}}}}
{rule}"
    )
}

fn cluster(args: &[&str]) -> Cluster {
    let mut cluster = Cluster::start(&ClusterSpec {
        nodes: 1,
        agents: Some(AgentSpec::new().unwrap().args(args.iter().copied())),
        ..ClusterSpec::default()
    })
    .unwrap();
    cluster.source.write("policy.yaml", &policy("")).unwrap();
    for app in ["server", "client", "stranger"] {
        add(&mut cluster, app, app);
    }
    cluster.wait_endpoints(SOON).unwrap();
    wait(|| reaches(&cluster, "client") && !reaches(&cluster, "stranger"));
    cluster
}

fn add(cluster: &mut Cluster, name: &str, app: &str) {
    let pod = PodManifest::new("a", name, "node-1", &[("app", app)], &[Port::Tcp(PORT)]);
    cluster.add_pod(pod).unwrap();
}

fn ns(cluster: &Cluster, pod: &str) -> NetNs {
    cluster.pod(&format!("a/{pod}")).unwrap().net.ns().clone()
}

fn reaches(cluster: &Cluster, from: &str) -> bool {
    let server: IpAddr = cluster.pod("a/server").unwrap().ip(false).unwrap();
    probe::tcp(&ns(cluster, from), server, PORT, NEVER)
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

/// A program of somebody else's that lets everything go on, and how often it ran.
struct Foreign(Ebpf);

impl Foreign {
    fn attach(node: &NetNs, interface: &str, order: LinkOrder) -> Self {
        let mut ebpf = Ebpf::load(&built("calico-azure-yardstick.o").unwrap()).unwrap();
        let program: &mut SchedClassifier = ebpf.program_mut("empty").unwrap().try_into().unwrap();
        program.load().unwrap();
        let options = TcAttachOptions::TcxOrder(order);
        node.run(|| {
            program
                .attach_with_options(interface, TcAttachType::Ingress, options)
                .map(drop)
        })
        .unwrap()
        .unwrap();
        Self(ebpf)
    }

    fn runs(&self) -> u64 {
        self.0.program("empty").unwrap().info().unwrap().run_count()
    }
}

#[test]
fn programs_of_others_run_before_and_after_ours() {
    let mut cluster = cluster(&["--attach", "tcx"]);
    let _counted = aya::sys::enable_stats(aya::sys::Stats::RunTime).unwrap();
    let node = cluster.node("node-1").unwrap().ns().clone();
    let interface = cluster.pod("a/stranger").unwrap().net.ifname().to_owned();
    let first = Foreign::attach(&node, &interface, LinkOrder::first());
    let last = Foreign::attach(&node, &interface, LinkOrder::last());
    // Said before anybody wonders.
    let preflight = node
        .command(binary().unwrap())
        .args(["preflight", "--interface-prefix", "veth"])
        .output()
        .unwrap();
    let text = String::from_utf8(preflight.stdout).unwrap();
    let line = format!("info: other-programs: empty runs on {interface}, ingress\n");
    assert_eq!(text.matches(&line).count(), 2, "{text}");
    assert_eq!(
        text.matches("other-programs").count(),
        2,
        "ours are not others': {text}"
    );
    let stranger = ns(&cluster, "stranger");
    let client: IpAddr = cluster.pod("a/client").unwrap().ip(false).unwrap();
    let gained = |reached: bool, spoof: bool| {
        let before = (first.runs(), last.runs());
        if spoof {
            // Of an address that is nobody's: dropped by ours.
            stranger
                .ip(&["addr", "add", "192.0.2.1/32", "dev", "eth0"])
                .unwrap();
            let sent = stranger.exec(
                "ping",
                &[
                    "-c",
                    "3",
                    "-i",
                    "0.01",
                    "-W",
                    "1",
                    "-I",
                    "192.0.2.1",
                    &client.to_string(),
                ],
            );
            assert!(sent.is_err(), "{sent:?}");
            stranger
                .ip(&["addr", "del", "192.0.2.1/32", "dev", "eth0"])
                .unwrap();
        } else {
            assert_eq!(
                probe::tcp(&stranger, client, PORT, NEVER).unwrap().reached(),
                reached
            );
        }
        (first.runs() - before.0, last.runs() - before.1)
    };
    for restarts in 0..2 {
        let (before, after) = gained(true, false);
        assert!(
            before >= 3 && after == before,
            "restart {restarts}: {before} and {after}"
        );
        let (before, after) = gained(false, true);
        assert!(
            before >= after + 3,
            "restart {restarts}: ours dropped none of {before}, {after} got on"
        );
        let agent = cluster.agent("node-1").unwrap();
        agent.restart().unwrap();
        agent.wait_ready(SOON).unwrap();
    }
    cluster.agent("node-1").unwrap().terminate().unwrap();
    cluster.agent("node-1").unwrap().cleanup().unwrap();
    let (before, after) = gained(true, false);
    assert!(
        before >= 3 && after == before,
        "without ours: {before} and {after}"
    );
}

#[test]
fn tables_that_are_full_change_no_verdict_and_open_no_pod() {
    let mut cluster = cluster(&["--table-entries", "1024"]);
    let nets: String = (0..3000)
        .map(|i| format!("  - 198.{}.{}.0/24\n", 18 + i / 256, i % 256))
        .collect();
    let set = format!(
        "apiVersion: projectcalico.org/v3\nkind: NetworkSet\nmetadata: {{name: many, namespace: a, labels: {{set: many}}}}\n\
         spec:\n  nets:\n{nets}"
    );
    cluster.source.write("set.yaml", &set).unwrap();
    // With the set comes an edit that would let strangers in: all of it or nothing.
    let open = "  - {action: Allow, source: {selector: set == 'many'}}\n  - {action: Allow, source: {selector: app == 'stranger'}}\n";
    cluster.source.write("policy.yaml", &policy(open)).unwrap();
    let agent = cluster.agent("node-1").unwrap();
    let full = |status: &calico_azure_tests::lab::AgentStatus| {
        let mut problems = status.problems.iter();
        problems.any(|problem| problem.contains("--table-entries"))
    };
    agent
        .wait_for("says that its tables are full", SOON, full)
        .unwrap();
    assert!(reaches(&cluster, "client"));
    assert!(!reaches(&cluster, "stranger"));
    // What is new cannot be made ready, and passes nothing.
    add(&mut cluster, "late", "client");
    assert!(!reaches(&cluster, "late"));
    assert!(reaches(&cluster, "client"));

    cluster.source.remove("set.yaml").unwrap();
    cluster.source.write("policy.yaml", &policy("")).unwrap();
    wait(|| reaches(&cluster, "late"));
    assert!(!reaches(&cluster, "stranger"));
    let agent = cluster.agent("node-1").unwrap();
    agent
        .wait_for("has forgotten the problem", SOON, |status| !full(status))
        .unwrap();
}

#[test]
fn interfaces_that_vanish_meanwhile_leave_nothing() {
    for attach in ["tcx", "clsact"] {
        let mut cluster = cluster(&["--attach", attach]);
        let node = cluster.node("node-1").unwrap().ns().clone();
        for round in 0..40 {
            let name = format!("cali{round:05}");
            node.ip(&[
                "link",
                "add",
                &name,
                "type",
                "veth",
                "peer",
                "name",
                &format!("p{round:05}"),
            ])
            .unwrap();
            // Some while they are being attached to, some before, some after; and policy changes all the time.
            std::thread::sleep(Duration::from_micros(round * 400));
            cluster
                .source
                .write("policy.yaml", &policy(&format!("  # {round}\n")))
                .unwrap();
            node.ip(&["link", "del", &name]).unwrap();
        }
        let agent = cluster.agent("node-1").unwrap();
        let status = agent
            .wait_for("has forgotten them", SOON, |status| {
                !status.attached.iter().any(|at| at.interface.starts_with("cali0"))
            })
            .unwrap();
        assert_eq!(status.problems, Vec::<String>::new());
        let pins = Pins::new(std::path::Path::new("/sys/fs/bpf"), &agent.pin_name()).unwrap();
        let links: std::collections::BTreeSet<u32> = pins
            .pinned_links()
            .unwrap()
            .iter()
            .map(|(ifindex, _)| *ifindex)
            .collect();
        let known: std::collections::BTreeSet<u32> = status.attached.iter().map(|at| at.ifindex).collect();
        assert!(links.is_subset(&known), "{links:?} {known:?}");
        assert!(reaches(&cluster, "client"));
        assert!(!reaches(&cluster, "stranger"));
    }
}
