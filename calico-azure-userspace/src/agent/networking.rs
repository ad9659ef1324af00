//! Which of the four networks this node is on, found or named, with the evidence; and what is wrong with it. Pure.

use std::collections::BTreeSet;

use serde::Serialize;

use super::config::FabricChoice;
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
    pub problems: Vec<String>,
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

/// Outer Ethernet, IP, UDP and VXLAN headers, in bytes.
const OVERHEAD4: u32 = 50;
const OVERHEAD6: u32 = 70;
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
        problems.push(format!(
            "CALICO_NETWORKING_BACKEND={backend}: expected none; calico-azure makes no network, and Azure carries neither BGP nor IP-in-IP"
        ));
    }
    if networking == Networking::Flannel {
        flannel(problems, &names.fabric, snapshot, &tunnels, node);
        too_big(problems, names, snapshot, &tunnels);
    } else if let Some(link) = tunnels.first() {
        problems.push(format!(
            "{} is flannel's tunnel, and --networking says {}: what comes out of it is not held to the node that sent it; say flannel or auto",
            link.name,
            networking.name()
        ));
    }
    let lacks_cidr = node.is_some_and(|node| node.pod_cidrs.is_empty());
    if matches!(networking, Networking::Udr | Networking::HostLocal) && found.named && lacks_cidr {
        problems.push(format!(
            "--networking says {}, and this node has no podCIDR: start the controller manager with --allocate-node-cidrs, or say azure-cni",
            networking.name()
        ));
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

fn flannel(
    problems: &mut Vec<String>,
    fabric: &FabricChoice,
    snapshot: &Snapshot,
    tunnels: &[&Link],
    node: Option<&Node>,
) {
    if tunnels.is_empty() {
        problems.push("networking is flannel's, and there is no interface flannel.*: is kube-flannel running on this node?".to_owned());
    }
    if let FabricChoice::Named(names) = fabric {
        for link in tunnels.iter().filter(|link| !names.contains(&link.name)) {
            problems.push(format!(
                "{} is not among --fabric-interface {}: what comes out of it is not validated; add it, or say auto",
                link.name,
                names.join(",")
            ));
        }
    }
    let Some(node) = node else { return };
    if !matches!(node.flannel_backend.as_str(), "" | "vxlan") {
        problems.push(format!(
            "flannel's backend is {}: on Azure only vxlan reaches other nodes without routes of Azure's",
            node.flannel_backend
        ));
    }
    for ip in node
        .tunnel_ips
        .iter()
        .filter(|ip| !snapshot.host_ips.contains(ip))
    {
        problems.push(format!(
            "flannel's annotation of this node says that its tunnel ends at {ip}, which is no address of the node: other nodes send its \
             pods' packets elsewhere; start flanneld with --iface, or remove flannel.alpha.coreos.com/public-ip-overwrite"
        ));
    }
    let macs: BTreeSet<&str> = tunnels.iter().map(|link| link.mac.as_str()).collect();
    for mac in node.tunnel_macs.iter().filter(|mac| !macs.contains(mac.as_str())) {
        problems.push(format!(
            "flannel's annotation of this node says that its tunnel has the address {mac}, and no flannel.* has it: other nodes' packets are \
             dropped when they arrive; restart flanneld on this node"
        ));
    }
}

/// Packets that do not fit into the tunnel's outer packet are lost, or come in pieces.
fn too_big(problems: &mut Vec<String>, names: &LinkNames, snapshot: &Snapshot, tunnels: &[&Link]) {
    for tunnel in tunnels {
        let LinkKind::Vxlan { parent, v6, .. } = tunnel.kind else {
            continue;
        };
        let overhead = if v6 { OVERHEAD6 } else { OVERHEAD4 };
        let Some(parent) = snapshot.links.get(&parent) else {
            continue;
        };
        if tunnel.mtu + overhead > parent.mtu {
            problems.push(format!(
                "{} has MTU {}, and {} carries {}: what is bigger than {} is lost between nodes; restart flanneld, which sets it",
                tunnel.name,
                tunnel.mtu,
                parent.name,
                parent.mtu,
                parent.mtu.saturating_sub(overhead)
            ));
        }
    }
    let Some(least) = tunnels.iter().map(|link| link.mtu).min() else {
        return;
    };
    let bridges = names.bridges(snapshot);
    let pods = snapshot
        .links
        .values()
        .filter(|link| names.is_pods(link, &bridges));
    let big: Vec<&Link> = pods.filter(|link| link.mtu > least).collect();
    if let Some(first) = big.first() {
        problems.push(format!(
            "{} of pods' interfaces, {} among them, have MTU {} or more, and flannel's tunnel carries {least}: bigger packets are lost between \
             nodes where path MTU discovery does not get through; set the plug-in's mtu to {least} and make the pods anew",
            big.len(),
            first.name,
            first.mtu
        ));
    }
}

/// Azure's plug-in rewrites link-layer addresses between the ports of its bridge.
fn bridge_of_azure(problems: &mut Vec<String>, names: &LinkNames, snapshot: &Snapshot) {
    let there = |link: &Link| link.kind == LinkKind::Bridge && link.name == AZURE_BRIDGE;
    if !names.bridges.iter().any(|name| name == AZURE_BRIDGE) && snapshot.links.values().any(there) {
        problems.push(format!(
            "pods whose interfaces are ports of the bridge {AZURE_BRIDGE} are not governed: use Azure's plug-in in transparent mode, or try \
             --pod-bridges {AZURE_BRIDGE}"
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(name: &str, kind: LinkKind, mtu: u32) -> Link {
        Link {
            name: name.into(),
            kind,
            mtu,
            mac: "02:00:00:00:00:01".into(),
            ..Link::default()
        }
    }

    fn vxlan(parent: u32) -> LinkKind {
        LinkKind::Vxlan {
            port: 8472,
            parent,
            v6: false,
        }
    }

    fn snapshot(links: Vec<Link>) -> Snapshot {
        Snapshot {
            links: (1..).zip(links).collect(),
            host_ips: ["10.240.0.4".parse().unwrap()].into(),
            ..Snapshot::default()
        }
    }

    fn names(fabric: &str) -> LinkNames {
        LinkNames {
            prefixes: vec!["cali".into()],
            fabric: fabric.parse().unwrap(),
            bridges: LinkNames::BRIDGES.map(str::to_owned).into(),
        }
    }

    fn auto(snapshot: &Snapshot, node: Option<&Node>) -> Found {
        find(&Choice::default(), &names("auto"), snapshot, node)
    }

    fn azure(cidr: Option<&str>) -> Node {
        Node {
            name: "n".into(),
            provider_id: "azure:///subscriptions/s/…".into(),
            pod_cidrs: cidr.map(|cidr| cidr.parse().unwrap()).into_iter().collect(),
            ..Node::default()
        }
    }

    #[test]
    fn each_network_is_known_by_what_it_leaves_on_a_node() {
        let nic = || link("eth0", LinkKind::Other, 1500);
        let bare = snapshot(vec![nic()]);
        let flannel = snapshot(vec![nic(), link("flannel.1", vxlan(1), 1450)]);
        let azv = snapshot(vec![nic(), link("azv01234567890", LinkKind::Other, 1500)]);
        for (snapshot, node, expected) in [
            (&bare, Some(azure(Some("10.244.1.0/24"))), Networking::Udr),
            (&bare, Some(azure(None)), Networking::AzureCni),
            (&bare, Some(Node::default()), Networking::HostLocal),
            (&bare, None, Networking::HostLocal),
            (&azv, Some(azure(Some("10.244.1.0/24"))), Networking::AzureCni),
            (&azv, None, Networking::AzureCni),
            (&flannel, Some(azure(Some("10.244.1.0/24"))), Networking::Flannel),
        ] {
            let found = auto(snapshot, node.as_ref());
            assert_eq!(found.networking, expected, "{found:?}");
            assert!(
                !found.evidence.is_empty() && found.problems.is_empty(),
                "{found:?}"
            );
            assert_eq!(found.ignores_pod_cidrs, expected == Networking::AzureCni);
            assert_eq!(
                found.tunnel_port,
                if expected == Networking::Flannel { 8472 } else { 0 }
            );
        }
    }

    #[test]
    fn what_contradicts_a_choice_is_said() {
        let flannel = snapshot(vec![
            link("eth0", LinkKind::Other, 1500),
            link("flannel.1", vxlan(1), 1480),
            link("cali1", LinkKind::Other, 1500),
        ]);
        let node = Node {
            flannel_backend: "host-gw".into(),
            tunnel_ips: vec!["10.240.0.9".parse().unwrap()],
            tunnel_macs: vec!["02:00:00:00:00:09".into()],
            ..azure(None)
        };
        let told = |choice: &Choice, fabric: &str, snapshot: &Snapshot, node: &Node| {
            find(choice, &names(fabric), snapshot, Some(node)).problems
        };
        let problems = told(&Choice::default(), "eth0", &flannel, &node);
        for part in [
            "not among --fabric-interface eth0",
            "backend is host-gw",
            "10.240.0.9, which is no address",
            "02:00:00:00:00:09",
            "MTU 1480, and eth0 carries 1500: what is bigger than 1450",
            "cali1 among them, have MTU 1500",
        ] {
            assert!(
                problems.iter().any(|problem| problem.contains(part)),
                "{part}: {problems:#?}"
            );
        }
        assert_eq!(problems.len(), 6, "{problems:#?}");
        let choice = Choice {
            networking: Some(Networking::Udr),
            use_pod_cidr: Some(false),
            backend: Some("bird".into()),
        };
        let problems = told(&choice, "auto", &flannel, &node);
        for part in [
            "CALICO_NETWORKING_BACKEND=bird",
            "--networking says udr: what comes",
            "no podCIDR",
        ] {
            assert!(
                problems.iter().any(|problem| problem.contains(part)),
                "{part}: {problems:#?}"
            );
        }
        let found = find(&choice, &names("auto"), &flannel, None);
        assert!(found.ignores_pod_cidrs && found.named && found.tunnel_port == 0);
        let bridged = |bridge| {
            let bridged = snapshot(vec![link(bridge, LinkKind::Bridge, 1450)]);
            told(&Choice::default(), "auto", &bridged, &azure(None))
        };
        assert_eq!(bridged("cni0"), Vec::<String>::new());
        assert!(bridged("azure0")[0].contains("bridge azure0"));
    }
}
