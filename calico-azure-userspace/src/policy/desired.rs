//! What the kernel should hold, as plain data: the only thing that `policy` hands to `dataplane`.
//!
//! Ids are stable from one result to the next as long as the content they stand for is the same, and an id is not
//! given to new content while the kernel may still hold the old: so `policy` and `ports` only ever gain and lose
//! entries, never change one.

use std::collections::BTreeMap;
use std::net::IpAddr;

use calico_azure_ebpf::abi::{
    HOST_SETS, MARK_HOST, OwnerKey4, OwnerKey6, PolicyKey, PortKey, ServiceKey4, ServiceKey6, host_set,
    to_host,
};

/// An IPv4 prefix as the wire has it.
pub type Prefix4 = (u32, u8);
/// An IPv6 prefix as the wire has it.
pub type Prefix6 = ([u32; 4], u8);

/// The tables of one node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    /// By ifindex.
    pub endpoints: BTreeMap<u32, DesiredEndpoint>,
    /// Host endpoints by ifindex; 0 for what passes through pods' interfaces.
    pub hosts: BTreeMap<u32, DesiredHost>,
    pub owners4: BTreeMap<OwnerKey4, u32>,
    pub owners6: BTreeMap<OwnerKey6, u32>,
    /// Address (network order) → peer class, for every address whose class is not its longest prefix's.
    pub class4: BTreeMap<u32, u32>,
    pub class6: BTreeMap<[u32; 4], u32>,
    /// Prefix → peer class.
    pub cidr4: BTreeMap<Prefix4, u32>,
    pub cidr6: BTreeMap<Prefix6, u32>,
    /// `(set, class)` → table word; of a host endpoint's set, by the class of its own side: the word of another set.
    pub policy: BTreeMap<PolicyKey, u64>,
    /// → decision word.
    pub ports: BTreeMap<PortKey, u64>,
    /// What kube-proxy translates.
    pub services4: BTreeMap<ServiceKey4, u32>,
    pub services6: BTreeMap<ServiceKey6, u32>,
    /// Prefix → `abi::route` bits.
    pub routes4: BTreeMap<Prefix4, u32>,
    pub routes6: BTreeMap<Prefix6, u32>,
    /// `abi::Config::alike_from`.
    pub alike_from: u16,
}

impl Desired {
    /// The same tables, in which nothing but pods' own policy decides about pods: no host endpoints, pods may reach
    /// their host, and nobody is a stranger.
    #[must_use]
    pub fn of_pods_alone(&self) -> Self {
        let mut open = DesiredHost::default();
        open.sets[host_set::TO_HOST] = to_host::ACCEPT;
        Self {
            hosts: BTreeMap::from([(0, open)]),
            routes4: BTreeMap::new(),
            routes6: BTreeMap::new(),
            ..self.clone()
        }
    }
}

/// A pod behind an interface of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DesiredEndpoint {
    /// `namespace/name`.
    pub pod: String,
    /// Policy set for egress; never 0.
    pub egress: u32,
    /// Policy set for ingress; never 0.
    pub ingress: u32,
    /// What its service traffic is marked with: from 1 to [`MARK_MAX`], another one for each endpoint of the node.
    pub mark: u32,
    /// What the pod may send from.
    pub addresses: Vec<IpAddr>,
}

/// The host endpoint of an interface; of key 0 without one, only what pods may send to the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DesiredHost {
    /// Empty if there is none.
    pub name: String,
    /// Policy sets by `abi::host_set`, and at `TO_HOST` one of `abi::to_host`; 0 for a stage in which no policy has a say.
    pub sets: [u32; HOST_SETS],
}

/// The highest mark of an endpoint; the one above is taken.
pub const MARK_MAX: u32 = MARK_HOST - 1;

/// What a rule id stands for; shown wherever a verdict is shown.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RuleRef {
    /// A rule of a policy: `ingress[index]` or `egress[index]`.
    Rule {
        tier: String,
        policy: crate::model::Key,
        ingress: bool,
        index: u32,
    },
    /// No policy of the tier decided, and the tier denies by default.
    TierDefault { tier: String },
    /// A profile without rules to point at: a built-in one (`kns.<namespace>`, `projectcalico-default-allow`) allows
    /// everything, one that does not exist denies everything.
    Profile { name: String },
    /// A rule of a Profile object: `ingress[index]` or `egress[index]`.
    ProfileRule { name: String, ingress: bool, index: u32 },
    /// Nothing decided at all.
    Implicit,
    /// A failsafe port of the host.
    Failsafe { ingress: bool },
    /// `defaultEndpointToHostAction`, for what a pod sends to its own host.
    EndpointToHost,
    /// The host reaches its own pods whatever policies say.
    HostToPod,
    /// No policy with `applyOnForward` decided about forwarded traffic: the host endpoint lets it through.
    Forwarded,
    /// The pod asks for source prefixes that `workloadSourceSpoofing` does not grant: it is no endpoint at all.
    Isolated,
}

impl RuleRef {
    /// The policy that the rule is one of.
    #[must_use]
    pub fn policy(&self) -> Option<&crate::model::Key> {
        match self {
            Self::Rule { policy, .. } => Some(policy),
            _ => None,
        }
    }
}

impl std::fmt::Display for RuleRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Rule {
                tier,
                policy,
                ingress,
                index,
            } => {
                let direction = if *ingress { "ingress" } else { "egress" };
                write!(f, "tier {tier} / {policy} / {direction}[{index}]")
            }
            Self::TierDefault { tier } => write!(f, "tier {tier} / default action"),
            Self::Profile { name } => write!(f, "profile {name}"),
            Self::ProfileRule { name, ingress, index } => {
                let direction = if *ingress { "ingress" } else { "egress" };
                write!(f, "profile {name} / {direction}[{index}]")
            }
            Self::Implicit => f.write_str("implicit deny"),
            Self::Failsafe { ingress: true } => f.write_str("failsafeInboundHostPorts"),
            Self::Failsafe { ingress: false } => f.write_str("failsafeOutboundHostPorts"),
            Self::EndpointToHost => f.write_str("defaultEndpointToHostAction"),
            Self::HostToPod => f.write_str("a host reaches its own pods"),
            Self::Forwarded => f.write_str("no applyOnForward policy decides"),
            Self::Isolated => f.write_str("allowedSourcePrefixes without workloadSourceSpoofing: Any"),
        }
    }
}
