//! The verdict engine on the host: what `BPF_PROG_TEST_RUN` does not let through, and millions of broken frames.

use anyhow::Result;
use calico_azure_ebpf::abi::{Hook, Reason};
use calico_azure_ebpf::packet::{ETHERNET, Network, Packet, SlicePacket, V4, V6};
use calico_azure_ebpf::verdict::{fabric, workload};
use calico_azure_tests::harness::packet::{ACK, Frame, SYN};
use calico_azure_tests::harness::scenario::{A, B, address, policy, rule, store};
use calico_azure_tests::harness::settings;
use calico_azure_userspace::dataplane::host::HostTables;
use calico_azure_userspace::dataplane::{Image, plan};
use calico_azure_userspace::model::Action;
use calico_azure_userspace::policy::Compiler;
use calico_azure_userspace::policy::generate::Rng;

/// `b` accepts TCP port 80.
fn tables() -> Result<HostTables> {
    let port_80 = Some(vec![rule(Action::Allow, Some(6), &[(80, 80)])]);
    let desired = Compiler::default()
        .compile(&store([policy("b", "b", port_80, None)]))?
        .desired;
    let mut image = Image::default();
    let plan = plan(&Image::default(), &desired, settings())?;
    for op in plan.prepare.iter().chain(&plan.flip).chain(&plan.settle) {
        image.follow(op);
    }
    Ok(HostTables::new(image))
}

fn at(bytes: &[u8], ifindex: u32) -> SlicePacket<'_> {
    SlicePacket {
        bytes,
        ifindex,
        ingress_ifindex: 1,
        mark: Default::default(),
    }
}

fn frames() -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    for v6 in [false, true] {
        for protocol in [1, 6, 17, 58, 132, 136, 47] {
            let plain = Frame::new(address("a", v6), address("b", v6), protocol, 1000, 80);
            frames.push(plain.bytes());
            frames.push(
                Frame {
                    ipv4_options: 4,
                    extensions: vec![(0, 8), (60, 16)],
                    ..plain.clone()
                }
                .bytes(),
            );
            frames.push(
                Frame {
                    fragment: Some((7, 0, true)),
                    ..plain.clone()
                }
                .bytes(),
            );
            frames.push(
                Frame {
                    fragment: Some((7, 3, false)),
                    extensions: vec![(51, 24)],
                    ..plain
                }
                .bytes(),
            );
        }
    }
    frames
}

#[test]
fn a_frame_that_ends_early_never_passes() -> Result<()> {
    let tables = tables()?;
    for bytes in frames() {
        for length in 0..bytes.len() {
            for ifindex in [A, B] {
                let packet = at(&bytes[..length], ifindex);
                let outcome = workload::from_workload(&packet, &tables);
                assert!(
                    !outcome.reason.passes(),
                    "{length} of {} bytes passed: {outcome:?}",
                    bytes.len()
                );
                let outcome = workload::to_workload(&packet, &tables);
                assert!(
                    !outcome.reason.passes(),
                    "{length} of {} bytes passed: {outcome:?}",
                    bytes.len()
                );
            }
            // Not IP at all, it is none of the fabric interface's business.
            if length >= 14 {
                let outcome = fabric::from_fabric(&at(&bytes[..length], 1), &tables);
                assert_eq!(
                    outcome.reason,
                    Reason::Malformed,
                    "{length} of {} bytes",
                    bytes.len()
                );
            }
        }
    }
    Ok(())
}

/// What the parser says of a frame lies inside it.
fn check<P: Packet>(packet: &P) {
    let inside = |l4: u32, end: u32| assert!(l4 <= end && end <= packet.len(), "{l4} {end} {}", packet.len());
    match packet.ethertype() {
        0x0800 => {
            if let Ok(network) = Network::<V4>::parse(packet, ETHERNET) {
                inside(network.l4, network.end);
                let _any = network.transport(packet);
            }
        }
        0x86dd => {
            if let Ok(network) = Network::<V6>::parse(packet, ETHERNET) {
                inside(network.l4, network.end);
                let _any = network.transport(packet);
            }
        }
        _ => {}
    }
}

