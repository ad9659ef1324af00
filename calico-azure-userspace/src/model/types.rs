//! Validated resources: the only form in which the rest of the program sees a manifest.
//!
//! Everything is resolved as far as one object alone allows: defaults applied, Kubernetes policies converted to
//! Calico's terms, namespace and service-account scopes folded into selectors. What an object refers to (labels of
//! its namespace, its tier) is looked up later, by `policy`.

use std::collections::BTreeMap;
use std::fmt;

mod core;
mod host;
mod policy;
mod service;

pub use self::core::*;
pub use host::*;
pub use policy::*;
pub use service::*;

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
    StagedNetworkPolicy,
    StagedGlobalNetworkPolicy,
    StagedKubernetesNetworkPolicy,
    /// `policy.networking.k8s.io/v1alpha2`.
    ClusterNetworkPolicy,
    /// `policy.networking.k8s.io/v1alpha1`.
    AdminNetworkPolicy,
    /// `policy.networking.k8s.io/v1alpha1`.
    BaselineAdminNetworkPolicy,
    HostEndpoint,
    Profile,
    WorkloadEndpoint,
    FelixConfiguration,
    IpPool,
    Service,
    EndpointSlice,
    Endpoints,
    Deployment,
    StatefulSet,
    DaemonSet,
    ReplicaSet,
    ReplicationController,
    Job,
    CronJob,
}

impl Kind {
    /// The name of the kind; Kubernetes' NetworkPolicy has Calico's name for it.
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
            Self::StagedNetworkPolicy => "StagedNetworkPolicy",
            Self::StagedGlobalNetworkPolicy => "StagedGlobalNetworkPolicy",
            Self::StagedKubernetesNetworkPolicy => "StagedKubernetesNetworkPolicy",
            Self::ClusterNetworkPolicy => "ClusterNetworkPolicy",
            Self::AdminNetworkPolicy => "AdminNetworkPolicy",
            Self::BaselineAdminNetworkPolicy => "BaselineAdminNetworkPolicy",
            Self::HostEndpoint => "HostEndpoint",
            Self::Profile => "Profile",
            Self::WorkloadEndpoint => "WorkloadEndpoint",
            Self::FelixConfiguration => "FelixConfiguration",
            Self::IpPool => "IPPool",
            Self::Service => "Service",
            Self::EndpointSlice => "EndpointSlice",
            Self::Endpoints => "Endpoints",
            Self::Deployment => "Deployment",
            Self::StatefulSet => "StatefulSet",
            Self::DaemonSet => "DaemonSet",
            Self::ReplicaSet => "ReplicaSet",
            Self::ReplicationController => "ReplicationController",
            Self::Job => "Job",
            Self::CronJob => "CronJob",
        }
    }

    /// The kind as manifests write it: both NetworkPolicies are `NetworkPolicy` there.
    #[must_use]
    pub fn written(self) -> &'static str {
        match self {
            Self::KubernetesNetworkPolicy => Self::NetworkPolicy.as_str(),
            kind => kind.as_str(),
        }
    }

    /// Whether objects of the kind are in namespaces.
    #[must_use]
    pub fn is_namespaced(self) -> bool {
        !matches!(
            self,
            Self::Namespace
                | Self::Node
                | Self::Tier
                | Self::GlobalNetworkPolicy
                | Self::GlobalNetworkSet
                | Self::StagedGlobalNetworkPolicy
                | Self::ClusterNetworkPolicy
                | Self::AdminNetworkPolicy
                | Self::BaselineAdminNetworkPolicy
                | Self::HostEndpoint
                | Self::Profile
                | Self::FelixConfiguration
                | Self::IpPool
        )
    }

    /// Whether objects of the kind become a [`Policy`].
    #[must_use]
    pub fn is_policy(self) -> bool {
        matches!(
            self,
            Self::KubernetesNetworkPolicy
                | Self::NetworkPolicy
                | Self::GlobalNetworkPolicy
                | Self::StagedNetworkPolicy
                | Self::StagedGlobalNetworkPolicy
                | Self::StagedKubernetesNetworkPolicy
                | Self::ClusterNetworkPolicy
                | Self::AdminNetworkPolicy
                | Self::BaselineAdminNetworkPolicy
        )
    }

    /// The kind that a staged kind is the preview of.
    #[must_use]
    pub fn enforced(self) -> Option<Self> {
        match self {
            Self::StagedNetworkPolicy => Some(Self::NetworkPolicy),
            Self::StagedGlobalNetworkPolicy => Some(Self::GlobalNetworkPolicy),
            Self::StagedKubernetesNetworkPolicy => Some(Self::KubernetesNetworkPolicy),
            _ => None,
        }
    }

    /// Of an enforced kind of policy: the kind that says what would be.
    #[must_use]
    pub fn staged(self) -> Option<Self> {
        match self {
            Self::NetworkPolicy => Some(Self::StagedNetworkPolicy),
            Self::GlobalNetworkPolicy => Some(Self::StagedGlobalNetworkPolicy),
            Self::KubernetesNetworkPolicy => Some(Self::StagedKubernetesNetworkPolicy),
            _ => None,
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
    HostEndpoint(HostEndpoint),
    Profile(Profile),
    WorkloadEndpoint(WorkloadEndpoint),
    FelixConfiguration(FelixConfiguration),
    IpPool(IpPool),
    Service(Service),
    Backends(Backends),
    Workload(Workload),
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
            Self::HostEndpoint(x) => key(Kind::HostEndpoint, None, &x.name),
            Self::Profile(x) => key(Kind::Profile, None, &x.name),
            Self::WorkloadEndpoint(x) => key(Kind::WorkloadEndpoint, Some(&x.pod.namespace), &x.name),
            Self::FelixConfiguration(x) => key(Kind::FelixConfiguration, None, &x.name),
            Self::IpPool(x) => key(Kind::IpPool, None, &x.name),
            Self::Service(x) => key(Kind::Service, Some(&x.namespace), &x.name),
            Self::Backends(x) => x.key.clone(),
            Self::Workload(x) => x.key.clone(),
        }
    }
}
