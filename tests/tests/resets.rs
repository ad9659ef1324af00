//! A pod that is gone: what its peers send is answered, so that they need not wait.

#![expect(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use calico_azure_ebpf::abi::{Hook, Reason, program};
use calico_azure_tests::harness::At;
use calico_azure_tests::harness::packet::{ACK, Frame, RST, SYN};
use calico_azure_tests::harness::scenario::{A, Bench, FABRIC, address, store};
use calico_azure_tests::lab::{AgentSpec, Cluster, ClusterSpec, PodManifest, attachments};
use calico_azure_userspace::model::{Key, Kind};
use calico_azure_userspace::policy::{Event, Store};
use etherparse::{NetHeaders, PacketHeaders, TransportHeader};

const SEQ: u32 = 0x0102_0304;
const ACKNOWLEDGED: u32 = 0xfffe_fdfc;

fn tcp(from: &str, to: &str, v6: bool, flags: u8) -> Frame {
    Frame::new(address(from, v6), address(to, v6), 6, 1000, 80).flags(flags)
}

/// With numbers that a stack would notice.
fn numbered(frame: &Frame, v6: bool) -> Vec<u8> {
    let mut bytes = frame.bytes();
    let tcp = if v6 { 54 } else { 34 };
    bytes[tcp + 4..tcp + 8].copy_from_slice(&SEQ.to_be_bytes());
    bytes[tcp + 8..tcp + 12].copy_from_slice(&ACKNOWLEDGED.to_be_bytes());
    bytes.extend([7; 300]);
    if v6 {
        bytes[18..20].copy_from_slice(&320_u16.to_be_bytes());
    } else {
        bytes[16..18].copy_from_slice(&340_u16.to_be_bytes());
    }
    bytes
}

fn from_fabric() -> At {
    At {
        program: program::FROM_FABRIC,
        ifindex: FABRIC,
        ingress_ifindex: FABRIC,
    }
}

fn to_fabric() -> At {
    At {
        program: program::TO_FABRIC,
        ifindex: FABRIC,
        ingress_ifindex: A,
    }
}

/// What the answer to a packet of `from` must be, read by a parser that is not ours.
fn is_reset(answer: &[u8], from: &str, v6: bool) {
    let headers = PacketHeaders::from_ethernet_slice(answer).unwrap();
    assert!(headers.payload.slice().is_empty());
    let Some(TransportHeader::Tcp(tcp)) = headers.transport else {
        panic!("{headers:?}");
    };
    let checksum = match headers.net.unwrap() {
        NetHeaders::Ipv4(ip, _) => {
            assert_eq!(
                (ip.source, ip.destination).map_to(),
                (address("b", v6), address(from, v6))
            );
            assert_eq!(ip.header_checksum, ip.calc_header_checksum());
            assert_eq!(ip.total_len, 40);
            tcp.calc_checksum_ipv4(&ip, &[]).unwrap()
        }
        NetHeaders::Ipv6(ip, _) => {
            assert_eq!(
                (ip.source, ip.destination).map_to(),
                (address("b", v6), address(from, v6))
            );
            assert_eq!(ip.payload_length, 20);
            tcp.calc_checksum_ipv6(&ip, &[]).unwrap()
        }
        other => panic!("{other:?}"),
    };
    assert_eq!((tcp.source_port, tcp.destination_port), (80, 1000));
    assert_eq!(
        (tcp.sequence_number, tcp.rst, tcp.ack, tcp.syn),
        (ACKNOWLEDGED, true, false, false)
    );
    assert_eq!(tcp.checksum, checksum);
}

trait MapTo {
    fn map_to(self) -> (std::net::IpAddr, std::net::IpAddr);
}

impl<T: Into<std::net::IpAddr>> MapTo for (T, T) {
    fn map_to(self) -> (std::net::IpAddr, std::net::IpAddr) {
        (self.0.into(), self.1.into())
    }
}

/// The cluster after pod b.
fn without_b() -> Store {
    let mut store = store([]);
    store.apply(Event::Delete(Key {
        kind: Kind::Pod,
        namespace: Some("ns".into()),
        name: "b".into(),
    }));
    store
}

