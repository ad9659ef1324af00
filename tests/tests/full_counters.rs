//! The table of drops by interface when it is full: verdicts and totals are as ever. Alone in its binary, because it finds the
//! table among the descriptors of this process.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use aya::maps::{Map, MapData, MapError, PerCpuHashMap, PerCpuValues};
use calico_azure_ebpf::abi::{Hook, Reason};
use calico_azure_tests::harness::packet::Frame;
use calico_azure_tests::harness::scenario::{A, B, Bench, address, policy, rule, store};
use calico_azure_tests::harness::{At, Returned};
use calico_azure_userspace::model::Action;

const TCP: u8 = 6;
/// `BPF_MAP_TYPE_PERCPU_HASH`, of which there is one.
const PERCPU_HASH: &str = "5";

/// The id of this process's table of drops.
fn drops() -> Result<u32> {
    for entry in std::fs::read_dir("/proc/self/fdinfo")? {
        // Some are gone by now.
        let Ok(text) = std::fs::read_to_string(entry?.path()) else {
            continue;
        };
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.map(str::trim)
        };
        if field("map_type:") == Some(PERCPU_HASH) {
            return Ok(field("map_id:").context("a map without an id")?.parse()?);
        }
    }
    anyhow::bail!("no map of this kind is open")
}

#[test]
fn when_drops_of_interfaces_cannot_be_counted_verdicts_and_totals_stay_right() -> Result<()> {
    let port_80 = Some(vec![rule(Action::Allow, Some(TCP), &[(80, 80)])]);
    let mut bench = Bench::new("fullcounters", &store([policy("b", "b", port_80, None)]))?;
    let to_b = |v6, port| Frame::new(address("remote", v6), address("b", v6), TCP, 1000, port).bytes();
    // One that has its own counter before there is no more room.
    bench.expect(
        At::to_workload(B),
        &to_b(false, 81),
        Hook::ToWorkload,
        Reason::PolicyDeny,
    )?;

    let data = MapData::from_id(drops()?)?;
    let mut table: PerCpuHashMap<_, [u8; 8], [u8; 16]> = Map::PerCpuHashMap(data).try_into()?;
    let cpus = aya::util::nr_cpus().map_err(|(what, error)| anyhow::anyhow!("{what}: {error}"))?;
    let zero = || PerCpuValues::try_from(vec![[0_u8; 16]; cpus]);
    let mut added = Vec::new();
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        // Interfaces that nobody has.
        let mut key = [0; 8];
        let number = 0x4000_0000 + u32::try_from(added.len())?;
        key[..4].copy_from_slice(&number.to_ne_bytes());
        match table.insert(key, zero()?, 0) {
            Ok(()) => added.push(key),
            Err(MapError::SyscallError(error)) => match error.io_error.raw_os_error() {
                // The kernel's reserve is empty for a moment.
                Some(libc::ENOMEM) if Instant::now() < end => std::thread::sleep(Duration::from_millis(1)),
                Some(libc::E2BIG) => break,
                _ => return Err(error.into()),
            },
            Err(error) => return Err(error.into()),
        }
    }
    assert!(added.len() > 16_000, "{} entries", added.len());

    let totals = |bench: &Bench, hook, reason| -> Result<u64> {
        let totals = bench.harness.dataplane.io_ref().maps().counters()?.totals()?;
        Ok(totals.get(&(hook, reason)).map_or(0, |count| count.packets))
    };
    for v6 in [false, true] {
        // Not this one: it is counted as ever.
        let known = At::to_workload(B);
        bench.expect(known, &to_b(v6, 81), Hook::ToWorkload, Reason::PolicyDeny)?;
        bench.expect(known, &to_b(v6, 80), Hook::ToWorkload, Reason::PolicyAllow)?;
        // A drop for whose counter there is no room.
        let spoofed = Frame::new(address("b", v6), address("remote", v6), TCP, 1000, 80).bytes();
        let before = totals(&bench, Hook::FromWorkload, Reason::SpoofedSource)?;
        let (returned, event) = bench.harness.observe(At::from_workload(A), &spoofed)?;
        assert_eq!(returned, Returned::Drop);
        assert_eq!(event.map(|event| event.reason), Some(Reason::SpoofedSource as u8));
        assert_eq!(
            totals(&bench, Hook::FromWorkload, Reason::SpoofedSource)?,
            before + 1
        );
    }
    for key in &added {
        table.remove(key)?;
    }
    let spoofed = Frame::new(address("b", false), address("remote", false), TCP, 1000, 80).bytes();
    bench.expect(
        At::from_workload(A),
        &spoofed,
        Hook::FromWorkload,
        Reason::SpoofedSource,
    )
}
