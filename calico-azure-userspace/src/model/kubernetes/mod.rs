//! Kubernetes' policies, converted to Calico's terms.
//!
//! ```text
//! network_policy ── rule ── peer      tier default, order 1000, only Allow
//! cluster ── rule ─┬─ peer            ClusterNetworkPolicy, AdminNetworkPolicy, BaselineAdminNetworkPolicy
//!                  └─ protocols
//! ```

mod cluster;
mod expand;
mod network_policy;
mod peer;
mod rule;
pub(super) mod selector;

pub(super) use cluster::policy as cluster_policy;
pub(super) use network_policy::policy;

use super::types::label;
use crate::selector::Selector;

/// Host endpoints and network sets are unknown to Kubernetes' policies.
fn pods() -> Selector {
    Selector::eq(label::ORCHESTRATOR, "k8s")
}

/// The pods of a namespace.
fn pods_of(namespace: &str) -> Selector {
    pods().and(&Selector::eq(label::NAMESPACE, namespace))
}

/// The pods of the namespaces with these labels.
fn pods_in(namespaces: &Selector) -> Selector {
    // Everything with a namespace, and that is what pods are.
    pods()
        .and(&Selector::has(label::NAMESPACE))
        .and(&namespaces.with_key_prefix(label::NAMESPACE_PREFIX))
}
