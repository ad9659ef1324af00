//! What passes or ends before policy is asked, on the loaded programs: link control at pods' interfaces, and sources at
//! the fabric's.

use std::net::IpAddr;

use anyhow::Result;
use calico_azure_ebpf::abi::{CONFIG_ALLOW_UNKNOWN, CONFIG_BRIDGED, Hook, Reason, program};
use calico_azure_tests::harness::At;
use calico_azure_tests::harness::packet::{ACK, Frame};
use calico_azure_tests::harness::scenario::{
    A, B, Bench, FABRIC, TUNNEL, address, policy, quiet, rule, store,
};
use calico_azure_userspace::dataplane::plan::Settings;
use calico_azure_userspace::model::{Action, Node, Resource, Service, ServicePort, TargetPort};
use calico_azure_userspace::policy::Event;

const TCP: u8 = 6;
const UDP: u8 = 17;
/// An interface with programs and without a pod.
const UNKNOWN: u32 = 99;

fn from_fabric() -> At {
    At {
        program: program::FROM_FABRIC,
        ifindex: FABRIC,
        ingress_ifindex: FABRIC,
    }
}

fn to_fabric(ingress_ifindex: u32) -> At {
    At {
        program: program::TO_FABRIC,
        ifindex: FABRIC,
        ingress_ifindex,
    }
}

fn tcp(from: &str, to: &str, v6: bool, sport: u16, dport: u16) -> Frame {
    Frame::new(address(from, v6), address(to, v6), TCP, sport, dport)
}

fn icmp6(src: &str, dst: &str, kind: u16, hop_limit: u8) -> Vec<u8> {
    let (src, dst) = (src.parse().expect("an address"), dst.parse().expect("an address"));
    Frame {
        hop_limit,
        ..Frame::new(src, dst, 58, 0, kind << 8)
    }
    .bytes()
}

/// `a` may reach port 80 only; `b` accepts port 80 only.
fn web() -> calico_azure_userspace::policy::Store {
    let port_80 = || Some(vec![rule(Action::Allow, Some(TCP), &[(80, 80)])]);
    store([
        policy("a", "a", None, port_80()),
        policy("b", "b", port_80(), None),
    ])
}

