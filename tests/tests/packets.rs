//! Fragments, ICMP errors, VLAN tags, tunnels, options and rare protocols on the loaded programs, with exact counters.

use anyhow::Result;
use calico_azure_ebpf::abi::{CONFIG_ALLOW_IPIP, CONFIG_ALLOW_VXLAN, Hook, Reason};
use calico_azure_tests::harness::At;
use calico_azure_tests::harness::packet::Frame;
use calico_azure_tests::harness::scenario::{A, B, Bench, address, policy, rule, store};
use calico_azure_userspace::model::Action;
use calico_azure_userspace::policy::Store;

const UDP: u8 = 17;
const IPIP: u8 = 4;
const SCTP: u8 = 132;
const UDP_LITE: u8 = 136;
/// No protocol has it.
const UNKNOWN: u8 = 200;
const VLAN: (u16, u16) = (0x8100, 5);
const PROVIDER: (u16, u16) = (0x88a8, 6);

/// `a` may send, and `b` may get, this protocol's port 53, and nothing else passes.
fn cluster(protocol: u8) -> Store {
    let port_53 = || Some(vec![rule(Action::Allow, Some(protocol), &[(53, 53)])]);
    store([
        policy("a", "a", Some(Vec::new()), port_53()),
        policy("b", "b", port_53(), Some(Vec::new())),
    ])
}

/// As [`cluster`], without ports.
fn portless(protocol: u8) -> Store {
    let any = || Some(vec![rule(Action::Allow, Some(protocol), &[])]);
    store([
        policy("a", "a", Some(Vec::new()), any()),
        policy("b", "b", any(), Some(Vec::new())),
    ])
}

fn nothing() -> Store {
    let none = || Some(Vec::new());
    store([policy("a", "a", none(), none()), policy("b", "b", none(), none())])
}

/// A packet at each end: what `a` sends, and what comes to `b`, from and to a pod elsewhere.
fn ends(v6: bool, protocol: u8, port: u16) -> [(At, Hook, Frame); 2] {
    let frame = |src, dst| Frame::new(address(src, v6), address(dst, v6), protocol, 1000, port);
    [
        (At::from_workload(A), Hook::FromWorkload, frame("a", "remote")),
        (At::to_workload(B), Hook::ToWorkload, frame("remote", "b")),
    ]
}

fn part(frame: &Frame, id: u32, offset: u16) -> Vec<u8> {
    Frame {
        fragment: Some((id, offset, offset == 0)),
        ..frame.clone()
    }
    .bytes()
}

fn from_host(ifindex: u32) -> At {
    At {
        ingress_ifindex: 0,
        ..At::to_workload(ifindex)
    }
}

/// Destination unreachable: (type, code) for the port.
fn unreachable(v6: bool) -> (u8, u8) {
    if v6 { (1, 4) } else { (3, 3) }
}

fn error(frame: &Frame, router: &str, quoted: usize) -> Frame {
    let v6 = frame.src.is_ipv6();
    let (kind, code) = unreachable(v6);
    frame.error(address(router, v6), kind, code, quoted)
}

#[test]
fn the_first_fragments_port_decides_for_all() -> Result<()> {
    let mut bench = Bench::new("pktfrag", &cluster(UDP))?;
    for v6 in [false, true] {
        for (at, hook, frame) in ends(v6, UDP, 53) {
            // Before its first.
            bench.expect(at, &part(&frame, 1, 3), hook, Reason::UnknownFragment)?;
            bench.expect(at, &part(&frame, 1, 0), hook, Reason::PolicyAllow)?;
            for offset in [3, 5, 100] {
                bench.expect(at, &part(&frame, 1, offset), hook, Reason::Established)?;
            }
            // Another datagram of the same flow.
            bench.expect(at, &part(&frame, 2, 3), hook, Reason::UnknownFragment)?;
            // The first has 24 bytes.
            for offset in [1, 2] {
                bench.expect(at, &part(&frame, 1, offset), hook, Reason::Malformed)?;
            }
        }
        for (at, hook, frame) in ends(v6, UDP, 54) {
            bench.expect(at, &part(&frame, 3, 0), hook, Reason::PolicyDeny)?;
            bench.expect(at, &part(&frame, 3, 3), hook, Reason::PolicyDeny)?;
        }
    }
    // What was remembered is the ports, not the verdict.
    bench.apply(&nothing())?;
    for v6 in [false, true] {
        for (at, hook, frame) in ends(v6, UDP, 53) {
            bench.expect(at, &part(&frame, 1, 3), hook, Reason::PolicyDeny)?;
        }
    }
    Ok(())
}

