//! Traffic to services with kube-proxy in place: the sender's egress policy is about the backend, wherever that is.

#![expect(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use calico_azure_tests::lab::probe::{self, Kind, LiveConnection, Server};
use calico_azure_tests::lab::{
    AgentSpec, Cgroup, Cluster, ClusterSpec, KubeProxy, Networking, Plugin, PodManifest, Port, ServiceSpec,
    attachments, binary, patience, plan,
};

fn soon() -> Duration {
    patience(Duration::from_secs(60))
}

fn never() -> Duration {
    patience(Duration::from_millis(300))
}

const WEB: u16 = 8080;
const HOST: u16 = 9443;
const NODE_PORT: u16 = 30_080;
const NAMESPACE: &str = "{apiVersion: v1, kind: Namespace, metadata: {name: a}}";

/// `a/client` reaches pods that are `open`, the first address outside, and whatever of the host's `host` says.
fn policy(open: &str, host: bool) -> String {
    let hosts = if host {
        let [v4, v6] = plan::node_ips(1);
        format!(
            "\n  - {{action: Allow, destination: {{nets: [{v4}/32]}}}}\n  - {{action: Allow, destination: {{nets: [{v6}/128]}}}}"
        )
    } else {
        String::new()
    };
    format!(
        "
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {{name: client, namespace: a}}
spec:
  selector: app == 'client'
  types: [Ingress, Egress]
  ingress: []
  egress:
  - {{action: Allow, destination: {{selector: app == 'near' || app == '{open}'}}}}
  - {{action: Allow, destination: {{nets: [{}/32]}}}}
  - {{action: Allow, destination: {{nets: ['{}/128']}}}}{hosts}
",
        plan::OUTSIDE_V4,
        plan::OUTSIDE_V6
    )
}

/// Cluster addresses by number.
fn vip(number: u8, v6: bool) -> IpAddr {
    if v6 {
        format!("fd00:10:96::{number:x}").parse().unwrap()
    } else {
        IpAddr::from([10, 96, 0, number])
    }
}

/// Where a service leads, and whether `a/client` may go there.
struct Case {
    name: &'static str,
    backend: SocketAddr,
    reached: bool,
    node_port: bool,
}

struct Lab {
    cluster: Cluster,
    _host: Server,
    /// Outlives the agents in it.
    _group: Cgroup,
}

fn lab(networking: Networking, plugin: Plugin, attach: &str, proxy: KubeProxy) -> Lab {
    let name = format!("services-{networking:?}-{plugin:?}-{attach}-{proxy:?}");
    let group = Cgroup::enter(&name).unwrap();
    let spec = AgentSpec::new()
        .unwrap()
        .args(["--attach", attach])
        .host("node-1", group.path())
        .env("FELIX_DEFAULTENDPOINTTOHOSTACTION", "Accept");
    let mut cluster = Cluster::start(&ClusterSpec {
        networking,
        plugin,
        agents: Some(spec),
        serve: vec![Port::Tcp(WEB), Port::Udp(WEB)],
        ready_timeout: soon(),
        ..ClusterSpec::default()
    })
    .unwrap();
    cluster.source.write("namespaces.yaml", NAMESPACE).unwrap();
    cluster.source.write("policy.yaml", &policy("far", true)).unwrap();
    for (name, node) in [
        ("client", "node-1"),
        ("near", "node-1"),
        ("closed", "node-1"),
        ("far", "node-2"),
        ("closed-far", "node-2"),
    ] {
        let pod = PodManifest::new("a", name, node, &[("app", name)], &[Port::Tcp(WEB)]);
        cluster.add_pod(pod).unwrap();
    }
    cluster.wait_endpoints(soon()).unwrap();
    let host = Server::start(
        cluster.node("node-1").unwrap().ns(),
        &plan::node_ips(1),
        &[Port::Tcp(HOST), Port::Udp(HOST)],
    )
    .unwrap();
    Lab {
        cluster,
        _host: host,
        _group: group,
    }
}

impl Lab {
    fn ip(&self, pod: &str, v6: bool) -> IpAddr {
        self.cluster.pod(pod).unwrap().ip(v6).unwrap()
    }