#[test]
fn what_keeps_the_link_alive_passes_whatever_policy_says() -> Result<()> {
    let nothing = || Some(vec![]);
    let mut bench = Bench::new("link", &store([policy("a", "a", nothing(), nothing())]))?;
    let mut arp = tcp("a", "b", false, 1, 1).bytes();
    arp[12..14].copy_from_slice(&[8, 6]);
    bench.expect(
        At::from_workload(A),
        &arp,
        Hook::FromWorkload,
        Reason::AlwaysAllowed,
    )?;
    bench.expect(At::to_workload(A), &arp, Hook::ToWorkload, Reason::AlwaysAllowed)?;
    for (packet, reason) in [
        (icmp6("::", "ff02::1:ff00:2", 135, 255), Reason::AlwaysAllowed),
        (icmp6("fe80::1", "fe80::2", 136, 255), Reason::AlwaysAllowed),
        (icmp6("fe80::1", "ff02::2", 133, 255), Reason::AlwaysAllowed),
        (icmp6("fe80::1", "ff02::16", 143, 1), Reason::AlwaysAllowed),
        (
            icmp6("fd00:10:244:1::2", "fe80::2", 135, 255),
            Reason::AlwaysAllowed,
        ),
        // Forwarded here by someone, so no neighbour's.
        (icmp6("fe80::1", "fe80::2", 136, 254), Reason::SpoofedSource),
        // A pod is no router.
        (icmp6("fe80::1", "ff02::1", 134, 255), Reason::SpoofedSource),
        // Somebody else's address.
        (
            icmp6("fd00:10:244:1::3", "fe80::2", 136, 255),
            Reason::SpoofedSource,
        ),
    ] {
        bench.expect(At::from_workload(A), &packet, Hook::FromWorkload, reason)?;
    }
    // Nobody knows the pod yet: it may look for its neighbours, and no more.
    for (packet, reason) in [
        (
            icmp6("fd00:10:244:1::9", "ff02::1:ff00:1", 135, 255),
            Reason::AlwaysAllowed,
        ),
        (icmp6("fe80::1", "fe80::2", 136, 255), Reason::AlwaysAllowed),
        (icmp6("fe80::1", "ff02::2", 133, 255), Reason::AlwaysAllowed),
        (icmp6("fe80::1", "fe80::2", 136, 254), Reason::NoEndpoint),
        (icmp6("fe80::1", "ff02::1", 134, 255), Reason::NoEndpoint),
        (icmp6("fe80::1", "fe80::2", 128, 255), Reason::NoEndpoint),
    ] {
        bench.expect(At::from_workload(UNKNOWN), &packet, Hook::FromWorkload, reason)?;
        bench.expect(At::to_workload(UNKNOWN), &packet, Hook::ToWorkload, reason)?;
    }
    let found = icmp6("fd00:10::4", "fd00:10:244:1::9", 136, 255);
    let at = At::to_workload(UNKNOWN);
    bench.expect(at, &found, Hook::ToWorkload, Reason::AlwaysAllowed)?;
    let advertisement = icmp6("fe80::1", "ff02::1", 134, 255);
    bench.expect(
        At::to_workload(A),
        &advertisement,
        Hook::ToWorkload,
        Reason::AlwaysAllowed,
    )?;
    let any = "0.0.0.0".parse()?;
    let dhcp = Frame::new(any, "255.255.255.255".parse()?, UDP, 68, 67).bytes();
    bench.expect(
        At::from_workload(A),
        &dhcp,
        Hook::FromWorkload,
        Reason::AlwaysAllowed,
    )?;
    let other = Frame::new(any, "255.255.255.255".parse()?, UDP, 68, 69).bytes();
    bench.expect(
        At::from_workload(A),
        &other,
        Hook::FromWorkload,
        Reason::SpoofedSource,
    )
}

/// Linux forwards a neighbour's solicitation like any other packet.
#[test]
fn no_packet_leaves_the_link_as_link_control() -> Result<()> {
    let mut bench = Bench::new("linkonly", &store([policy("a", "a", Some(vec![]), Some(vec![]))]))?;
    let own = "fd00:10:244:1::2";
    for (to, plain, bridged) in [
        ("2001:db8:ffff::9", Reason::PolicyDeny, Reason::PolicyDeny),
        ("fd00:10:244:2::2", Reason::PolicyDeny, Reason::PolicyDeny),
        ("ff05::2", Reason::PolicyDeny, Reason::PolicyDeny),
        ("ff0e::5", Reason::PolicyDeny, Reason::PolicyDeny),
        // Neighbours: the host, and on a bridge the other pods.
        ("fd00:10::4", Reason::AlwaysAllowed, Reason::AlwaysAllowed),
        ("fd00:10:244:1::3", Reason::PolicyDeny, Reason::AlwaysAllowed),
        ("fd00:10:244:1::77", Reason::PolicyDeny, Reason::AlwaysAllowed),
        ("fe80::2", Reason::AlwaysAllowed, Reason::AlwaysAllowed),
        ("ff02::1:ff00:2", Reason::AlwaysAllowed, Reason::AlwaysAllowed),
        ("ff01::1", Reason::AlwaysAllowed, Reason::AlwaysAllowed),
    ] {
        for (settings, reason) in [(quiet(), plain), (self::bridged(), bridged)] {
            bench.set(settings)?;
            for kind in [133, 135] {
                let packet = icmp6(own, to, kind, 255);
                bench.expect(At::from_workload(A), &packet, Hook::FromWorkload, reason)?;
                let of_nobody = if reason.passes() {
                    reason
                } else {
                    Reason::NoEndpoint
                };
                let at = At::from_workload(UNKNOWN);
                bench.expect(at, &packet, Hook::FromWorkload, of_nobody)?;
            }
        }
    }
    bench.set(quiet())?;
    let anonymous = icmp6("::", "2001:db8:ffff::9", 135, 255);
    let at = At::from_workload(A);
    bench.expect(at, &anonymous, Hook::FromWorkload, Reason::SpoofedSource)
}

