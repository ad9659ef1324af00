//! The loaded programs, fed packet by packet through `BPF_PROG_TEST_RUN`: no interface carries any traffic.

pub mod frame;
mod pods;

use std::io;
use std::time::Duration;

use calico_azure_ebpf::abi::{CONFIG_LOG_ALLOWED, Config, Configs, Event, Pod as _, program};

pub use pods::{Pods, Seen};

use super::apply::{ApplyError, Dataplane};
use super::io::{MapIo as _, Table};
use super::kernel::{Kernel, KernelError, Sizes};
use super::plan::Settings;
use super::ring::Events;

/// Programs cannot be run on packets here.
#[derive(Debug, thiserror::Error)]
pub enum TestRunError {
    #[error("{0}")]
    Kernel(#[from] KernelError),
    #[error("{0}")]
    Apply(#[from] ApplyError),
    #[error("a network namespace of its own: {0} (it needs root, or CAP_SYS_ADMIN)")]
    Namespace(#[source] io::Error),
    #[error("reading or writing the maps: {0}")]
    Maps(#[source] io::Error),
    #[error("{program} returned {value}; expected -1 (go on) or 2 (drop)")]
    Returned { program: &'static str, value: i32 },
    #[error("{program} passed a packet and said nothing of why")]
    Silent { program: &'static str },
}

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
    /// Interface that the program runs on; must exist in the calling thread's network namespace.
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

/// Every new flow is recorded, so that each packet's rule is known. Packets are taken to be translated already.
#[must_use]
pub fn settings() -> Settings {
    Settings {
        flags: CONFIG_LOG_ALLOWED,
        ..Settings::default()
    }
}

/// Programs, and maps that nobody else has.
pub struct Runner {
    pub dataplane: Dataplane<Kernel>,
    events: Events,
}

impl Runner {
    /// Loads everything; nothing is pinned or attached.
    ///
    /// # Errors
    /// Without root, or if the kernel refuses.
    pub fn load(object: &[u8], sizes: Sizes) -> Result<Self, TestRunError> {
        let mut kernel = Kernel::load(object, None, sizes)?;
        let events = Events::take(&mut kernel)?;
        Ok(Self {
            dataplane: Dataplane::open(kernel)?,
            events,
        })
    }

    /// Runs a program on a packet once.
    ///
    /// # Errors
    /// What the kernel says, or an unexpected return value.
    pub fn run(&mut self, at: At, packet: &[u8]) -> Result<Returned, TestRunError> {
        Ok(self.run_timed(at, packet, 1)?.0)
    }

    /// As [`Self::observe`], for a packet that carries a mark, and the mark that it has afterwards.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn observe_marked(
        &mut self,
        at: At,
        packet: &[u8],
        mark: u32,
    ) -> Result<(Returned, u32, Vec<Event>), TestRunError> {
        self.drain();
        let mut context = context(at);
        context[MARK].copy_from_slice(&mark.to_ne_bytes());
        let (value, _) = self
            .dataplane
            .io()
            .test_run(at.program, packet, &mut context, 1)?;
        let mut mark = [0; 4];
        mark.copy_from_slice(&context[MARK]);
        let events = std::iter::from_fn(|| self.events.next_event()).collect();
        Ok((returned(at, value)?, u32::from_ne_bytes(mark), events))
    }

    /// Runs a program on a packet `repeat` times; the last verdict and the mean time.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn run_timed(
        &mut self,
        at: At,
        packet: &[u8],
        repeat: u32,
    ) -> Result<(Returned, Duration), TestRunError> {
        let (value, duration) = self
            .dataplane
            .io()
            .test_run(at.program, packet, &mut context(at), repeat)?;
        Ok((returned(at, value)?, duration))
    }

    /// Runs a program on a packet; the verdict and the event it caused, if any.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn observe(&mut self, at: At, packet: &[u8]) -> Result<(Returned, Option<Event>), TestRunError> {
        self.drain();
        let returned = self.run(at, packet)?;
        Ok((returned, self.events.next_event()))
    }

    /// Runs a program on a packet that it may answer: the answer, if it sends one back.
    ///
    /// # Errors
    /// As [`Self::run`]; also if the packet passes.
    pub fn answer(&mut self, at: At, packet: &[u8]) -> Result<Option<Vec<u8>>, TestRunError> {
        let (value, out) = self
            .dataplane
            .io()
            .test_rewrite(at.program, packet, &context(at))?;
        let program = at.program;
        match value.cast_signed() {
            TC_ACT_REDIRECT => Ok(Some(out)),
            TC_ACT_SHOT => Ok(None),
            value => Err(TestRunError::Returned { program, value }),
        }
    }

    /// Reads and forgets all events.
    pub fn drain(&mut self) -> usize {
        std::iter::from_fn(|| self.events.next_event()).count()
    }

    /// Sets the kernel's configuration without the planner, for tests of single settings.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn configure(&mut self, change: impl FnOnce(&mut Config)) -> io::Result<()> {
        let mut config = self.dataplane.image().config;
        change(&mut config);
        let [configs, _] = Configs::change(self.dataplane.image().live, config, config);
        self.dataplane
            .io()
            .put(Table::Config, 0_u32.bytes(), configs.bytes())
    }
}

fn returned(at: At, value: u32) -> Result<Returned, TestRunError> {
    if at.program == program::TO_HOST && value < 2 {
        let passes = value == 1;
        return Ok(if passes { Returned::Next } else { Returned::Drop });
    }
    match value.cast_signed() {
        -1 => Ok(Returned::Next),
        TC_ACT_SHOT => Ok(Returned::Drop),
        value => {
            let program = at.program;
            Err(TestRunError::Returned { program, value })
        }
    }
}

/// linux/pkt_cls.h.
const TC_ACT_SHOT: i32 = 2;
const TC_ACT_REDIRECT: i32 = 7;

/// Bytes of `struct __sk_buff` (linux/bpf.h, since 5.16 with `hwtstamp`).
const CONTEXT: usize = 192;
/// Where the mark is in it.
const MARK: std::ops::Range<usize> = 8..12;

/// `struct __sk_buff`, whole, because the kernel refuses to give back only a part. What an older kernel's does not have is zero.
fn context(at: At) -> [u8; CONTEXT] {
    let mut context = [0; CONTEXT];
    // Kernels before 5.17 refuse to be told where a packet came in; a program on packets that come in does not ask.
    if !matches!(at.program, program::FROM_WORKLOAD | program::FROM_FABRIC) {
        context[36..40].copy_from_slice(&at.ingress_ifindex.to_ne_bytes());
    }
    context[40..44].copy_from_slice(&at.ifindex.to_ne_bytes());
    context
}
