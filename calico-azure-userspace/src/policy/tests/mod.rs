//! Compiled verdicts against reference verdicts, and facts of the policy model one by one.

mod canonical;
mod compiler;
mod coverage;
mod differential;
mod facts;
mod facts_appendix;
mod facts_hosts;
mod facts_kubernetes;
mod facts_manifests;
mod facts_order;
mod facts_peers;
mod facts_ports;
mod hosts;
mod incremental;
mod ports;
mod profiles;
mod sources;
mod speed;
mod store;
mod topology;
mod world;