/// kube-proxy gives answers the address that was asked before they leave.
#[test]
fn answers_of_services_leave_with_the_services_own_addresses() -> Result<()> {
    let service = |external: &[&str]| {
        Resource::Service(Service {
            namespace: "ns".into(),
            name: "web".into(),
            selector: None,
            cluster_ips: vec!["10.96.0.9".parse().unwrap_or_else(|_| unreachable!())],
            external_ips: external.iter().filter_map(|ip| ip.parse().ok()).collect(),
            ports: vec![ServicePort {
                name: None,
                protocol: TCP,
                port: 80,
                target: TargetPort::Number(80),
                node_port: Some(30080),
            }],
        })
    };
    let (v4, v6) = ("198.51.100.7", "2001:db8:5::7");
    let mut bench = Bench::new("answers", &store([service(&[])]))?;
    for (external, reason) in [
        (&[][..], Reason::UnknownSource),
        (&[v4, v6], Reason::FabricPass),
        (&["198.51.100.8"], Reason::UnknownSource),
    ] {
        bench.apply(&store([service(external)]))?;
        for from in [v4, v6] {
            let from: IpAddr = from.parse()?;
            let to = address("outside", from.is_ipv6());
            for (protocol, sport) in [(TCP, 80), (UDP, 53), (if from.is_ipv4() { 1 } else { 58 }, 0)] {
                let answer = Frame::new(from, to, protocol, sport, 40_000).bytes();
                bench.expect(to_fabric(A), &answer, Hook::ToFabric, reason)?;
            }
        }
        // Nobody outside reaches a cluster address, so nobody there is answered from one.
        let cluster = Frame::new("10.96.0.9".parse()?, address("outside", false), TCP, 80, 40_000);
        let reason = Reason::UnknownSource;
        bench.expect(to_fabric(A), &cluster.bytes(), Hook::ToFabric, reason)?;
    }
    Ok(())
}

#[test]
fn interfaces_of_unknown_pods_are_open_if_the_settings_say_so() -> Result<()> {
    let mut bench = Bench::new("unknown", &web())?;
    for (flags, reason) in [
        (0, Reason::NoEndpoint),
        (CONFIG_ALLOW_UNKNOWN, Reason::UnknownInterface),
        (0, Reason::NoEndpoint),
    ] {
        bench.set(Settings {
            flags: quiet().flags | flags,
            ..quiet()
        })?;
        for v6 in [false, true] {
            let packet = tcp("a", "b", v6, 1000, 81).bytes();
            bench.expect(At::from_workload(UNKNOWN), &packet, Hook::FromWorkload, reason)?;
            bench.expect(At::to_workload(UNKNOWN), &packet, Hook::ToWorkload, reason)?;
            // Known ones are as before.
            bench.expect(
                At::from_workload(A),
                &packet,
                Hook::FromWorkload,
                Reason::PolicyDeny,
            )?;
        }
    }
    Ok(())
}

