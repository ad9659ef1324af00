//! The loaded programs, fed packet by packet through `BPF_PROG_TEST_RUN`: no interface carries any traffic.

pub mod packet;
pub mod scenario;

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use calico_azure_ebpf::abi::{CONFIG_LOG_ALLOWED, Config, DEFAULT_TIMEOUTS, Event, Pod as _, program};
use calico_azure_userspace::dataplane::kernel::{Kernel, Sizes};
use calico_azure_userspace::dataplane::plan::Settings;
use calico_azure_userspace::dataplane::ring::Events;
use calico_azure_userspace::dataplane::{Dataplane, MapIo as _, Table};

use crate::lab::NetNs;

/// What a program returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Returned {
    /// `TCX_NEXT`: other programs may still drop the packet.
    Next,
    /// `TCX_DROP`.
    Drop,
}

/// Where a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct At {
    /// One of `abi::program`.
    pub program: &'static str,
    /// Interface that the program runs on; must exist in the harness's namespace.
    pub ifindex: u32,
    /// Interface that the packet entered the host by; 0: the host sent it.
    pub ingress_ifindex: u32,
}

impl At {
    /// A pod sends.
    #[must_use]
    pub fn from_workload(ifindex: u32) -> Self {
        Self {
            program: program::FROM_WORKLOAD,
            ifindex,
            ingress_ifindex: ifindex,
        }
    }

    /// A pod is sent something that the host forwards.
    #[must_use]
    pub fn to_workload(ifindex: u32) -> Self {
        Self {
            program: program::TO_WORKLOAD,
            ifindex,
            ingress_ifindex: 1,
        }
    }
}

/// Programs, maps and a network namespace of their own.
pub struct Harness {
    pub dataplane: Dataplane<Kernel>,
    events: Events,
    _namespace: NetNs,
}

/// Interfaces that exist in the harness's namespace, besides loopback.
pub const IFINDEXES: std::ops::Range<u32> = 10..266;

/// Every new flow is recorded, so that each packet's rule is known.
#[must_use]
pub fn settings() -> Settings {
    Settings {
        flags: CONFIG_LOG_ALLOWED,
        timeouts: DEFAULT_TIMEOUTS,
    }
}

impl Harness {
    /// Loads everything. The calling thread moves into the namespace for good.
    ///
    /// # Errors
    /// Without root, or if the kernel refuses.
    pub fn new(name: &str) -> Result<Self> {
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
        let sizes = Sizes {
            conntrack: 65_536,
            half_open: 65_536,
            tables: 1_048_576,
        };
        let mut kernel = Kernel::load(&object()?, None, sizes)?;
        let events = Events::take(&mut kernel)?;
        Ok(Self {
            dataplane: Dataplane::open(kernel)?,
            events,
            _namespace: namespace,
        })
    }

    /// Runs a program on a packet once.
    ///
    /// # Errors
    /// What the kernel says, or an unexpected return value.
    pub fn run(&mut self, at: At, packet: &[u8]) -> Result<Returned> {
        Ok(self.run_timed(at, packet, 1)?.0)
    }

    /// Runs a program on a packet `repeat` times; the last verdict and the mean time.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn run_timed(&mut self, at: At, packet: &[u8], repeat: u32) -> Result<(Returned, Duration)> {
        let (value, duration) = self
            .dataplane
            .io()
            .test_run(at.program, packet, &context(at), repeat)?;
        let returned = match value.cast_signed() {
            -1 => Returned::Next,
            2 => Returned::Drop,
            other => bail!("{} returned {other}", at.program),
        };
        Ok((returned, duration))
    }

    /// Runs a program on a packet; the verdict and the event it caused, if any.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn observe(&mut self, at: At, packet: &[u8]) -> Result<(Returned, Option<Event>)> {
        while self.events.next_event().is_some() {}
        let returned = self.run(at, packet)?;
        Ok((returned, self.events.next_event()))
    }

    /// Reads and forgets all events.
    pub fn drain(&mut self) -> usize {
        std::iter::from_fn(|| self.events.next_event()).count()
    }

    /// Sets the kernel's configuration without the planner, for tests of single settings.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn configure(&mut self, change: impl FnOnce(&mut Config)) -> Result<()> {
        let mut config = self.dataplane.image().config;
        change(&mut config);
        self.dataplane
            .io()
            .put(Table::Config, 0_u32.bytes(), config.bytes())?;
        Ok(())
    }
}

/// The object that `cargo xtask build` made.
///
/// # Errors
/// If there is none.
pub fn object() -> Result<Vec<u8>> {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .context("no workspace")?;
    let path = match std::env::var_os("CALICO_AZURE_EBPF_OBJECT") {
        Some(path) => path.into(),
        None => root.join("target/bpf/calico-azure-tc.o"),
    };
    std::fs::read(&path).with_context(|| format!("{}: run `cargo xtask build` first", path.display()))
}

/// `struct __sk_buff` up to `ifindex`; the kernel takes the rest as zero.
fn context(at: At) -> [u8; 44] {
    let mut context = [0; 44];
    context[36..40].copy_from_slice(&at.ingress_ifindex.to_ne_bytes());
    context[40..44].copy_from_slice(&at.ifindex.to_ne_bytes());
    context
}