    fn cases(&self, v6: bool, host: bool) -> Vec<Case> {
        let pod = |name, reached| Case {
            name,
            backend: SocketAddr::new(self.ip(&format!("a/{name}"), v6), WEB),
            reached,
            node_port: false,
        };
        let at = |name, address: IpAddr, port, reached| Case {
            name,
            backend: SocketAddr::new(address, port),
            reached,
            node_port: false,
        };
        let (outside, threat): (IpAddr, IpAddr) = if v6 {
            (plan::OUTSIDE_V6.into(), plan::THREAT_V6.into())
        } else {
            (plan::OUTSIDE_V4.into(), plan::THREAT_V4.into())
        };
        vec![
            pod("near", true),
            pod("far", true),
            pod("closed", false),
            pod("closed-far", false),
            // Its own ingress policy allows nothing.
            pod("client", true),
            at("outside", outside, WEB, true),
            at("outside, denied", threat, WEB, false),
            at("this host", plan::node_ips(1)[usize::from(v6)], HOST, host),
            Case {
                node_port: true,
                ..pod("near", true)
            },
            Case {
                node_port: true,
                ..pod("closed", false)
            },
        ]
    }

    /// Tells kube-proxy and the agent of a service for each case; where to send for each.
    fn serve(&self, proxy: KubeProxy) -> Vec<(Case, SocketAddr)> {
        let mut rules = Vec::new();
        let mut objects = Vec::new();
        let mut served = Vec::new();
        for v6 in [false, true] {
            for (number, case) in (1..).zip(self.cases(v6, true)) {
                let address = vip(number, v6);
                let node_port = NODE_PORT + u16::from(number);
                let (to, port) = if case.node_port {
                    (plan::node_ips(1)[usize::from(v6)], node_port)
                } else {
                    (address, 80)
                };
                for port in [Port::Tcp(port), Port::Udp(port)] {
                    rules.push(ServiceSpec {
                        address: to,
                        port,
                        backend: case.backend,
                        masquerade: case.node_port,
                    });
                }
                let node_port = case.node_port.then_some(node_port);
                let port = |protocol: &str| {
                    let mut port = serde_json::json!({"name": protocol.to_lowercase(), "port": 80, "protocol": protocol});
                    if let Some(node_port) = node_port {
                        port["nodePort"] = node_port.into();
                    }
                    port
                };
                objects.push(serde_json::json!({
                    "apiVersion": "v1",
                    "kind": "Service",
                    "metadata": {"name": format!("s{number}-{}", u8::from(v6)), "namespace": "a"},
                    "spec": {
                        "type": if node_port.is_some() { "NodePort" } else { "ClusterIP" },
                        "clusterIPs": [address],
                        "ports": [port("TCP"), port("UDP")],
                    },
                }));
                let to = SocketAddr::new(to, node_port.unwrap_or(80));
                served.push((case, to));
            }
        }
        proxy
            .install(self.cluster.node("node-1").unwrap(), &rules)
            .unwrap();
        self.cluster
            .source
            .write_objects("services.yaml", &objects)
            .unwrap();
        served
    }

    /// `calico-azure routes` knows the address as a service's.
    fn routes_name(&self, service: IpAddr, proxy: KubeProxy) {
        let node = self.cluster.node("node-1").unwrap().ns();
        let mut agents = self.cluster.agents.iter();
        let agent = agents.find(|agent| agent.node() == "node-1").unwrap();
        let mut command = node.command(binary().unwrap());
        command.args(["routes", "--node", "node-1", "--bpffs", "/sys/fs/bpf"]);
        command.args(["--pin-name", &agent.pin_name(), "-o", "json", "--run-dir"]);
        let output = command.arg(agent.run_dir()).output().unwrap();
        let rows: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let mut rows = rows.as_array().unwrap().iter();
        let row = rows.find(|row| row["prefix"] == format!("{service}/32")).unwrap();
        // IPVS makes it the node's own, too.
        let (kinds, at): (&[&str], &[&str]) = match proxy {
            KubeProxy::Ipvs => (&["service", "local-host"], &["kube-ipvs0"]),
            _ => (&["service"], &[]),
        };
        let interfaces = row["interfaces"].as_array().cloned().unwrap_or_default();
        assert_eq!(
            (&row["kinds"], serde_json::Value::from(interfaces)),
            (&serde_json::json!(kinds), serde_json::json!(at)),
            "{row}"
        );
    }

