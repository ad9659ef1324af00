//! From validated resources to the kernel's tables; pure: no tokio, no aya, no clock, no randomness.
//!
//! ```text
//! store ── topology ──┬── compile ── Desired ── lookup     what the kernel will decide
//!   (what is known)   └── reference                        what the policies say, rule by rule
//! ```
//!
//! [`compile`] decides order once: every address predicate that a policy active on this node uses gets an id; the
//! predicates that hold for an address are its *peer class*; endpoints with the same tiers, policies and profile
//! share a *policy set*; and for each (set, class) the first match of every protocol and port is painted into a
//! *port table*. [`lookup`] reads the result exactly as the kernel does. [`mod@reference`] shares none of that: it
//! walks tiers, policies and rules for one packet, and is what the tables are tested against, over the clusters
//! and packets that [`generate`] makes up.

pub mod compile;
mod desired;
pub mod generate;
pub mod labels;
pub mod lookup;
mod order;
pub mod pending;
mod problem;
pub mod reference;
mod routes;
mod services;
pub mod store;
#[cfg(test)]
mod tests;
pub mod topology;
pub mod wire;

pub use compile::{Change, CompileError, Compiler, Output, Reserved, SetInfo};
pub use desired::*;
pub use problem::Problem;
pub use store::{Event, Interface, Interfaces, NodeFacts, Store};

use std::net::IpAddr;

/// Which of an endpoint's two policies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Direction {
    /// What the endpoint receives.
    Ingress,
    /// What the endpoint sends.
    Egress,
}

impl Direction {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Ingress, Self::Egress];
}

/// The first packet of a flow, as one endpoint's policy sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Probe {
    /// The other side: source for ingress, destination for egress.
    pub peer: IpAddr,
    /// The endpoint's own address, of the same family.
    pub own: IpAddr,
    /// IP protocol number.
    pub protocol: u8,
    /// Source port; 0 for protocols without ports.
    pub sport: u16,
    /// Destination port; `type << 8 | code` for ICMP and ICMPv6; 0 for protocols without ports.
    pub dport: u16,
}

/// What a host endpoint sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Traffic {
    /// What the host itself sends or gets through one of its own interfaces.
    Local,
    /// What passes through one of its own interfaces.
    Forwarded,
    /// What a pod sends to its host, if `defaultEndpointToHostAction` does not forbid it: only pre-DNAT policies of endpoints
    /// for all interfaces are asked, also where it is `Return`.
    PodToHost,
    /// What passes through a pod's interface: only endpoints for all interfaces see it.
    PodForwarded,
}
