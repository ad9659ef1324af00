//! Azure's side of a cluster: what Azure Resource Manager (ARM) knows of its routes and network interfaces, whether that fits the
//! nodes, and what mends it. `audit` and `plan` are pure; only `arm` talks to anybody. Only `cli` uses this.

pub mod arm;
pub mod audit;
pub mod cloud;
pub mod config;
pub mod finding;
pub mod network;
pub mod nodes;
pub mod owner;
pub mod plan;
pub mod resource;
pub mod secret;
pub mod security;
pub mod snapshot;
