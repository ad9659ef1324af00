//! Host endpoints: which policy sets each stage of an interface has.

use super::abi_struct;

abi_struct! {
    /// Value of `HOSTS`, keyed by ifindex; 0 for what passes through the interfaces of pods
    /// (`interfaceName: "*"`), or goes from a pod to its host.
    pub struct HostEndpoint {
        /// Slot words by `host_set`. A stage with set 0 decides nothing; an endpoint whose normal stage has set 0 is
        /// none.
        pub sets: [u64; HOST_SETS],
    }
}

/// Stages of a host endpoint, each in two directions, and what pods may send to the host.
pub const HOST_SETS: usize = 11;

/// Index of a stage's set for what comes in; the next one is for what goes out.
pub mod host_set {
    /// Ports that no policy can close.
    pub const FAILSAFE: usize = 0;
    /// `doNotTrack`.
    pub const UNTRACKED: usize = 2;
    /// `preDNAT`: only for what comes in.
    pub const PRE_DNAT: usize = 4;
    /// `applyOnForward`, for what passes through.
    pub const FORWARD: usize = 6;
    /// What the host itself sends and gets.
    pub const NORMAL: usize = 8;
    /// No policy set: one of `to_host`. Only at key 0.
    pub const TO_HOST: usize = 10;
}

/// What becomes of what a pod sends to its own host, after the pod's policy allowed it. Nothing said is a drop.
pub mod to_host {
    /// It passes, unless `preDNAT` policy is against it.
    pub const ACCEPT: u32 = 1;
    /// The host endpoint decides, as for what is the host's own.
    pub const RETURN: u32 = 2;
}
