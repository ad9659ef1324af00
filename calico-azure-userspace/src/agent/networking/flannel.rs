//! What is wrong with flannel on this node: its device, its annotations, its MTUs. Pure. Only `networking` uses this.

use std::net::IpAddr;

use super::{LinkNames, Problem};
use crate::agent::config::FabricChoice;
use crate::model::Node;
use crate::sources::links::{Link, LinkKind, Snapshot};

/// Outer Ethernet, IP, UDP and VXLAN headers, in bytes.
const OVERHEAD4: u32 = 50;
const OVERHEAD6: u32 = 70;
/// Of flannel's annotations, unless its daemon is told another one.
const PREFIX: &str = "flannel.alpha.coreos.com/";
/// What makes flannel's daemon of a node begin anew, where kube-flannel's own manifest has put it.
pub(in crate::agent) fn restart(node: &str) -> String {
    format!("kubectl -n kube-flannel delete pod -l app=flannel --field-selector spec.nodeName={node}")
}

pub(super) fn contradictions(
    problems: &mut Vec<Problem>,
    fabric: &FabricChoice,
    snapshot: &Snapshot,
    tunnels: &[&Link],
    node: Option<&Node>,
) {
    if tunnels.is_empty() {
        let text = "networking is flannel's, and there is no interface flannel.*: is kube-flannel running on this node?";
        problems.push(Problem {
            text: text.to_owned(),
            fix: node.iter().map(|node| restart(&node.name)).collect(),
            anew: Vec::new(),
        });
    }
    if let FabricChoice::Named(names) = fabric {
        for link in tunnels.iter().filter(|link| !names.contains(&link.name)) {
            let text = format!(
                "{} is not among --fabric-interface {}: what comes out of it is not validated; add it, or say auto",
                link.name,
                names.join(",")
            );
            problems.push(text.into());
        }
    }
    let Some(node) = node else { return };
    if !matches!(node.flannel_backend.as_str(), "" | "vxlan") {
        let text = format!(
            "flannel's backend is {}: on Azure only vxlan reaches other nodes without routes of Azure's",
            node.flannel_backend
        );
        problems.push(text.into());
    }
    if missing(problems, tunnels, node) {
        return;
    }
    for ip in &node.tunnel_ips {
        if snapshot.host_ips.contains(ip) {
            continue;
        }
        let (key, like) = if ip.is_ipv6() {
            ("public-ipv6", true)
        } else {
            ("public-ip", false)
        };
        let right = outer(snapshot, tunnels, like);
        problems.push(Problem {
            text: format!(
                "flannel's annotation of this node says that its tunnel ends at {ip}, which is no address of the node: other nodes send its \
                 pods' packets elsewhere; start flanneld with --iface, or remove {PREFIX}public-ip-overwrite"
            ),
            fix: right
                .map(|right| annotate(&node.name, key, &right.to_string()))
                .into_iter()
                .collect(),
            anew: Vec::new(),
        });
    }
    macs(problems, tunnels, node);
}

/// Flannel's daemons know each other by annotations only. Whether none is there, so that nothing else need be said of them.
fn missing(problems: &mut Vec<Problem>, tunnels: &[&Link], node: &Node) -> bool {
    if tunnels.is_empty() {
        return false;
    }
    let vxlan = matches!(node.flannel_backend.as_str(), "" | "vxlan");
    let mut lacking = Vec::new();
    if node.flannel_backend.is_empty() {
        lacking.push("backend-type");
    }
    let here = |family: bool| tunnels.iter().any(|link| is_v6(link) == family);
    for (family, key) in [(false, "public-ip"), (true, "public-ipv6")] {
        if here(family) && node.tunnel_ips.iter().all(|ip| ip.is_ipv6() != family) {
            lacking.push(key);
        }
    }
    if vxlan && node.tunnel_macs.len() < tunnels.len() {
        lacking.push(if here(true) {
            "backend-data or backend-v6-data"
        } else {
            "backend-data"
        });
    }
    if lacking.is_empty() {
        return false;
    }
    problems.push(Problem {
        text: format!(
            "this node's object has not flannel's annotation{} {PREFIX}{}: flannel's daemons on other nodes do not know where its pods are, and \
             send them nothing; restart flannel's pod on this node (canal's: kubectl -n kube-system delete pod -l k8s-app=canal --field-selector \
             spec.nodeName={})",
            if lacking.len() == 1 { "" } else { "s" },
            lacking.join(", "),
            node.name
        ),
        fix: vec![restart(&node.name)],
        anew: Vec::new(),
    });
    node.flannel_backend.is_empty() && node.tunnel_ips.is_empty() && node.tunnel_macs.is_empty()
}

