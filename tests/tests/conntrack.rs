//! What becomes of conntrack entries between packets: they expire, and are cleared away when they have.

use std::time::Duration;

use anyhow::Result;
use calico_azure_ebpf::abi::{DEFAULT_TIMEOUTS, Hook, Reason, TIMEOUT_TCP_RESET, TIMEOUT_UDP, map};
use calico_azure_tests::harness::At;
use calico_azure_tests::harness::packet::{ACK, Frame, RST, SYN};
use calico_azure_tests::harness::scenario::{B, Bench, address, policy, rule, store};
use calico_azure_userspace::dataplane::expire::{Pass, expire};
use calico_azure_userspace::model::Action;

const TCP: u8 = 6;
const UDP: u8 = 17;
/// In nanoseconds.
const HOUR: u64 = 3_600_000_000_000;

fn entries(bench: &Bench) -> Result<Vec<usize>> {
    let maps = bench.harness.dataplane.io_ref().maps();
    [map::CT_EST4, map::CT_HALF4, map::CT_EST6, map::CT_HALF6]
        .map(|name| Ok(maps.dump_map(name)?.len()))
        .into_iter()
        .collect()
}

#[test]
fn only_what_is_dead_is_cleared_away() -> Result<()> {
    let allow = Some(vec![rule(Action::Allow, None, &[])]);
    let mut bench = Bench::new("expire", &store([policy("b", "b", allow, None)]))?;
    // None dies while they are made, however slow the machine.
    bench.harness.configure(|config| config.timeouts = [HOUR; 8])?;
    for v6 in [false, true] {
        for port in 1..=40 {
            for protocol in [TCP, UDP] {
                let frame =
                    Frame::new(address("remote", v6), address("b", v6), protocol, 1000, port).flags(SYN);
                let at = At::to_workload(B);
                bench.expect(at, &frame.bytes(), Hook::ToWorkload, Reason::PolicyAllow)?;
                if port <= 10 {
                    let reply = frame.reply().flags(SYN | ACK).bytes();
                    bench.expect(
                        At::from_workload(B),
                        &reply,
                        Hook::FromWorkload,
                        Reason::Established,
                    )?;
                    let packet = frame.flags(ACK).bytes();
                    bench.expect(at, &packet, Hook::ToWorkload, Reason::Established)?;
                }
            }
        }
    }
    assert_eq!(entries(&bench)?, [20, 60, 20, 60]);
    let config = |bench: &Bench| bench.harness.dataplane.io_ref().maps().config();
    let sweep = |bench: &Bench, margin| -> Result<Pass> {
        let config = config(bench)?.unwrap_or_default();
        Ok(expire(bench.harness.dataplane.io_ref().maps(), &config, margin)?)
    };
    let none = Pass {
        seen: 160,
        removed: 0,
    };
    assert_eq!(sweep(&bench, Duration::ZERO)?, none);
    bench.harness.configure(|config| {
        config.timeouts = [HOUR; 8];
        config.timeouts[TIMEOUT_UDP] = 1_000_000;
    })?;
    std::thread::sleep(Duration::from_millis(40));
    assert_eq!(
        sweep(&bench, Duration::from_secs(3600))?,
        none,
        "the margin counts"
    );
    let udp = Pass {
        seen: 160,
        removed: 80,
    };
    assert_eq!(sweep(&bench, Duration::ZERO)?, udp);
    assert_eq!(entries(&bench)?, [10, 30, 10, 30]);
    // What is left still works.
    let ack = Frame::new(address("remote", false), address("b", false), TCP, 1000, 1).flags(ACK);
    bench.expect(
        At::to_workload(B),
        &ack.bytes(),
        Hook::ToWorkload,
        Reason::Established,
    )
}

/// The wait after a reset is short; one that the connection outlives must not shorten it.
#[test]
fn a_reset_counts_until_its_sender_goes_on() -> Result<()> {
    let allow = Some(vec![rule(Action::Allow, None, &[])]);
    let mut bench = Bench::new("stray", &store([policy("b", "b", allow, None)]))?;
    let (to, from) = (At::to_workload(B), At::from_workload(B));
    for (v6, goes_on) in [(false, false), (false, true), (true, false), (true, true)] {
        bench
            .harness
            .configure(|config| config.timeouts = DEFAULT_TIMEOUTS)?;
        let syn = Frame::new(address("remote", v6), address("b", v6), TCP, 1000, 80).flags(SYN);
        let answer = syn.reply().flags(SYN | ACK).bytes();
        let ack = syn.clone().flags(ACK).bytes();
        bench.expect(to, &syn.bytes(), Hook::ToWorkload, Reason::PolicyAllow)?;
        bench.expect(from, &answer, Hook::FromWorkload, Reason::Established)?;
        bench.expect(to, &ack, Hook::ToWorkload, Reason::Established)?;
        let stray = syn.clone().flags(RST).bytes();
        bench.expect(to, &stray, Hook::ToWorkload, Reason::Established)?;
        let data = syn.reply().flags(ACK).bytes();
        // The other side's word is not the sender's.
        bench.expect(from, &data, Hook::FromWorkload, Reason::Established)?;
        if goes_on {
            bench.expect(to, &ack, Hook::ToWorkload, Reason::Established)?;
        }
        bench
            .harness
            .configure(|config| config.timeouts[TIMEOUT_TCP_RESET] = 1_000_000)?;
        std::thread::sleep(Duration::from_millis(40));
        // What is no answer any more is a new flow, of which b's egress policy knows nothing bad.
        let reason = if goes_on {
            Reason::Established
        } else {
            Reason::PolicyAllow
        };
        bench.expect(from, &data, Hook::FromWorkload, reason)?;
        bench.harness.dataplane.io_ref().maps().forget_flows()?;
    }
    Ok(())
}