#[test]
fn the_fabric_interface_validates_sources_both_ways() -> Result<()> {
    let mut bench = Bench::new("fabric", &web())?;
    for v6 in [false, true] {
        let packet = |from: &str, to: &str| tcp(from, to, v6, 1000, 80).bytes();
        for (from, to, reason) in [
            ("remote", "b", Reason::FabricPass),
            ("outside", "node", Reason::FabricPass),
            ("other-node", "node", Reason::FabricPass),
            ("a", "b", Reason::LocalSource),
            ("unassigned", "b", Reason::LocalSource),
            ("node", "b", Reason::LocalSource),
            ("remote", "unassigned", Reason::NoSuchWorkload),
        ] {
            bench.expect(from_fabric(), &packet(from, to), Hook::FromFabric, reason)?;
        }
        for (from, to, reason) in [
            ("a", "remote", Reason::FabricPass),
            ("node", "outside", Reason::FabricPass),
            ("remote", "outside", Reason::UnknownSource),
            ("outside", "remote", Reason::UnknownSource),
            ("other-node", "remote", Reason::UnknownSource),
            ("a", "multicast", Reason::FabricUnsupported),
            // A pod that nobody knows yet.
            ("unassigned", "remote", Reason::UnknownSource),
        ] {
            bench.expect(to_fabric(A), &packet(from, to), Hook::ToFabric, reason)?;
        }
        // The answer that is made for a pod which is gone.
        let back = packet("unassigned", "remote");
        bench.expect(to_fabric(FABRIC), &back, Hook::ToFabric, Reason::FabricPass)?;
        let stranger = packet("outside", "remote");
        bench.expect(
            to_fabric(FABRIC),
            &stranger,
            Hook::ToFabric,
            Reason::UnknownSource,
        )?;
        // What the host itself sends is its own business.
        bench.expect(
            to_fabric(0),
            &packet("outside", "remote"),
            Hook::ToFabric,
            Reason::FabricPass,
        )?;
        for protocol in [4, 47] {
            let tunnel = Frame::new(address("a", v6), address("remote", v6), protocol, 0, 0).bytes();
            bench.expect(to_fabric(A), &tunnel, Hook::ToFabric, Reason::FabricUnsupported)?;
        }
        let mut longer_than_the_frame = packet("remote", "b");
        longer_than_the_frame.truncate(if v6 { 60 } else { 40 });
        bench.expect(
            from_fabric(),
            &longer_than_the_frame,
            Hook::FromFabric,
            Reason::Malformed,
        )?;
        bench.expect(
            to_fabric(A),
            &longer_than_the_frame,
            Hook::ToFabric,
            Reason::Malformed,
        )?;
    }
    Ok(())
}

/// A frame in VXLAN from one node to another.
fn carried(from: &str, to: &str, v6: bool, inner: &[u8]) -> Frame {
    Frame {
        payload: 8 + inner.len(),
        ..Frame::new(address(from, v6), address(to, v6), UDP, 50_000, TUNNEL)
    }
}

fn bytes(outer: &Frame, inner: &[u8]) -> Vec<u8> {
    let mut bytes = outer.bytes();
    let start = bytes.len() - inner.len();
    bytes[start..].copy_from_slice(inner);
    bytes
}

