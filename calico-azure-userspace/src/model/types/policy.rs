//! Tiers, policies and their rules.

use ipnet::IpNet;

use super::Key;
use crate::selector::Selector;

#[derive(Clone, Debug, PartialEq)]
pub struct Tier {
    pub name: String,
    /// `None` sorts last.
    pub order: Option<f64>,
    pub default_action: TierDefault,
}

impl Tier {
    /// The tiers that need no object: those that every Calico cluster has, and those of AdminNetworkPolicies and the
    /// BaselineAdminNetworkPolicy, which releases up to 3.31 have.
    pub const BUILTIN: [&str; 6] = [
        Self::UNKNOWN,
        "adminnetworkpolicy",
        "kube-admin",
        "default",
        "baselineadminnetworkpolicy",
        "kube-baseline",
    ];

    /// The tier of policies of which nobody can tell the tier. It comes before all others and denies: wherever such a
    /// policy was meant to be, nothing may pass it that would not have passed there. No object can have this name.
    pub const UNKNOWN: &str = "(unknown)";

    /// One of [`Self::BUILTIN`].
    #[must_use]
    pub fn builtin(name: &str) -> Option<Self> {
        let (order, default_action) = match name {
            Self::UNKNOWN => (f64::NEG_INFINITY, TierDefault::Deny),
            "kube-admin" | "adminnetworkpolicy" => (1_000.0, TierDefault::Pass),
            "default" => (1_000_000.0, TierDefault::Deny),
            "kube-baseline" | "baselineadminnetworkpolicy" => (10_000_000.0, TierDefault::Pass),
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
    /// `None`: enforced.
    pub staged: Option<StagedAction>,
    /// What it does at host endpoints.
    pub host: HostRole,
}

/// What a staged policy would do if it were enforced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum StagedAction {
    /// Be there, in the place of an enforced one of its name.
    Set,
    /// Remove the enforced one of its name.
    Delete,
    /// Nothing: made by a tool that suggests policies.
    Learn,
    /// Nothing.
    Ignore,
}

/// Which traffic of a host endpoint a policy is about. A policy of the last two kinds never governs a pod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HostRole {
    /// Traffic of the host itself.
    #[default]
    Normal,
    /// That, and traffic forwarded through the endpoint (`applyOnForward`).
    Forward,
    /// Incoming traffic before destination NAT, of the host and forwarded (`preDNAT`).
    PreDnat,
    /// All traffic before connection tracking (`doNotTrack`).
    Untracked,
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

impl Rule {
    /// A rule without criteria.
    #[must_use]
    pub fn everything(index: usize, action: Action) -> Self {
        Self {
            index: u32::try_from(index).unwrap_or(u32::MAX),
            action,
            ip_version: None,
            protocol: None,
            not_protocol: None,
            icmp: None,
            not_icmp: None,
            source: Peer::default(),
            destination: Peer::default(),
        }
    }
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
    /// The side's port lies in one of them, or is one of `named_ports`.
    pub ports: Vec<PortRange>,
    /// The port lies in none of them.
    pub not_ports: Vec<PortRange>,
    /// Names that an endpoint which has the address and, if there is one, matches `selector` gives to the port, with
    /// its protocol.
    pub named_ports: Vec<String>,
    /// No endpoint as above gives the port one of these names.
    pub not_named_ports: Vec<String>,
    /// On the destination: address, protocol and port are those of one of the service's backends. On the source: the
    /// address is.
    pub service: Option<ServiceName>,
}

/// Names a Service.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceName {
    pub namespace: String,
    pub name: String,
}

/// Inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortRange {
    pub first: u16,
    pub last: u16,
}
