//! Host endpoints, and Calico's other kinds that are no policies.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use super::{Labels, NamedPort, Pod, Rule};

/// A host's own interfaces.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HostEndpoint {
    pub name: String,
    pub labels: Labels,
    /// Name of the node.
    pub node: String,
    /// `*` stands for all of the host's interfaces; `None` for those with `expected_ips`.
    pub interface: Option<String>,
    /// The addresses by which selectors know the endpoint.
    pub expected_ips: Vec<IpAddr>,
    pub profiles: Vec<String>,
    pub ports: Vec<NamedPort>,
}

/// What decides after all tiers. Those of namespaces and service accounts are made from these.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Profile {
    pub name: String,
    pub labels_to_apply: Labels,
    pub ingress: Vec<Rule>,
    pub egress: Vec<Rule>,
}

/// An endpoint that Calico's own datastore knows; it stands for the pod of that namespace and name if there is one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WorkloadEndpoint {
    pub name: String,
    /// Its host-side interface.
    pub interface: String,
    /// What is known of the pod. Its name is that of the endpoint if it names no pod.
    pub pod: Pod,
}

/// The settings that change what policy means, and what else is said for agents.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FelixConfiguration {
    /// `default`, or `node.<name>`, which wins for the node of that name.
    pub name: String,
    pub endpoint_to_host: Option<EndpointToHost>,
    /// Prefixes of pod interfaces' names.
    pub interface_prefixes: Option<Vec<String>>,
    /// Whether `allowedSourcePrefixes` annotations are honoured (`workloadSourceSpoofing: Any`).
    pub source_spoofing: Option<bool>,
    pub failsafe_inbound: Option<Vec<Failsafe>>,
    pub failsafe_outbound: Option<Vec<Failsafe>>,
    /// All that is said, as text, by names in lower case; `outer.inner` for what is in an object. Empty for a list.
    pub all: BTreeMap<String, String>,
}

/// What happens to traffic from a pod to its host after the pod's own policy allowed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EndpointToHost {
    Drop,
    Accept,
    /// Rules of the host decide.
    Return,
}

/// A port of the host that no policy can close.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Failsafe {
    /// IP protocol number.
    pub protocol: u8,
    pub port: u16,
    /// The other side's addresses; `None` for all.
    pub net: Option<IpNet>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct IpPool {
    pub name: String,
    pub cidr: IpNet,
    pub disabled: bool,
    pub nat_outgoing: bool,
}
