//! Manifests: raw objects in, validated resources out, each problem reported on its object.
//!
//! ```text
//! load ── yaml ── object ─┬─ core, pod             Namespace, ServiceAccount, Node; Pod
//!  files   tree  by kind  ├─ services, workloads   Service, EndpointSlice, Endpoints; Deployment, Job, …
//!          with places    ├─ calico                policies, tiers, network sets, endpoints, profiles, settings
//!                         ├─ kubernetes            NetworkPolicy, ClusterNetworkPolicy and its predecessors, converted
//!                         └─ kinds                 what is said about all others
//! ```
//!
//! What is not understood never opens anything. A rule that is not understood matches nothing if it allows, and
//! denies whatever the rest of it matches otherwise. A policy that is not understood still selects its endpoints
//! (everything in its scope, if that is not understood either), in every direction that it might have meant.

pub mod api;
mod calico;
mod core;
mod kinds;
mod kubernetes;
pub mod load;
pub mod locate;
mod metadata;
mod object;
mod pod;
mod port;
mod problem;
mod report;
mod scalars;
mod section;
mod services;
#[cfg(test)]
mod tests;
mod types;
mod words;
mod workloads;
mod yaml;

pub use problem::{Excerpt, Problem, Severity};
pub use types::*;
pub(crate) use words::closest;
