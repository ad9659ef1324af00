//! The cluster-in-a-box in network namespaces, and the demo that runs on it.

pub mod bench;
pub mod demo;
pub mod fuzz;
pub mod harness;
pub mod lab;
