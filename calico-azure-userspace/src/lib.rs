//! Everything of calico-azure that runs in userspace, as a library, so that tests and the demo use the same code.
//!
//! Dependency direction (a test checks it):
//! `selector ← model ← policy ← {dataplane, sources, observe} ← agent ← cli`. Only `dataplane` names aya.

pub mod model;
pub mod policy;
pub mod selector;
