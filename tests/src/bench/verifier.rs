//! What the verifier says of each program.

use anyhow::Result;
use calico_azure_ebpf::abi::program;
use calico_azure_userspace::dataplane::kernel::{Kernel, PROGRAMS, SOCKET_PROGRAMS, Sizes};

use super::output::machine;
use crate::harness::object;

/// The verifier may look at this many instructions of a program at most.
const VERIFIED_LIMIT: u32 = 100_000;
/// On kernels whose verifier prunes less: what 6.12 takes 90,000 steps for takes 6.1 710,000. They allow a million.
const VERIFIED_LIMIT_OLD: u32 = 850_000;

fn limit() -> u32 {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    match (numbers.next(), numbers.next()) {
        (Some(major), Some(minor)) if (major, minor) < (6, 12) => VERIFIED_LIMIT_OLD,
        _ => VERIFIED_LIMIT,
    }
}

/// Instructions that the verifier looked at, for each program.
pub(super) fn run() -> Result<bool> {
    let mut kernel = Kernel::load(
        &object()?,
        None,
        Sizes {
            conntrack: 1024,
            half_open: 1024,
            tables: 1024,
        },
    )?;
    let limit = limit();
    let mut fine = true;
    println!(
        "{:<16} {:>22} {:>14}",
        "PROGRAM", "VERIFIED INSTRUCTIONS", "JITED BYTES"
    );
    let programs = PROGRAMS.into_iter().chain(SOCKET_PROGRAMS);
    for name in programs.chain([program::UNTRACKED]) {
        let (instructions, bytes) = kernel.verified(name)?;
        fine &= instructions <= limit;
        println!("{name:<16} {instructions:>22} {bytes:>14}");
    }
    println!(
        "limit {limit}; the stack limit of 512 bytes is the verifier's own. {}",
        machine()
    );
    Ok(fine)
}
