//! Everything that an audit looks at, at one moment.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use super::nodes::NodeState;
use super::resource::{EffectiveRoute, Id, Nic, RouteTable, Subnet, VirtualNetwork};

/// Routes of one table, unless Azure was asked for more (since May 2026; 400 for years before).
pub const ROUTE_LIMIT: usize = 1000;

/// Nodes and what ARM says.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    pub nodes: Vec<NodeState>,
    /// The table that the cluster is configured with.
    pub table_id: Id,
    /// Where it would be made.
    pub location: String,
    /// `None`: it does not exist.
    pub table: Option<RouteTable>,
    pub networks: Vec<VirtualNetwork>,
    /// `None`: nobody may or could read them.
    pub nics: Option<Vec<Nic>>,
    /// By network interface, where asked for.
    pub effective: BTreeMap<Id, Vec<EffectiveRoute>>,
    pub settings: Settings,
}

/// What no API tells.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `--cluster-cidr` of the controller manager.
    pub cluster_cidrs: Vec<IpNet>,
    /// `--service-cluster-ip-range` of the API server.
    pub service_cidrs: Vec<IpNet>,
    pub route_limit: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            cluster_cidrs: Vec::new(),
            service_cidrs: Vec::new(),
            route_limit: ROUTE_LIMIT,
        }
    }
}

/// A route that there has to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub node: String,
    /// What it is called if nobody has made it yet.
    pub name: String,
    pub prefix: IpNet,
    /// `None`: the node has no address of the family.
    pub hop: Option<IpAddr>,
}

impl Wanted {
    /// A name for a new route that no other route has: else the other one would be overwritten.
    #[must_use]
    pub fn free_name(&self, table: &RouteTable) -> String {
        let taken = |name: &str| {
            table
                .routes
                .iter()
                .any(|route| route.name.eq_ignore_ascii_case(name))
        };
        if taken(&self.name) {
            route_name(&self.node, Some(&self.prefix))
        } else {
            self.name.clone()
        }
    }
}

impl Snapshot {
    /// The routes of all nodes that have routes made for them.
    #[must_use]
    pub fn wanted(&self) -> Vec<Wanted> {
        let both = self.nodes.iter().any(|node| {
            let v4 = |net: &&IpNet| matches!(net, IpNet::V4(_));
            let fours = node.pod_cidrs.iter().filter(v4).count();
            fours != 0 && fours != node.pod_cidrs.len()
        });
        let managed = self.nodes.iter().filter(|node| node.managed);
        managed
            .flat_map(|node| {
                node.pod_cidrs.iter().map(move |prefix| Wanted {
                    node: node.name.clone(),
                    name: route_name(&node.name, both.then_some(prefix)),
                    prefix: *prefix,
                    hop: node.address(prefix),
                })
            })
            .collect()
    }

    /// The subnet of that id.
    #[must_use]
    pub fn subnet(&self, id: &Id) -> Option<&Subnet> {
        let mut subnets = self.networks.iter().flat_map(|network| &network.subnets);
        subnets.find(|subnet| subnet.id == *id)
    }

    /// The interface that has one of the node's addresses.
    #[must_use]
    pub fn nic(&self, node: &NodeState) -> Option<&Nic> {
        let mut nics = self.nics.iter().flatten();
        nics.find(|nic| node.internal_ips.iter().any(|ip| nic.has(*ip)))
    }
}

/// The name that cloud-provider-azure gives a node's route (`pkg/provider/azure_routes.go`): the node's, and, in clusters with both
/// families, the prefix without its punctuation.
#[must_use]
pub fn route_name(node: &str, of_both: Option<&IpNet>) -> String {
    match of_both {
        None => node.to_owned(),
        Some(prefix) => format!("{node}____{}", squeezed(prefix)),
    }
}

/// Whose route a name says it is, in either form; the second is certain, because the prefix is in it.
#[must_use]
pub fn named_node<'n>(name: &'n str, prefix: Option<&IpNet>) -> (&'n str, bool) {
    match name.rsplit_once("____") {
        Some((node, digits)) => (node, prefix.is_some_and(|prefix| squeezed(prefix) == digits)),
        None => (name, false),
    }
}

fn squeezed(prefix: &IpNet) -> String {
    prefix.to_string().replace(['.', ':', '/'], "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_as_the_cloud_provider_gives_them() {
        let net: IpNet = "10.244.50.0/24".parse().unwrap();
        assert_eq!(route_name("vm1", None), "vm1");
        let name = route_name("aks-x-vmss000001", Some(&net));
        assert_eq!(name, "aks-x-vmss000001____1024450024");
        assert_eq!(named_node(&name, Some(&net)), ("aks-x-vmss000001", true));
        let other: IpNet = "10.244.51.0/24".parse().unwrap();
        assert_eq!(named_node(&name, Some(&other)), ("aks-x-vmss000001", false));
        assert_eq!(named_node("vm1", Some(&net)), ("vm1", false));
    }
}
