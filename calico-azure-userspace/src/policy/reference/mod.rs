//! The oracle: judges one packet by reading the validated resources, rule by rule, in the order of the API.
//!
//! Deliberately naive (linear scans, nothing prepared) and deliberately apart: of the compiler it shares only the
//! model, the selector evaluator, effective labels and the assignment of addresses to pods.
//!
//! ```text
//! path ─┬─ verdict (a pod's policy) ─┬─ walk ─┬─ order
//!       └─ host (a host endpoint's) ─┘        ├─ matching ── members
//!                                             └─ profiles
//! ```

mod coverage;
mod host;
mod matching;
mod members;
mod order;
mod path;
mod profiles;
mod verdict;
mod walk;

use std::net::IpAddr;

pub use coverage::{Branch, Coverage, Point};
pub use host::{HostVerdict, INBOUND as FAILSAFE_INBOUND, OUTBOUND as FAILSAFE_OUTBOUND};
pub use matching::Criterion;
pub use verdict::*;

pub use super::Traffic;
use super::labels::{EffectiveLabels, profile_names};
use super::store::Store;
use super::topology::{Topology, source_spoofing};
use super::{Direction, Probe, RuleRef};
use crate::model::{Pod, Policy};
use walk::{Sphere, Tape};

/// Judges one packet of one pod. For many packets make one [`Oracle`].
#[must_use]
pub fn verdict(store: &Store, pod: &Pod, direction: Direction, packet: &Probe) -> Verdict {
    Oracle::new(store).verdict(pod, direction, packet)
}

/// Judges one flow on its whole way.
#[must_use]
pub fn path(store: &Store, flow: &Flow) -> PathVerdict {
    Oracle::new(store).path(flow)
}

/// The evaluator over one state of the store.
pub struct Oracle<'a> {
    store: &'a Store,
    topology: Topology<'a>,
    /// Those in force, in no meaningful order.
    policies: Vec<&'a Policy>,
    /// Of the topology's endpoints, in their order.
    endpoint_labels: Vec<EffectiveLabels<'a>>,
    /// Of the store's host endpoints, in their order.
    host_labels: Vec<EffectiveLabels<'a>>,
    /// Of the store's network sets, in their order.
    set_labels: Vec<EffectiveLabels<'a>>,
    coverage: Coverage,
}

impl<'a> Oracle<'a> {
    /// Reads the store as it is; staged policies do nothing.
    #[must_use]
    pub fn new(store: &'a Store) -> Self {
        Self::with(store, order::enforced(store), Coverage::default())
    }

    /// Reads the store as if its staged policies were enforced: `Set` replaces the policy of that name or is added,
    /// `Delete` removes it.
    #[must_use]
    pub fn pending(store: &'a Store) -> Self {
        let coverage = Coverage::default();
        let policies = order::pending(store, &coverage);
        Self::with(store, policies, coverage)
    }

    fn with(store: &'a Store, policies: Vec<&'a Policy>, coverage: Coverage) -> Self {
        let topology = Topology::of(store);
        let endpoints = topology.endpoints.iter();
        let hosts = store.host_endpoints();
        let sets = store.network_sets();
        Self {
            endpoint_labels: endpoints
                .map(|endpoint| EffectiveLabels::of_pod(store, endpoint.pod))
                .collect(),
            host_labels: hosts
                .map(|host| EffectiveLabels::of_host_endpoint(store, host))
                .collect(),
            set_labels: sets
                .map(|set| EffectiveLabels::of_network_set(store, set))
                .collect(),
            store,
            topology,
            policies,
            coverage,
        }
    }

    /// The endpoints it knows.
    #[must_use]
    pub fn topology(&self) -> &Topology<'a> {
        &self.topology
    }

    /// The branches that its verdicts have taken so far.
    #[must_use]
    pub fn coverage(&self) -> &Coverage {
        &self.coverage
    }

    /// Judges a packet by one pod's policy, with a full trace.
    #[must_use]
    pub fn verdict(&self, pod: &Pod, direction: Direction, packet: &Probe) -> Verdict {
        let mut tape = Tape::recording();
        let (allow, rule) = self.pod(pod, direction, packet, &mut tape);
        tape.verdict(allow, rule)
    }

    /// [`Self::verdict`] without the trace: (allow, log, rule).
    #[must_use]
    pub fn decide(&self, pod: &Pod, direction: Direction, packet: &Probe) -> (bool, bool, RuleRef) {
        let mut tape = Tape::silent();
        let (allow, rule) = self.pod(pod, direction, packet, &mut tape);
        (allow, tape.logged(), rule)
    }

    /// Whether the pod may send from the address: one of its own, or an allowed source prefix of it.
    #[must_use]
    pub fn may_send_from(&self, pod: &Pod, address: IpAddr) -> bool {
        let mut endpoints = self.topology.endpoints.iter();
        let endpoint = endpoints.find(|endpoint| **endpoint.pod == *pod);
        endpoint.is_some_and(|endpoint| {
            endpoint.addresses.contains(&address) || matching::in_nets(&pod.allowed_sources, address)
        })
    }

    fn pod(&self, pod: &Pod, direction: Direction, packet: &Probe, tape: &mut Tape) -> (bool, RuleRef) {
        if !pod.allowed_sources.is_empty() && !source_spoofing(self.store, &pod.node) {
            return self.at(Point::PodIsolated, (false, RuleRef::Isolated));
        }
        let labels = EffectiveLabels::of_pod(self.store, pod);
        self.tiers(Sphere::Pod, &labels, direction, packet, tape)
            .unwrap_or_else(|| self.profiles(&profile_names(pod), direction, packet, tape))
    }

    /// `value`, on the record.
    fn at<T>(&self, point: Point, value: T) -> T {
        self.coverage.take(Branch::Point(point));
        value
    }
}
