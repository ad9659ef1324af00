//! Flannel's daemons, as far as nodes see: a VXLAN device each, and ways to the others by what nodes' annotations say.

use std::fs;
use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::Value;

use super::{LabError, NetNs, Node, Result};

/// Linux's port for VXLAN, which flannel uses; IANA's is 4789.
const VXLAN_PORT: &str = "8472";
/// The NIC's less the outer headers.
const MTU: [&str; 2] = ["1450", "1430"];

const DEVICES: [&str; 2] = ["flannel.1", "flannel-v6.1"];
const PREFIX: &str = "flannel.alpha.coreos.com/";
/// Annotations of each family: of the device's link-layer address, and of where the tunnel ends.
const KEYS: [(&str, &str); 2] = [("backend-data", "public-ip"), ("backend-v6-data", "public-ipv6")];

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
        device: DEVICES[family],
        mac: format!("02:0{family}:00:00:00:{:02x}", node.number()),
        outer: ips[family],
        inner: cidrs[family].network(),
    })
}

/// Makes each node's own devices, and the file that tells the plug-in of them.
pub(super) fn devices(nodes: &[Node]) -> Result<()> {
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
        write_env(node)?;
    }
    Ok(())
}

/// What the daemon tells its plug-in.
pub(super) fn write_env(node: &Node) -> Result<()> {
    let [v4, v6] = node.pod_cidrs();
    let text = format!(
        "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET={}/{}\nFLANNEL_IPV6_NETWORK=fd00:10:244::/48\nFLANNEL_IPV6_SUBNET={}/{}\n\
         FLANNEL_MTU={}\nFLANNEL_IPMASQ=true\n",
        v4.hosts().next().unwrap_or(v4.addr()),
        v4.prefix_len(),
        v6.hosts().nth(1).unwrap_or(v6.addr()),
        v6.prefix_len(),
        MTU[1],
    );
    let path = node.subnet_env();
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).map_err(LabError::file(dir))?;
    }
    fs::write(&path, text).map_err(LabError::file(path))
}

/// Does what flannel's daemons do when they see nodes' objects: whatever an annotation says, packets follow.
pub(super) fn follow(nodes: &[Node], objects: &[Value]) -> Result<()> {
    for object in objects {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let Some(owner) = nodes.iter().find(|node| node.name() == name) else {
            continue;
        };
        let said = |key: &str| object["metadata"]["annotations"][format!("{PREFIX}{key}")].as_str();
        for (family, keys) in KEYS.iter().enumerate() {
            let data: Option<Value> = said(keys.0).and_then(|data| serde_json::from_str(data).ok());
            let mac = data.and_then(|data| data["VtepMAC"].as_str().map(str::to_owned));
            let outer: Option<IpAddr> = said(keys.1).and_then(|ip| ip.parse().ok());
            let known = mac.zip(outer);
            let cidr = owner.pod_cidrs()[family];
            for node in nodes.iter().filter(|node| node.number() != owner.number()) {
                let device = DEVICES[family];
                forget(node.ns(), device, &cidr)?;
                if let Some((mac, outer)) = &known {
                    let tunnel = Tunnel {
                        device,
                        mac: mac.clone(),
                        outer: *outer,
                        inner: cidr.network(),
                    };
                    leads_to(node.ns(), &tunnel, &cidr.to_string())?;
                }
            }
        }
    }
    Ok(())
}

/// What an earlier annotation led to.
fn forget(ns: &NetNs, device: &str, cidr: &IpNet) -> Result<()> {
    let inner = cidr.network().to_string();
    let family = if cidr.addr().is_ipv6() { "-6" } else { "-4" };
    let known = ns.ip(&[family, "neigh", "show", &inner, "dev", device])?;
    let mac = known
        .split_whitespace()
        .skip_while(|word| *word != "lladdr")
        .nth(1);
    if let Some(mac) = mac {
        ns.exec("bridge", &["fdb", "del", mac, "dev", device])?;
        ns.ip(&[family, "neigh", "del", &inner, "dev", device])?;
        ns.ip(&[family, "route", "del", &cidr.to_string(), "dev", device])?;
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
