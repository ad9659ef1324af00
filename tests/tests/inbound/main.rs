//! Service traffic from outside the cluster, with kube-proxy in place: node ports and addresses of load balancers, to backends on
//! this node, on another, on the host and outside. The backend's ingress policy judges what arrives: the client, or the node
//! that hides it. Answers come back with the service's address.

#![expect(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod rules;

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use calico_azure_tests::lab::probe::{self, Kind, Server};
use calico_azure_tests::lab::{
    AgentSpec, Cluster, ClusterSpec, KubeProxy, NetNs, Networking, PodManifest, Port, patience, plan,
};
use rules::{Inbound, install, with_port};

fn soon() -> Duration {
    patience(Duration::from_secs(30))
}

fn never() -> Duration {
    patience(Duration::from_millis(300))
}

const WEB: u16 = 8080;
const HOST: u16 = 9443;
const NODE_PORT: u16 = 30_080;

/// A load balancer's frontend, which Azure delivers to the node untranslated (floating IP).
fn frontend(v6: bool) -> IpAddr {
    let text = if v6 { "2001:db8:fe::7" } else { "198.51.100.7" };
    text.parse().unwrap()
}

/// Nobody reaches anything, but for whom the pods of `near` and `far` allow by address.
fn policy(allowed: &[IpAddr]) -> String {
    let nets = |v6: bool| -> String {
        let of_family = allowed.iter().filter(|ip| ip.is_ipv6() == v6);
        of_family
            .map(|ip| format!("'{ip}/{}'", if v6 { 128 } else { 32 }))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let rules: String = [false, true]
        .into_iter()
        .filter(|v6| allowed.iter().any(|ip| ip.is_ipv6() == *v6))
        .map(|v6| format!("  - {{action: Allow, source: {{nets: [{}]}}}}\n", nets(v6)))
        .collect();
    let rules = if rules.is_empty() {
        "  ingress: []\n".to_owned()
    } else {
        format!("  ingress:\n{rules}")
    };
    format!(
        "
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {{name: backends, namespace: a}}
spec:
  selector: app in {{'near', 'far'}}
  types: [Ingress]
{rules}---
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {{name: default-deny, namespace: a}}
spec:
  order: 10000
  types: [Ingress]
"
    )
}

fn prefix(ip: IpAddr) -> String {
    format!("{ip}/{}", if ip.is_ipv6() { 128 } else { 32 })
}

struct Lab {
    cluster: Cluster,
    _host: Server,
}

/// Three nodes: clients come in by the first, and the third is one of them.
fn lab(attach: &str) -> Lab {
    let spec = AgentSpec::new().unwrap().args(["--attach", attach]);
    let mut cluster = Cluster::start(&ClusterSpec {
        nodes: 3,
        networking: Networking::Udr,
        agents: Some(spec),
        serve: vec![Port::Tcp(WEB), Port::Udp(WEB)],
        ready_timeout: soon() * 2,
        ..ClusterSpec::default()
    })
    .unwrap();
    let namespace = "{apiVersion: v1, kind: Namespace, metadata: {name: a}}";
    cluster.source.write("namespaces.yaml", namespace).unwrap();
    cluster.source.write("policy.yaml", &policy(&[])).unwrap();
    for (name, node) in [("near", "node-1"), ("closed", "node-1"), ("far", "node-2")] {
        let ports = [Port::Tcp(WEB), Port::Udp(WEB)];
        let pod = PodManifest::new("a", name, node, &[("app", name)], &ports);
        cluster.add_pod(pod).unwrap();
    }
    cluster.wait_endpoints(soon()).unwrap();
    let node = cluster.node("node-1").unwrap();
    for ip in [false, true].map(frontend) {
        // Azure knows the frontend as one of its own on the way out, too.
        let family = if ip.is_ipv6() { "v6" } else { "v4" };
        let known = format!("add element inet azure node_{family} {{ {ip} }}\n");
        cluster.fabric.ns().nft(&known).unwrap();
        cluster
            .fabric
            .add_route(prefix(ip).parse().unwrap(), node)
            .unwrap();
    }
    let host = Server::start(node.ns(), &plan::node_ips(1), &[Port::Tcp(HOST), Port::Udp(HOST)]).unwrap();
    Lab { cluster, _host: host }
}

/// Where clients are: outside, and another machine of the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Client {
    Outside,
    Machine,
}

/// Which backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Backend {
    Near,
    Closed,
    Far,
    Host,
    Outside,
}

const BACKENDS: [Backend; 5] = [
    Backend::Near,
    Backend::Closed,
    Backend::Far,
    Backend::Host,
    Backend::Outside,
];

struct Served {
    backend: Backend,
    hides: bool,
    at: SocketAddr,
}

impl Lab {
    fn from(&self, client: Client) -> NetNs {
        match client {
            Client::Outside => self.cluster.internet.ns.clone(),
            Client::Machine => self.cluster.node("node-3").unwrap().ns().clone(),
        }
    }

