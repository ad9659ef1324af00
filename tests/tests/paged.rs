//! Packets whose headers lie outside the linear area of their skb, as a packet socket makes them of frames larger than a page: programs cannot
//! read those directly.

#![expect(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::net::{IpAddr, UdpSocket};
use std::time::Duration;

use calico_azure_tests::lab::probe::{self, Crafted, Payload};
use calico_azure_tests::lab::{AgentSpec, Cluster, ClusterSpec, Flow, NetNs, PodManifest};

const SOON: Duration = Duration::from_secs(60);
const NEVER: Duration = Duration::from_millis(300);
/// Of a datagram: more than a page, so that the kernel keeps only the link-layer header in the linear area.
const LARGE: usize = 6000;
const UDP: u8 = 17;
const SERVED: u16 = 8125;
/// The client's policy allows it, the server's does not.
const REFUSED: u16 = 8127;
const FORBIDDEN: u16 = 7999;

const POLICIES: &str = "
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
  - {action: Allow, protocol: UDP, source: {selector: app == 'client'}, destination: {ports: [8125]}}
---
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: client, namespace: a}
spec:
  selector: app == 'client'
  types: [Egress]
  egress:
  - {action: Allow, protocol: UDP, destination: {ports: ['8000:9000']}}
";

fn cluster(attach: &str) -> Cluster {
    let mut cluster = Cluster::start(&ClusterSpec {
        agents: Some(AgentSpec::new().unwrap().args(["--attach", attach])),
        ..ClusterSpec::default()
    })
    .unwrap();
    cluster.source.write("policies.yaml", POLICIES).unwrap();
    for name in ["server", "client"] {
        let pod = PodManifest::new("a", name, "node-1", &[("app", name)], &[]);
        cluster.add_pod(pod).unwrap();
    }
    cluster.wait_endpoints(SOON).unwrap();
    let node = cluster.node("node-1").unwrap().ns().clone();
    for name in ["server", "client"] {
        let net = &cluster.pod(&format!("a/{name}")).unwrap().net;
        for (ns, link) in [(&node, net.ifname()), (net.ns(), "eth0")] {
            ns.ip(&["link", "set", link, "mtu", "9000"]).unwrap();
        }
    }
    cluster
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
    let length = u16::try_from(LARGE + 8).unwrap();
    let mut bytes = [4242_u16, dport, length, 0].map(u16::to_be_bytes).concat();
    bytes.resize(LARGE + 8, 7);
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

fn headers_are_read_wherever_they_lie(attach: &str) {
    let mut cluster = cluster(attach);
    let node = cluster.node("node-1").unwrap().ns().clone();
    let client = cluster.pod("a/client").unwrap().net.ns().clone();
    let outside = cluster.pod("a/client").unwrap().net.ifname().to_owned();
    let macs = [mac(&node, &outside), mac(&client, "eth0")];
    let log = cluster.agent("node-1").unwrap().flows();
    for v6 in [false, true] {
        let ip = |name: &str| cluster.pod(&format!("a/{name}")).unwrap().ip(v6).unwrap();
        let (own, server) = (ip("client"), ip("server"));
        let foreign: IpAddr = if v6 { "2001:db8::7" } else { "192.0.2.7" }.parse().unwrap();
        let sockets = [SERVED, REFUSED, FORBIDDEN].map(|port| {
            let ns = cluster.pod("a/server").unwrap().net.ns();
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
            let mut bytes = [0; LARGE + 1];
            let Some((hook, reason)) = denied else {
                socket.set_read_timeout(Some(SOON)).unwrap();
                assert_eq!(socket.recv(&mut bytes).unwrap(), LARGE, "IPv6 {v6}");
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
fn headers_are_read_wherever_they_lie_by_tcx() {
    headers_are_read_wherever_they_lie("tcx");
}

#[test]
fn headers_are_read_wherever_they_lie_by_clsact() {
    headers_are_read_wherever_they_lie("clsact");
}
