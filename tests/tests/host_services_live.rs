//! What comes from elsewhere to load-balancer addresses and node ports of a node that has a host endpoint, with kube-proxy in place:
//! policy before translation is about the service's address, policy after it about the backend, and answers return.

#![expect(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use calico_azure_tests::lab::probe::{self, Kind, LiveConnection, Server};
use calico_azure_tests::lab::{
    AgentSpec, Cgroup, Cluster, ClusterSpec, KubeProxy, NetNs, PodManifest, Port, ServiceSpec, attachments,
    binary, patience, plan,
};

fn soon() -> Duration {
    patience(Duration::from_secs(15))
}

fn probe_time() -> Duration {
    patience(Duration::from_millis(300))
}

const WEB: u16 = 8080;
/// Of the host's servers, policy opens the first.
const HOSTED: [u16; 2] = [9443, 9444];
const NODE_PORT: u16 = 30_000;

fn lb(v6: bool) -> IpAddr {
    let text = if v6 { "2001:db8:1b::7" } else { "198.51.100.7" };
    text.parse().unwrap()
}

/// The host takes one port, whatever `pods` says of what is sent to pods; port 90 of the load balancer is closed as such.
fn host(hosted: u16) -> String {
    let [v4, v6] = [false, true].map(lb);
    let pre = |net: String| {
        ["TCP", "UDP"].map(|protocol| {
            format!(
                "  - {{action: Deny, protocol: {protocol}, destination: {{nets: ['{net}'], ports: [90]}}}}\n"
            )
        })
    };
    let pre = [pre(format!("{v4}/32")), pre(format!("{v6}/128"))]
        .concat()
        .concat();
    format!(
        "
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {{name: one-eth0, labels: {{role: node}}}}
spec: {{node: node-1, interfaceName: eth0}}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {{name: own}}
spec:
  selector: role == 'node'
  types: [Ingress]
  ingress:
  - {{action: Allow, protocol: TCP, destination: {{ports: [{hosted}]}}}}
  - {{action: Allow, protocol: UDP, destination: {{ports: [{hosted}]}}}}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {{name: forwarded}}
spec:
  selector: role == 'node'
  applyOnForward: true
  order: 10
  types: [Ingress]
  ingress:
  - {{action: Deny, destination: {{selector: app == 'closed'}}}}
  - {{action: Allow, destination: {{selector: app == 'open'}}}}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {{name: before}}
spec:
  selector: role == 'node'
  applyOnForward: true
  preDNAT: true
  types: [Ingress]
  ingress:
{pre}"
    )
}

const NAMESPACE: &str = "{apiVersion: v1, kind: Namespace, metadata: {name: a}}";

struct Case {
    name: &'static str,
    to: SocketAddr,
    backend: SocketAddr,
    masquerade: bool,
    /// With the host endpoint; where it is dropped if not.
    reached: Result<(), &'static str>,
}

struct Lab {
    cluster: Cluster,
    cases: Vec<Case>,
    _hosted: Server,
    /// Outlives the agents in it.
    _group: Cgroup,
}

impl Lab {
    fn new(attach: &str, proxy: KubeProxy) -> Self {
        let group = Cgroup::enter(&format!("hostservices-{attach}-{proxy:?}")).unwrap();
        let spec = AgentSpec::new()
            .unwrap()
            .args(["--attach", attach])
            .host("node-1", group.path());
        let mut cluster = Cluster::start(&ClusterSpec {
            agents: Some(spec),
            serve: vec![Port::Tcp(WEB), Port::Udp(WEB)],
            ready_timeout: patience(Duration::from_secs(60)),
            ..ClusterSpec::default()
        })
        .unwrap();
        cluster.source.write("namespaces.yaml", NAMESPACE).unwrap();
        for (name, node) in [("open", "node-1"), ("closed", "node-1"), ("far", "node-2")] {
            let app = if name == "far" { "open" } else { name };
            let pod = PodManifest::new("a", name, node, &[("app", app)], &[Port::Tcp(WEB)]);
            cluster.add_pod(pod).unwrap();
        }
        cluster.wait_endpoints(soon()).unwrap();
        for address in [false, true].map(lb) {
            let node = cluster.node("node-1").unwrap();
            cluster.fabric.add_route(address.into(), node).unwrap();
        }
        let ports: Vec<Port> = HOSTED
            .into_iter()
            .flat_map(|port| [Port::Tcp(port), Port::Udp(port)])
            .collect();
        let node = cluster.node("node-1").unwrap();
        let hosted = Server::start(node.ns(), &node.ips(), &ports).unwrap();
        let mut lab = Self {
            cluster,
            cases: Vec::new(),
            _hosted: hosted,
            _group: group,
        };
        lab.serve(proxy);
        lab
    }

