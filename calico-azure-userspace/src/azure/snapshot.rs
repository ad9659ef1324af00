//! Everything that an audit looks at, at one moment.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use super::network::{Found, Network};
use super::nodes::NodeState;
use super::resource::{EffectiveRoute, Id, Nic, RouteTable, Subnet, VirtualNetwork};
use super::security::SecurityGroup;

/// Routes of one table, unless Azure was asked for more (since May 2026; 400 for years before).
pub const ROUTE_LIMIT: usize = 1000;

/// Nodes and what ARM says.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    pub nodes: Vec<NodeState>,
    /// Who carries pods' packets; where it is not Azure's routes, there is no table here.
    pub networking: Found,
    /// The table that the cluster is configured with.
    pub table_id: Id,
    /// Where it would be made.
    pub location: String,
    /// `None`: it does not exist.
    pub table: Option<RouteTable>,
    pub networks: Vec<VirtualNetwork>,
    /// `None`: nobody may or could read them.
    pub nics: Option<Vec<Nic>>,
    /// Security groups of the nodes' interfaces and subnets, where they matter; those that may not be read are not here.
    pub security: BTreeMap<Id, SecurityGroup>,
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
    /// `None`: the one that is found.
    pub network: Option<Network>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            cluster_cidrs: Vec::new(),
            service_cidrs: Vec::new(),
            route_limit: ROUTE_LIMIT,
            network: None,
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

impl Snapshot {
    /// The routes of all nodes that have routes made for them.
    #[must_use]
    pub fn wanted(&self) -> Vec<Wanted> {
        if !self.networking.network.needs_routes() {
            return Vec::new();
        }
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

    /// The node's interface: the one that has the first of its addresses that any has.
    #[must_use]
    pub fn nic(&self, node: &NodeState) -> Option<&Nic> {
        let mut nics = node.internal_ips.iter().filter_map(|ip| self.nic_with(*ip));
        nics.next()
    }

    /// The security groups that decide about the node's packets: its interface's and its subnet's.
    #[must_use]
    pub fn security_of(&self, node: &NodeState) -> Vec<&Id> {
        let Some(nic) = self.nic(node) else {
            return Vec::new();
        };
        let subnets = nic
            .configurations
            .iter()
            .filter_map(|c| self.subnet(c.subnet.as_ref()?));
        let mut groups: Vec<&Id> = nic.security_group.iter().collect();
        groups.extend(subnets.filter_map(|subnet| subnet.security_group.as_ref()));
        groups.sort();
        groups.dedup();
        groups
    }

    /// The interface that has the address.
    #[must_use]
    pub fn nic_with(&self, ip: IpAddr) -> Option<&Nic> {
        self.nics.iter().flatten().find(|nic| nic.has(ip))
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
