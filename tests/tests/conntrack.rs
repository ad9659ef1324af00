//! What becomes of conntrack entries between packets: they expire, and are cleared away when they have.

use std::time::Duration;

use anyhow::Result;
use calico_azure_ebpf::abi::{Hook, Reason, TIMEOUT_UDP, map};
use calico_azure_tests::harness::At;
use calico_azure_tests::harness::packet::{ACK, Frame, SYN};
use calico_azure_tests::harness::scenario::{B, Bench, address, policy, rule, store};
use calico_azure_userspace::dataplane::expire::{Pass, expire};
use calico_azure_userspace::model::Action;

const TCP: u8 = 6;
const UDP: u8 = 17;

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
    // All of them are some milliseconds old.
    let none = Pass {
        seen: 160,
        removed: 0,
    };
    assert_eq!(sweep(&bench, Duration::ZERO)?, none);
    bench
        .harness
        .configure(|config| config.timeouts[TIMEOUT_UDP] = 1_000_000)?;
    std::thread::sleep(Duration::from_millis(40));
    assert_eq!(sweep(&bench, Duration::from_secs(60))?, none, "the margin counts");
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
