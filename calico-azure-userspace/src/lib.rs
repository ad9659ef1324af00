//! Everything of calico-azure that runs in userspace, as a library, so that tests and the demo use the same code.
//!
//! Dependency direction (a test checks it):
//! `selector ← model ← policy ← {analysis, dataplane, sources, azure, observe} ← {agent, judge} ← cli`. Only `dataplane` names aya.

pub mod agent;
pub mod analysis;
pub mod azure;
pub mod cli;
pub mod dataplane;
pub mod judge;
pub mod model;
pub mod observe;
pub mod policy;
pub mod selector;
pub mod sources;
