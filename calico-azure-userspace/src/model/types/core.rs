//! Namespaces, service accounts, pods, nodes, network sets.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::Labels;

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Namespace {
    pub name: String,
    pub labels: Labels,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct ServiceAccount {
    pub namespace: String,
    pub name: String,
    pub labels: Labels,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pod {
    pub namespace: String,
    pub name: String,
    /// As written, forged `pcns.`/`pcsa.` keys already removed.
    pub labels: Arc<Labels>,
    /// `default` if the pod names none.
    pub service_account: String,
    /// Empty until scheduled.
    pub node: String,
    /// From status, else Calico's annotations. May be empty: then the host route to the pod tells.
    pub ips: Vec<IpAddr>,
    pub host_network: bool,
    /// Phase Succeeded or Failed, or deleted with its address taken back: the address may belong to another pod.
    pub finished: bool,
    /// Ports of containers and init containers that have a name.
    pub ports: Vec<NamedPort>,
    /// Kind and name of the controller that owns it (a ReplicaSet rather than its Deployment).
    pub owner: Option<(String, String)>,
    /// Names of its profiles, first first; `None`: those of its namespace and service account.
    pub profiles: Option<Vec<String>>,
    /// Annotation `cni.projectcalico.org/allowedSourcePrefixes`: what it may send from besides its addresses.
    pub allowed_sources: Vec<IpNet>,
}

/// A port that an endpoint gives a name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NamedPort {
    pub name: String,
    /// IP protocol number: TCP, UDP or SCTP.
    pub protocol: u8,
    pub port: u16,
}

impl Pod {
    /// The labels that policy sees on the pod itself: as written, and what Calico adds to every workload endpoint.
    #[must_use]
    pub fn own_labels(&self) -> Labels {
        let mut labels = Labels::clone(&self.labels);
        labels.insert(label::NAMESPACE.into(), self.namespace.clone());
        labels.insert(label::ORCHESTRATOR.into(), "k8s".into());
        labels.insert(label::SERVICE_ACCOUNT.into(), self.service_account.clone());
        labels
    }
}

/// Label keys with a meaning.
pub mod label {
    /// Namespace of a pod or network set.
    pub const NAMESPACE: &str = "projectcalico.org/namespace";
    /// `k8s` on every pod.
    pub const ORCHESTRATOR: &str = "projectcalico.org/orchestrator";
    /// Service account of a pod.
    pub const SERVICE_ACCOUNT: &str = "projectcalico.org/serviceaccount";
    /// Prefix of labels inherited from the namespace.
    pub const NAMESPACE_PREFIX: &str = "pcns.";
    /// Prefix of labels inherited from the service account.
    pub const SERVICE_ACCOUNT_PREFIX: &str = "pcsa.";
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Node {
    pub name: String,
    pub labels: Labels,
    pub pod_cidrs: Vec<IpNet>,
    /// `status.addresses` of type InternalIP.
    pub internal_ips: Vec<IpAddr>,
    /// `spec.providerID`; `azure://…` of a virtual machine in Azure.
    pub provider_id: String,
    /// Flannel's backend, by its annotation; empty where flannel is not.
    pub flannel_backend: String,
    /// Where flannel's tunnels to it end, by its annotations.
    pub tunnel_ips: Vec<IpAddr>,
    /// Link-layer addresses of the ends of flannel's tunnels, by its annotations.
    pub tunnel_macs: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct NetworkSet {
    /// `None`: a GlobalNetworkSet.
    pub namespace: Option<String>,
    pub name: String,
    pub labels: Labels,
    pub nets: Vec<IpNet>,
}