#[test]
fn mutated_frames_are_read_within_their_bounds() -> Result<()> {
    const ROUNDS: usize = 400_000;
    let mut tables = tables()?;
    let frames = frames();
    let mut rng = Rng::new(7);
    let mut passed = 0_usize;
    for round in 0..ROUNDS {
        if round % 1000 == 0 {
            tables.forget_flows();
        }
        let Some(frame) = rng.pick(&frames) else { break };
        let mut bytes = frame.clone();
        for _ in 0..=rng.below(4) {
            let place = rng.below(bytes.len());
            bytes[place] = match rng.below(3) {
                0 => rng.byte(),
                1 => bytes[place] ^ (1 << rng.below(8)),
                _ => rng.one_of([0, 1, 0x7f, 0xff]),
            };
        }
        if rng.chance(30) {
            bytes.truncate(rng.below(bytes.len()));
        }
        check(&at(&bytes, A));
        let outcomes = [
            workload::from_workload(&at(&bytes, A), &tables),
            workload::to_workload(&at(&bytes, B), &tables),
            fabric::from_fabric(&at(&bytes, 1), &tables),
            fabric::to_fabric(&at(&bytes, 1), &tables),
        ];
        passed += usize::from(outcomes[0].reason.passes());
    }
    println!("{ROUNDS} frames, {passed} of them still good enough to leave the pod");
    assert!(passed > 1000 && passed < ROUNDS / 2, "{passed} of {ROUNDS}");
    Ok(())
}

#[test]
fn a_flow_table_that_is_full_fails_closed_with_its_own_reason() -> Result<()> {
    let tables = tables()?;
    let syn = Frame::new(address("remote", false), address("b", false), 6, 1000, 80);
    tables.full.set(true);
    let outcome = workload::to_workload(&at(&syn.bytes(), B), &tables);
    assert_eq!(outcome.reason, Reason::ConntrackFull);
    assert_eq!(
        tables.counters.borrow()[&(Hook::ToWorkload, Reason::ConntrackFull)],
        1
    );
    tables.full.set(false);
    assert_eq!(
        workload::to_workload(&at(&syn.bytes(), B), &tables).reason,
        Reason::PolicyAllow
    );
    // A flow that is there already goes on: its entry only cannot move to the established ones.
    tables.full.set(true);
    let answer = syn.reply().flags(SYN | ACK).bytes();
    assert_eq!(
        workload::from_workload(&at(&answer, B), &tables).reason,
        Reason::Established
    );
    let ack = syn.flags(ACK).bytes();
    assert_eq!(
        workload::to_workload(&at(&ack, B), &tables).reason,
        Reason::Established
    );
    assert_eq!(
        workload::to_workload(&at(&ack, B), &tables).reason,
        Reason::Established
    );
    Ok(())
}

#[test]
fn a_first_fragment_counts_for_thirty_seconds() -> Result<()> {
    const SECOND: u64 = 1_000_000_000;
    for v6 in [false, true] {
        let part = |offset: u16| {
            Frame {
                fragment: Some((9, offset, offset == 0)),
                // With the header a multiple of 8 bytes.
                payload: 4,
                ..Frame::new(address("remote", v6), address("b", v6), 6, 1000, 80)
            }
            .bytes()
        };
        // The half-open flow is forgotten earlier; the ports are not.
        for (seconds, reason) in [(30, Reason::PolicyAllow), (31, Reason::UnknownFragment)] {
            let tables = tables()?;
            tables.clock.set(100 * SECOND);
            let first = workload::to_workload(&at(&part(0), B), &tables).reason;
            assert_eq!(first, Reason::PolicyAllow);
            tables.clock.set((100 + seconds) * SECOND);
            let later = workload::to_workload(&at(&part(5), B), &tables).reason;
            assert_eq!(later, reason, "after {seconds} s");
        }
    }
    Ok(())
}

/// The kernel hands over TCP of more than 64 KiB in one piece, whose length field says 0 ("BIG TCP", Linux 6.3).
#[test]
fn a_packet_that_is_longer_than_its_length_field_can_say_is_read() -> Result<()> {
    for v6 in [false, true] {
        let frame = |payload: usize| {
            let mut bytes = Frame {
                payload: 0,
                ..Frame::new(address("remote", v6), address("b", v6), 6, 1000, 80)
            }
            .bytes();
            bytes.resize(bytes.len() + payload, 0);
            let length = ETHERNET as usize + if v6 { 4 } else { 2 };
            bytes[length..length + 2].copy_from_slice(&[0, 0]);
            bytes
        };
        let judged = |payload| -> Result<Reason> {
            Ok(workload::to_workload(&at(&frame(payload), B), &tables()?).reason)
        };
        assert_eq!(judged(200_000)?, Reason::PolicyAllow);
        // No wire carries such a thing.
        assert_eq!(judged(1000)?, Reason::Malformed);
    }
    Ok(())
}
