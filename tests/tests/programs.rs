//! Each reason on the loaded programs: the packet that causes it, and exactly the counters that it moves.

use anyhow::Result;
use calico_azure_ebpf::abi::{
    CLASS_DEFAULT_V4, Endpoint, Hook, LEVEL_TABLE, Pod as _, PolicyKey, PortKey, Reason, program, word,
};
use calico_azure_tests::harness::At;
use calico_azure_tests::harness::packet::{ACK, FIN, Frame, RST, SYN};
use calico_azure_tests::harness::scenario::{A, B, Bench, FABRIC, address, policy, rule, store};
use calico_azure_userspace::dataplane::{MapIo as _, Table};
use calico_azure_userspace::model::Action;

const TCP: u8 = 6;
const UDP: u8 = 17;

fn from_fabric() -> At {
    At {
        program: program::FROM_FABRIC,
        ifindex: FABRIC,
        ingress_ifindex: FABRIC,
    }
}

fn tcp(from: &str, to: &str, v6: bool, sport: u16, dport: u16) -> Frame {
    Frame::new(address(from, v6), address(to, v6), TCP, sport, dport)
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
fn a_connection_from_syn_to_fin_on_both_legs() -> Result<()> {
    let mut bench = Bench::new("conn", &web())?;
    for v6 in [false, true] {
        let syn = tcp("a", "b", v6, 1000, 80);
        let from_a = |flags| (At::from_workload(A), syn.clone().flags(flags).bytes());
        let to_b = |flags| (At::to_workload(B), syn.clone().flags(flags).bytes());
        let from_b = |flags| (At::from_workload(B), syn.reply().flags(flags).bytes());
        let to_a = |flags| (At::to_workload(A), syn.reply().flags(flags).bytes());
        for ((at, packet), hook, reason) in [
            (from_a(SYN), Hook::FromWorkload, Reason::PolicyAllow),
            (to_b(SYN), Hook::ToWorkload, Reason::PolicyAllow),
            (from_b(SYN | ACK), Hook::FromWorkload, Reason::Established),
            (to_a(SYN | ACK), Hook::ToWorkload, Reason::Established),
            (from_a(ACK), Hook::FromWorkload, Reason::Established),
            (to_b(ACK), Hook::ToWorkload, Reason::Established),
            (from_b(ACK), Hook::FromWorkload, Reason::Established),
            (from_a(FIN | ACK), Hook::FromWorkload, Reason::Established),
            (from_b(FIN | ACK), Hook::FromWorkload, Reason::Established),
            (to_a(RST), Hook::ToWorkload, Reason::Established),
        ] {
            bench.expect(at, &packet, hook, reason)?;
        }
    }
    Ok(())
}

#[test]
fn policy_denies_each_leg_on_its_own() -> Result<()> {
    let mut bench = Bench::new("deny", &web())?;
    for v6 in [false, true] {
        let packet = tcp("a", "b", v6, 1000, 81).bytes();
        bench.expect(
            At::from_workload(A),
            &packet,
            Hook::FromWorkload,
            Reason::PolicyDeny,
        )?;
        bench.expect(At::to_workload(B), &packet, Hook::ToWorkload, Reason::PolicyDeny)?;
        // An answer that nobody asked for is a flow of its own, and b's ingress policy does not know port 1001.
        let unasked = tcp("remote", "b", v6, 80, 1001).flags(SYN | ACK).bytes();
        bench.expect(At::to_workload(B), &unasked, Hook::ToWorkload, Reason::PolicyDeny)?;
    }
    Ok(())
}

#[test]
fn a_denied_packet_does_not_open_the_way_back() -> Result<()> {
    let mut bench = Bench::new("noback", &web())?;
    for v6 in [false, true] {
        let there = Frame::new(address("remote", v6), address("b", v6), UDP, 123, 123);
        bench.expect(
            At::to_workload(B),
            &there.bytes(),
            Hook::ToWorkload,
            Reason::PolicyDeny,
        )?;
        bench.expect(
            At::to_workload(B),
            &there.bytes(),
            Hook::ToWorkload,
            Reason::PolicyDeny,
        )?;
        // b's own flow on the same ports is its egress policy's business, and then the answer comes in.
        bench.expect(
            At::from_workload(B),
            &there.reply().bytes(),
            Hook::FromWorkload,
            Reason::PolicyAllow,
        )?;
        bench.expect(
            At::to_workload(B),
            &there.bytes(),
            Hook::ToWorkload,
            Reason::Established,
        )?;
    }
    Ok(())
}

#[test]
fn a_policy_change_cuts_what_it_no_longer_allows_whoever_speaks_next() -> Result<()> {
    let mut bench = Bench::new("cut", &web())?;
    let none = || store([policy("b", "b", Some(vec![]), None)]);
    for (v6, b_speaks_first) in [(false, false), (false, true), (true, false), (true, true)] {
        bench.apply(&web())?;
        let syn = tcp("remote", "b", v6, 2000 + u16::from(b_speaks_first), 80);
        let ack = syn.clone().flags(ACK).bytes();
        let answer = syn.reply().flags(ACK).bytes();
        bench.expect(
            At::to_workload(B),
            &syn.bytes(),
            Hook::ToWorkload,
            Reason::PolicyAllow,
        )?;
        let syn_ack = syn.reply().flags(SYN | ACK).bytes();
        bench.expect(
            At::from_workload(B),
            &syn_ack,
            Hook::FromWorkload,
            Reason::Established,
        )?;
        bench.expect(At::to_workload(B), &ack, Hook::ToWorkload, Reason::Established)?;
        bench.apply(&none())?;
        if b_speaks_first {
            bench.expect(
                At::from_workload(B),
                &answer,
                Hook::FromWorkload,
                Reason::PolicyDeny,
            )?;
        }
        bench.expect(At::to_workload(B), &ack, Hook::ToWorkload, Reason::PolicyDeny)?;
        bench.expect(
            At::from_workload(B),
            &answer,
            Hook::FromWorkload,
            Reason::PolicyDeny,
        )?;
        // Allowed again, the connection goes on if its ends have not given up.
        bench.apply(&web())?;
        bench.expect(At::to_workload(B), &ack, Hook::ToWorkload, Reason::PolicyAllow)?;
        bench.expect(
            At::from_workload(B),
            &answer,
            Hook::FromWorkload,
            Reason::Established,
        )?;
    }
    Ok(())
}

#[test]
fn established_flows_keep_leaves_them_alone() -> Result<()> {
    let mut bench = Bench::new("keep", &web())?;
    let syn = tcp("remote", "b", false, 3000, 80);
    bench.expect(
        At::to_workload(B),
        &syn.bytes(),
        Hook::ToWorkload,
        Reason::PolicyAllow,
    )?;
    bench.apply(&store([policy("b", "b", Some(vec![]), None)]))?;
    bench
        .harness
        .configure(|config| config.flags |= calico_azure_ebpf::abi::CONFIG_KEEP_ESTABLISHED)?;
    let ack = syn.clone().flags(ACK).bytes();
    bench.expect(At::to_workload(B), &ack, Hook::ToWorkload, Reason::Established)?;
    // A new connection on the same ports is judged by the policy of now.
    bench.expect(
        At::to_workload(B),
        &syn.bytes(),
        Hook::ToWorkload,
        Reason::PolicyDeny,
    )
}

#[test]
fn an_idle_entry_is_dead() -> Result<()> {
    let mut bench = Bench::new("idle", &web())?;
    bench.harness.configure(|config| config.timeouts = [1; 8])?;
    let syn = tcp("remote", "b", false, 3000, 80);
    bench.expect(
        At::to_workload(B),
        &syn.bytes(),
        Hook::ToWorkload,
        Reason::PolicyAllow,
    )?;
    let answer = syn.reply().flags(SYN | ACK).bytes();
    // Time goes by in jiffies, of ten milliseconds at most.
    std::thread::sleep(std::time::Duration::from_millis(25));
    // Without its entry the answer is a flow of b's own, which b's egress policy allows.
    bench.expect(
        At::from_workload(B),
        &answer,
        Hook::FromWorkload,
        Reason::PolicyAllow,
    )
}

#[test]
fn sources_that_are_not_the_pods_own() -> Result<()> {
    let mut bench = Bench::new("spoof", &web())?;
    for v6 in [false, true] {
        for source in ["b", "unassigned", "node", "remote", "outside"] {
            let packet = tcp(source, "b", v6, 1000, 80).bytes();
            bench.expect(
                At::from_workload(A),
                &packet,
                Hook::FromWorkload,
                Reason::SpoofedSource,
            )?;
        }
    }
    Ok(())
}

#[test]
fn the_host_always_reaches_its_pods_and_they_may_answer() -> Result<()> {
    let nothing = || Some(vec![]);
    let mut bench = Bench::new("host", &store([policy("b", "b", nothing(), nothing())]))?;
    for v6 in [false, true] {
        let probe = tcp("node", "b", v6, 4000, 8080);
        let from_host = At {
            ingress_ifindex: 0,
            ..At::to_workload(B)
        };
        bench.expect(from_host, &probe.bytes(), Hook::ToWorkload, Reason::FromHost)?;
        let answer = probe.reply().flags(SYN | ACK).bytes();
        bench.expect(
            At::from_workload(B),
            &answer,
            Hook::FromWorkload,
            Reason::Established,
        )?;
        let ack = probe.clone().flags(ACK).bytes();
        bench.expect(from_host, &ack, Hook::ToWorkload, Reason::FromHost)?;
        // The same from elsewhere is not the host's, and policy denies it.
        let elsewhere = tcp("remote", "b", v6, 4000, 8080).bytes();
        bench.expect(
            At::to_workload(B),
            &elsewhere,
            Hook::ToWorkload,
            Reason::PolicyDeny,
        )?;
    }
    Ok(())
}

#[test]
fn what_cannot_be_read_is_dropped() -> Result<()> {
    let mut bench = Bench::new("bad", &web())?;
    let mut drop =
        |packet: &[u8], reason| bench.expect(At::from_workload(A), packet, Hook::FromWorkload, reason);
    for v6 in [false, true] {
        let good = tcp("a", "b", v6, 1000, 80).bytes();
        let transport = if v6 { 54 } else { 34 };
        // Cut in the transport header. Cut in the network header they do not get past BPF_PROG_TEST_RUN itself; the
        // host's tests of the same parser have those.
        for length in [transport, transport + 3, transport + 13, transport + 19] {
            drop(&good[..length], Reason::Malformed)?;
        }
        let mut version = good.clone();
        version[14] ^= 0x70;
        drop(&version, Reason::Malformed)?;
        let mut offset = good.clone();
        offset[transport + 12] = 0x40;
        drop(&offset, Reason::Malformed)?;
        let udp = Frame {
            payload: 0,
            ..Frame::new(address("a", v6), address("b", v6), UDP, 1, 2)
        }
        .bytes();
        drop(&udp[..transport + 7], Reason::Malformed)?;
    }
    let mut ihl = tcp("a", "b", false, 1000, 80).bytes();
    ihl[14] = 0x44;
    drop(&ihl, Reason::Malformed)?;
    let mut unknown = tcp("a", "b", false, 1000, 80).bytes();
    unknown[12..14].copy_from_slice(&[0x88, 0xcc]);
    drop(&unknown, Reason::UnsupportedEthertype)?;
    let many = Frame {
        extensions: vec![(60, 8); 9],
        ..tcp("a", "b", true, 1000, 80)
    };
    drop(&many.bytes(), Reason::ExtensionHeaders)?;
    let mut routing = Frame {
        extensions: vec![(43, 8)],
        ..tcp("a", "b", true, 1000, 80)
    }
    .bytes();
    routing[14 + 40 + 2] = 0;
    drop(&routing, Reason::ExtensionHeaders)?;
    for extensions in [
        vec![(0, 8)],
        vec![(60, 16), (43, 24)],
        vec![(51, 24), (60, 8)],
        vec![(60, 8); 8],
    ] {
        let fine = Frame {
            extensions,
            ..tcp("a", "b", true, 1000, 80)
        }
        .bytes();
        let (returned, _) = bench.harness.observe(At::from_workload(A), &fine)?;
        assert_eq!(
            returned,
            calico_azure_tests::harness::Returned::Next,
            "extension headers are followed"
        );
    }
    let options = Frame {
        ipv4_options: 3,
        ..tcp("a", "b", false, 1001, 80)
    }
    .bytes();
    bench.expect(
        At::from_workload(A),
        &options,
        Hook::FromWorkload,
        Reason::IpOptions,
    )
}

#[test]
fn later_fragments_follow_their_first() -> Result<()> {
    let mut bench = Bench::new("frag", &web())?;
    for v6 in [false, true] {
        let part = |id, offset, more, dport| Frame {
            fragment: Some((id, offset, more)),
            payload: if offset == 0 { 44 } else { 64 },
            ..tcp("a", "b", v6, 1000, dport)
        };
        let at = At::from_workload(A);
        let hook = Hook::FromWorkload;
        bench.expect(at, &part(1, 8, false, 80).bytes(), hook, Reason::UnknownFragment)?;
        bench.expect(at, &part(1, 0, true, 80).bytes(), hook, Reason::PolicyAllow)?;
        bench.expect(at, &part(1, 8, true, 80).bytes(), hook, Reason::Established)?;
        bench.expect(at, &part(1, 16, false, 80).bytes(), hook, Reason::Established)?;
        bench.expect(at, &part(2, 16, false, 80).bytes(), hook, Reason::UnknownFragment)?;
        bench.expect(at, &part(3, 0, true, 81).bytes(), hook, Reason::PolicyDeny)?;
        bench.expect(at, &part(3, 8, false, 81).bytes(), hook, Reason::PolicyDeny)?;
        // What begins inside the first would change what was judged.
        bench.expect(at, &part(1, 7, false, 80).bytes(), hook, Reason::Malformed)?;
    }
    Ok(())
}

#[test]
fn an_interface_without_complete_state_drops() -> Result<()> {
    let mut bench = Bench::new("state", &web())?;
    let packet = tcp("a", "b", false, 1000, 80).bytes();
    bench.expect(
        At::from_workload(99),
        &packet,
        Hook::FromWorkload,
        Reason::NoEndpoint,
    )?;
    bench.expect(At::to_workload(99), &packet, Hook::ToWorkload, Reason::NoEndpoint)?;
    // Known, but without a policy set in the live slot.
    let check = word::check24(99);
    let not_ready = Endpoint {
        egress: word::slots(0, 0, check),
        ingress: word::slots(0, 0, check),
        mark: word::mark(99, 1),
    };
    bench
        .harness
        .dataplane
        .io()
        .put(Table::Endpoints, 99_u32.bytes(), not_ready.bytes())?;
    bench.expect(At::to_workload(99), &packet, Hook::ToWorkload, Reason::NotReady)?;
    bench.harness.configure(|config| config.epoch = 0)?;
    bench.expect(
        At::from_workload(A),
        &packet,
        Hook::FromWorkload,
        Reason::NotConfigured,
    )?;
    bench.expect(from_fabric(), &packet, Hook::FromFabric, Reason::FabricPass)
}

#[test]
fn a_recycled_or_missing_entry_fails_closed() -> Result<()> {
    let mut bench = Bench::new("race", &web())?;
    let endpoint = bench.output.desired.endpoints[&B].clone();
    let packet = tcp("remote", "b", false, 1000, 80).bytes();
    let (at, hook) = (At::to_workload(B), Hook::ToWorkload);
    let key = PolicyKey {
        set: endpoint.ingress,
        class: CLASS_DEFAULT_V4,
    };
    let table = bench.output.desired.policy[&key];
    let io = bench.harness.dataplane.io();
    // The words of other keys, as a program would see them in an element that was given away under it.
    io.put(Table::Policy, key.bytes(), (table ^ (1 << 40)).bytes())?;
    bench.expect(at, &packet, hook, Reason::TableRace)?;
    bench.harness.dataplane.io().delete(Table::Policy, key.bytes())?;
    bench.expect(at, &packet, hook, Reason::TableMissing)?;
    bench
        .harness
        .dataplane
        .io()
        .put(Table::Policy, key.bytes(), table.bytes())?;

    let rest = PortKey {
        table: word::table_id(table),
        port: 0,
        protocol: 0,
        level: LEVEL_TABLE,
    };
    let decision = bench.output.desired.ports[&rest];
    let udp = Frame::new(address("remote", false), address("b", false), UDP, 1, 1).bytes();
    bench
        .harness
        .dataplane
        .io()
        .put(Table::Ports, rest.bytes(), (decision ^ (1 << 45)).bytes())?;
    bench.expect(at, &udp, hook, Reason::TableRace)?;
    bench.harness.dataplane.io().delete(Table::Ports, rest.bytes())?;
    bench.expect(at, &udp, hook, Reason::TableMissing)?;
    bench
        .harness
        .dataplane
        .io()
        .put(Table::Ports, rest.bytes(), decision.bytes())?;

    let peer = u32::from_ne_bytes([10, 244, 2, 2]);
    let wrong = word::slots(5, 5, word::check24(peer) ^ 1);
    bench
        .harness
        .dataplane
        .io()
        .put(Table::Class4, peer.bytes(), wrong.bytes())?;
    bench.expect(at, &packet, hook, Reason::TableRace)?;
    bench.harness.dataplane.io().delete(Table::Class4, peer.bytes())?;

    let wrong = Endpoint {
        egress: word::slots(endpoint.egress, endpoint.egress, word::check24(A)),
        ingress: word::slots(endpoint.ingress, endpoint.ingress, word::check24(A)),
        mark: word::mark(B, endpoint.mark),
    };
    bench
        .harness
        .dataplane
        .io()
        .put(Table::Endpoints, B.bytes(), wrong.bytes())?;
    bench.expect(at, &packet, hook, Reason::TableRace)
}

#[test]
fn icmp_echo_is_one_flow_and_its_answer_returns() -> Result<()> {
    let mut allow4 = rule(Action::Allow, Some(1), &[]);
    allow4.icmp = Some(calico_azure_userspace::model::Icmp {
        kind: Some(8),
        code: None,
    });
    let mut allow6 = rule(Action::Allow, Some(58), &[]);
    allow6.icmp = Some(calico_azure_userspace::model::Icmp {
        kind: Some(128),
        code: None,
    });
    let mut bench = Bench::new(
        "icmp",
        &store([policy("b", "b", Some(vec![allow4, allow6]), Some(vec![]))]),
    )?;
    for (v6, protocol, request) in [(false, 1, 8_u16), (true, 58, 128)] {
        let ping = Frame::new(
            address("remote", v6),
            address("b", v6),
            protocol,
            77,
            request << 8,
        );
        bench.expect(
            At::to_workload(B),
            &ping.bytes(),
            Hook::ToWorkload,
            Reason::PolicyAllow,
        )?;
        bench.expect(
            At::from_workload(B),
            &ping.reply().bytes(),
            Hook::FromWorkload,
            Reason::Established,
        )?;
        // An echo of b's own is not allowed out.
        let own = Frame::new(
            address("b", v6),
            address("remote", v6),
            protocol,
            78,
            request << 8,
        );
        bench.expect(
            At::from_workload(B),
            &own.bytes(),
            Hook::FromWorkload,
            Reason::PolicyDeny,
        )?;
    }
    Ok(())
}