#[test]
fn connections_of_a_pod_that_is_gone_are_reset_and_nothing_else_is_answered() {
    let mut bench = Bench::new("resets", &store([])).unwrap();
    for v6 in [false, true] {
        for from in ["a", "remote"] {
            let to_b = At::to_workload(calico_azure_tests::harness::scenario::B);
            let syn = tcp(from, "b", v6, SYN);
            bench
                .expect(to_b, &syn.bytes(), Hook::ToWorkload, Reason::PolicyAllow)
                .unwrap();
        }
    }
    bench.apply(&without_b()).unwrap();
    for v6 in [false, true] {
        for (from, at) in [("remote", from_fabric()), ("a", to_fabric())] {
            let answer = bench
                .harness
                .answer(at, &numbered(&tcp(from, "b", v6, ACK), v6))
                .unwrap();
            is_reset(&answer.expect("it is answered"), from, v6);
            let mut is_dropped = |frame: &Frame| {
                let answer = bench.harness.answer(at, &numbered(frame, v6)).unwrap();
                assert_eq!(answer, None, "{frame:?}");
            };
            is_dropped(&tcp(from, "b", v6, SYN));
            is_dropped(&tcp(from, "b", v6, SYN | ACK));
            is_dropped(&tcp(from, "b", v6, RST | ACK));
            is_dropped(&tcp(from, "b", v6, RST));
            is_dropped(&Frame {
                sport: 1001,
                ..tcp(from, "b", v6, ACK)
            });
            is_dropped(&tcp(from, "unassigned", v6, ACK));
            let hook = if from == "a" {
                Hook::ToFabric
            } else {
                Hook::FromFabric
            };
            let datagram = Frame::new(address(from, v6), address("b", v6), 17, 1000, 80);
            bench
                .expect(at, &datagram.bytes(), hook, Reason::NoSuchWorkload)
                .unwrap();
        }
    }
}

#[test]
fn peers_near_and_far_learn_at_once_that_a_pod_is_gone() {
    for attach in attachments() {
        peers_learn_it(attach);
    }
}

fn peers_learn_it(attach: &str) {
    const SOON: Duration = Duration::from_secs(10);
    const PORT: u16 = 7000;
    let mut cluster = Cluster::start(&ClusterSpec {
        agents: Some(AgentSpec::new().unwrap().args(["--attach", attach])),
        ..ClusterSpec::default()
    })
    .unwrap();
    let namespace = "apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n";
    cluster.source.write("namespace.yaml", namespace).unwrap();
    for (name, node) in [("server", "node-1"), ("near", "node-1"), ("far", "node-2")] {
        cluster
            .add_pod(PodManifest::new("a", name, node, &[], &[]))
            .unwrap();
    }
    cluster.wait_endpoints(SOON).unwrap();
    let mut connections = Vec::new();
    for v6 in [false, true] {
        let server = cluster.pod("a/server").unwrap();
        let to = SocketAddr::from((server.ip(v6).unwrap(), PORT));
        let listener = server.net.ns().run(|| TcpListener::bind(to)).unwrap().unwrap();
        for name in ["near", "far"] {
            let from = cluster.pod(&format!("a/{name}")).unwrap().net.ns().clone();
            let mut client = from
                .run(|| TcpStream::connect_timeout(&to, SOON))
                .unwrap()
                .unwrap();
            let (mut accepted, _) = listener.accept().unwrap();
            client.write_all(b"hello").unwrap();
            accepted.read_exact(&mut [0; 5]).unwrap();
            client.set_read_timeout(Some(SOON)).unwrap();
            // Its end stays open: nothing but the node can tell the client.
            connections.push((format!("{name}, IPv6 {v6}"), client, accepted));
        }
    }
    cluster.delete_pod("a/server").unwrap();
    cluster.wait_endpoints(SOON).unwrap();
    for (what, client, _kept) in &mut connections {
        let begun = Instant::now();
        client.write_all(b"are you there?").unwrap();
        let error = client.read(&mut [0; 8]).unwrap_err();
        assert_eq!(
            error.kind(),
            ErrorKind::ConnectionReset,
            "{attach}, {what}: {error}"
        );
        assert!(
            begun.elapsed() < Duration::from_secs(3),
            "{what}: {:?}",
            begun.elapsed()
        );
    }
}
