//! Datagrams in fragments and in pages, ICMP errors and path MTU discovery between pods, as the kernel makes them.

#![expect(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use calico_azure_tests::lab::probe::{self, Crafted, Payload};
use calico_azure_tests::lab::{AgentSpec, Cluster, ClusterSpec, Flow, NetNs, PodManifest, attachments};

const SOON: Duration = Duration::from_secs(60);
const NEVER: Duration = Duration::from_millis(500);
const SERVED: u16 = 8125;
/// Policy allows it, and nobody listens.
const CLOSED: u16 = 8126;
const STREAM: u16 = 7000;
/// More than two frames.
const LARGE: usize = 4000;
/// Of a datagram in one frame: more than a page, so that the kernel keeps only the link-layer header in the skb's linear area.
const PAGED: usize = 6000;
const UDP: u8 = 17;
/// No client's policy allows it.
const FORBIDDEN: u16 = 7999;

/// Ports matter, in both directions, and no rule speaks of ICMP.
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
  - {action: Allow, protocol: UDP, source: {selector: app == 'client'}, destination: {ports: ['8125:8126']}}
  - {action: Allow, protocol: TCP, source: {selector: app == 'client'}, destination: {ports: [7000]}}
---
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: clients, namespace: a}
spec:
  selector: app == 'client'
  types: [Ingress, Egress]
  egress:
  - {action: Allow, protocol: UDP, destination: {ports: ['8000:9000']}}
  - {action: Allow, protocol: TCP, destination: {ports: [7000]}}
";

fn cluster(attach: &str) -> Cluster {
    let agents = AgentSpec::new().unwrap().args(["--attach", attach]);
    let mut cluster = Cluster::start(&ClusterSpec {
        agents: Some(agents),
        ..ClusterSpec::default()
    })
    .unwrap();
    cluster.source.write("policies.yaml", POLICIES).unwrap();
    for (name, app, node) in [
        ("server", "server", "node-1"),
        ("near", "client", "node-1"),
        ("far", "client", "node-2"),
    ] {
        let pod = PodManifest::new("a", name, node, &[("app", app)], &[]);
        cluster.add_pod(pod).unwrap();
    }
    cluster.wait_endpoints(SOON).unwrap();
    cluster
}

fn ns(cluster: &Cluster, pod: &str) -> NetNs {
    cluster.pod(&format!("a/{pod}")).unwrap().net.ns().clone()
}

fn server(cluster: &Cluster, v6: bool, port: u16) -> SocketAddr {
    (cluster.pod("a/server").unwrap().ip(v6).unwrap(), port).into()
}

/// Every client in every family.
fn each(cluster: &Cluster, mut test: impl FnMut(&str, bool, &NetNs)) {
    for client in ["near", "far"] {
        for v6 in [false, true] {
            test(client, v6, &ns(cluster, client));
        }
    }
}

fn client(from: &NetNs, to: SocketAddr) -> UdpSocket {
    let any = if to.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" };
    let socket = from.run(|| UdpSocket::bind(any)).unwrap().unwrap();
    socket.connect(to).unwrap();
    socket.set_read_timeout(Some(NEVER)).unwrap();
    socket
}

fn large_datagrams_follow_their_first_fragment(attach: &str) {
    let cluster = cluster(attach);
    for v6 in [false, true] {
        let server_ns = ns(&cluster, "server");
        for (port, allowed) in [(SERVED, true), (SERVED + 2, false)] {
            let address = server(&cluster, v6, port);
            let socket = server_ns.run(|| UdpSocket::bind(address)).unwrap().unwrap();
            socket
                .set_read_timeout(Some(if allowed { SOON } else { NEVER }))
                .unwrap();
            for name in ["near", "far"] {
                let client = client(&ns(&cluster, name), address);
                client.send(&[7; LARGE]).unwrap();
                let mut bytes = [0; LARGE + 1];
                match socket.recv_from(&mut bytes) {
                    Ok((length, from)) => {
                        assert!(
                            allowed && length == LARGE,
                            "{name}, IPv6 {v6}: {length} bytes to port {port}"
                        );
                        // And back, as an answer.
                        socket.send_to(&[8; LARGE], from).unwrap();
                        assert_eq!(client.recv(&mut bytes).unwrap(), LARGE, "{name}, IPv6 {v6}");
                    }
                    Err(error) => assert!(!allowed, "{name}, IPv6 {v6}: {error}"),
                }
            }
        }
    }
}

fn a_closed_port_says_so_whatever_policy_says_of_icmp(attach: &str) {
    let cluster = cluster(attach);
    each(&cluster, |name, v6, from| {
        let socket = client(from, server(&cluster, v6, CLOSED));
        socket.send(b"hello").unwrap();
        let error = socket.recv(&mut [0; 8]).unwrap_err();
        assert_eq!(
            error.kind(),
            ErrorKind::ConnectionRefused,
            "{name}, IPv6 {v6}: {error}"
        );
        // What policy denies is answered by nobody.
        let socket = client(from, server(&cluster, v6, CLOSED + 1));
        socket.send(b"hello").unwrap();
        let error = socket.recv(&mut [0; 8]).unwrap_err();
        assert!(
            matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
            "{name}: {error}"
        );
    });
}