    fn cases(&self, v6: bool) -> Vec<Case> {
        let node = plan::node_ips(1)[usize::from(v6)];
        let pod = |name: &str| SocketAddr::new(self.cluster.pod(name).unwrap().ip(v6).unwrap(), WEB);
        let (open, closed, far) = (pod("a/open"), pod("a/closed"), pod("a/far"));
        let [first, second] = HOSTED.map(|port| SocketAddr::new(node, port));
        let case = |name, port: u16, backend, masquerade, reached| Case {
            name,
            to: SocketAddr::new(if port < NODE_PORT { lb(v6) } else { node }, port),
            backend,
            masquerade,
            reached,
        };
        let after = Err("service");
        vec![
            case("this host by a load balancer", 80, first, false, Ok(())),
            case("this host, closed", 81, second, false, after),
            case("a pod by a load balancer", 82, open, false, Ok(())),
            case("a closed pod", 83, closed, false, after),
            case("a pod, masqueraded", 84, open, true, Ok(())),
            case("a closed pod, masqueraded", 85, closed, true, after),
            case("a pod elsewhere", 86, far, true, Ok(())),
            case("closed as such", 90, open, false, Err("from-fabric")),
            case("this host by a node port", NODE_PORT, first, false, Ok(())),
            case(
                "this host by a node port, closed",
                NODE_PORT + 1,
                second,
                false,
                after,
            ),
            case("a pod by a node port", NODE_PORT + 2, open, false, Ok(())),
            case("a closed pod by a node port", NODE_PORT + 3, closed, false, after),
            case(
                "a pod by a node port, masqueraded",
                NODE_PORT + 4,
                open,
                true,
                Ok(()),
            ),
        ]
    }

    /// Tells kube-proxy and the agent of a service for each case.
    fn serve(&mut self, proxy: KubeProxy) {
        let (mut rules, mut objects) = (Vec::new(), Vec::new());
        self.cases = [self.cases(false), self.cases(true)]
            .into_iter()
            .flatten()
            .collect();
        for case in &self.cases {
            let number = case.to.port();
            for port in [Port::Tcp(number), Port::Udp(number)] {
                rules.push(ServiceSpec {
                    address: case.to.ip(),
                    port,
                    backend: case.backend,
                    masquerade: case.masquerade,
                });
            }
            let is_node_port = number >= NODE_PORT;
            let port = |protocol: &str| {
                let own = if is_node_port { 80 } else { number };
                let mut port =
                    serde_json::json!({"name": protocol.to_lowercase(), "port": own, "protocol": protocol});
                if is_node_port {
                    port["nodePort"] = number.into();
                }
                port
            };
            let v6 = case.to.is_ipv6();
            let cluster_ip = if v6 {
                format!("fd00:10:96::{number:x}")
            } else {
                format!("10.96.{}.{}", number >> 8, number & 255)
            };
            let mut spec = serde_json::json!({
                "type": if is_node_port { "NodePort" } else { "LoadBalancer" },
                "clusterIPs": [cluster_ip],
                "ports": [port("TCP"), port("UDP")],
            });
            if !is_node_port {
                spec["externalIPs"] = serde_json::json!([case.to.ip()]);
            }
            objects.push(serde_json::json!({
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": format!("s{number}-{}", u8::from(v6)), "namespace": "a"},
                "spec": spec,
            }));
        }
        proxy
            .install(self.cluster.node("node-1").unwrap(), &rules)
            .unwrap();
        self.cluster
            .source
            .write_objects("services.yaml", &objects)
            .unwrap();
    }

    fn client(&self) -> NetNs {
        self.cluster.node("node-2").unwrap().ns().clone()
    }

    fn reaches(&self, kind: Kind, to: SocketAddr) -> bool {
        probe::run(&self.client(), kind, to.ip(), probe_time())
            .unwrap()
            .reached()
    }

    fn write(&mut self, name: &str, text: &str) {
        let agent = self.cluster.agent("node-1").unwrap();
        let before = agent.status().unwrap().map_or(0, |status| status.applies);
        self.cluster.source.write(name, text).unwrap();
        let agent = self.cluster.agent("node-1").unwrap();
        let status = agent
            .wait_for("applies it", soon(), |status| {
                status.applies > before && status.ready
            })
            .unwrap();
        assert_eq!(status.problems, [""; 0]);
    }

