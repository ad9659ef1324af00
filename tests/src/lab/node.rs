//! A node: one NIC in the fabric, a podCIDR per family, and the CNI plugin's state.

use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;

use super::{Fabric, LabDir, LabError, NetNs, PodNet, Result, cni, plan, rules};

/// A node's namespace.
#[derive(Debug)]
pub struct Node {
    name: String,
    number: u8,
    ns: NetNs,
    ipam: PathBuf,
    lab: String,
}

impl Node {
    /// Creates `node-<number>`, plugs it into the fabric and routes its podCIDRs to it.
    pub fn create(dir: &LabDir, fabric: &Fabric, number: u8) -> Result<Self> {
        if !(1..=plan::MAX_NODES).contains(&number) {
            let known = format!("room for nodes 1 to {}", plan::MAX_NODES);
            return Err(LabError::Unknown {
                kind: "node number",
                name: number.to_string(),
                known,
            });
        }
        let name = format!("node-{number}");
        let ns = NetNs::create(&format!("{}-{name}", dir.id()))?;
        ns.sysctl(&[
            ("ipv4/ip_forward", "1"),
            ("ipv6/conf/all/forwarding", "1"),
            ("ipv6/conf/all/accept_dad", "0"),
            ("ipv6/conf/default/accept_dad", "0"),
            // A spoofed packet must reach whoever the test wants to see dropping it.
            ("ipv4/conf/all/rp_filter", "0"),
            ("ipv4/conf/default/rp_filter", "0"),
        ])?;
        fabric.plug(number, &ns)?;
        let [v4, v6] = plan::node_ips(number);
        let gateway = plan::GATEWAY_V4.to_string();
        ns.ip(&["addr", "add", &format!("{v4}/32"), "dev", "eth0"])?;
        ns.ip(&["route", "add", &gateway, "dev", "eth0", "scope", "link"])?;
        ns.ip(&["route", "add", "default", "via", &gateway, "dev", "eth0"])?;
        ns.ip(&["addr", "add", &format!("{v6}/128"), "dev", "eth0", "nodad"])?;
        ns.ip(&["-6", "route", "add", "default", "via", "fe80::1", "dev", "eth0"])?;
        let [pods_v4, pods_v6] = plan::pod_cidrs(number);
        ns.nft(&rules::masquerade(&pods_v4.to_string(), &pods_v6.to_string()))?;
        let node = Self {
            ipam: dir.ipam().join(&name),
            lab: dir.id().to_owned(),
            name,
            number,
            ns,
        };
        for cidr in node.pod_cidrs() {
            fabric.add_route(cidr, &node)?;
        }
        Ok(node)
    }

    /// `node-<number>`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// From 1.
    #[must_use]
    pub fn number(&self) -> u8 {
        self.number
    }

    /// The node's namespace.
    #[must_use]
    pub fn ns(&self) -> &NetNs {
        &self.ns
    }

    /// IPv4, IPv6.
    #[must_use]
    pub fn ips(&self) -> [IpAddr; 2] {
        plan::node_ips(self.number)
    }

    /// IPv4, IPv6.
    #[must_use]
    pub fn pod_cidrs(&self) -> [IpNet; 2] {
        plan::pod_cidrs(self.number)
    }

    /// Makes a pod's network with the real `ptp` and `host-local` plugins, as a container runtime would.
    pub fn add_pod(&self, namespace: &str, name: &str) -> Result<PodNet> {
        let attachment = cni::Attachment {
            node: self.ns.clone(),
            pod: format!("{namespace}/{name}"),
            container: format!("{}-{namespace}-{name}", self.lab),
            config: cni::config(&self.ipam, &self.pod_cidrs()),
        };
        cni::add(attachment)
    }

    /// The node as a Kubernetes object.
    #[must_use]
    pub fn manifest(&self) -> serde_json::Value {
        let cidrs = self.pod_cidrs().map(|c| c.to_string());
        let mut addresses: Vec<_> = self
            .ips()
            .iter()
            .map(|ip| serde_json::json!({"type": "InternalIP", "address": ip.to_string()}))
            .collect();
        addresses.push(serde_json::json!({"type": "Hostname", "address": self.name}));
        serde_json::json!({
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": self.name, "labels": {"kubernetes.io/hostname": self.name}},
            "spec": {"podCIDR": cidrs[0], "podCIDRs": cidrs},
            "status": {"addresses": addresses},
        })
    }
}
