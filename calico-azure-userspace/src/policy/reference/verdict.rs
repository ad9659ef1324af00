//! What the evaluator answers: verdicts, and how they came about.

use std::fmt;
use std::net::IpAddr;

use super::Criterion;
use crate::model::{Action, Key, TierDefault};
use crate::policy::{Direction, RuleRef};

/// What the policies say about a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Whether it passes.
    pub allow: bool,
    /// Whether a `Log` rule matched on the way.
    pub log: bool,
    /// What decided.
    pub rule: RuleRef,
    /// Everything that was looked at, in order.
    pub trace: Vec<TraceStep>,
}

/// One step of an evaluation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TraceStep {
    /// One of the lists of tiers that a host endpoint has.
    Stage { stage: Stage },
    /// A tier of which at least one policy governs the endpoint in this direction.
    Tier { tier: String },
    /// A policy of the tier that governs the endpoint in this direction.
    Policy { policy: Key },
    /// A rule that does not match, and its first criterion that fails. (`policy` may be a Profile.)
    Missed {
        policy: Key,
        index: u32,
        criterion: Criterion,
    },
    /// A rule that matches.
    Matched { policy: Key, index: u32, action: Action },
    /// No policy of the tier decided.
    TierDefault { tier: String, action: TierDefault },
    /// A profile that allows everything, or a missing one, which denies.
    Profile { name: String, allow: bool },
}

/// A flow's first packet between two addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Flow {
    /// Source.
    pub src: IpAddr,
    /// Destination, after service translation.
    pub dst: IpAddr,
    /// IP protocol number.
    pub protocol: u8,
    /// As [`crate::policy::Probe::sport`].
    pub sport: u16,
    /// As [`crate::policy::Probe::dport`].
    pub dport: u16,
}

/// What a packet has to get through on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stage {
    /// The egress policy of the pod that sends.
    PodEgress,
    /// The ingress policy of the pod that receives.
    PodIngress,
    /// `defaultEndpointToHostAction`: from a pod to its own host.
    EndpointToHost,
    /// A host reaches its own pods.
    HostToPod,
    /// A host endpoint's failsafe ports.
    Failsafe,
    /// A host endpoint's `doNotTrack` policies.
    Untracked,
    /// A host endpoint's `preDNAT` policies.
    PreDnat,
    /// A host endpoint's `applyOnForward` policies, for what passes through.
    Forward,
    /// A host endpoint's policies and profiles, for what the host itself sends or gets.
    Normal,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PodEgress => "pod's egress policy",
            Self::PodIngress => "pod's ingress policy",
            Self::EndpointToHost => "pod-to-host action",
            Self::HostToPod => "host to its own pod",
            Self::Failsafe => "failsafe ports",
            Self::Untracked => "untracked host policy",
            Self::PreDnat => "pre-DNAT host policy",
            Self::Forward => "forward host policy",
            Self::Normal => "host policy",
        })
    }
}

/// A stage of a packet's way, and what was said there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leg {
    /// Where it was decided.
    pub stage: Stage,
    /// `namespace/name` of the pod, or the host endpoint's name.
    pub at: String,
    /// Whether it gets or sends the packet.
    pub direction: Direction,
    pub verdict: Verdict,
}

/// What everybody on its way says about a flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathVerdict {
    /// Whether it passes all.
    pub allow: bool,
    /// `namespace/name` and egress verdict of the pod that owns the source, if one does.
    pub egress: Option<(String, Verdict)>,
    /// The same of the destination's ingress. `None` also for what the host sends to its own pod.
    pub ingress: Option<(String, Verdict)>,
    /// All stages in the order of the way, also those after one that denied.
    pub legs: Vec<Leg>,
}

impl PathVerdict {
    /// The first stage that denied.
    #[must_use]
    pub fn denied_at(&self) -> Option<&Leg> {
        self.legs.iter().find(|leg| !leg.verdict.allow)
    }
}
