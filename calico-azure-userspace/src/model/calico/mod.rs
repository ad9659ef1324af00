//! Calico's kinds: policies, network sets, tiers. Every field counts, so an unknown one is an error.

mod peer;
mod policy;
mod rule;
mod set;
mod tier;

pub(super) use policy::{Group, ReadPolicy, policy};
pub(super) use set::network_set;
pub(super) use tier::tier;

/// What every object may have at its top.
pub(super) const TOP: [&str; 5] = ["apiVersion", "kind", "metadata", "spec", "status"];
