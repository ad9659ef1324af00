//! Source ports on the loaded programs: first packets, replies and fragments, in both families.

use anyhow::{Context as _, Result};
use calico_azure_ebpf::abi::{
    CLASS_DEFAULT_V4, Hook, LEVEL_PORT, LEVEL_TABLE, Pod as _, PolicyKey, PortKey, Reason, word,
};
use calico_azure_tests::harness::At;
use calico_azure_tests::harness::packet::{ACK, Frame, SYN};
use calico_azure_tests::harness::scenario::{A, B, Bench, address, policy, rule, store};
use calico_azure_userspace::dataplane::{MapIo as _, Table};
use calico_azure_userspace::model::{Action, PortRange, Resource, Rule};
use calico_azure_userspace::policy::Store;

const TCP: u8 = 6;
const UDP: u8 = 17;
const SCTP: u8 = 132;
const UDPLITE: u8 = 136;

/// Allows these source ports to port 80.
fn from(ports: &[(u16, u16)]) -> Rule {
    let mut rule = rule(Action::Allow, None, &[(80, 80)]);
    rule.source.ports = ports
        .iter()
        .map(|&(first, last)| PortRange { first, last })
        .collect();
    rule
}

/// `a` may send, and `b` receive, from these source ports to port 80.
fn world(a: &[(u16, u16)], b: &[(u16, u16)]) -> Store {
    store(both(a, b))
}

fn both(a: &[(u16, u16)], b: &[(u16, u16)]) -> [Resource; 2] {
    [
        policy("a", "a", None, Some(vec![from(a)])),
        policy("b", "b", Some(vec![from(b)]), None),
    ]
}

fn frame(v6: bool, protocol: u8, sport: u16) -> Frame {
    Frame::new(address("a", v6), address("b", v6), protocol, sport, 80)
}

fn reason(passes: bool) -> Reason {
    if passes {
        Reason::PolicyAllow
    } else {
        Reason::PolicyDeny
    }
}

#[test]
fn source_ports_decide_to_the_last_one() -> Result<()> {
    let ranges = [(0, 0), (1000, 1999), (u16::MAX, u16::MAX)];
    let mut bench = Bench::new("sport", &world(&ranges, &ranges))?;
    for v6 in [false, true] {
        for protocol in [TCP, UDP, SCTP] {
            for (sport, passes) in [
                (0, true),
                (1, false),
                (255, false),
                (999, false),
                (1000, true),
                (1999, true),
                (2000, false),
                (65_534, false),
                (65_535, true),
            ] {
                let packet = frame(v6, protocol, sport).bytes();
                bench.expect(At::from_workload(A), &packet, Hook::FromWorkload, reason(passes))?;
                bench.expect(At::to_workload(B), &packet, Hook::ToWorkload, reason(passes))?;
            }
        }
        // It has ports, but none that policy looks at.
        let packet = frame(v6, UDPLITE, 1000).bytes();
        bench.expect(
            At::from_workload(A),
            &packet,
            Hook::FromWorkload,
            Reason::PolicyDeny,
        )?;
    }
    Ok(())
}

#[test]
fn after_a_change_a_reply_is_judged_by_the_source_port_of_its_flow() -> Result<()> {
    for v6 in [false, true] {
        let open = world(&[(1000, 1000)], &[(1000, 1000)]);
        let mut bench = Bench::new("sportreply", &open)?;
        let syn = frame(v6, TCP, 1000);
        let answer = syn.reply().flags(SYN | ACK).bytes();
        let (from_a, to_b) = (At::from_workload(A), At::to_workload(B));
        let (from_b, to_a) = (At::from_workload(B), At::to_workload(A));
        let packet = syn.bytes();
        bench.expect(from_a, &packet, Hook::FromWorkload, Reason::PolicyAllow)?;
        bench.expect(to_b, &packet, Hook::ToWorkload, Reason::PolicyAllow)?;
        bench.expect(from_b, &answer, Hook::FromWorkload, Reason::Established)?;
        // Still allowed, by other tables: the reply speaks first, and is asked about from port 1000.
        bench.apply(&world(&[(900, 1000)], &[(1000, 1100)]))?;
        bench.expect(from_b, &answer, Hook::FromWorkload, Reason::PolicyAllow)?;
        bench.expect(to_a, &answer, Hook::ToWorkload, Reason::PolicyAllow)?;
        bench.expect(from_b, &answer, Hook::FromWorkload, Reason::Established)?;
        // No longer allowed, although it would be from port 80, which is the reply's own source.
        bench.apply(&world(&[(80, 80)], &[(80, 80)]))?;
        bench.expect(from_b, &answer, Hook::FromWorkload, Reason::PolicyDeny)?;
        bench.expect(to_a, &answer, Hook::ToWorkload, Reason::PolicyDeny)?;
    }
    Ok(())
}

