//! Services, their backends, and what makes pods.

use std::net::IpAddr;

use super::{Key, Labels, Pod};
use crate::selector::Selector;

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Service {
    pub namespace: String,
    pub name: String,
    /// Labels of its pods; `None`: its backends are made by somebody else.
    pub selector: Option<Labels>,
    /// Empty for headless services.
    pub cluster_ips: Vec<IpAddr>,
    /// Of load balancers, and `externalIPs`.
    pub external_ips: Vec<IpAddr>,
    pub ports: Vec<ServicePort>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct ServicePort {
    pub name: Option<String>,
    /// IP protocol number.
    pub protocol: u8,
    pub port: u16,
    pub target: TargetPort,
    pub node_port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetPort {
    Number(u16),
    /// Of the pod's named ports.
    Name(String),
}

/// Backends of a service: an EndpointSlice, or the older Endpoints.
#[derive(Clone, Debug, PartialEq)]
pub struct Backends {
    pub key: Key,
    /// Name of the service, in the same namespace.
    pub service: String,
    /// Ready or not. One for an EndpointSlice.
    pub subsets: Vec<Subset>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Subset {
    pub addresses: Vec<IpAddr>,
    /// Protocol and port. A port without a number is not here.
    pub ports: Vec<(u8, u16)>,
}

/// Something that makes pods; only offline analysis looks at it.
#[derive(Clone, Debug, PartialEq)]
pub struct Workload {
    pub key: Key,
    /// Of its pods' labels; `None` if it names none (Jobs).
    pub selector: Option<Selector>,
    /// A pod as it would make it: no node, no addresses.
    pub template: Pod,
    /// It asks for no pods at all.
    pub scaled_to_zero: bool,
}