    /// Packets that `node-1` dropped at its interface for its policy, by the hook of the program.
    fn drops(&self, hook: &str) -> u64 {
        let node = self.cluster.node("node-1").unwrap().ns();
        let agent = self
            .cluster
            .agents
            .iter()
            .find(|agent| agent.node() == "node-1")
            .unwrap();
        let mut command = node.command(binary().unwrap());
        command.args(["counters", "--node", "node-1", "--pin-name", &agent.pin_name()]);
        command.args(["-o", "json", "--run-dir"]);
        let output = command.arg(agent.run_dir()).output().unwrap();
        let counters: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let drops = counters["drops"].as_array().unwrap().iter();
        let mut drops = drops.filter(|drop| drop["hook"] == hook && drop["reason"] == "policy-deny");
        drops.next().map_or(0, |drop| {
            assert_eq!(drop["interface"], "eth0", "{drop}");
            drop["packets"].as_u64().unwrap()
        })
    }
}

#[track_caller]
fn wait(mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + soon();
    while !condition() {
        assert!(Instant::now() < end, "did not come true in {:?}", soon());
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn check(attach: &str, proxy: KubeProxy) {
    let mut lab = Lab::new(attach, proxy);
    let cases = std::mem::take(&mut lab.cases);
    for case in &cases {
        for kind in [Kind::Tcp(case.to.port()), Kind::Udp(case.to.port())] {
            wait(|| lab.reaches(kind, case.to));
        }
    }
    lab.write("host.yaml", &host(HOSTED[0]));
    for case in &cases {
        let what = format!(
            "{} ({} by {}), {attach}, {proxy:?}",
            case.name, case.backend, case.to
        );
        let (tcp, udp) = (Kind::Tcp(case.to.port()), Kind::Udp(case.to.port()));
        let Err(hook) = case.reached else {
            assert!(lab.reaches(tcp, case.to) && lab.reaches(udp, case.to), "{what}");
            continue;
        };
        // Another update than that of the policy may have been the one that was waited for.
        wait(|| !lab.reaches(tcp, case.to));
        // A datagram is sent once.
        let log = lab.cluster.agent("node-1").unwrap().flows();
        let (mark, before) = (log.mark(), lab.drops(hook));
        assert!(!lab.reaches(udp, case.to), "{what}");
        assert_eq!(lab.drops(hook), before + 1, "{what}");
        let denied = log
            .wait_for(mark, &what, soon(), |flow| {
                flow.hook == hook && flow.protocol == "udp"
            })
            .unwrap();
        let to = if hook == "service" { case.backend } else { case.to };
        assert_eq!(denied.reason, "policy-deny", "{what}");
        assert_eq!((denied.dst, denied.dport), (Some(to.ip()), to.port()), "{what}");
        assert_eq!(denied.interface.as_deref(), Some("eth0"), "{what}");
    }
    // Connections that a change forbids are cut, and those that it does not go on.
    let named = |name: &str| cases.iter().find(|case| case.name == name).unwrap().to;
    let open = |name| {
        let connection = LiveConnection::open(&lab.client(), named(name), Duration::from_millis(5)).unwrap();
        connection.wait_success(Instant::now(), soon()).unwrap();
        connection
    };
    let (to_host, to_pod) = (open("this host by a load balancer"), open("a pod by a node port"));
    lab.write("host.yaml", &host(HOSTED[1]));
    to_host.wait_quiet(Duration::from_millis(500), soon()).unwrap();
    to_pod.wait_success(Instant::now(), soon()).unwrap();
    for (name, reached) in [
        ("this host by a load balancer", false),
        ("this host, closed", true),
        ("this host by a node port", false),
        ("this host by a node port, closed", true),
        ("a pod by a load balancer", true),
    ] {
        let to = named(name);
        assert_eq!(
            lab.reaches(Kind::Tcp(to.port()), to),
            reached,
            "{name} after the change"
        );
    }
    // The host's own ports are its own, by whatever way.
    let [first, second] = HOSTED.map(|port| SocketAddr::new(plan::node_ips(1)[0], port));
    assert!(!lab.reaches(Kind::Tcp(first.port()), first) && lab.reaches(Kind::Tcp(second.port()), second));
    let agent = lab.cluster.agent("node-1").unwrap();
    assert_eq!(agent.status().unwrap().unwrap().problems, Vec::<String>::new());
}

// One after the other: they move this process from control group to control group.
#[test]
fn host_endpoints_judge_what_services_lead_to_and_the_answer_returns() {
    for proxy in KubeProxy::to_test() {
        for attach in attachments() {
            check(attach, proxy);
        }
    }
}