    /// What a client's packets to node 1 have as their source.
    fn source(&self, client: Client, v6: bool) -> IpAddr {
        let to = with_port(plan::node_ips(1)[usize::from(v6)], NODE_PORT);
        let any: IpAddr = if v6 { "::" } else { "0.0.0.0" }.parse().unwrap();
        let source = self.from(client).run(|| {
            let socket = UdpSocket::bind((any, 0)).unwrap();
            socket.connect(to).unwrap();
            socket.local_addr().unwrap().ip()
        });
        source.unwrap()
    }

    fn address(&self, backend: Backend, v6: bool) -> SocketAddr {
        let pod = |name: &str| with_port(self.cluster.pod(name).unwrap().ip(v6).unwrap(), WEB);
        match backend {
            Backend::Near => pod("a/near"),
            Backend::Closed => pod("a/closed"),
            Backend::Far => pod("a/far"),
            Backend::Host => with_port(plan::node_ips(1)[usize::from(v6)], HOST),
            Backend::Outside if v6 => with_port(plan::THREAT_V6.into(), WEB),
            Backend::Outside => with_port(plan::THREAT_V4.into(), WEB),
        }
    }

    /// A node port and a load balancer's address for each backend, with `externalTrafficPolicy` `Cluster` and `Local`.
    fn serve(&self, proxy: KubeProxy) -> Vec<Served> {
        let (mut services, mut served, mut objects) = (Vec::new(), Vec::new(), Vec::new());
        for v6 in [false, true] {
            for (number, backend) in (0..).zip(BACKENDS) {
                for hides in [true, false] {
                    let port = NODE_PORT + number * 2 + u16::from(hides);
                    for ip in [plan::node_ips(1)[usize::from(v6)], frontend(v6)] {
                        let at = with_port(ip, port);
                        services.push(Inbound {
                            address: at,
                            backends: vec![self.address(backend, v6)],
                            masquerade: hides,
                            affinity: false,
                        });
                        served.push(Served { backend, hides, at });
                    }
                    objects.push(service(&format!("s{port}-{}", u8::from(v6)), v6, port));
                }
            }
        }
        install(proxy, self.cluster.node("node-1").unwrap().ns(), &services);
        self.cluster
            .source
            .write_objects("services.yaml", &objects)
            .unwrap();
        served
    }

    /// Writes the policies, and waits until the agents of the two nodes with backends have applied them.
    fn apply(&mut self, policies: &str) {
        let seen = |lab: &mut Self, node: &str| {
            lab.cluster
                .agent(node)
                .unwrap()
                .status()
                .unwrap()
                .unwrap()
                .applies
        };
        let before = ["node-1", "node-2"].map(|node| seen(self, node));
        self.cluster.source.write("policy.yaml", policies).unwrap();
        for (node, before) in ["node-1", "node-2"].iter().zip(before) {
            let agent = self.cluster.agent(node).unwrap();
            agent
                .wait_for("has applied it", soon(), |status| status.applies > before)
                .unwrap();
        }
    }

    /// The address as which a client's packets arrive at a pod of node 1: asked of the flow log, where it is denied.
    fn arrives_as(&mut self, client: Client, served: &Served) -> IpAddr {
        let node = if served.backend == Backend::Far {
            "node-2"
        } else {
            "node-1"
        };
        let from = self.from(client);
        let to = self.address(served.backend, served.at.is_ipv6());
        let log = self.cluster.agent(node).unwrap().flows();
        let mark = log.mark();
        assert!(
            !reaches(&from, Kind::Tcp(served.at.port()), served.at),
            "default-deny"
        );
        let what = format!(
            "{client:?} is denied by {:?} through {}",
            served.backend, served.at
        );
        let denied = log
            .wait_for(mark, &what, soon(), |flow| {
                flow.hook == "to-workload" && flow.verdict == "deny" && flow.dst == Some(to.ip())
            })
            .unwrap();
        assert_eq!(denied.reason, "policy-deny", "{what}: {denied:?}");
        assert_eq!(denied.dport, to.port(), "{what}");
        denied.src.unwrap()
    }
}

fn service(name: &str, v6: bool, port: u16) -> serde_json::Value {
    let ports = ["TCP", "UDP"].map(|protocol| {
        serde_json::json!({"name": protocol.to_lowercase(), "port": port, "nodePort": port, "protocol": protocol})
    });
    serde_json::json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "a"},
        "spec": {"type": "LoadBalancer", "clusterIPs": [], "ports": ports},
        "status": {"loadBalancer": {"ingress": [{"ip": frontend(v6)}]}},
    })
}

fn reaches(from: &NetNs, kind: Kind, to: SocketAddr) -> bool {
    probe::run(from, kind, to.ip(), never()).unwrap().reached()
}