fn a_narrow_link_on_the_way_is_found_out(attach: &str) {
    const BYTES: usize = 400_000;
    let cluster = cluster(attach);
    for port in ["p1", "p2"] {
        cluster
            .fabric
            .ns()
            .ip(&["link", "set", port, "mtu", "1300"])
            .unwrap();
    }
    for v6 in [false, true] {
        let to = server(&cluster, v6, STREAM);
        let listener = ns(&cluster, "server")
            .run(|| TcpListener::bind(to))
            .unwrap()
            .unwrap();
        let mut sender = ns(&cluster, "far")
            .run(|| TcpStream::connect_timeout(&to, SOON))
            .unwrap()
            .unwrap();
        let receiver = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.set_read_timeout(Some(SOON)).unwrap();
            let mut bytes = Vec::new();
            stream.read_to_end(&mut bytes).map(|_| bytes.len())
        });
        sender.set_write_timeout(Some(SOON)).unwrap();
        sender.write_all(&vec![9; BYTES]).unwrap();
        drop(sender);
        assert_eq!(receiver.join().unwrap().unwrap(), BYTES, "IPv6 {v6}");
    }
}

fn mac(ns: &NetNs, link: &str) -> Vec<u8> {
    let text = ns.ip(&["-o", "link", "show", "dev", link]).unwrap();
    let (_, rest) = text.split_once("link/ether ").unwrap();
    let address = rest.split_whitespace().next().unwrap();
    address
        .split(':')
        .map(|byte| u8::from_str_radix(byte, 16).unwrap())
        .collect()
}

/// A datagram in one frame.
fn frame(macs: &[Vec<u8>; 2], src: IpAddr, dst: IpAddr, dport: u16) -> Vec<u8> {
    let length = u16::try_from(PAGED + 8).unwrap();
    let mut bytes = [4242_u16, dport, length, 0].map(u16::to_be_bytes).concat();
    bytes.resize(PAGED + 8, 7);
    let packet = Crafted {
        src,
        dst,
        payload: Payload::Other { protocol: UDP, bytes },
    };
    let ethertype: u16 = if src.is_ipv6() { 0x86dd } else { 0x0800 };
    let [to, from] = macs;
    [
        to,
        from,
        ethertype.to_be_bytes().as_slice(),
        &packet.bytes().unwrap(),
    ]
    .concat()
}

/// As a packet socket makes frames larger than a page: programs cannot read their headers directly.
fn headers_are_read_wherever_they_lie(attach: &str) {
    let mut cluster = cluster(attach);
    let node = cluster.node("node-1").unwrap().ns().clone();
    for name in ["server", "near"] {
        let net = &cluster.pod(&format!("a/{name}")).unwrap().net;
        for (ns, link) in [(&node, net.ifname()), (net.ns(), "eth0")] {
            ns.ip(&["link", "set", link, "mtu", "9000"]).unwrap();
        }
    }
    let client = ns(&cluster, "near");
    let outside = cluster.pod("a/near").unwrap().net.ifname().to_owned();
    let macs = [mac(&node, &outside), mac(&client, "eth0")];
    let log = cluster.agent("node-1").unwrap().flows();
    for v6 in [false, true] {
        let ip = |name: &str| cluster.pod(&format!("a/{name}")).unwrap().ip(v6).unwrap();
        let (own, server) = (ip("near"), ip("server"));
        let foreign: IpAddr = if v6 { "2001:db8::7" } else { "192.0.2.7" }.parse().unwrap();
        let sockets = [SERVED, SERVED + 2, FORBIDDEN].map(|port| {
            let ns = ns(&cluster, "server");
            ns.run(|| UdpSocket::bind((server, port))).unwrap().unwrap()
        });
        for (src, socket, denied) in [
            (own, &sockets[0], None),
            (own, &sockets[1], Some(("to-workload", "policy-deny"))),
            (own, &sockets[2], Some(("from-workload", "policy-deny"))),
            (foreign, &sockets[0], Some(("from-workload", "spoofed-source"))),
        ] {
            let port = socket.local_addr().unwrap().port();
            let mark = log.mark();
            probe::frame(&client, "eth0", &frame(&macs, src, server, port)).unwrap();
            let mut bytes = [0; PAGED + 1];
            let Some((hook, reason)) = denied else {
                socket.set_read_timeout(Some(SOON)).unwrap();
                assert_eq!(socket.recv(&mut bytes).unwrap(), PAGED, "IPv6 {v6}");
                continue;
            };
            // A source that is not the pod's own is known before the ports are.
            let of_this = |flow: &Flow| flow.src == Some(src) && (flow.dport == port || src == foreign);
            let flow = log.wait_for(mark, "the drop", SOON, of_this).unwrap();
            assert_eq!(
                (flow.hook.as_str(), flow.reason.as_str()),
                (hook, reason),
                "IPv6 {v6}: {}",
                flow.line
            );
            socket.set_read_timeout(Some(NEVER)).unwrap();
            assert!(socket.recv(&mut bytes).is_err(), "IPv6 {v6}: port {port}");
        }
    }
}

#[test]
fn what_kernels_make_of_packets() {
    for attach in attachments() {
        large_datagrams_follow_their_first_fragment(attach);
        a_closed_port_says_so_whatever_policy_says_of_icmp(attach);
        a_narrow_link_on_the_way_is_found_out(attach);
    }
}

#[test]
fn headers_are_read_wherever_they_lie_in_a_packet() {
    for attach in attachments() {
        headers_are_read_wherever_they_lie(attach);
    }
}
