//! Made-up clusters and packets for tests, the same for the same seed.
//!
//! Clusters are small and crowded: few labels and overlapping prefixes, so that rules meet, shadow and contradict
//! each other. Packets are aimed: for each rule some that it should match and some that just miss it.

mod cluster;
mod edges;
mod extras;
mod features;
mod hosts;
mod policies;
mod probes;
mod rng;
mod rules;

pub use features::Features;
pub use hosts::{HostCase, flows, host_cases};
pub use probes::{Case, probes};
pub use rng::Rng;

use super::store::{Event, Store};

/// How large a cluster is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    pub namespaces: usize,
    pub pods: usize,
    pub network_sets: usize,
    pub policies: usize,
    /// At most, per policy and direction.
    pub rules: usize,
    /// What of the language occurs in it.
    pub features: Features,
}

impl Shape {
    /// The default size, with everything in it.
    #[must_use]
    pub fn whole_language() -> Self {
        Self {
            features: Features::ALL,
            ..Self::default()
        }
    }
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            namespaces: 4,
            pods: 24,
            network_sets: 6,
            policies: 10,
            rules: 5,
            features: Features::compiled(),
        }
    }
}

/// The node that a generated cluster is seen from.
pub const NODE: &str = "node-1";

/// All events that make a cluster, in no meaningful order.
#[must_use]
pub fn events(seed: u64, shape: &Shape) -> Vec<Event> {
    events_drawn(&mut Rng::new(seed), shape)
}

/// [`events`] of a cluster that `rng` chooses.
#[must_use]
pub fn events_drawn(rng: &mut Rng, shape: &Shape) -> Vec<Event> {
    let mut events = cluster::events(rng, shape);
    events.extend(policies::events(rng, shape));
    events
}

/// A cluster.
#[must_use]
pub fn store(seed: u64, shape: &Shape) -> Store {
    let mut store = Store::default();
    for event in events(seed, shape) {
        store.apply(event);
    }
    store
}
