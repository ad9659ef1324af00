//! Untracked policy at XDP on the loaded program: what it drops, with exactly the counters that each frame moves, and what it remembers.

use std::cell::Cell;

use anyhow::Result;
use calico_azure_ebpf::abi::{CounterKey, CounterValue, Hook, Reason};
use calico_azure_tests::harness::hosts::*;
use calico_azure_tests::harness::packet::{ACK, Frame};
use calico_azure_tests::harness::scenario::{Bench, FABRIC, TUNNEL, address, rule};
use calico_azure_tests::harness::{pin, settings};
use calico_azure_userspace::dataplane::plan::Settings;
use calico_azure_userspace::model::{Action, HostRole, Resource, Rule};
use calico_azure_userspace::policy::{Event, Store};

/// Runs the XDP program, whose packets come in by the loopback interface; only a drop is counted, once.
#[track_caller]
fn early(bench: &mut Bench, frame: &[u8], denied: bool) -> Result<()> {
    let before = bench.harness.dataplane.io_ref().maps().counters()?;
    let (totals, drops) = (before.totals()?, before.drops()?);
    let passes = bench.harness.dataplane.io().run_untracked(frame)?;
    assert_eq!(passes, !denied);
    let after = bench.harness.dataplane.io_ref().maps().counters()?;
    let bytes = u64::try_from(frame.len())?;
    let moved = |packets: u64| CounterValue {
        packets,
        bytes: packets * bytes,
    };
    let (mut expected_totals, mut expected_drops) = (totals, drops);
    if denied {
        let (hook, reason) = (Hook::Untracked, Reason::PolicyDeny);
        let key = CounterKey {
            ifindex: 1,
            hook: hook as u16,
            reason: u16::from(reason as u8),
        };
        for counter in [
            expected_totals.entry((hook, reason)).or_default(),
            expected_drops.entry(key).or_default(),
        ] {
            let one = moved(1);
            counter.packets += one.packets;
            counter.bytes += one.bytes;
        }
    }
    assert_eq!(
        (after.totals()?, after.drops()?),
        (expected_totals, expected_drops)
    );
    Ok(())
}

/// XDP programs are run on the loopback interface.
fn with(resources: Vec<Resource>) -> Store {
    let mut store = cluster(resources);
    let mut interfaces = store.interfaces().clone();
    let eth0 = interfaces.by_ifindex.remove(&FABRIC).unwrap_or_default();
    interfaces.by_ifindex.insert(1, eth0);
    store.apply(Event::Interfaces(interfaces));
    store
}

#[test]
fn xdp_drops_what_untracked_policy_denies_and_nothing_else() -> Result<()> {
    let normal = || of_host("n", HostRole::Normal, deny_all(), deny_all());
    let mut bench = Bench::new("hostxdp", &with(vec![host("eth0"), normal()]))?;
    for v6 in [false, true] {
        early(&mut bench, &tcp("outside", "node", v6, 1000, 81).bytes(), false)?;
    }
    let rules = Some(vec![
        rule(Action::Allow, Some(UDP), &[(7, 7)]),
        Rule {
            index: 1,
            ..rule(Action::Deny, Some(UDP), &[])
        },
        Rule {
            index: 2,
            ..rule(Action::Deny, Some(TCP), &[(22, 80)])
        },
    ]);
    let untracked = of_host("u", HostRole::Untracked, rules, None);
    bench.apply(&with(vec![host("eth0"), normal(), untracked]))?;
    for v6 in [false, true] {
        let mut is_denied = |frame: Frame, denied| early(&mut bench, &frame.bytes(), denied);
        is_denied(packet("outside", "node", v6, UDP, (1000, 7)), false)?;
        is_denied(packet("outside", "node", v6, UDP, (1000, 8)), true)?;
        is_denied(packet("outside", "a", v6, UDP, (1000, 8)), true)?;
        is_denied(tcp("outside", "node", v6, 1000, 80), true)?;
        // Whatever is remembered: nothing is.
        is_denied(tcp("outside", "node", v6, 1000, 80).flags(ACK), true)?;
        // What untracked policy does not decide is for the others.
        is_denied(tcp("outside", "node", v6, 1000, 81), false)?;
        // Failsafe ports are the host's only, and so are answers to its questions.
        is_denied(tcp("outside", "node", v6, 1000, 22), false)?;
        is_denied(tcp("outside", "a", v6, 1000, 22), true)?;
        is_denied(packet("outside", "node", v6, UDP, (53, 1000)), false)?;
        let later = Frame {
            fragment: Some((7, 9, false)),
            payload: 64,
            ..packet("outside", "node", v6, UDP, (1000, 8))
        };
        is_denied(later, false)?;
    }
    let azure = Frame::new("168.63.129.16".parse()?, address("node", false), UDP, 1000, 8);
    early(&mut bench, &azure.bytes(), false)?;
    // What cannot be read is dropped, with its reason, by the program after this one.
    let whole = packet("outside", "node", false, UDP, (1000, 8)).bytes();
    for length in 14..42 {
        early(&mut bench, &whole[..length], false)?;
    }
    Ok(())
}

