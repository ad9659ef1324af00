//! The only place where precedence lives. The same code decides in the kernel and on the host.
//!
//! `from_workload`, in order, first match wins:
//!
//! | what | verdict |
//! |---|---|
//! | no agent has applied yet / no endpoint behind the interface | `NotConfigured` / `NoEndpoint` |
//! | ARP; neighbour solicitation, MLD, DHCP discovery from no or a link-local source | `AlwaysAllowed` |
//! | not IPv4 or IPv6 / malformed / too many extension headers | drop with that reason |
//! | source is not the pod's | `SpoofedSource` |
//! | endpoint without complete policy | `NotReady` |
//! | later fragment of an unknown datagram | `UnknownFragment` |
//! | to a service address and port | `Service` |
//! | flow approved in this epoch by the pod's egress, or reply to one approved by its ingress | `Established` |
//! | anything else, a new flow or one whose approval is stale: the pod's egress policy (ingress for a reply) | `PolicyAllow` / `PolicyDeny` |
//!
//! `to_workload` is the same with ingress and egress exchanged and without the source check; what the host itself
//! sends to its pod is `FromHost` (kubelet's probes), before policy. `from_fabric` and `to_fabric`: see [`fabric`]. What
//! a pod sends to a service passes `from_workload` as `Service`, marked, and is judged where it leaves: see [`service`].

pub mod fabric;
mod flow;
mod policy;
pub mod service;
pub mod tables;
pub mod workload;

pub use flow::timeout;
pub use tables::{AllTables, CtTable, FamilyTables, Tables};

use crate::abi::Reason;

/// What was decided, and by what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Why; tells whether the packet passes.
    pub reason: Reason,
    /// Deciding rule, 0 if no rule decided.
    pub rule: u32,
    /// A `Log` rule matched.
    pub log: bool,
}

impl Outcome {
    /// An outcome that no rule decided.
    #[inline(always)]
    #[must_use]
    pub const fn of(reason: Reason) -> Self {
        Self {
            reason,
            rule: 0,
            log: false,
        }
    }
}
