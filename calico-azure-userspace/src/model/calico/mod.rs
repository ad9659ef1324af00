//! Calico's kinds. Every field counts, so an unknown one is an error; only FelixConfiguration and IPPool have fields
//! that policy does not concern.
//!
//! ```text
//! policy ── spec ─┬─ host_role            tier  set  host_endpoint  workload_endpoint  felix  pool
//! profile ────────┴─ rules ── rule ─┬─ protocol
//! staged (Kubernetes' spec)         ├─ http (refused)
//!                                   └─ peer ── ports, services, selectors
//! ```

mod felix;
mod fields;
mod host_endpoint;
mod host_role;
mod http;
mod labels;
mod peer;
mod policy;
mod pool;
mod ports;
mod profile;
mod protocol;
mod rule;
mod rules;
mod selectors;
mod services;
mod set;
mod spec;
mod staged;
mod tier;
mod workload_endpoint;

pub(super) use rules::distrust;

use super::metadata::Metadata;
use super::problem::Problem;
use super::report::{Read, Report};
use super::types::{Kind, Resource};
use super::yaml::Node;

/// What every object may have at its top.
pub(super) const TOP: [&str; 5] = ["apiVersion", "kind", "metadata", "spec", "status"];

/// The kinds that are read.
pub(super) const KINDS: [Kind; 13] = [
    Kind::NetworkPolicy,
    Kind::GlobalNetworkPolicy,
    Kind::StagedNetworkPolicy,
    Kind::StagedGlobalNetworkPolicy,
    Kind::StagedKubernetesNetworkPolicy,
    Kind::Tier,
    Kind::NetworkSet,
    Kind::GlobalNetworkSet,
    Kind::HostEndpoint,
    Kind::Profile,
    Kind::WorkloadEndpoint,
    Kind::FelixConfiguration,
    Kind::IpPool,
];

/// Where an object comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Group {
    /// `projectcalico.org/v3`.
    Api,
    /// `crd.projectcalico.org/v1`, which earlier releases store in.
    Crd,
}

/// What an object is.
pub(super) enum Object {
    Resource(Resource),
    /// A policy, and what to say if there is no tier of that name.
    Policy(super::types::Policy, Problem),
    /// Calico's own copy of something that counts itself.
    Copy,
}

/// Reads an object of one of [`KINDS`].
pub(super) fn read<'t>(
    report: &mut Report<'t>,
    metadata: &Metadata<'_, 't>,
    object: &Node<'t>,
    kind: Kind,
    namespace: String,
    group: Group,
) -> Read<Object> {
    let namespaced = kind.is_namespaced().then(|| namespace.clone());
    Ok(Object::Resource(match kind {
        Kind::Tier => Resource::Tier(tier::tier(report, metadata, object)),
        Kind::NetworkSet | Kind::GlobalNetworkSet => {
            Resource::NetworkSet(set::network_set(report, metadata, object, namespaced, group))
        }
        Kind::HostEndpoint => {
            Resource::HostEndpoint(host_endpoint::host_endpoint(report, metadata, object, group))
        }
        Kind::Profile => Resource::Profile(profile::profile(report, metadata, object)),
        Kind::WorkloadEndpoint => {
            let read = workload_endpoint::workload_endpoint(report, metadata, object, namespace, group);
            Resource::WorkloadEndpoint(read)
        }
        Kind::FelixConfiguration => {
            Resource::FelixConfiguration(felix::felix_configuration(report, metadata, object))
        }
        Kind::IpPool => Resource::IpPool(pool::ip_pool(report, metadata, object)?),
        Kind::StagedKubernetesNetworkPolicy => {
            Resource::Policy(staged::kubernetes_policy(report, metadata, object, namespace))
        }
        _ if policy::is_copy(kind, &metadata.name) => {
            let message =
                "this is Calico's copy of a Kubernetes NetworkPolicy, which counts itself: it is ignored";
            report.warning(
                object.place,
                message,
                "remove it, and keep the Kubernetes NetworkPolicy",
            );
            return Ok(Object::Copy);
        }
        _ => {
            let (policy, tier_missing) = policy::policy(report, metadata, object, kind, namespaced, group);
            return Ok(Object::Policy(policy, tier_missing));
        }
    }))
}
