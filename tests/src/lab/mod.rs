//! The cluster-in-a-box: an Azure-like fabric, nodes, pods of the real CNI plugins and agents, in network namespaces.
//!
//! Everything lives in namespaces named `caz-<pid>-<n>-…` and in one directory of the same name, so that
//! [`remove`] can undo a lab of which only the names are left. Only the network is namespaced: the bpffs and the
//! file system are the host's.
//!
//! ```text
//!   internet ── fabric ─┬─ p1 ── eth0 node-1 ─┬─ veth… ── eth0 pod
//!   203.0.113.0/24      │                     └─ veth… ── eth0 pod
//!                       └─ p2 ── eth0 node-2 ─── …
//! ```

use std::time::Duration;

mod agent;
mod cgroup;
mod cluster;
mod cni;
mod dir;
mod error;
mod exec;
mod fabric;
mod flannel;
mod flowlog;
mod kubectl;
mod kubeproxy;
mod manifests;
mod netns;
mod networking;
mod node;
pub mod plan;
pub mod probe;
mod rules;
mod transparent;

pub use agent::{
    Agent, AgentSpec, AgentStatus, Attachment, StatusEndpoint, StatusNetworking, StatusPreflight,
    attachments, binary,
};
pub use cgroup::Cgroup;
pub use cluster::{Cluster, ClusterSpec, Pod};
pub use cni::{Hold, Plugin, PodNet};
pub use dir::{LabDir, labs, remove};
pub use error::LabError;
pub use fabric::{Counter, Fabric, FabricDrop, Internet};
pub use flowlog::{Flow, FlowLog, Staged};
pub use kubeproxy::ipvs::{self, VirtualServer};
pub use kubeproxy::{KubeProxy, ServiceSpec};
pub use manifests::{PodManifest, Port, Source};
pub use netns::NetNs;
pub use networking::Networking;
pub use node::Node;

/// What every function of the lab returns.
pub type Result<T, E = LabError> = std::result::Result<T, E>;

/// Tests' time limits, where a machine is slow: times `CALICO_AZURE_PATIENCE`, a whole number.
#[must_use]
pub fn patience(limit: Duration) -> Duration {
    let factor = std::env::var("CALICO_AZURE_PATIENCE").ok();
    limit * factor.and_then(|factor| factor.parse().ok()).unwrap_or(1)
}
