//! Flow records have a limit, so that a flood of what is dropped is not paid for twice; counters have none.

use anyhow::Result;
use calico_azure_ebpf::abi::{Hook, Reason};
use calico_azure_tests::harness::packet::Frame;
use calico_azure_tests::harness::scenario::{A, Bench, address, policy, store};
use calico_azure_tests::harness::{At, Returned};

const UDP: u8 = 17;
const PACKETS: u64 = 200;
const LIMIT: u32 = 5;
/// That 200 packets take at most, on a machine that has other things to do: windows are 134 ms.
const WINDOWS: u64 = 20;

#[test]
fn what_is_not_recorded_is_counted() -> Result<()> {
    let mut bench = Bench::new("records", &store([policy("a", "a", None, Some(vec![]))]))?;
    let denied = |bench: &Bench| -> Result<(u64, u64)> {
        let counters = bench.harness.dataplane.io_ref().maps().counters()?;
        let totals = counters.totals()?;
        let denied = totals.get(&(Hook::FromWorkload, Reason::PolicyDeny));
        Ok((denied.map_or(0, |count| count.packets), counters.lost_records()?))
    };
    for limited in [false, true] {
        let limit = if limited { LIMIT } else { 0 };
        bench.harness.configure(|config| config.records = limit)?;
        let before = denied(&bench)?;
        let mut recorded = 0;
        for port in 0..PACKETS {
            let port = u16::try_from(port)?;
            let packet = Frame::new(address("a", false), address("b", false), UDP, 1000, port).bytes();
            let (returned, event) = bench.harness.observe(At::from_workload(A), &packet)?;
            assert_eq!(returned, Returned::Drop);
            recorded += u64::from(event.is_some());
        }
        let after = denied(&bench)?;
        assert_eq!(after.0 - before.0, PACKETS, "every drop is counted");
        assert_eq!(
            after.1 - before.1,
            PACKETS - recorded,
            "so is every record left out"
        );
        if limited {
            let most = u64::from(LIMIT) * WINDOWS;
            assert!((u64::from(LIMIT)..=most).contains(&recorded), "{recorded}");
        } else {
            assert_eq!(recorded, PACKETS);
        }
    }
    Ok(())
}
