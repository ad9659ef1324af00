//! One packet judged by any of three engines: the policies themselves, the compiled tables, the loaded programs.
//!
//! ```text
//! Cluster ── Judge ─┬─ reference   rules, read one by one
//!  who is    its    ├─ compiled    the tables, looked up as the kernel does
//!  where     way    └─ kernel      the programs, run on a frame
//! ```
//!
//! The way of a packet is the same for all: which pods, hosts and host endpoints have a say. Each engine answers for
//! the pods. What no table holds, host endpoints and what a pod sends to its own host, the reference answers for all.

mod answer;
mod cluster;
mod compiled;
mod engine;
mod kernel;
mod live;
mod way;

pub use answer::{Answer, reason};
pub use cluster::Cluster;
pub use compiled::Compiled;
pub use engine::{Engine, JudgeError, Reference, Said};
pub use kernel::InKernel;
pub use live::{LiveStep, LiveTables};
pub use way::{Judge, Packet, Step};

/// How judges are called on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum EngineName {
    /// Reads the policies rule by rule.
    Reference,
    /// Looks the packet up in the compiled tables, as the kernel does.
    Compiled,
    /// Runs the programs on the packet, in the kernel; needs root.
    Kernel,
}

impl EngineName {
    /// All, slowest last.
    pub const ALL: [Self; 3] = [Self::Reference, Self::Compiled, Self::Kernel];

    /// The name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reference => "reference",
            Self::Compiled => "compiled",
            Self::Kernel => "kernel",
        }
    }
}
