//! The cluster-in-a-box in network namespaces, and what runs on it: the demo, benchmarks, the soak.

pub mod apistand;
pub mod bench;
pub mod demo;
pub mod fuzz;
pub mod harness;
pub mod lab;
pub mod soak;