#[test]
fn a_fragment_of_an_unknown_datagram_passes_if_no_port_matters() -> Result<()> {
    let all = || Some(vec![rule(Action::Allow, None, &[])]);
    let open = store([policy("a", "a", None, all()), policy("b", "b", all(), None)]);
    let mut bench = Bench::new("pktblind", &open)?;
    for v6 in [false, true] {
        for (at, hook, frame) in ends(v6, UDP, 53) {
            // No flow comes of it.
            for _ in 0..2 {
                bench.expect(at, &part(&frame, 1, 3), hook, Reason::PolicyAllow)?;
            }
        }
    }
    for (store, reason) in [
        // A rule names the protocol: its ports might matter.
        (portless(UDP), Reason::UnknownFragment),
        (nothing(), Reason::PolicyDeny),
    ] {
        bench.apply(&store)?;
        for v6 in [false, true] {
            for (at, hook, frame) in ends(v6, UDP, 53) {
                bench.expect(at, &part(&frame, 1, 3), hook, reason)?;
            }
        }
    }
    Ok(())
}

#[test]
fn an_error_passes_with_the_flow_that_it_is_about() -> Result<()> {
    let mut bench = Bench::new("pkterror", &cluster(UDP))?;
    let to_a = (At::to_workload(A), Hook::ToWorkload);
    let from_b = (At::from_workload(B), Hook::FromWorkload);
    for v6 in [false, true] {
        let [(at_a, out, sent), (at_b, into, got)] = ends(v6, UDP, 53);
        // Nobody knows the flow yet: policy allows no ICMP.
        bench.expect(
            to_a.0,
            &error(&sent, "outside", 500).bytes(),
            to_a.1,
            Reason::PolicyDeny,
        )?;
        bench.expect(at_a, &sent.bytes(), out, Reason::PolicyAllow)?;
        bench.expect(at_b, &got.bytes(), into, Reason::PolicyAllow)?;
        bench.expect(
            to_a.0,
            &error(&sent, "outside", 500).bytes(),
            to_a.1,
            Reason::Related,
        )?;
        bench.expect(
            from_b.0,
            &error(&got, "b", 500).bytes(),
            from_b.1,
            Reason::Related,
        )?;
        // Another flow of the same pods.
        let other = Frame {
            sport: 1001,
            ..sent.clone()
        };
        let other = error(&Frame { dport: 54, ..other }, "outside", 500);
        bench.expect(to_a.0, &other.bytes(), to_a.1, Reason::PolicyDeny)?;
        let host = error(&sent, "node", 500).bytes();
        bench.expect(from_host(A), &host, to_a.1, Reason::FromHost)?;
    }
    bench.apply(&nothing())?;
    for v6 in [false, true] {
        let [(_, _, sent), (_, _, got)] = ends(v6, UDP, 53);
        bench.expect(
            to_a.0,
            &error(&sent, "outside", 500).bytes(),
            to_a.1,
            Reason::PolicyDeny,
        )?;
        bench.expect(
            from_b.0,
            &error(&got, "b", 500).bytes(),
            from_b.1,
            Reason::PolicyDeny,
        )?;
    }
    Ok(())
}

#[test]
fn an_error_that_cannot_be_about_its_receivers_packet_is_dropped() -> Result<()> {
    let mut bench = Bench::new("pktunrel", &cluster(UDP))?;
    for v6 in [false, true] {
        let [(at_a, out, sent), (at_b, into, got)] = ends(v6, UDP, 53);
        bench.expect(at_a, &sent.bytes(), out, Reason::PolicyAllow)?;
        bench.expect(at_b, &got.bytes(), into, Reason::PolicyAllow)?;
        let (to_a, from_b) = (At::to_workload(A), At::from_workload(B));
        let stray = Frame {
            src: address("b", v6),
            ..sent.clone()
        };
        let stray = Frame {
            dst: address("a", v6),
            ..error(&stray, "outside", 500)
        };
        bench.expect(to_a, &stray.bytes(), Hook::ToWorkload, Reason::UnrelatedError)?;
        // One that b did not get.
        let foreign = Frame {
            dst: address("a", v6),
            ..got.clone()
        };
        let foreign = error(&foreign, "b", 500).bytes();
        bench.expect(from_b, &foreign, Hook::FromWorkload, Reason::UnrelatedError)?;
        let long = Frame {
            payload: 20,
            ..sent.clone()
        };
        let first = part(&error(&long, "outside", if v6 { 64 } else { 48 }), 7, 0);
        bench.expect(to_a, &first, Hook::ToWorkload, Reason::UnrelatedError)?;
        let cut = error(&sent, "outside", 10).bytes();
        bench.expect(to_a, &cut, Hook::ToWorkload, Reason::Malformed)?;
    }
    Ok(())
}

