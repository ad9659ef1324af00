//! The loaded programs, fed packet by packet through `BPF_PROG_TEST_RUN`: no interface carries any traffic.

pub mod expected;
pub mod hosts;
pub mod scenario;

use std::io;
use std::ops::{Deref, DerefMut};

use anyhow::{Context as _, Result, ensure};
use calico_azure_userspace::dataplane::kernel::Sizes;
pub use calico_azure_userspace::dataplane::testrun::{At, Returned, Runner, frame as packet, settings};

use crate::lab::NetNs;

/// Programs, maps and a network namespace of their own.
pub struct Harness {
    runner: Runner,
    _namespace: NetNs,
}

/// Interfaces that exist in the harness's namespace, besides loopback.
pub const IFINDEXES: std::ops::Range<u32> = 10..266;

/// Room for every test that does not ask for less.
const SIZES: Sizes = Sizes {
    conntrack: 65_536,
    half_open: 65_536,
    tables: 1_048_576,
};

impl Harness {
    /// Loads everything. The calling thread moves into the namespace for good.
    ///
    /// # Errors
    /// Without root, or if the kernel refuses.
    pub fn new(name: &str) -> Result<Self> {
        Self::with_sizes(name, SIZES)
    }

    /// As [`Self::new`], with maps of other sizes.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with_sizes(name: &str, sizes: Sizes) -> Result<Self> {
        let namespace = NetNs::create(&format!("caz-{}-{name}", std::process::id()))?;
        // The other halves come into being on their own; only their indices must stay clear of ours.
        let links: String = IFINDEXES
            .step_by(2)
            .map(|i| {
                let j = i + 1;
                format!("link add t{i} index {i} type veth peer name t{j} index {j}\n")
            })
            .collect();
        let batch = tempfile::NamedTempFile::new()?;
        std::fs::write(batch.path(), links)?;
        namespace.ip(&["-batch", &batch.path().to_string_lossy()])?;
        namespace.enter()?;
        Ok(Self {
            runner: Runner::load(&object()?, sizes)?,
            _namespace: namespace,
        })
    }
}

impl Deref for Harness {
    type Target = Runner;

    fn deref(&self) -> &Runner {
        &self.runner
    }
}

impl DerefMut for Harness {
    fn deref_mut(&mut self) -> &mut Runner {
        &mut self.runner
    }
}

/// The object that `cargo xtask build` made.
///
/// # Errors
/// If there is none.
pub fn object() -> Result<Vec<u8>> {
    match std::env::var_os("CALICO_AZURE_EBPF_OBJECT") {
        Some(path) => read(path.as_ref()),
        None => built("calico-azure-tc.o"),
    }
}

/// An object in the target directory.
///
/// # Errors
/// If it was not built.
pub fn built(name: &str) -> Result<Vec<u8>> {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .context("no workspace")?;
    let target = match std::env::var_os("CARGO_TARGET_DIR").filter(|dir| !dir.is_empty()) {
        Some(dir) => dir.into(),
        None => root.join("target"),
    };
    read(&target.join("bpf").join(name))
}

fn read(path: &std::path::Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| {
        format!(
            "{}: run `cargo xtask build`, or `cargo xtask bench` for what benchmarks compare with",
            path.display()
        )
    })
}

/// Keeps the calling thread on one processor.
///
/// # Errors
/// What the kernel says.
pub fn pin(cpu: usize) -> Result<()> {
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    // SAFETY: all zeros is the empty set, and the number is within it.
    let set = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu % count.min(1024), &mut set);
        set
    };
    // SAFETY: a valid set of that size; 0 is the calling thread.
    let done = unsafe { libc::sched_setaffinity(0, size_of_val(&set), &raw const set) };
    ensure!(done == 0, "sched_setaffinity: {}", io::Error::last_os_error());
    Ok(())
}