#[test]
fn later_fragments_have_the_source_port_of_the_first() -> Result<()> {
    let mut bench = Bench::new("sportfrag", &world(&[(1000, 1000)], &[(1000, 1000)]))?;
    for v6 in [false, true] {
        for (id, sport, passes) in [(7, 1000, true), (8, 1001, false)] {
            let first = Frame {
                fragment: Some((id, 0, true)),
                ..frame(v6, UDP, sport)
            };
            let later = Frame {
                fragment: Some((id, 4, false)),
                ..frame(v6, UDP, sport)
            };
            let at = At::from_workload(A);
            bench.expect(at, &first.bytes(), Hook::FromWorkload, reason(passes))?;
            let then = if passes {
                Reason::Established
            } else {
                Reason::PolicyDeny
            };
            bench.expect(at, &later.bytes(), Hook::FromWorkload, then)?;
        }
    }
    Ok(())
}

#[test]
fn a_table_about_source_ports_that_is_recycled_or_missing_fails_closed() -> Result<()> {
    let mut bench = Bench::new("sportrace", &world(&[(1000, 1000)], &[(1000, 1000)]))?;
    let desired = bench.output.desired.clone();
    let key = PolicyKey {
        set: desired.endpoints[&B].ingress,
        class: CLASS_DEFAULT_V4,
    };
    let table = desired.policy[&key];
    assert_ne!(word::table_hints(table) & word::hint::SOURCE, 0);
    let (at, hook) = (At::to_workload(B), Hook::ToWorkload);
    let packet = Frame::new(address("remote", false), address("b", false), TCP, 1000, 80).bytes();
    let rest = PortKey {
        table: word::table_id(table),
        port: 0,
        protocol: 0,
        level: LEVEL_TABLE,
    };
    let exact = PortKey {
        port: 1000,
        protocol: TCP,
        level: LEVEL_PORT,
        ..rest
    };
    let lead = *desired
        .ports
        .get(&exact)
        .context("port 1000 has an entry of its own")?;
    let next = word::table_id(word::decision_next(lead));
    let put = |bench: &mut Bench, key: PortKey, value: u64| {
        bench
            .harness
            .dataplane
            .io()
            .put(Table::Ports, key.bytes(), value.bytes())
    };
    // An entry of another table; a decision where a table is led to.
    for wrong in [lead ^ (1 << 45), word::decision(true, false, 1, rest.table)] {
        put(&mut bench, exact, wrong)?;
        bench.expect(at, &packet, hook, Reason::TableRace)?;
    }
    put(&mut bench, exact, lead)?;
    // A table led to where a decision is.
    let decisions: Vec<_> = desired
        .ports
        .iter()
        .filter(|(key, _)| key.table == next)
        .map(|(key, value)| (*key, *value))
        .collect();
    for (key, _) in &decisions {
        put(&mut bench, *key, word::lead(u64::from(next), next))?;
    }
    bench.expect(at, &packet, hook, Reason::TableRace)?;
    for (key, _) in &decisions {
        bench.harness.dataplane.io().delete(Table::Ports, key.bytes())?;
    }
    bench.expect(at, &packet, hook, Reason::TableMissing)?;
    for (key, value) in &decisions {
        put(&mut bench, *key, *value)?;
    }
    let all: Vec<PortKey> = desired
        .ports
        .keys()
        .filter(|key| key.table == rest.table)
        .copied()
        .collect();
    for key in all {
        bench.harness.dataplane.io().delete(Table::Ports, key.bytes())?;
    }
    bench.expect(at, &packet, hook, Reason::TableMissing)
}
