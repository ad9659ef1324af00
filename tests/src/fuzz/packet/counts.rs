//! How many frames each program's code saw, and how many of them it let pass. One count for all threads; `bin/fuzz.rs` prints it.

use std::sync::atomic::{AtomicU64, Ordering};

use calico_azure_ebpf::abi::program;

use super::Hook;

/// By [`Hook`].
static SEEN: [AtomicU64; NAMES.len()] = [const { AtomicU64::new(0) }; NAMES.len()];
static PASSED: [AtomicU64; NAMES.len()] = [const { AtomicU64::new(0) }; NAMES.len()];

/// What runs of the programs, in the order of [`Hook`].
const NAMES: [&str; 10] = [
    program::FROM_WORKLOAD,
    program::TO_WORKLOAD,
    program::FROM_FABRIC,
    program::TO_FABRIC,
    "host_in",
    "host_out",
    program::UNTRACKED,
    "reset",
    program::SERVICE,
    program::TO_HOST,
];

/// Frames at one hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    pub hook: &'static str,
    pub seen: u64,
    /// Of those that `reset` saw, those that it answers.
    pub passed: u64,
}

pub(super) fn count(hook: Hook, passed: bool) {
    SEEN[hook as usize].fetch_add(1, Ordering::Relaxed);
    if passed {
        PASSED[hook as usize].fetch_add(1, Ordering::Relaxed);
    }
}

/// What this process has run so far.
#[must_use]
pub fn counted() -> Vec<Counted> {
    let counts = SEEN.iter().zip(&PASSED);
    NAMES
        .iter()
        .zip(counts)
        .map(|(hook, (seen, passed))| Counted {
            hook,
            seen: seen.load(Ordering::Relaxed),
            passed: passed.load(Ordering::Relaxed),
        })
        .collect()
}
