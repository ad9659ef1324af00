//! Flows that had begun before there was anybody to see it, on the loaded programs.

use anyhow::Result;
use calico_azure_ebpf::abi::{DEFAULT_MARK_MASK, Hook, Reason};
use calico_azure_tests::harness::At;
use calico_azure_tests::harness::packet::{ACK, FIN, Frame, RST, SYN};
use calico_azure_tests::harness::scenario::{A, Bench, address, policy, rule, store};
use calico_azure_userspace::model::{Action, Resource, Service, ServicePort, TargetPort};

const ICMP: u8 = 1;
const ICMP6: u8 = 58;
const TCP: u8 = 6;
const UDP: u8 = 17;

/// `a` may reach TCP and UDP port 80, and serves port 443; it may neither ask nor be asked anything else.
fn bench(name: &str) -> Result<Bench> {
    let only = |port| {
        let rule = |protocol| rule(Action::Allow, Some(protocol), &[(port, port)]);
        Some(vec![rule(TCP), rule(UDP)])
    };
    let service = Resource::Service(Service {
        namespace: "ns".into(),
        name: "web".into(),
        selector: None,
        cluster_ips: [false, true].map(vip).into(),
        external_ips: Vec::new(),
        ports: vec![ServicePort {
            name: None,
            protocol: TCP,
            port: 8443,
            target: TargetPort::Number(80),
            node_port: None,
        }],
    });
    let mut bench = Bench::new(name, &store([policy("a", "a", only(443), only(80)), service]))?;
    bench.harness.configure(|config| {
        config.adopt_until = u32::MAX;
        config.mark_mask = DEFAULT_MARK_MASK;
    })?;
    Ok(bench)
}

fn vip(v6: bool) -> std::net::IpAddr {
    let text = if v6 { "fd00:10:96::1" } else { "10.96.0.1" };
    text.parse().unwrap_or_else(|_| unreachable!("an address"))
}

/// A packet that `a` gets from outside, and one that it sends there.
fn got(protocol: u8, v6: bool, sport: u16, dport: u16) -> Frame {
    Frame::new(address("outside", v6), address("a", v6), protocol, sport, dport).flags(ACK)
}

fn sent(protocol: u8, v6: bool, sport: u16, dport: u16) -> Frame {
    Frame::new(address("a", v6), address("outside", v6), protocol, sport, dport).flags(ACK)
}

#[test]
fn answers_to_what_policy_allows_are_taken_for_answers() -> Result<()> {
    let mut bench = bench("adopt")?;
    for v6 in [false, true] {
        {
            // To a client, which says something next.
            let answer = got(TCP, v6, 80, 1000);
            bench.expect(
                At::to_workload(A),
                &answer.bytes(),
                Hook::ToWorkload,
                Reason::PolicyAllow,
            )?;
            bench.expect(
                At::to_workload(A),
                &answer.bytes(),
                Hook::ToWorkload,
                Reason::Established,
            )?;
            let next = answer.reply().flags(ACK).bytes();
            bench.expect(
                At::from_workload(A),
                &next,
                Hook::FromWorkload,
                Reason::Established,
            )?;
            // From a server.
            let answer = sent(TCP, v6, 443, 1000);
            bench.expect(
                At::from_workload(A),
                &answer.bytes(),
                Hook::FromWorkload,
                Reason::PolicyAllow,
            )?;
            let next = answer.reply().flags(ACK).bytes();
            bench.expect(At::to_workload(A), &next, Hook::ToWorkload, Reason::Established)?;
        }
    }
    Ok(())
}

#[test]
fn what_policy_allows_in_neither_direction_is_denied() -> Result<()> {
    let mut bench = bench("neither")?;
    for v6 in [false, true] {
        for (sport, dport) in [(81, 1000), (443, 1000), (1000, 80)] {
            let packet = got(TCP, v6, sport, dport).bytes();
            bench.expect(At::to_workload(A), &packet, Hook::ToWorkload, Reason::PolicyDeny)?;
        }
        for (sport, dport) in [(80, 1000), (442, 1000), (1000, 443)] {
            let packet = sent(TCP, v6, sport, dport).bytes();
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
fn what_may_be_a_request_is_judged_as_one() -> Result<()> {
    let everything = || Some(vec![rule(Action::Allow, None, &[])]);
    let mut bench = Bench::new(
        "requests",
        &store([policy("a", "a", everything(), Some(Vec::new()))]),
    )?;
    bench.harness.configure(|config| config.adopt_until = u32::MAX)?;
    for (v6, icmp, reply) in [(false, ICMP, 0), (true, ICMP6, 129 << 8)] {
        for packet in [
            sent(UDP, v6, 1000, 53),
            sent(icmp, v6, 7, reply),
            sent(132, v6, 1000, 80),
        ] {
            let packet = packet.bytes();
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
fn what_begins_or_ends_a_connection_is_no_answer_in_its_middle() -> Result<()> {
    let mut bench = bench("begins")?;
    for v6 in [false, true] {
        for flags in [SYN, SYN | ACK, RST, RST | ACK, 0] {
            let packet = got(TCP, v6, 80, 1000).flags(flags).bytes();
            bench.expect(At::to_workload(A), &packet, Hook::ToWorkload, Reason::PolicyDeny)?;
        }
        let packet = got(TCP, v6, 80, 1000).flags(FIN | ACK).bytes();
        bench.expect(At::to_workload(A), &packet, Hook::ToWorkload, Reason::PolicyAllow)?;
    }
    Ok(())
}

#[test]
fn answers_of_services_go_on_too_and_the_next_request_is_judged() -> Result<()> {
    let mut bench = bench("service")?;
    for v6 in [false, true] {
        let answer = Frame::new(vip(v6), address("a", v6), TCP, 8443, 1000).flags(ACK);
        bench.expect(
            At::to_workload(A),
            &answer.bytes(),
            Hook::ToWorkload,
            Reason::Established,
        )?;
        bench.expect(
            At::to_workload(A),
            &answer.bytes(),
            Hook::ToWorkload,
            Reason::Established,
        )?;
        let mark = bench.output.desired.endpoints[&A].mark << DEFAULT_MARK_MASK.trailing_zeros();
        let next = answer.reply().flags(ACK).bytes();
        let seen = [(Hook::FromWorkload, Reason::Service, A)];
        bench.expect_marked(At::from_workload(A), &next, (0, mark), &seen)?;
    }
    Ok(())
}

#[test]
fn later_nothing_is_adopted() -> Result<()> {
    let mut bench = bench("late")?;
    for until in [0, 1] {
        bench.harness.configure(|config| config.adopt_until = until)?;
        for v6 in [false, true] {
            let packet = got(TCP, v6, 80, 1000).bytes();
            bench.expect(At::to_workload(A), &packet, Hook::ToWorkload, Reason::PolicyDeny)?;
            let packet = sent(TCP, v6, 443, 1000).bytes();
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
fn an_edit_cuts_what_was_adopted() -> Result<()> {
    let mut bench = bench("edit")?;
    let answer = got(TCP, false, 80, 1000).bytes();
    bench.expect(At::to_workload(A), &answer, Hook::ToWorkload, Reason::PolicyAllow)?;
    bench.apply(&store([policy("a", "a", Some(Vec::new()), Some(Vec::new()))]))?;
    bench.expect(At::to_workload(A), &answer, Hook::ToWorkload, Reason::PolicyDeny)
}