#[test]
fn what_xdp_remembers_to_have_denied_is_forgotten_as_soon_as_it_could_pass() -> Result<()> {
    let untracked = |rules| of_host("u", HostRole::Untracked, rules, None);
    let denying = || with(vec![host("eth0"), untracked(deny_all())]);
    // Each processor remembers for itself.
    pin(0)?;
    let mut bench = Bench::new("hostxdpmem", &denying())?;
    sparing(&mut bench)?;
    let asked_again = Cell::new(0_u64);
    let is_denied = |bench: &mut Bench, frame: &Frame, denied| {
        // Asked the first time, remembered the second.
        early(bench, &frame.bytes(), denied)?;
        asked_again.set(asked_again.get() + u64::from(denied));
        early(bench, &frame.bytes(), denied)
    };
    let ssh = |v6| tcp("outside", "unassigned", v6, 40_000, 22);
    let tunnel = |v6| packet("remote", "node", v6, UDP, (40_000, TUNNEL));
    for v6 in [false, true] {
        is_denied(&mut bench, &ssh(v6), true)?;
        is_denied(&mut bench, &tunnel(v6), true)?;
        // The same but for one thing each.
        is_denied(&mut bench, &tcp("outside", "node", v6, 40_000, 22), false)?;
        is_denied(
            &mut bench,
            &packet("outside", "node", v6, UDP, (40_000, 68)),
            false,
        )?;
        is_denied(
            &mut bench,
            &packet("outside", "node", v6, UDP, (40_000, 53)),
            true,
        )?;
        is_denied(
            &mut bench,
            &packet("outside", "node", v6, UDP, (53, 40_000)),
            false,
        )?;
        is_denied(
            &mut bench,
            &packet("outside", "node", v6, UDP, (54, 40_000)),
            true,
        )?;
        is_denied(&mut bench, &packet("outside", "node", v6, UDP, (6667, 22)), true)?;
        is_denied(&mut bench, &tcp("outside", "node", v6, 6667, 23), false)?;
        is_denied(&mut bench, &tcp("outside", "node", v6, 6668, 23), true)?;
    }
    // Nothing but routes: an address of this node, where its failsafe ports count, and one of another, which may be at a tunnel's other end.
    let mut store = denying();
    let ours = [false, true].map(|v6| address("unassigned", v6));
    let theirs = [false, true].map(|v6| address("remote", v6));
    for (name, more) in [("n1", ours), ("n2", theirs)] {
        let node = store.nodes().find(|node| node.name == name).cloned();
        let mut node = node.unwrap_or_default();
        node.internal_ips.extend(more);
        store.apply(Event::Upsert(Resource::Node(node)));
    }
    bench.apply(&store)?;
    sparing(&mut bench)?;
    for v6 in [false, true] {
        is_denied(&mut bench, &ssh(v6), false)?;
        is_denied(&mut bench, &tunnel(v6), false)?;
    }
    bench.apply(&denying())?;
    sparing(&mut bench)?;
    for v6 in [false, true] {
        is_denied(&mut bench, &ssh(v6), true)?;
        is_denied(&mut bench, &tunnel(v6), true)?;
    }
    // A rule that tells source ports apart, however high.
    let high = Rule {
        source: rule(Action::Allow, None, &[(50_000, 50_000)]).destination,
        ..rule(Action::Allow, Some(UDP), &[])
    };
    let rest = Rule {
        index: 1,
        ..rule(Action::Deny, None, &[])
    };
    bench.apply(&with(vec![host("eth0"), untracked(Some(vec![high, rest]))]))?;
    sparing(&mut bench)?;
    for v6 in [false, true] {
        for (sport, denied) in [(49_999, true), (50_000, false), (50_001, true)] {
            is_denied(
                &mut bench,
                &packet("outside", "node", v6, UDP, (sport, 9)),
                denied,
            )?;
        }
    }
    let counters = bench.harness.dataplane.io_ref().maps().counters()?;
    let remembered: u64 = counters.early()?.iter().map(|count| count.packets).sum();
    // The first of each window of records is asked about again; on a slow machine windows are over sooner than packets.
    assert!(
        remembered > 0 && remembered <= asked_again.get(),
        "{remembered} of {}",
        asked_again.get()
    );
    Ok(())
}

/// One record in a window: for others, what was denied need only be counted.
fn sparing(bench: &mut Bench) -> Result<()> {
    bench.set(Settings {
        records: 1,
        tunnel_port: TUNNEL,
        ..settings()
    })
}