#[test]
fn policy_applies_inside_two_vlan_tags_at_most() -> Result<()> {
    let mut bench = Bench::new("pktvlan", &cluster(UDP))?;
    for v6 in [false, true] {
        for (tags, first) in [
            (vec![VLAN], Reason::PolicyAllow),
            (vec![PROVIDER, VLAN], Reason::Established),
            (vec![PROVIDER, VLAN, VLAN], Reason::VlanTagged),
        ] {
            for (at, hook, frame) in ends(v6, UDP, 53) {
                let frame = Frame {
                    tags: tags.clone(),
                    ..frame
                };
                bench.expect(at, &frame.bytes(), hook, first)?;
                if tags.len() < 3 {
                    let denied = Frame { dport: 54, ..frame };
                    bench.expect(at, &denied.bytes(), hook, Reason::PolicyDeny)?;
                }
            }
        }
    }
    Ok(())
}

#[test]
fn a_pods_tunnels_are_denied_unless_allowed() -> Result<()> {
    let all = |action| Some(vec![rule(action, None, &[])]);
    let open = store([policy("a", "a", None, all(Action::Allow))]);
    let mut bench = Bench::new("pkttunnel", &open)?;
    let at = At::from_workload(A);
    let frame = |v6, protocol, sport| {
        Frame::new(address("a", v6), address("remote", v6), protocol, sport, 4789).bytes()
    };
    let hook = Hook::FromWorkload;
    for v6 in [false, true] {
        bench.expect(at, &frame(v6, IPIP, 1), hook, Reason::WorkloadTunnel)?;
        bench.expect(at, &frame(v6, UDP, 1), hook, Reason::WorkloadTunnel)?;
    }
    bench
        .harness
        .configure(|config| config.flags |= CONFIG_ALLOW_IPIP)?;
    for v6 in [false, true] {
        bench.expect(at, &frame(v6, IPIP, 1), hook, Reason::PolicyAllow)?;
        bench.expect(at, &frame(v6, UDP, 1), hook, Reason::WorkloadTunnel)?;
    }
    bench
        .harness
        .configure(|config| config.flags |= CONFIG_ALLOW_VXLAN)?;
    for v6 in [false, true] {
        bench.expect(at, &frame(v6, UDP, 1), hook, Reason::PolicyAllow)?;
    }
    bench.harness.configure(|config| {
        config.flags &= !CONFIG_ALLOW_VXLAN;
        config.vxlan_port = 8472;
    })?;
    for v6 in [false, true] {
        bench.expect(at, &frame(v6, UDP, 2), hook, Reason::PolicyAllow)?;
    }
    Ok(())
}

#[test]
fn ipv4_options_pass_only_from_the_host() -> Result<()> {
    let mut bench = Bench::new("pktopt", &cluster(UDP))?;
    for words in [1, 10] {
        for (at, hook, frame) in ends(false, UDP, 53) {
            let frame = Frame {
                ipv4_options: words,
                ..frame
            };
            bench.expect(at, &frame.bytes(), hook, Reason::IpOptions)?;
        }
        let [_, (_, hook, frame)] = ends(false, UDP, 54);
        let probe = Frame {
            src: address("node", false),
            ipv4_options: words,
            ..frame
        };
        bench.expect(from_host(B), &probe.bytes(), hook, Reason::FromHost)?;
    }
    Ok(())
}

#[test]
fn ports_of_sctp_count_those_of_udp_lite_only_tell_flows_apart() -> Result<()> {
    let verdicts = |store: Store, protocol, by_port: [(u16, Reason); 3]| -> Result<()> {
        let mut bench = Bench::new(&format!("pktproto{protocol}"), &store)?;
        for v6 in [false, true] {
            for (port, reason) in by_port {
                for (at, hook, frame) in ends(v6, protocol, port) {
                    bench.expect(at, &frame.bytes(), hook, reason)?;
                }
            }
        }
        Ok(())
    };
    let (allow, deny, old) = (Reason::PolicyAllow, Reason::PolicyDeny, Reason::Established);
    verdicts(cluster(SCTP), SCTP, [(53, allow), (54, deny), (53, old)])?;
    // A rule with ports is about TCP, UDP and SCTP only.
    verdicts(cluster(UDP_LITE), UDP_LITE, [(53, deny), (54, deny), (53, deny)])?;
    verdicts(
        portless(UDP_LITE),
        UDP_LITE,
        [(53, allow), (54, allow), (53, old)],
    )
}

#[test]
fn a_protocol_that_nobody_knows_is_judged_by_its_number() -> Result<()> {
    let mut bench = Bench::new("pktunknown", &portless(UNKNOWN))?;
    for v6 in [false, true] {
        for (protocol, reason) in [
            (UNKNOWN, Reason::PolicyAllow),
            (UNKNOWN, Reason::Established),
            (UNKNOWN + 1, Reason::PolicyDeny),
        ] {
            for (at, hook, frame) in ends(v6, protocol, 0) {
                bench.expect(at, &frame.bytes(), hook, reason)?;
            }
        }
    }
    Ok(())
}
