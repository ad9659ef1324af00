//! Host endpoints on live traffic: connections between hosts, pods and their hosts, in both families and with both ways of
//! attaching, and the XDP program that comes and goes with untracked policy.

#![expect(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use calico_azure_tests::lab::probe::{self, Kind, Server};
use calico_azure_tests::lab::{AgentSpec, Cluster, ClusterSpec, NetNs, PodManifest, Port};

const SOON: Duration = Duration::from_secs(60);
const PROBE: Duration = Duration::from_millis(300);

const NAMESPACES: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: a}
---
apiVersion: v1
kind: Namespace
metadata: {name: b}
";

/// Of `node-2`'s own interface: its host takes TCP 8080 and some UDP; what is forwarded to pods must not be TCP 8081.
const HOST: &str = "
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: two-eth0, labels: {role: node}}
spec: {node: node-2, interfaceName: eth0}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: own}
spec:
  selector: role == 'node'
  types: [Ingress]
  ingress:
  - {action: Allow, protocol: TCP, destination: {ports: [8080]}}
  - {action: Allow, protocol: UDP, destination: {ports: ['7000:7001']}}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: forwarded}
spec:
  selector: role == 'node'
  applyOnForward: true
  order: 10
  types: [Ingress]
  ingress:
  - {action: Deny, protocol: TCP, destination: {ports: [8081]}}
  - {action: Allow, protocol: TCP, destination: {ports: [8080]}}
---
apiVersion: projectcalico.org/v3
kind: FelixConfiguration
metadata: {name: default}
spec: {defaultEndpointToHostAction: Accept}
";

const UNTRACKED: &str = "
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: untracked}
spec:
  selector: role == 'node'
  applyOnForward: true
  doNotTrack: true
  types: [Ingress]
  ingress:
  - {action: Deny, protocol: UDP, destination: {ports: [7001]}}
";

struct World {
    cluster: Cluster,
    _server: Server,
}

impl World {
    fn new(attach: &str) -> Self {
        let spec = AgentSpec {
            env: Vec::new(),
            ..AgentSpec::new().unwrap()
        };
        let mut cluster = Cluster::start(&ClusterSpec {
            agents: Some(spec.args(["--attach", attach])),
            ..ClusterSpec::default()
        })
        .unwrap();
        cluster.source.write("namespaces.yaml", NAMESPACES).unwrap();
        for (namespace, name, node) in [("a", "one", "node-1"), ("b", "three", "node-2")] {
            let ports = [Port::Tcp(8080), Port::Tcp(8081)];
            let pod = PodManifest::new(namespace, name, node, &[("app", name)], &ports);
            cluster.add_pod(pod).unwrap();
        }
        cluster.wait_endpoints(SOON).unwrap();
        let any: [IpAddr; 2] = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
        let tcp = [22, 8080, 9000].map(Port::Tcp);
        let ports: Vec<Port> = tcp.into_iter().chain([7000, 7001].map(Port::Udp)).collect();
        let server = Server::start(cluster.node("node-2").unwrap().ns(), &any, &ports).unwrap();
        Self {
            cluster,
            _server: server,
        }
    }

    fn host(&self, node: &str) -> NetNs {
        self.cluster.node(node).unwrap().ns().clone()
    }

    fn pod(&self, pod: &str) -> NetNs {
        self.cluster.pod(pod).unwrap().net.ns().clone()
    }

    fn node_ip(&self, v6: bool) -> IpAddr {
        self.cluster.node("node-2").unwrap().ips()[usize::from(v6)]
    }

    fn pod_ip(&self, v6: bool) -> IpAddr {
        self.cluster.pod("b/three").unwrap().ip(v6).unwrap()
    }

    /// Waits for `node-2`'s agent to have applied what was written last, and `untracked` to be on its interface or not.
    fn settle(&mut self, applies: u64, xdp: bool) {
        let agent = self.cluster.agent("node-2").unwrap();
        let status = agent.wait_for("applies the host endpoint", SOON, |status| {
            let found = status.attached.iter().any(|attached| {
                (attached.program.as_str(), attached.hook.as_str()) == ("untracked", "xdp")
                    && (attached.interface.as_str(), attached.how.as_str()) == ("eth0", "xdp")
            });
            status.applies > applies && found == xdp && status.ready
        });
        assert_eq!(status.unwrap().problems, [""; 0]);
    }

    fn applies(&mut self) -> u64 {
        let agent = self.cluster.agent("node-2").unwrap();
        agent.status().unwrap().map_or(0, |status| status.applies)
    }
}

#[track_caller]
fn expect(from: &NetNs, kind: Kind, to: IpAddr, reached: bool) {
    let end = Instant::now() + Duration::from_secs(5);
    loop {
        let outcome = probe::run(from, kind, to, PROBE).unwrap();
        if outcome.reached() == reached {
            return;
        }
        assert!(
            Instant::now() < end,
            "{kind:?} to {to}: {outcome}, expected reached: {reached}"
        );
    }
}

fn check(attach: &str) {
    let mut world = World::new(attach);
    let (peer, pod) = (world.host("node-1"), world.pod("b/three"));
    for v6 in [false, true] {
        let node = world.node_ip(v6);
        for kind in [Kind::Tcp(8080), Kind::Tcp(9000), Kind::Udp(7001)] {
            expect(&peer, kind, node, true);
        }
        expect(&world.pod("a/one"), Kind::Tcp(8081), world.pod_ip(v6), true);
        // Nobody told Felix that a pod may.
        expect(&pod, Kind::Tcp(8080), node, false);
        expect(&world.host("node-2"), Kind::Tcp(8080), world.pod_ip(v6), true);
    }
    let before = world.applies();
    let with_untracked = format!("{HOST}---{UNTRACKED}");
    world.cluster.source.write("host.yaml", &with_untracked).unwrap();
    world.settle(before, true);
    for v6 in [false, true] {
        let (node, behind) = (world.node_ip(v6), world.pod_ip(v6));
        expect(&peer, Kind::Tcp(9000), node, false);
        expect(&peer, Kind::Tcp(8080), node, true);
        // A failsafe port.
        expect(&peer, Kind::Tcp(22), node, true);
        expect(&peer, Kind::Udp(7001), node, false);
        expect(&peer, Kind::Udp(7000), node, true);
        expect(&world.pod("a/one"), Kind::Tcp(8080), behind, true);
        expect(&world.pod("a/one"), Kind::Tcp(8081), behind, false);
        expect(&pod, Kind::Tcp(8080), node, true);
        // The host itself always reaches its pod.
        expect(&world.host("node-2"), Kind::Tcp(8081), behind, true);
    }
    let before = world.applies();
    world.cluster.source.write("host.yaml", HOST).unwrap();
    world.settle(before, false);
    for v6 in [false, true] {
        expect(&peer, Kind::Udp(7001), world.node_ip(v6), true);
        expect(&peer, Kind::Tcp(9000), world.node_ip(v6), false);
    }
}

#[test]
fn host_endpoints_by_tcx() {
    check("tcx");
}

#[test]
fn host_endpoints_by_clsact() {
    check("clsact");
}
