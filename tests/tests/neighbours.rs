//! Programs of others on the hooks of a pod's interface, before and after ours: they run, in both directions and by both ways of
//! attaching, and what ours drops the one after it does not see.

#![expect(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::net::IpAddr;
use std::time::{Duration, Instant};

use aya::Ebpf;
use aya::programs::tc::{NlOptions, TcAttachOptions};
use aya::programs::{LinkOrder, SchedClassifier, TcAttachType};
use calico_azure_tests::harness::built;
use calico_azure_tests::lab::probe;
use calico_azure_tests::lab::{AgentSpec, Cluster, ClusterSpec, NetNs, PodManifest, Port};
use calico_azure_userspace::dataplane::attach::FILTER_PRIORITY;

const SOON: Duration = Duration::from_secs(60);
const NEVER: Duration = Duration::from_millis(300);
const OPEN: u16 = 8080;
const CLOSED: u16 = 8081;

/// `server` is open to `client` on one port, and `client` may send to both.
const POLICY: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: a}
---
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: server, namespace: a}
spec:
  selector: app == 'server'
  types: [Ingress]
  ingress:
  - {action: Allow, protocol: TCP, destination: {ports: [8080]}}
---
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: client, namespace: a}
spec:
  selector: app == 'client'
  types: [Egress]
  egress:
  - {action: Deny, protocol: UDP}
  - {action: Allow}
";

/// A program that lets everything go on, and how often it ran.
struct Foreign(Ebpf);

impl Foreign {
    fn attach(node: &NetNs, interface: &str, direction: TcAttachType, how: TcAttachOptions) -> Self {
        let mut ebpf = Ebpf::load(&built("calico-azure-yardstick.o").unwrap()).unwrap();
        let program: &mut SchedClassifier = ebpf.program_mut("empty").unwrap().try_into().unwrap();
        program.load().unwrap();
        node.run(|| program.attach_with_options(interface, direction, how).map(drop))
            .unwrap()
            .unwrap();
        Self(ebpf)
    }

    fn runs(&self) -> u64 {
        self.0.program("empty").unwrap().info().unwrap().run_count()
    }
}

fn order(attach: &str, first: bool) -> TcAttachOptions {
    if attach == "tcx" {
        return TcAttachOptions::TcxOrder(if first {
            LinkOrder::first()
        } else {
            LinkOrder::last()
        });
    }
    TcAttachOptions::Netlink(NlOptions {
        priority: if first {
            FILTER_PRIORITY - 1
        } else {
            FILTER_PRIORITY + 1
        },
        ..NlOptions::default()
    })
}

#[track_caller]
fn wait(mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + SOON;
    while !condition() {
        assert!(Instant::now() < end, "did not come true in {SOON:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn on_both_hooks(attach: &str) {
    let mut cluster = Cluster::start(&ClusterSpec {
        nodes: 1,
        agents: Some(AgentSpec::new().unwrap().args(["--attach", attach])),
        ready_timeout: SOON * 2,
        ..ClusterSpec::default()
    })
    .unwrap();
    cluster.source.write("policy.yaml", POLICY).unwrap();
    for app in ["server", "client"] {
        let ports = [Port::Tcp(OPEN), Port::Tcp(CLOSED)];
        cluster
            .add_pod(PodManifest::new("a", app, "node-1", &[("app", app)], &ports))
            .unwrap();
    }
    cluster.wait_endpoints(SOON).unwrap();
    let node = cluster.node("node-1").unwrap().ns().clone();
    let client = cluster.pod("a/client").unwrap().net.ns().clone();
    let server: IpAddr = cluster.pod("a/server").unwrap().ip(false).unwrap();
    let tcp = |port| probe::tcp(&client, server, port, NEVER).unwrap().reached();
    wait(|| tcp(OPEN) && !tcp(CLOSED));
    let ifname = |pod: &str| cluster.pod(pod).unwrap().net.ifname().to_owned();
    // What the server is sent leaves by its interface; what the client sends comes in by its own.
    let hooks = [
        (TcAttachType::Egress, ifname("a/server")),
        (TcAttachType::Ingress, ifname("a/client")),
    ];
    let mut programs = Vec::new();
    for (direction, interface) in &hooks {
        let [first, last] =
            [true, false].map(|first| Foreign::attach(&node, interface, *direction, order(attach, first)));
        programs.push((*direction, first, last));
    }
    for restarted in [false, true] {
        for (direction, first, last) in &programs {
            let gained = |traffic: &dyn Fn()| {
                let before = (first.runs(), last.runs());
                traffic();
                (first.runs() - before.0, last.runs() - before.1)
            };
            let what = format!("{attach}, {direction:?}, restarted: {restarted}");
            let (before, after) = gained(&|| assert!(tcp(OPEN)));
            assert!(before >= 3 && after == before, "{what}: {before} and {after}");
            let (before, after) = gained(&|| match direction {
                TcAttachType::Egress => assert!(!tcp(CLOSED)),
                // Denied by the client's own policy, so nothing gets as far as the server.
                _ => {
                    for _ in 0..3 {
                        assert!(!probe::udp(&client, server, OPEN, NEVER / 3).unwrap().reached());
                    }
                }
            });
            assert!(
                before > after,
                "{what}: ours dropped none of {before}, {after} got on"
            );
        }
        if !restarted {
            let agent = cluster.agent("node-1").unwrap();
            agent.restart().unwrap();
            agent.wait_ready(SOON).unwrap();
        }
    }
    // Ours go, and leave them.
    cluster.agent("node-1").unwrap().terminate().unwrap();
    cluster.agent("node-1").unwrap().cleanup().unwrap();
    for (direction, first, last) in &programs {
        let before = (first.runs(), last.runs());
        assert!(tcp(OPEN));
        let gained = (first.runs() - before.0, last.runs() - before.1);
        assert!(
            gained.0 >= 3 && gained.0 == gained.1,
            "{attach}, {direction:?}: {gained:?}"
        );
    }
}

#[test]
fn programs_of_others_run_before_and_after_ours_in_both_directions() {
    let _counted = aya::sys::enable_stats(aya::sys::Stats::RunTime).unwrap();
    for attach in ["tcx", "clsact"] {
        on_both_hooks(attach);
    }
}
