//! Which of the four networks this node is on, found or named, with the evidence; and what is wrong with it. Pure. `agent` and
//! `agent::preflight` use this.

pub(super) mod flannel;
#[cfg(test)]
mod tests;

use serde::Serialize;

use super::links::LinkNames;
use crate::model::Node;
use crate::sources::links::{Link, LinkKind, Snapshot};

/// Who gives pods their addresses, and who carries their packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Networking {
    /// Azure's user-defined routes, one for each node's podCIDR.
    Udr,
    /// Flannel's VXLAN between nodes: kube-flannel, canal.
    Flannel,
    /// Azure's own plug-in: pods' addresses are Azure's.
    AzureCni,
    /// host-local IPAM on a network that knows pods' addresses.
    #[default]
    HostLocal,
}

/// The agent's answer, with what speaks for it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Found {
    pub networking: Networking,
    /// By a flag; else by the evidence.
    pub named: bool,
    pub evidence: Vec<String>,
    /// UDP port of the tunnels between nodes; 0: there are none.
    #[serde(skip)]
    pub tunnel_port: u16,
    /// Nodes' podCIDRs say nothing about pods' addresses.
    #[serde(skip)]
    pub ignores_pod_cidrs: bool,
    /// What speaks against it, each with what to do.
    #[serde(skip)]
    pub problems: Vec<Problem>,
}

/// What speaks against a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// With what to do.
    pub text: String,
    /// Commands that mend it, if commands can.
    pub fix: Vec<String>,
    /// Interfaces whose pods must be made anew.
    pub anew: Vec<String>,
}

impl From<String> for Problem {
    fn from(text: String) -> Self {
        Self {
            text,
            fix: Vec::new(),
            anew: Vec::new(),
        }
    }
}

/// What a user said of it.
#[derive(Clone, Debug, Default)]
pub struct Choice {
    /// `None`: whatever is found.
    pub networking: Option<Networking>,
    /// `USE_POD_CIDR`, as calico-node has it.
    pub use_pod_cidr: Option<bool>,
    /// `CALICO_NETWORKING_BACKEND`, as calico-node has it.
    pub backend: Option<String>,
}

/// Name of the interfaces of Azure's plug-in, and of the bridge that it made once.
const AZURE_PREFIX: &str = "azv";
const AZURE_BRIDGE: &str = "azure0";

/// Whether a link is the device of flannel's tunnels.
pub(super) fn is_flannel(link: &Link) -> bool {
    matches!(link.kind, LinkKind::Vxlan { .. }) && link.name.starts_with("flannel")
}

/// `node`: this node's object, if it is known.
pub(super) fn find(choice: &Choice, names: &LinkNames, snapshot: &Snapshot, node: Option<&Node>) -> Found {
    let (seen, evidence) = seen(snapshot, node);
    let networking = choice.networking.unwrap_or(seen);
    let tunnels: Vec<&Link> = snapshot.links.values().filter(|link| is_flannel(link)).collect();
    let tunnel_port = tunnels.iter().find_map(|link| match link.kind {
        LinkKind::Vxlan { port, .. } if networking == Networking::Flannel => Some(port),
        _ => None,
    });
    let ignores = networking == Networking::AzureCni;
    let mut found = Found {
        networking,
        named: choice.networking.is_some(),
        evidence,
        tunnel_port: tunnel_port.unwrap_or(0),
        ignores_pod_cidrs: choice.use_pod_cidr.map_or(ignores, |uses| !uses),
        problems: Vec::new(),
    };
    let problems = &mut found.problems;
    if let Some(backend) = choice.backend.as_deref().filter(|backend| *backend != "none") {
        let text = format!(
            "CALICO_NETWORKING_BACKEND={backend}: expected none; calico-azure makes no network, and Azure carries neither BGP nor IP-in-IP"
        );
        problems.push(text.into());
    }
    if networking == Networking::Flannel {
        flannel::contradictions(problems, &names.fabric, snapshot, &tunnels, node);
        flannel::too_big(problems, names, snapshot, &tunnels);
    } else if let Some(link) = tunnels.first() {
        let text = format!(
            "{} is flannel's tunnel, and --networking says {}: what comes out of it is not held to the node that sent it; say flannel or auto",
            link.name,
            networking.name()
        );
        problems.push(text.into());
    }
    let lacks_cidr = node.is_some_and(|node| node.pod_cidrs.is_empty());
    if matches!(networking, Networking::Udr | Networking::HostLocal) && found.named && lacks_cidr {
        let text = format!(
            "--networking says {}, and this node has no podCIDR: start the controller manager with --allocate-node-cidrs, or say azure-cni",
            networking.name()
        );
        problems.push(text.into());
    }
    bridge_of_azure(problems, names, snapshot);
    found
}

