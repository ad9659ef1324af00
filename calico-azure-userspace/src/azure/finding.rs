//! What is wrong, where, and what mends it.

use std::fmt;

use serde::Serialize;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// Will break, or breaks something else.
    Warning,
    /// Packets are lost.
    Error,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        })
    }
}

/// What is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Check {
    TableMissing,
    TableState,
    TableAssociation,
    RouteMissing,
    RouteNextHop,
    RouteKind,
    RouteState,
    RouteLost,
    RouteOverlap,
    RouteStale,
    RouteName,
    RouteLimit,
    RouteEffective,
    DefaultRoute,
    GatewayRoutes,
    PodCidrMissing,
    PodCidrDuplicate,
    PodCidrFamily,
    PodCidrOutsideCluster,
    PodCidrOutsideNetwork,
    PodCidrOverlapsServices,
    PodCidrOverlapsSubnet,
    NetworkUnavailable,
    NicMissing,
    NicAddress,
    NicPrimary,
    NicForwarding,
    NicState,
    SecurityRule,
}

impl Check {
    /// All of them.
    pub const ALL: [Self; 29] = [
        Self::TableMissing,
        Self::TableState,
        Self::TableAssociation,
        Self::RouteMissing,
        Self::RouteNextHop,
        Self::RouteKind,
        Self::RouteState,
        Self::RouteLost,
        Self::RouteOverlap,
        Self::RouteStale,
        Self::RouteName,
        Self::RouteLimit,
        Self::RouteEffective,
        Self::DefaultRoute,
        Self::GatewayRoutes,
        Self::PodCidrMissing,
        Self::PodCidrDuplicate,
        Self::PodCidrFamily,
        Self::PodCidrOutsideCluster,
        Self::PodCidrOutsideNetwork,
        Self::PodCidrOverlapsServices,
        Self::PodCidrOverlapsSubnet,
        Self::NetworkUnavailable,
        Self::NicMissing,
        Self::NicAddress,
        Self::NicPrimary,
        Self::NicForwarding,
        Self::NicState,
        Self::SecurityRule,
    ];

