//! What the verifier says of each program.

use anyhow::Result;
use calico_azure_userspace::dataplane::kernel::{Kernel, PROGRAMS, Sizes};

use super::output::machine;
use crate::harness::object;

/// The verifier may look at this many instructions of a program at most.
const VERIFIED_LIMIT: u32 = 100_000;

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
    let mut fine = true;
    println!(
        "{:<16} {:>22} {:>14}",
        "PROGRAM", "VERIFIED INSTRUCTIONS", "JITED BYTES"
    );
    for name in PROGRAMS {
        let (instructions, bytes) = kernel.verified(name)?;
        fine &= instructions <= VERIFIED_LIMIT;
        println!("{name:<16} {instructions:>22} {bytes:>14}");
    }
    println!(
        "limit {VERIFIED_LIMIT}; the stack limit of 512 bytes is the verifier's own. {}",
        machine()
    );
    Ok(fine)
}