fn macs(problems: &mut Vec<Problem>, tunnels: &[&Link], node: &Node) {
    let said = |link: &&&Link| !node.tunnel_macs.contains(&link.mac);
    // Devices that no annotation names, in the annotations' order: IPv4's first.
    let mut unsaid: Vec<&&Link> = tunnels.iter().filter(said).collect();
    unsaid.sort_by_key(|link| is_v6(link));
    let mut unsaid = unsaid.into_iter();
    for mac in &node.tunnel_macs {
        if tunnels.iter().any(|link| link.mac == *mac) {
            continue;
        }
        let right = unsaid.next().map(|link| {
            let key = if is_v6(link) {
                "backend-v6-data"
            } else {
                "backend-data"
            };
            let vni = link.name.rsplit('.').next().and_then(|vni| vni.parse().ok());
            let data = serde_json::json!({"VNI": vni.unwrap_or(1_u32), "VtepMAC": link.mac});
            annotate(&node.name, key, &data.to_string())
        });
        problems.push(Problem {
            text: format!(
                "flannel's annotation of this node says that its tunnel has the address {mac}, and no flannel.* has it: other nodes' packets are \
                 dropped when they arrive; restart flanneld on this node"
            ),
            fix: right.into_iter().collect(),
            anew: Vec::new(),
        });
    }
}

/// The address that a tunnel of this family should end at: of the interface that carries it.
fn outer(snapshot: &Snapshot, tunnels: &[&Link], v6: bool) -> Option<IpAddr> {
    let carrier = tunnels.iter().find_map(|link| match link.kind {
        LinkKind::Vxlan {
            parent, v6: family, ..
        } if family == v6 => snapshot.links.get(&parent),
        _ => None,
    })?;
    carrier.addresses.iter().copied().find(|ip| ip.is_ipv6() == v6)
}

fn is_v6(link: &Link) -> bool {
    matches!(link.kind, LinkKind::Vxlan { v6: true, .. })
}

fn annotate(node: &str, key: &str, value: &str) -> String {
    format!("kubectl annotate node {node} --overwrite '{PREFIX}{key}={value}'")
}

/// Packets that do not fit into the tunnel's outer packet are lost, or come in pieces.
pub(super) fn too_big(
    problems: &mut Vec<Problem>,
    names: &LinkNames,
    snapshot: &Snapshot,
    tunnels: &[&Link],
) {
    // What each tunnel carries, or will once it is mended.
    let mut least = u32::MAX;
    for tunnel in tunnels {
        let LinkKind::Vxlan { parent, v6, .. } = tunnel.kind else {
            continue;
        };
        let overhead = if v6 { OVERHEAD6 } else { OVERHEAD4 };
        let room = snapshot
            .links
            .get(&parent)
            .map(|parent| (parent, parent.mtu.saturating_sub(overhead)));
        least = least.min(tunnel.mtu).min(room.map_or(u32::MAX, |(_, room)| room));
        if let Some((parent, room)) = room.filter(|(_, room)| tunnel.mtu > *room) {
            problems.push(Problem {
                text: format!(
                    "{} has MTU {}, and {} carries {}: what is bigger than {room} is lost between nodes; restart flanneld, which sets it",
                    tunnel.name, tunnel.mtu, parent.name, parent.mtu,
                ),
                fix: vec![format!("ip link set dev {} mtu {room}", tunnel.name)],
                anew: Vec::new(),
            });
        }
    }
    let bridges = names.bridges(snapshot);
    let pods = snapshot
        .links
        .values()
        .filter(|link| names.is_pods(link, &bridges));
    let big: Vec<&Link> = pods.filter(|link| link.mtu > least).collect();
    if let Some(first) = big.first() {
        let text = format!(
            "{} of pods' interfaces, {} among them, have MTU {} or more, and flannel's tunnel carries {least}: bigger packets are lost between \
             nodes where path MTU discovery does not get through; set the plug-in's mtu to {least} and make the pods anew",
            big.len(),
            first.name,
            first.mtu
        );
        problems.push(Problem {
            text,
            fix: Vec::new(),
            anew: big.iter().map(|link| link.name.clone()).collect(),
        });
    }
}