impl Networking {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Udr => "udr",
            Self::Flannel => "flannel",
            Self::AzureCni => "azure-cni",
            Self::HostLocal => "host-local",
        }
    }
}

/// What there is, whatever anybody says.
fn seen(snapshot: &Snapshot, node: Option<&Node>) -> (Networking, Vec<String>) {
    let mut of_flannel: Vec<String> = Vec::new();
    for link in snapshot.links.values().filter(|link| is_flannel(link)) {
        if let LinkKind::Vxlan { port, .. } = link.kind {
            of_flannel.push(format!(
                "interface {} carries VXLAN on UDP port {port}",
                link.name
            ));
        }
    }
    if let Some(node) = node.filter(|node| !node.flannel_backend.is_empty()) {
        of_flannel.push(format!(
            "the node's annotations name flannel's backend {}",
            node.flannel_backend
        ));
    }
    if !of_flannel.is_empty() {
        return (Networking::Flannel, of_flannel);
    }
    let of_azure = |link: &&Link| link.name.starts_with(AZURE_PREFIX) || link.name == AZURE_BRIDGE;
    let azures: Vec<&Link> = snapshot.links.values().filter(of_azure).collect();
    if let Some(first) = azures.first() {
        let evidence = format!(
            "{} interfaces of Azure's plug-in, {} among them",
            azures.len(),
            first.name
        );
        return (Networking::AzureCni, vec![evidence]);
    }
    let Some(node) = node else {
        return (
            Networking::HostLocal,
            vec!["this node's object is not known yet".to_owned()],
        );
    };
    let cidrs: Vec<String> = node.pod_cidrs.iter().map(ToString::to_string).collect();
    match (node.provider_id.starts_with("azure://"), cidrs.is_empty()) {
        (true, false) => {
            let evidence = format!("a virtual machine in Azure with podCIDR {}", cidrs.join(", "));
            (Networking::Udr, vec![evidence])
        }
        (true, true) => {
            let evidence = "a virtual machine in Azure without podCIDR".to_owned();
            (Networking::AzureCni, vec![evidence])
        }
        (false, _) => {
            let evidence =
                "neither flannel's nor Azure's interfaces, and no provider ID of Azure's".to_owned();
            (Networking::HostLocal, vec![evidence])
        }
    }
}

/// Azure's plug-in rewrites link-layer addresses between the ports of its bridge.
fn bridge_of_azure(problems: &mut Vec<Problem>, names: &LinkNames, snapshot: &Snapshot) {
    let there = |link: &Link| link.kind == LinkKind::Bridge && link.name == AZURE_BRIDGE;
    if !names.bridges.iter().any(|name| name == AZURE_BRIDGE) && snapshot.links.values().any(there) {
        let text = format!(
            "pods whose interfaces are ports of the bridge {AZURE_BRIDGE} are not governed: use Azure's plug-in in transparent mode, or try \
             --pod-bridges {AZURE_BRIDGE}"
        );
        problems.push(text.into());
    }
}
