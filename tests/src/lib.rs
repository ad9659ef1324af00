//! The cluster-in-a-box in network namespaces, and what runs on it: the demo, benchmarks, the soak.

pub mod apiserver;
pub mod apistand;
pub mod arm;
pub mod bench;
pub mod demo;
pub mod fuzz;
pub mod harness;
pub mod kubelab;
pub mod lab;
mod process;
pub mod soak;