    /// Its name, as it is printed.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::TableMissing => "table-missing",
            Self::TableState => "table-state",
            Self::TableAssociation => "table-association",
            Self::RouteMissing => "route-missing",
            Self::RouteNextHop => "route-next-hop",
            Self::RouteKind => "route-kind",
            Self::RouteState => "route-state",
            Self::RouteLost => "route-lost",
            Self::RouteOverlap => "route-overlap",
            Self::RouteStale => "route-stale",
            Self::RouteName => "route-name",
            Self::RouteLimit => "route-limit",
            Self::RouteEffective => "route-effective",
            Self::DefaultRoute => "default-route",
            Self::GatewayRoutes => "gateway-routes",
            Self::PodCidrMissing => "pod-cidr-missing",
            Self::PodCidrDuplicate => "pod-cidr-duplicate",
            Self::PodCidrFamily => "pod-cidr-family",
            Self::PodCidrOutsideCluster => "pod-cidr-outside-cluster",
            Self::PodCidrOutsideNetwork => "pod-cidr-outside-network",
            Self::PodCidrOverlapsServices => "pod-cidr-overlaps-services",
            Self::PodCidrOverlapsSubnet => "pod-cidr-overlaps-subnet",
            Self::NetworkUnavailable => "network-unavailable",
            Self::NicMissing => "nic-missing",
            Self::NicAddress => "nic-address",
            Self::NicPrimary => "nic-primary",
            Self::NicForwarding => "nic-forwarding",
            Self::NicState => "nic-state",
            Self::SecurityRule => "security-rule",
        }
    }

    /// How bad it is if it fails.
    #[must_use]
    pub const fn severity(self) -> Severity {
        match self {
            Self::TableMissing
            | Self::TableAssociation
            | Self::RouteMissing
            | Self::RouteNextHop
            | Self::RouteKind
            | Self::RouteLost
            | Self::RouteOverlap
            | Self::RouteEffective
            | Self::PodCidrMissing
            | Self::PodCidrDuplicate
            | Self::PodCidrOverlapsServices
            | Self::PodCidrOverlapsSubnet
            | Self::NetworkUnavailable
            | Self::NicAddress
            | Self::SecurityRule
            | Self::NicForwarding => Severity::Error,
            Self::TableState
            | Self::RouteState
            | Self::RouteStale
            | Self::RouteName
            | Self::RouteLimit
            | Self::DefaultRoute
            | Self::PodCidrFamily
            | Self::PodCidrOutsideCluster
            | Self::NicMissing
            | Self::NicPrimary
            | Self::NicState => Severity::Warning,
            Self::GatewayRoutes | Self::PodCidrOutsideNetwork => Severity::Info,
        }
    }

    /// What it means for packets.
    #[must_use]
    pub const fn consequence(self) -> &'static str {
        match self {
            Self::TableMissing => "no node's pods can be reached from another node",
            Self::TableState => "what the table says may not be what the fabric does",
            Self::TableAssociation => {
                "the fabric drops what nodes of this subnet send to pods of other nodes"
            }
            Self::RouteMissing => "the fabric drops what other nodes send to this node's pods",
            Self::RouteNextHop => {
                "what is sent to this node's pods is delivered to another address, or to nobody"
            }
            Self::RouteKind => "the fabric does not deliver to the node what is sent to its pods",
            Self::RouteState => "the route may not be in force",
            Self::RouteLost => {
                "Kubernetes counts the node as reachable, and the fabric drops what is sent to its pods"
            }
            Self::RouteOverlap => "part of what is sent to this node's pods goes elsewhere",
            Self::RouteStale => "what is sent there is delivered to a machine that is none of the cluster's",
            Self::RouteName => {
                "when the node with the shorter name goes, cloud controllers that compare prefixes remove both nodes' routes"
            }
            Self::RouteLimit => "Azure refuses further routes, so that new nodes' pods cannot be reached",
            Self::RouteEffective => "the fabric does not do what the route table says",
            Self::DefaultRoute => "what leaves the cluster does not go to a firewall or gateway of yours",
            Self::GatewayRoutes => "routes that a gateway learns do not reach the nodes",
            Self::PodCidrMissing => "the node's pods get no addresses",
            Self::PodCidrDuplicate => {
                "packets to the prefix go to one of the nodes only; the other one's pods cannot be reached"
            }
            Self::PodCidrFamily => "a route leads to the first only",
            Self::PodCidrOutsideCluster => {
                "kube-proxy, and whoever else goes by the cluster's range, takes the node's pods for strangers"
            }
            Self::PodCidrOutsideNetwork => {
                "without its route the fabric drops the traffic, and network security groups may not count it as the network's"
            }
            Self::PodCidrOverlapsServices => "a pod and a service may have the same address",
            Self::PodCidrOverlapsSubnet => "machines of the subnet with such addresses cannot be reached",
            Self::NetworkUnavailable => {
                "the scheduler gives the node no pods, and those that it has may not be reached"
            }
            Self::NicAddress => {
                "the fabric delivers what is sent to the node's address to nobody, and to its pods neither"
            }
            Self::NicPrimary => {
                "cloud controllers make routes to the other address, and what the node sends may come from it"
            }
            Self::NicMissing => "it cannot be told whether the fabric forwards to the node",
            Self::NicForwarding => "the fabric drops everything that the node's pods send and receive",
            Self::NicState => "the network interface may not be as ARM says",
            Self::SecurityRule => "the fabric drops what pods of the one node send to pods of the other",
        }
    }

    /// The check of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|check| check.name() == name)
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// One thing that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Finding {
    pub severity: Severity,
    pub check: Check,
    /// What it is about: `node/vm1`, `route/vm1`, `subnet/…`.
    pub object: String,
    /// Which of several things about it: a prefix, an address.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub part: String,
    /// What was seen.
    pub evidence: String,
    /// What it means for packets.
    pub consequence: &'static str,
    /// Commands that mend it, if commands can.
    pub fix: Vec<String>,
}

impl Finding {
    /// A finding of `check`.
    #[must_use]
    pub fn new(check: Check, object: impl Into<String>, evidence: impl Into<String>) -> Self {
        Self {
            severity: check.severity(),
            check,
            object: object.into(),
            part: String::new(),
            evidence: evidence.into(),
            consequence: check.consequence(),
            fix: Vec::new(),
        }
    }

    /// About this part of the object.
    #[must_use]
    pub fn part(mut self, part: impl fmt::Display) -> Self {
        self.part = part.to_string();
        self
    }

    /// With the commands that mend it.
    #[must_use]
    pub fn fix(mut self, commands: impl IntoIterator<Item = String>) -> Self {
        self.fix.extend(commands);
        self
    }
}
