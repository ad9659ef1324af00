//! What the kernel says of a process.

use std::fs;

use anyhow::{Context as _, Result};

/// `VmRSS`, `VmHWM` and others of `/proc/PID/status`, bytes. `pid`: a number, or `self`.
pub(crate) fn memory(pid: &str, field: &str) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let mut lines = text.lines();
    let value = lines.find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let kib: u64 = value
        .and_then(|value| value.split_whitespace().next()?.parse().ok())
        .with_context(|| format!("no {field} in /proc/{pid}/status"))?;
    Ok(kib << 10)
}

/// Processor time of all its threads so far, those that ended included: seconds, to a hundredth (proc(5): `utime` and `stime`, in ticks,
/// of which Linux has 100 a second on every processor we know).
pub(crate) fn processor_time(pid: u32) -> Result<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // A name may hold spaces and parentheses.
    let (_, rest) = text.rsplit_once(')').context("no name in /proc/PID/stat")?;
    let ticks: Vec<u64> = rest
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse().ok())
        .collect();
    Ok(ticks.iter().sum::<u64>() as f64 / 100.0)
}