/// Both clients, by both kinds of address, to every backend.
fn every_way_in(attach: &str, proxy: KubeProxy) {
    let mut lab = lab(attach);
    let served = lab.serve(proxy);
    lab.apply(&format!("{}# again\n", policy(&[])));
    // Default-deny: as whom does each arrive?
    let clients = [Client::Outside, Client::Machine];
    let mut hidden_as = Vec::new();
    for at in &served {
        let judged =
            matches!(at.backend, Backend::Near | Backend::Closed) || at.backend == Backend::Far && at.hides;
        for client in clients.into_iter().filter(|_| judged) {
            let source = lab.arrives_as(client, at);
            if at.hides {
                assert!(
                    !clients
                        .map(|client| lab.source(client, at.at.is_ipv6()))
                        .contains(&source),
                    "{source}"
                );
                if !hidden_as.contains(&source) {
                    hidden_as.push(source);
                }
            } else {
                assert_eq!(source, lab.source(client, at.at.is_ipv6()));
            }
        }
    }
    // Only the client outside may, and nobody who hides.
    let outside = [false, true].map(|v6| lab.source(Client::Outside, v6));
    lab.apply(&policy(&outside));
    expect(&mut lab, &served, attach, proxy, |client, hides| {
        client == Client::Outside && !hides
    });
    // Whoever is hidden behind the node may, and nobody else.
    lab.apply(&policy(&hidden_as));
    expect(&mut lab, &served, attach, proxy, |_, hides| hides);
    for node in ["node-1", "node-2"] {
        let status = lab.cluster.agent(node).unwrap().status().unwrap().unwrap();
        assert_eq!(status.problems, Vec::<String>::new(), "{node}");
    }
}

fn expect(
    lab: &mut Lab,
    served: &[Served],
    attach: &str,
    proxy: KubeProxy,
    allowed: impl Fn(Client, bool) -> bool,
) {
    for at in served {
        for client in [Client::Outside, Client::Machine] {
            let reached = match at.backend {
                Backend::Near => allowed(client, at.hides),
                Backend::Closed => false,
                // Unhidden, the client's packets would leave with a source that Azure discards: `Local` has no such backends.
                Backend::Far => at.hides && allowed(client, at.hides),
                Backend::Host => true,
                Backend::Outside => at.hides,
            };
            for kind in [Kind::Tcp(at.at.port()), Kind::Udp(at.at.port())] {
                let log = lab.cluster.agent("node-1").unwrap().flows();
                let mark = log.mark();
                let reaches = reaches(&lab.from(client), kind, at.at);
                let denied = || -> Vec<String> {
                    std::thread::sleep(never());
                    let flows = log.since(mark).unwrap();
                    flows.into_iter().map(|flow| flow.line).collect()
                };
                assert_eq!(
                    reaches,
                    reached,
                    "{client:?} to {:?} through {} {kind:?}, hidden: {}, {attach}, {proxy:?}: {:#?}",
                    at.backend,
                    at.at,
                    at.hides,
                    denied()
                );
            }
        }
    }
}

#[test]
fn ingress_policy_judges_what_arrives_and_answers_return_with_nftables_and_tcx() {
    every_way_in("tcx", KubeProxy::Nftables);
}

#[test]
fn ingress_policy_judges_what_arrives_and_answers_return_with_the_other_modes() {
    let modes = KubeProxy::to_test();
    for proxy in modes.into_iter().filter(|mode| *mode != KubeProxy::Nftables) {
        every_way_in("clsact", proxy);
    }
}

/// With affinity a client stays with a backend, and that one's policy decides for it; without, both are asked.
#[test]
fn affinity_keeps_a_client_with_one_backend_and_its_policy() {
    for proxy in KubeProxy::to_test() {
        affinity(proxy, "auto");
    }
}

fn affinity(proxy: KubeProxy, attach: &str) {
    let mut lab = lab(attach);
    let outside = [false, true].map(|v6| lab.source(Client::Outside, v6));
    lab.apply(&policy(&outside));
    let mut services = Vec::new();
    for v6 in [false, true] {
        for affinity in [false, true] {
            services.push(Inbound {
                address: with_port(
                    plan::node_ips(1)[usize::from(v6)],
                    NODE_PORT + u16::from(affinity),
                ),
                backends: [Backend::Near, Backend::Closed]
                    .map(|backend| lab.address(backend, v6))
                    .into(),
                masquerade: false,
                affinity,
            });
        }
    }
    install(proxy, lab.cluster.node("node-1").unwrap().ns(), &services);
    let from = lab.from(Client::Outside);
    for service in &services {
        let kind = Kind::Tcp(service.address.port());
        let end = Instant::now() + soon();
        let mut reached = Vec::new();
        // Without affinity until both were met; with it, a number of times.
        while reached.len() < 12 || !(service.affinity || reached.contains(&true) && reached.contains(&false))
        {
            assert!(Instant::now() < end, "{service:?}: {reached:?}");
            reached.push(reaches(&from, kind, service.address));
        }
        let same = reached.iter().all(|one| *one == reached[0]);
        assert_eq!(same, service.affinity, "{service:?}, {proxy:?}: {reached:?}");
    }
}