    fn reaches(&self, kind: Kind, to: SocketAddr) -> bool {
        let from = self.cluster.pod("a/client").unwrap().net.ns();
        probe::run(from, kind, to.ip(), never()).unwrap().reached()
    }
}

/// Every backend, by every kind of service, in both families and for both protocols.
fn every_backend(networking: Networking, plugin: Plugin, attach: &str, proxy: KubeProxy) {
    let mut lab = lab(networking, plugin, attach, proxy);
    let served = lab.serve(proxy);
    let near = served[0].1;
    wait(|| lab.reaches(Kind::Tcp(near.port()), near));
    for (case, to) in &served {
        for kind in [Kind::Tcp(to.port()), Kind::Udp(to.port())] {
            let log = lab.cluster.agent("node-1").unwrap().flows();
            let mark = log.mark();
            let reached = lab.reaches(kind, *to);
            let what = format!(
                "{} ({}) through {to}, {kind:?}, {networking:?}, {plugin:?}, {attach}, {proxy:?}",
                case.name, case.backend
            );
            let records = || -> Vec<String> {
                let flows = log.since(mark).unwrap();
                flows.into_iter().map(|flow| flow.line).collect()
            };
            assert_eq!(reached, case.reached, "{what}: {:#?}", records());
            if !case.reached {
                // The record names the pod that sent, the backend that it was not to reach, and the policy.
                let denied = log
                    .wait_for(mark, &what, soon(), |flow| {
                        flow.hook == "service" && flow.verdict == "deny"
                    })
                    .unwrap();
                assert_eq!(denied.reason, "policy-deny", "{what}: {denied:?}");
                assert_eq!(denied.endpoint.as_deref(), Some("a/client"), "{what}");
                assert_eq!(
                    (denied.dst, denied.dport),
                    (Some(case.backend.ip()), case.backend.port()),
                    "{what}"
                );
                assert!(denied.rule.unwrap().contains("default"), "{what}");
            }
        }
    }
    lab.routes_name(served[0].1.ip(), proxy);
    // A change of policy is obeyed by flows through services, too.
    let far = served
        .iter()
        .find(|(case, to)| case.name == "far" && to.is_ipv4())
        .unwrap()
        .1;
    let from = lab.cluster.pod("a/client").unwrap().net.ns().clone();
    let open = LiveConnection::open(&from, far, Duration::from_millis(5)).unwrap();
    open.wait_success(Instant::now(), soon()).unwrap();
    lab.cluster
        .source
        .write("policy.yaml", &policy("nobody", false))
        .unwrap();
    open.wait_quiet(Duration::from_millis(500), soon()).unwrap();
    for (case, to) in &served {
        let reached = case.reached && !matches!(case.name, "far" | "this host");
        let reaches = lab.reaches(Kind::Tcp(to.port()), *to);
        assert_eq!(reaches, reached, "{} through {to} after the change", case.name);
    }
    let agent = lab.cluster.agent("node-1").unwrap();
    assert_eq!(agent.status().unwrap().unwrap().problems, Vec::<String>::new());
}

#[track_caller]
fn wait(mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + soon();
    while !condition() {
        assert!(Instant::now() < end, "did not come true in {:?}", soon());
        std::thread::sleep(Duration::from_millis(20));
    }
}

// One after the other: they move this process from control group to control group.
static GROUP: Mutex<()> = Mutex::new(());

#[test]
fn egress_policy_judges_the_backend_and_the_answer_returns() {
    let _alone = GROUP.lock().unwrap_or_else(PoisonError::into_inner);
    for proxy in KubeProxy::to_test() {
        for attach in attachments() {
            every_backend(Networking::Udr, Plugin::Ptp, attach, proxy);
        }
    }
}

#[test]
fn egress_policy_judges_the_backend_on_every_network() {
    let _alone = GROUP.lock().unwrap_or_else(PoisonError::into_inner);
    for networking in [
        Networking::HostLocal,
        Networking::Flannel,
        Networking::AzureCni,
        Networking::AzureOverlay,
    ] {
        every_backend(networking, Plugin::Ptp, "auto", KubeProxy::Nftables);
    }
    for proxy in [KubeProxy::Iptables, KubeProxy::Nftables] {
        every_backend(Networking::Udr, Plugin::Bridge, "auto", proxy);
    }
}
