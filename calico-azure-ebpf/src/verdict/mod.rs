//! The only place where precedence lives. The same code decides in the kernel and on the host.
//!
//! `from_workload`, in order, first match wins:
//!
//! | what | verdict |
//! |---|---|
//! | more than two VLAN tags inside the frame | `VlanTagged`; behind fewer, what follows is judged |
//! | ARP | `AlwaysAllowed` |
//! | no agent has applied yet / no endpoint behind the interface | `NotConfigured` / `NoEndpoint` |
//! | not IPv4 or IPv6 / malformed / too many extension headers | drop with that reason |
//! | neighbour solicitation, MLD, DHCP discovery from no, a link-local or the pod's own source, to a neighbour or all of the link | `AlwaysAllowed` |
//! | source is not the pod's | `SpoofedSource` |
//! | transport header cut short, also in a first fragment; fragments that overlap it | `Malformed` |
//! | IPv4 options | `IpOptions` |
//! | IPIP or VXLAN, unless allowed | `WorkloadTunnel` |
//! | an ICMP error | see [`related`] |
//! | a later fragment | as its first, see [`datagram`] |
//! | endpoint without complete policy | `NotReady` |
//! | to the wireserver or the instance metadata service | see [`azure`] |
//! | to a service address and port | `Service` |
//! | flow approved in this epoch by the pod's egress, or reply to one approved by its ingress | `Established` |
//! | anything else, a new flow or one whose approval is stale: the pod's egress policy (ingress for a reply) | `PolicyAllow` / `PolicyDeny` |
//! | what it allows of a new flow: to the node's podCIDR, where no pod that we know has the address, or by an interface that no agent has looked at | `NoSuchWorkload`; `to_workload`, from there: `UnknownSource` |
//!
//! For some time after the first start on a node, what policy denies of a TCP connection that begins in its middle passes if policy
//! allows that the other side began it: it may well have, before there was anybody to see it.
//!
//! `to_workload` is the same with ingress and egress exchanged and without the checks of source and tunnels; what the
//! host itself sends to its pod is `FromHost` (kubelet's probes), before policy. `from_fabric` and `to_fabric`: see
//! [`fabric`]. What a pod sends to a service passes `from_workload` as `Service`, marked, and is judged where it leaves:
//! see [`service`].

pub mod azure;
pub mod behind;
mod beside;
mod datagram;
mod entry;
mod express;
pub mod fabric;
mod flow;
mod host;
mod judge;
pub mod peer;
mod policy;
mod related;
pub mod reset;
pub mod service;
pub mod tables;
mod tunnel;
mod untracked;
pub mod workload;

pub use entry::timeout;
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

/// Which families a program judges; what it does with the others is up to its caller. One program for both would make
/// the verifier follow twice as many instructions.
pub mod part {
    /// IPv4, and what is not IP.
    pub const V4: u8 = 1;
    /// IPv6, and what is not IP.
    pub const V6: u8 = 2;
    /// All of it.
    pub const WHOLE: u8 = V4 | V6;
    /// Without the short way: what that is compared with.
    pub const LONG: u8 = 4;
}

/// What a program for [`part::WHOLE`] leaves to another: nothing.
#[inline(always)]
fn nothing_left() -> Outcome {
    Outcome::of(Reason::UnsupportedEthertype)
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
