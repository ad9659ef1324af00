//! Validated resources: the only form in which the rest of the program sees a manifest.
//!
//! Everything is resolved as far as one object alone allows: defaults applied, Kubernetes policies converted to
//! Calico's terms, namespace and service-account scopes folded into selectors. What an object refers to (labels of
//! its namespace, its tier) is looked up later, by `policy`.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::selector::Selector;

/// Labels of one object.
pub type Labels = BTreeMap<String, String>;

/// What an object is. Order and spelling are those of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    Namespace,
    ServiceAccount,
    Pod,
    Node,
    Tier,
    /// `networking.k8s.io` NetworkPolicy.
    KubernetesNetworkPolicy,
    /// Calico NetworkPolicy.
    NetworkPolicy,
    GlobalNetworkPolicy,
    NetworkSet,
    GlobalNetworkSet,
}

impl Kind {
    /// The API's name of the kind; both NetworkPolicies are `NetworkPolicy`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Namespace => "Namespace",
            Self::ServiceAccount => "ServiceAccount",
            Self::Pod => "Pod",
            Self::Node => "Node",
            Self::Tier => "Tier",
            Self::KubernetesNetworkPolicy => "KubernetesNetworkPolicy",
            Self::NetworkPolicy => "NetworkPolicy",
            Self::GlobalNetworkPolicy => "GlobalNetworkPolicy",
            Self::NetworkSet => "NetworkSet",
            Self::GlobalNetworkSet => "GlobalNetworkSet",
        }
    }
}

/// Names one object.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    pub kind: Kind,
    /// `None` for cluster-scoped kinds.
    pub namespace: Option<String>,
    pub name: String,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{} {namespace}/{}", self.kind.as_str(), self.name),
            None => write!(f, "{} {}", self.kind.as_str(), self.name),
        }
    }
}

/// One validated object.
#[derive(Clone, Debug, PartialEq)]
pub enum Resource {
    Namespace(Namespace),
    ServiceAccount(ServiceAccount),
    Pod(Pod),
    Node(Node),
    Tier(Tier),
    Policy(Policy),
    NetworkSet(NetworkSet),
}

impl Resource {
    /// The object's key.
    #[must_use]
    pub fn key(&self) -> Key {
        let key = |kind, namespace: Option<&str>, name: &str| Key {
            kind,
            namespace: namespace.map(ToOwned::to_owned),
            name: name.to_owned(),
        };
        match self {
            Self::Namespace(x) => key(Kind::Namespace, None, &x.name),
            Self::ServiceAccount(x) => key(Kind::ServiceAccount, Some(&x.namespace), &x.name),
            Self::Pod(x) => key(Kind::Pod, Some(&x.namespace), &x.name),
            Self::Node(x) => key(Kind::Node, None, &x.name),
            Self::Tier(x) => key(Kind::Tier, None, &x.name),
            Self::Policy(x) => x.key.clone(),
            Self::NetworkSet(x) => {
                let kind = if x.namespace.is_some() {
                    Kind::NetworkSet
                } else {
                    Kind::GlobalNetworkSet
                };
                key(kind, x.namespace.as_deref(), &x.name)
            }
        }
    }
}

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
    pub labels: Labels,
    /// `default` if the pod names none.
    pub service_account: String,
    /// Empty until scheduled.
    pub node: String,
    /// From status, else Calico's annotations. May be empty: then the host route to the pod tells.
    pub ips: Vec<IpAddr>,
    pub host_network: bool,
    /// Phase Succeeded or Failed, or deleted with its address taken back: the address may belong to another pod.
    pub finished: bool,
}

impl Pod {
    /// The labels that policy sees on the pod itself: as written, and what Calico adds to every workload endpoint.
    #[must_use]
    pub fn own_labels(&self) -> Labels {
        let mut labels = self.labels.clone();
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
}

#[derive(Clone, Debug, PartialEq)]
pub struct Tier {
    pub name: String,
    /// `None` sorts last.
    pub order: Option<f64>,
    pub default_action: TierDefault,
}

impl Tier {
    /// A tier that every Calico cluster has, whether or not an object says so.
    #[must_use]
    pub fn builtin(name: &str) -> Option<Self> {
        let (order, default_action) = match name {
            "kube-admin" => (1_000.0, TierDefault::Pass),
            "default" => (1_000_000.0, TierDefault::Deny),
            "kube-baseline" => (10_000_000.0, TierDefault::Pass),
            _ => return None,
        };
        Some(Self {
            name: name.to_owned(),
            order: Some(order),
            default_action,
        })
    }
}

/// What a tier does with what none of its policies decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TierDefault {
    Deny,
    Pass,
}

/// A policy of any kind, in Calico's terms.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    pub key: Key,
    pub tier: String,
    /// `None` sorts last.
    pub order: Option<f64>,
    /// Which endpoints, over effective labels (own and inherited `pcns.`/`pcsa.` ones), scope folded in.
    pub selector: Selector,
    /// `None`: the policy does not govern this direction.
    pub ingress: Option<Vec<Rule>>,
    /// `None`: the policy does not govern this direction.
    pub egress: Option<Vec<Rule>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Action {
    Allow,
    Deny,
    Pass,
    Log,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum IpVersion {
    V4,
    V6,
}

/// A rule that was understood, all criteria ANDed. (One that was not became match-nothing if it allowed, and
/// a Deny of what it could match otherwise: see `model::rule`.)
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Rule {
    /// Position in the object as written, from 0: `ingress[0]`. Kubernetes rules keep theirs when they expand.
    pub index: u32,
    pub action: Action,
    pub ip_version: Option<IpVersion>,
    /// IP protocol number.
    pub protocol: Option<u8>,
    pub not_protocol: Option<u8>,
    pub icmp: Option<Icmp>,
    pub not_icmp: Option<Icmp>,
    pub source: Peer,
    pub destination: Peer,
}

/// ICMP or ICMPv6 according to the rule's protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Icmp {
    pub kind: Option<u8>,
    pub code: Option<u8>,
}

/// One side of a rule. Empty lists and `None` do not constrain.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Peer {
    /// The address lies in one of them.
    pub nets: Vec<IpNet>,
    /// The address lies in none of them.
    pub not_nets: Vec<IpNet>,
    /// The address belongs to a known endpoint or network set that matches; scope folded in.
    pub selector: Option<Selector>,
    /// The address does *not* belong to one that matches (unknown addresses do match this criterion).
    pub not_selector: Option<Selector>,
    /// The port lies in one of them. Only ever set on `destination`.
    pub ports: Vec<PortRange>,
    /// The port lies in none of them.
    pub not_ports: Vec<PortRange>,
}

/// Inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortRange {
    pub first: u16,
    pub last: u16,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct NetworkSet {
    /// `None`: a GlobalNetworkSet.
    pub namespace: Option<String>,
    pub name: String,
    pub labels: Labels,
    pub nets: Vec<IpNet>,
}
