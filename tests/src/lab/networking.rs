//! How pods' packets get from node to node: by routes of Azure's, in flannel's VXLAN, or because Azure knows the pods.

use std::net::IpAddr;

use super::{NetNs, Node, Result};

/// One of the networks that policy is enforced on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Networking {
    /// host-local addresses of the node's podCIDRs, and user-defined routes.
    #[default]
    Udr,
    /// The same addresses, on a network that knows them.
    HostLocal,
    /// The same addresses, in VXLAN between the nodes, as flannel's daemon sets it up. Azure knows the nodes only.
    Flannel,
    /// Addresses that are the node's network interface's, as Azure's own plug-in gives them in transparent mode.
    AzureCni,
}

impl Networking {
    /// What `--fabric-interface` is to be.
    #[must_use]
    pub const fn fabric_interfaces(self) -> &'static str {
        match self {
            Self::Udr | Self::HostLocal | Self::AzureCni => "eth0",
            // The default route's, and the tunnels.
            Self::Flannel => "auto",
        }
    }

    /// What fits between nodes.
    pub(super) const fn pod_mtu(self) -> u32 {
        match self {
            Self::Udr | Self::HostLocal | Self::AzureCni => 1500,
            Self::Flannel => 1430,
        }
    }
}

/// Linux's port for VXLAN, which flannel uses; IANA's is 4789.
const VXLAN_PORT: &str = "8472";
/// The NIC's less the outer headers.
const MTU: [&str; 2] = ["1450", "1430"];

/// The device of one family on one node.
struct Tunnel {
    device: &'static str,
    mac: String,
    outer: IpAddr,
    /// The first address of the node's podCIDR.
    inner: IpAddr,
}

fn tunnels(node: &Node) -> [Tunnel; 2] {
    let (ips, cidrs) = (node.ips(), node.pod_cidrs());
    [0, 1].map(|family| Tunnel {
        device: ["flannel.1", "flannel-v6.1"][family],
        mac: format!("02:0{family}:00:00:00:{:02x}", node.number()),
        outer: ips[family],
        inner: cidrs[family].network(),
    })
}

/// Makes the tunnels between all nodes.
pub(super) fn mesh(nodes: &[Node]) -> Result<()> {
    for node in nodes {
        for (tunnel, mtu) in tunnels(node).iter().zip(MTU) {
            let ip = |args: &[&str]| node.ns().ip(args);
            let outer = tunnel.outer.to_string();
            ip(&[
                "link",
                "add",
                tunnel.device,
                "address",
                &tunnel.mac,
                "mtu",
                mtu,
                "type",
                "vxlan",
                "id",
                "1",
                "local",
                &outer,
                "dev",
                "eth0",
                "dstport",
                VXLAN_PORT,
                "nolearning",
            ])?;
            let own = format!(
                "{}/{}",
                tunnel.inner,
                if tunnel.inner.is_ipv6() { 128 } else { 32 }
            );
            let now: &[&str] = if tunnel.inner.is_ipv6() { &["nodad"] } else { &[] };
            ip(&[&["addr", "add", &own, "dev", tunnel.device], now].concat())?;
            ip(&["link", "set", tunnel.device, "up"])?;
        }
        for other in nodes.iter().filter(|other| other.number() != node.number()) {
            for (tunnel, cidr) in tunnels(other).iter().zip(other.pod_cidrs()) {
                leads_to(node.ns(), tunnel, &cidr.to_string())?;
            }
        }
    }
    Ok(())
}

/// A route, a neighbour and a way, which flannel's daemon makes of another node's annotations.
fn leads_to(ns: &NetNs, tunnel: &Tunnel, cidr: &str) -> Result<()> {
    let (inner, outer) = (tunnel.inner.to_string(), tunnel.outer.to_string());
    let device = tunnel.device;
    ns.ip(&[
        "neigh",
        "replace",
        &inner,
        "lladdr",
        &tunnel.mac,
        "dev",
        device,
        "nud",
        "permanent",
    ])?;
    ns.exec(
        "bridge",
        &["fdb", "append", &tunnel.mac, "dev", device, "dst", &outer],
    )?;
    ns.ip(&["route", "replace", cidr, "via", &inner, "dev", device, "onlink"])?;
    Ok(())
}

/// The annotations by which flannel's daemons know each other.
pub(super) fn annotations(node: &Node) -> serde_json::Value {
    let [v4, v6] = tunnels(node);
    let data = |tunnel: &Tunnel| serde_json::json!({"VNI": 1, "VtepMAC": tunnel.mac}).to_string();
    serde_json::json!({
        "flannel.alpha.coreos.com/backend-type": "vxlan",
        "flannel.alpha.coreos.com/backend-data": data(&v4),
        "flannel.alpha.coreos.com/backend-v6-data": data(&v6),
        "flannel.alpha.coreos.com/kube-subnet-manager": "true",
        "flannel.alpha.coreos.com/public-ip": v4.outer.to_string(),
        "flannel.alpha.coreos.com/public-ipv6": v6.outer.to_string(),
    })
}
