//! Source ports, in the tables.

use calico_azure_ebpf::abi::{Reason, word};

use super::ports::{DB, JOB, STRANGER, compile, decide, egress, from, ingress, named, packet, range, to};
use super::world::{TCP, UDP, allow, deny, rule, selector};
use crate::model::{Action, Rule};
use crate::policy::{Direction, Output, lookup};

const SCTP: u8 = 132;
const ICMP: u8 = 1;
const UDPLITE: u8 = 136;
const NOWHERE: [(u16, u16); 0] = [];

/// The source ports from which port 80 passes, as ranges.
fn open_from(output: &Output, direction: Direction, peer: &str, protocol: u8) -> Vec<(u16, u16)> {
    let mut ranges: Vec<(u16, u16)> = Vec::new();
    for port in 0..=u16::MAX {
        if decide(output, direction, &packet(peer, protocol, port, 80)) {
            match ranges.last_mut() {
                Some((_, last)) if *last + 1 == port => *last = port,
                _ => ranges.push((port, port)),
            }
        }
    }
    ranges
}

#[test]
fn source_ports_are_told_apart_to_the_last_one_in_both_directions() {
    let listed = || {
        from(|side| {
            side.ports = vec![
                range(0, 0),
                range(1000, 1999),
                range(1500, 2500),
                range(u16::MAX, u16::MAX),
            ];
            side.not_ports = vec![range(1700, 1700)];
        })
    };
    let expected = [(0, 0), (1000, 1699), (1701, 2500), (u16::MAX, u16::MAX)];
    for (rules, direction) in [
        (ingress(vec![listed()]), Direction::Ingress),
        (egress(vec![listed()]), Direction::Egress),
    ] {
        let output = compile([rules]);
        for (peer, protocol) in [(DB[0], TCP), (STRANGER[1], UDP), (JOB[0], SCTP)] {
            assert_eq!(open_from(&output, direction, peer, protocol), expected);
        }
        for protocol in [ICMP, UDPLITE, 47] {
            assert_eq!(open_from(&output, direction, DB[0], protocol), NOWHERE);
        }
    }
    // Without a list an exclusion is no limit for protocols without ports.
    let output = compile([ingress(vec![from(|side| side.not_ports = vec![range(0, 1023)])])]);
    assert_eq!(
        open_from(&output, Direction::Ingress, DB[0], TCP),
        [(1024, u16::MAX)]
    );
    assert_eq!(
        open_from(&output, Direction::Ingress, DB[0], UDPLITE),
        [(0, u16::MAX)]
    );
}

#[test]
fn both_ports_of_one_rule_must_match() {
    let both = rule(Action::Allow, |rule| {
        rule.protocol = Some(UDP);
        rule.source.ports = vec![range(68, 68)];
        rule.destination.ports = vec![range(67, 67), range(80, 80)];
    });
    let output = compile([ingress(vec![both, to(|side| side.ports = vec![range(53, 53)])])]);
    let open = |sport| {
        let passes = |dport: &u16| decide(&output, Direction::Ingress, &packet(DB[0], UDP, sport, *dport));
        (0..100).filter(passes).collect::<Vec<u16>>()
    };
    assert_eq!(open(68), [53, 67, 80]);
    assert_eq!(open(67), [53]);
    assert_eq!(open_from(&output, Direction::Ingress, DB[0], TCP), NOWHERE);
}

#[test]
fn a_named_source_port_is_each_peers_own() {
    let output = compile([ingress(vec![from(|side| {
        side.named_ports = named(&["http"]);
        side.ports = vec![range(5, 6)];
    })])]);
    assert_eq!(
        open_from(&output, Direction::Ingress, DB[0], TCP),
        [(5, 6), (80, 80)]
    );
    assert_eq!(
        open_from(&output, Direction::Ingress, JOB[1], TCP),
        [(5, 6), (9000, 9000)]
    );
    assert_eq!(open_from(&output, Direction::Ingress, STRANGER[0], TCP), [(5, 6)]);
    assert_eq!(open_from(&output, Direction::Ingress, DB[0], UDP), [(5, 6)]);
}

#[test]
fn a_named_source_port_of_who_sends_is_its_own() {
    let output = compile([egress(vec![from(|side| side.named_ports = named(&["http"]))])]);
    for peer in [DB[0], STRANGER[1]] {
        assert_eq!(open_from(&output, Direction::Egress, peer, TCP), [(8080, 8080)]);
    }
    let output = compile([egress(vec![from(|side| side.not_named_ports = named(&["dns"]))])]);
    assert_eq!(
        open_from(&output, Direction::Egress, DB[0], UDP),
        [(0, 52), (54, u16::MAX)]
    );
}

/// Tables about source ports.
fn about_sources(output: &Output) -> usize {
    let hints = output
        .desired
        .policy
        .values()
        .map(|word| word::table_hints(*word));
    hints.filter(|hints| hints & word::hint::SOURCE != 0).count()
}

#[test]
fn source_ports_that_make_no_difference_cost_nothing() {
    let some = || from(|side| side.ports = vec![range(1, 9)]);
    assert_eq!(about_sources(&compile([ingress(vec![allow(), some()])])), 0);
    assert_eq!(about_sources(&compile([ingress(vec![deny(), some()])])), 0);
    assert!(about_sources(&compile([ingress(vec![some()])])) > 0);
    // Only peers of whom it matters have such a table.
    let of_db = rule(Action::Allow, |rule| {
        rule.source.selector = Some(selector("app == 'db'"));
        rule.source.ports = vec![range(1, 9)];
    });
    let output = compile([ingress(vec![of_db])]);
    let of_web = output.desired.endpoints[&1].ingress;
    let words = output.desired.policy.iter().filter(|(key, _)| key.set == of_web);
    let about_source = words.filter(|(_, word)| word::table_hints(**word) & word::hint::SOURCE != 0);
    assert_eq!(about_source.count(), 2, "one of each family");
}

#[test]
fn a_log_rule_on_source_ports_marks_those_only() {
    let log = Rule {
        action: Action::Log,
        ..from(|side| side.ports = vec![range(100, 200)])
    };
    let output = compile([ingress(vec![log, allow()])]);
    for (sport, logs) in [(99, false), (100, true), (200, true), (201, false)] {
        let compiled = lookup::verdict(
            &output.desired,
            1,
            Direction::Ingress,
            &packet(DB[0], TCP, sport, 80),
        );
        assert_eq!(
            (compiled.reason, compiled.log),
            (Reason::PolicyAllow, logs),
            "{sport}"
        );
    }
}
