//! Azure's wireserver and instance metadata service, as listeners in the fabric: who reaches what of them.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use calico_azure_tests::lab::probe::{self, Kind};
use calico_azure_tests::lab::{AgentSpec, Counter, NetNs, Networking, Plugin, plan};
use socket2::{Domain, Socket, Type};

use crate::world::{NEVER, OTHER, SOON, WEB, World};

const WIRESERVER: IpAddr = IpAddr::V4(plan::WIRESERVER);
const IMDS: IpAddr = IpAddr::V4(plan::IMDS);
const DNS: [Kind; 2] = [Kind::Udp(53), Kind::Tcp(53)];

fn reached(from: &NetNs, kind: Kind, to: IpAddr, patience: Duration) -> bool {
    probe::run(from, kind, to, patience).unwrap().reached()
}

/// The pod with this policy of what it sends.
fn deny_egress(world: &World, pod: &str) {
    let policy = format!(
        "{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{name: deny, namespace: a}},\n\
         spec: {{podSelector: {{matchLabels: {{app: {pod}}}}}, policyTypes: [Egress]}}}}"
    );
    world.cluster.source.write("deny.yaml", &policy).unwrap();
}

impl World {
    fn with_imds(networking: Networking, imds: &str) -> Self {
        let spec = AgentSpec::new().unwrap().env("CALICO_AZURE_IMDS", imds);
        Self::start_as(networking, Plugin::Ptp, None, spec)
    }

    /// A host reaches all of both, whatever policy says.
    fn hosts_reach_both(&self) {
        for node in &self.cluster.nodes {
            for kind in [Kind::Tcp(80), Kind::Tcp(32526), DNS[0], DNS[1]] {
                assert!(
                    reached(node.ns(), kind, WIRESERVER, SOON),
                    "{} {kind}",
                    node.name()
                );
            }
            assert!(reached(node.ns(), Kind::Tcp(80), IMDS, SOON), "{}", node.name());
        }
    }

    /// The fabric has dropped nothing, for no reason.
    fn fabric_is_content(&self) {
        for (name, counter) in self.cluster.fabric.counters().unwrap() {
            assert_eq!(counter, Counter::default(), "{name}");
        }
    }
}

#[test]
fn pods_reach_of_the_wireserver_what_policy_allows_and_never_its_privileged_ports() {
    for networking in [
        Networking::Udr,
        Networking::Flannel,
        Networking::AzureCni,
        Networking::AzureOverlay,
    ] {
        let world = World::with_imds(networking, "policy");
        world.hosts_reach_both();
        let client = world.ns("client");
        for port in [80, 32526] {
            let before = world.counted("wireserver");
            assert!(
                !reached(&client, Kind::Tcp(port), WIRESERVER, NEVER),
                "{networking:?} {port}"
            );
            assert!(world.counted("wireserver") > before, "{networking:?} {port}");
        }
        for kind in DNS {
            assert!(reached(&client, kind, WIRESERVER, SOON), "{networking:?} {kind}");
        }
        assert!(reached(&client, Kind::Tcp(80), IMDS, SOON), "{networking:?}");
        deny_egress(&world, "stranger");
        let stranger = world.ns("stranger");
        let end = std::time::Instant::now() + SOON;
        while reached(&stranger, DNS[0], WIRESERVER, NEVER) {
            assert!(std::time::Instant::now() < end, "{networking:?}: no policy yet");
        }
        assert!(!reached(&stranger, DNS[1], WIRESERVER, NEVER), "{networking:?}");
        assert!(!reached(&stranger, Kind::Tcp(80), IMDS, NEVER), "{networking:?}");
        world.hosts_reach_both();
        world.fabric_is_content();
    }
}

#[test]
fn the_metadata_service_is_by_switch() {
    let world = World::with_imds(Networking::Udr, "deny");
    let before = world.counted("imds");
    assert!(!reached(&world.ns("client"), Kind::Tcp(80), IMDS, NEVER));
    assert!(world.counted("imds") > before);
    world.hosts_reach_both();
    world.fabric_is_content();
    drop(world);
    let world = World::with_imds(Networking::Udr, "allow");
    deny_egress(&world, "stranger");
    let stranger = world.ns("stranger");
    let end = std::time::Instant::now() + SOON;
    while reached(&stranger, DNS[0], WIRESERVER, NEVER) {
        assert!(std::time::Instant::now() < end, "no policy yet");
    }
    assert!(
        reached(&stranger, Kind::Tcp(80), IMDS, SOON),
        "whatever policy says"
    );
    world.fabric_is_content();
}

/// A load balancer's probe: a TCP connection from the wireserver's address.
fn probed(fabric: &NetNs, to: IpAddr, port: u16, patience: Duration) -> bool {
    let probe = || -> std::io::Result<bool> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.bind(&SocketAddr::from((plan::WIRESERVER, 0)).into())?;
        socket.connect_timeout(&SocketAddr::from((to, port)).into(), patience)?;
        let mut stream = std::net::TcpStream::from(socket);
        stream.set_read_timeout(Some(patience))?;
        let mut answer = [0; 5];
        stream.write_all(b"alive")?;
        stream.read_exact(&mut answer)?;
        Ok(answer == *b"alive")
    };
    fabric.run(probe).unwrap().unwrap_or(false)
}

#[test]
fn health_probes_reach_hosts_always_and_pods_by_policy() {
    let world = World::start(Networking::Udr);
    let fabric = world.cluster.fabric.ns();
    let node = world.cluster.node("node-1").unwrap();
    let _kube_proxy = probe::Server::start(
        node.ns(),
        &[node.ips()[0]],
        &[calico_azure_tests::lab::Port::Tcp(10256)],
    )
    .unwrap();
    // A host endpoint that lets nothing in.
    let endpoint = "{apiVersion: projectcalico.org/v3, kind: HostEndpoint, metadata: {name: nic, labels: {host: nic}},\n\
        spec: {node: node-1, interfaceName: eth0}}\n---\n\
        {apiVersion: projectcalico.org/v3, kind: GlobalNetworkPolicy, metadata: {name: closed},\n\
        spec: {selector: host == 'nic', types: [Ingress], ingress: [{action: Deny}]}}\n";
    world.cluster.source.write("host.yaml", endpoint).unwrap();
    let other = world.cluster.node("node-2").unwrap().ns();
    let end = std::time::Instant::now() + SOON;
    while reached(other, Kind::Tcp(10256), node.ips()[0], NEVER) {
        assert!(std::time::Instant::now() < end, "the host is not closed yet");
    }
    assert!(
        probed(fabric, node.ips()[0], 10256, SOON),
        "the probe of the host"
    );
    // `near` takes port 8080 from the client only.
    let near = world.ip("near", false);
    assert!(!probed(fabric, near, OTHER, NEVER));
    assert!(
        !probed(fabric, near, WEB, NEVER),
        "a pod that takes nothing from the wireserver"
    );
    let allow = "{apiVersion: projectcalico.org/v3, kind: NetworkPolicy, metadata: {name: probes, namespace: a},\n\
        spec: {selector: app == 'server', types: [Ingress], ingress: [{action: Allow, protocol: TCP, source: {nets: [168.63.129.16/32]},\n\
        destination: {ports: [8080]}}]}}\n";
    world.cluster.source.write("probes.yaml", allow).unwrap();
    let end = std::time::Instant::now() + SOON;
    while !probed(fabric, near, WEB, NEVER) {
        assert!(std::time::Instant::now() < end, "the probe of the pod");
    }
    assert!(!probed(fabric, near, OTHER, NEVER));
    world.fabric_is_content();
}
