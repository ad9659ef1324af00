//! Which of the four networks the cluster is on, from its nodes and `azure.json`, in the agent's order; what Azure has to do for it.

use serde::Serialize;

use super::nodes::NodeState;

/// Who carries pods' packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Network {
    /// Azure's user-defined routes, one for each node's podCIDR.
    #[default]
    Udr,
    /// Flannel's VXLAN between nodes: Azure sees nodes' addresses only.
    Flannel,
    /// Azure's own plug-in: pods' addresses are Azure's.
    AzureCni,
    /// host-local IPAM on a network that knows pods' addresses.
    HostLocal,
}

impl Network {
    /// Its name, as flags have it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Udr => "udr",
            Self::Flannel => "flannel",
            Self::AzureCni => "azure-cni",
            Self::HostLocal => "host-local",
        }
    }

    /// Whether each node needs a route in Azure's table.
    #[must_use]
    pub const fn needs_routes(self) -> bool {
        matches!(self, Self::Udr)
    }

    /// Whether nodes' interfaces send and get packets with addresses that Azure has not given to them.
    #[must_use]
    pub const fn needs_forwarding(self) -> bool {
        matches!(self, Self::Udr | Self::HostLocal)
    }

    /// Whether pods' addresses are of their nodes' podCIDRs.
    #[must_use]
    pub const fn has_pod_cidrs(self) -> bool {
        !matches!(self, Self::AzureCni)
    }
}

/// The network, with what speaks for it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Found {
    #[serde(rename = "networking")]
    pub network: Network,
    pub evidence: String,
}

impl Found {
    /// As a user said.
    #[must_use]
    pub fn named(network: Network) -> Self {
        Self {
            network,
            evidence: "--networking says so".to_owned(),
        }
    }
}

/// What there is. `route_table`: the one that `azure.json` names.
#[must_use]
pub fn find(nodes: &[NodeState], route_table: Option<&str>) -> Found {
    let found = |network, evidence: String| Found { network, evidence };
    let of = |is: fn(&NodeState) -> bool| nodes.iter().find(|node| is(node)).map(|node| &node.name);
    if let Some(name) = of(|node| node.flannel) {
        let evidence = format!("node {name} has flannel's annotations");
        return found(Network::Flannel, evidence);
    }
    if let Some(name) = of(|node| node.azure_pods) {
        let evidence = format!("node {name} has the label kubernetes.azure.com/podnetwork-type");
        return found(Network::AzureCni, evidence);
    }
    let azure = of(|node| node.in_azure);
    let with_cidr = of(|node| !node.pod_cidrs.is_empty());
    match (azure, with_cidr, route_table) {
        (Some(name), None, _) if nodes.iter().all(|node| node.in_azure) => {
            let evidence = format!("no node has a podCIDR, and {name} is a virtual machine in Azure");
            found(Network::AzureCni, evidence)
        }
        (_, _, Some(table)) => {
            let evidence = format!("azure.json names route table {table}");
            found(Network::Udr, evidence)
        }
        (Some(name), Some(_), None) => {
            let evidence = format!("nodes have podCIDRs, and {name} is a virtual machine in Azure");
            found(Network::Udr, evidence)
        }
        (None, _, None) if nodes.is_empty() => found(Network::Udr, "there are no nodes".to_owned()),
        (_, _, None) => {
            let evidence =
                "no flannel, no route table in azure.json, and no provider ID of Azure's on any node"
                    .to_owned();
            found(Network::HostLocal, evidence)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_network_is_known_by_its_nodes() {
        let azure = NodeState {
            name: "vm1".into(),
            in_azure: true,
            ..NodeState::default()
        };
        let routed = NodeState {
            pod_cidrs: vec!["10.244.1.0/24".parse().unwrap()],
            ..azure.clone()
        };
        let flannel = NodeState {
            flannel: true,
            ..routed.clone()
        };
        let overlay = NodeState {
            azure_pods: true,
            ..routed.clone()
        };
        let other = NodeState {
            in_azure: false,
            ..routed.clone()
        };
        for (nodes, table, expected) in [
            (vec![routed.clone()], Some("rt"), Network::Udr),
            (vec![routed.clone()], None, Network::Udr),
            // One of them has not got its podCIDR yet.
            (vec![azure.clone(), routed.clone()], Some("rt"), Network::Udr),
            (vec![routed.clone(), flannel], Some("rt"), Network::Flannel),
            (vec![overlay], Some("rt"), Network::AzureCni),
            // AKS names a table whatever the network is.
            (vec![azure], Some("rt"), Network::AzureCni),
            (vec![other.clone()], Some("rt"), Network::Udr),
            (vec![other], None, Network::HostLocal),
            (vec![], None, Network::Udr),
            (vec![], Some("rt"), Network::Udr),
        ] {
            let found = find(&nodes, table);
            assert_eq!(found.network, expected, "{found:?} of {nodes:?}");
            assert!(!found.evidence.is_empty());
        }
    }
}