#[test]
fn a_tunnel_carries_its_senders_pods_only() -> Result<()> {
    let mut store = web();
    store.apply(Event::Upsert(Resource::Node(Node {
        name: "n3".into(),
        pod_cidrs: vec!["10.244.3.0/24".parse()?, "fd00:10:244:3::/64".parse()?],
        internal_ips: vec!["10.240.0.6".parse()?],
        ..Node::default()
    })));
    let mut bench = Bench::new("tunnel", &store)?;
    let of_n3: [std::net::IpAddr; 2] = ["10.244.3.7".parse()?, "fd00:10:244:3::7".parse()?];
    // Whatever carries what.
    for (outer_v6, inner_v6) in [(false, false), (false, true), (true, false), (true, true)] {
        let inner = |from: &str| tcp(from, "b", inner_v6, 1000, 80).bytes();
        let strange = Frame::new(
            of_n3[usize::from(inner_v6)],
            address("b", inner_v6),
            TCP,
            1000,
            80,
        )
        .bytes();
        for (from, carries, reason) in [
            ("other-node", inner("remote"), Reason::FabricPass),
            ("other-node", inner("other-node"), Reason::FabricPass),
            ("other-node", strange, Reason::TunnelSource),
            ("other-node", inner("outside"), Reason::TunnelSource),
            ("other-node", inner("a"), Reason::TunnelSource),
            ("other-node", inner("unassigned"), Reason::TunnelSource),
            ("other-node", inner("node"), Reason::TunnelSource),
            ("outside", inner("remote"), Reason::TunnelSource),
            // A pod that makes a node's packets.
            ("remote", inner("remote"), Reason::TunnelSource),
        ] {
            let packet = bytes(&carried(from, "node", outer_v6, &carries), &carries);
            bench.expect(from_fabric(), &packet, Hook::FromFabric, reason)?;
        }
        let forged = inner("outside");
        let packet = bytes(&carried("other-node", "node", outer_v6, &forged), &forged);
        // Behind a tag, and what carries no IP.
        let tagged = Frame {
            tags: vec![(0x8100, 5)],
            ..carried("other-node", "node", outer_v6, &forged)
        };
        let tagged = bytes(&tagged, &forged);
        bench.expect(from_fabric(), &tagged, Hook::FromFabric, Reason::TunnelSource)?;
        let mut arp = forged.clone();
        arp[12..14].copy_from_slice(&[8, 6]);
        let arp = bytes(&carried("other-node", "node", outer_v6, &arp), &arp);
        bench.expect(from_fabric(), &arp, Hook::FromFabric, Reason::FabricPass)?;
        // Too short for the inner header.
        let short = bytes(
            &carried("other-node", "node", outer_v6, &forged[..20]),
            &forged[..20],
        );
        bench.expect(from_fabric(), &short, Hook::FromFabric, Reason::Malformed)?;
        // To a pod it is a datagram like others, and what a pod sends there is a tunnel of its making.
        let to_pod = bytes(&carried("other-node", "b", outer_v6, &forged), &forged);
        bench.expect(from_fabric(), &to_pod, Hook::FromFabric, Reason::FabricPass)?;
        let made = bytes(&carried("a", "other-node", outer_v6, &forged), &forged);
        bench.expect(
            At::from_workload(A),
            &made,
            Hook::FromWorkload,
            Reason::WorkloadTunnel,
        )?;
        // Where there are no tunnels, nobody looks.
        let none = Settings {
            tunnel_port: 0,
            ..quiet()
        };
        bench.set(none)?;
        bench.expect(from_fabric(), &packet, Hook::FromFabric, Reason::FabricPass)?;
        bench.set(quiet())?;
        bench.expect(from_fabric(), &packet, Hook::FromFabric, Reason::TunnelSource)?;
    }
    Ok(())
}

/// Pods' interfaces are ports of a bridge.
fn bridged() -> Settings {
    Settings {
        flags: quiet().flags | CONFIG_BRIDGED,
        ..quiet()
    }
}

#[test]
fn on_a_bridge_nobody_answers_for_others_nor_takes_what_is_for_them() -> Result<()> {
    // `a` takes everything, `b` port 80.
    let open = || Some(vec![rule(Action::Allow, None, &[])]);
    let port_80 = || Some(vec![rule(Action::Allow, Some(TCP), &[(80, 80)])]);
    let policies = [
        policy("a", "a", open(), open()),
        policy("b", "b", port_80(), open()),
    ];
    let mut bench = Bench::new("bridge", &store(policies))?;
    bench.set(bridged())?;
    for v6 in [false, true] {
        // What the bridge cannot place goes to all its ports: nobody but `b` is asked whether `b` takes it.
        let denied = tcp("remote", "b", v6, 1000, 81).bytes();
        let to_a = At::to_workload(A);
        bench.expect(to_a, &denied, Hook::ToWorkload, Reason::ForeignDestination)?;
        bench.expect(At::to_workload(B), &denied, Hook::ToWorkload, Reason::PolicyDeny)?;
        let allowed = tcp("remote", "b", v6, 1000, 80).bytes();
        bench.expect(to_a, &allowed, Hook::ToWorkload, Reason::ForeignDestination)?;
        bench.expect(
            At::to_workload(B),
            &allowed,
            Hook::ToWorkload,
            Reason::PolicyAllow,
        )?;
        // Of a connection that is established, too.
        let more = tcp("remote", "b", v6, 1000, 80).flags(ACK);
        bench.expect(
            At::to_workload(B),
            &more.bytes(),
            Hook::ToWorkload,
            Reason::Established,
        )?;
        bench.expect(to_a, &more.bytes(), Hook::ToWorkload, Reason::ForeignDestination)?;
        let multicast = tcp("remote", "multicast", v6, 1000, 80).bytes();
        bench.expect(to_a, &multicast, Hook::ToWorkload, Reason::ForeignDestination)?;
        bench.expect(
            At::to_workload(A),
            &tcp("remote", "a", v6, 1000, 81).bytes(),
            Hook::ToWorkload,
            Reason::PolicyAllow,
        )?;
    }
    let arp = |head: [u8; 8], sender: &str| -> Result<Vec<u8>> {
        let sender: std::net::Ipv4Addr = sender.parse()?;
        let mut bytes = vec![0xff; 6];
        bytes.extend([2, 0, 0, 0, 0, 1, 8, 6]);
        bytes.extend(head);
        bytes.extend([2, 0, 0, 0, 0, 1]);
        bytes.extend(sender.octets());
        bytes.extend([0; 10]);
        Ok(bytes)
    };
    const REPLY: [u8; 8] = [0, 1, 8, 0, 6, 4, 0, 2];
    let (allowed, spoofed) = (Reason::AlwaysAllowed, Reason::SpoofedSource);
    for (head, sender, reason) in [
        (REPLY, "10.244.1.2", allowed),
        // Is the address free?
        (REPLY, "0.0.0.0", allowed),
        (REPLY, "10.244.1.3", spoofed),
        (REPLY, "10.244.1.1", spoofed),
        ([0, 1, 8, 0, 6, 4, 0, 1], "10.244.1.1", spoofed),
        ([0, 1, 8, 0, 8, 4, 0, 2], "10.244.1.2", Reason::Malformed),
        ([0, 6, 8, 0, 6, 4, 0, 2], "10.244.1.2", Reason::Malformed),
    ] {
        let frame = arp(head, sender)?;
        bench.expect(At::from_workload(A), &frame, Hook::FromWorkload, reason)?;
        bench.expect(At::from_workload(UNKNOWN), &frame, Hook::FromWorkload, allowed)?;
        bench.expect(At::to_workload(A), &frame, Hook::ToWorkload, allowed)?;
        bench.set(quiet())?;
        bench.expect(At::from_workload(A), &frame, Hook::FromWorkload, allowed)?;
        bench.set(bridged())?;
    }
    let short = &arp(REPLY, "10.244.1.2")?[..30];
    bench.expect(At::from_workload(A), short, Hook::FromWorkload, Reason::Malformed)?;
    for (kind, target, reason) in [
        (136, "fd00:10:244:1::2", allowed),
        (136, "fe80::7", allowed),
        (136, "fd00:10:244:1::3", spoofed),
        (136, "fd00:10:244:1::1", spoofed),
        // Asking is no claim.
        (135, "fd00:10:244:1::1", allowed),
    ] {
        let target: std::net::Ipv6Addr = target.parse()?;
        let mut frame = icmp6("fe80::5", "fe80::6", kind, 255);
        // Behind the Ethernet header, the fixed one and eight bytes.
        frame[62..78].copy_from_slice(&target.octets());
        bench.expect(At::from_workload(A), &frame, Hook::FromWorkload, reason)?;
        bench.expect(At::to_workload(A), &frame, Hook::ToWorkload, allowed)?;
    }
    Ok(())
}
