//! A node: one NIC in the fabric, a podCIDR per family, and the CNI plugin's state.

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, Ordering};

use ipnet::IpNet;

use super::{
    Fabric, Hold, LabDir, LabError, NetNs, Networking, Plugin, PodNet, Result, cni, flannel, plan, rules,
    transparent,
};

/// A node's namespace.
#[derive(Debug)]
pub struct Node {
    name: String,
    number: u8,
    ns: NetNs,
    ipam: PathBuf,
    lab: String,
    networking: Networking,
    plugin: Plugin,
    /// The plug-in behind it.
    pub hold: Option<Hold>,
    /// The plug-in's `mtu`, if it is not the one that fits.
    pub mtu: Option<u32>,
    /// Pods that Azure gave addresses to.
    addressed: AtomicU8,
}

impl Node {
    /// Creates `node-<number>`, plugs it into the fabric and, if that is how it is done, routes its podCIDRs to it.
    pub fn create(
        dir: &LabDir,
        fabric: &Fabric,
        number: u8,
        networking: Networking,
        plugin: Plugin,
    ) -> Result<Self> {
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
        let pods = networking.pods(number);
        match networking {
            Networking::AzureOverlay => ns.nft(&rules::overlay(pods, plan::node_ips(number)))?,
            _ => ns.nft(&rules::masquerade(&pods[0].to_string(), &pods[1].to_string()))?,
        }
        let node = Self {
            ipam: dir.ipam().join(&name),
            lab: dir.id().to_owned(),
            name,
            number,
            ns,
            networking,
            plugin,
            hold: None,
            mtu: None,
            addressed: AtomicU8::new(0),
        };
        match networking {
            Networking::Udr | Networking::HostLocal => {
                for cidr in node.pod_cidrs() {
                    fabric.add_route(cidr, &node)?;
                }
            }
            Networking::Flannel => {}
            // Azure gives a node's interface its addresses beforehand.
            Networking::AzureCni => {
                for net in plan::azure_pods(number) {
                    fabric.add_configurations(net, &node)?;
                }
            }
            Networking::AzureOverlay => {
                for net in plan::overlay_pods(number) {
                    fabric.add_overlay(net, &node)?;
                }
            }
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

    /// Where a container runtime keeps what CNI plug-ins answered.
    #[must_use]
    pub fn results(&self) -> PathBuf {
        self.ipam.join("results")
    }

    /// Where flannel's daemon tells the plug-in what it gave the node.
    #[must_use]
    pub fn subnet_env(&self) -> PathBuf {
        self.ipam.join("flannel/subnet.env")
    }

    /// Where host-local keeps what it gave out.
    #[must_use]
    pub fn networks(&self) -> PathBuf {
        self.ipam.join("networks")
    }

    /// Flags that say where all that is.
    #[must_use]
    pub fn paths(&self) -> Vec<OsString> {
        [
            ("--cni-results", self.results()),
            ("--cni-networks", self.networks()),
            ("--cni-conf-dir", self.ipam.join("net.d")),
            ("--flannel-env", self.subnet_env()),
        ]
        .into_iter()
        .flat_map(|(flag, path)| [OsString::from(flag), path.into_os_string()])
        .collect()
    }

    /// Makes a pod's network with the real plugins, as a container runtime would.
    pub fn add_pod(&self, namespace: &str, name: &str) -> Result<PodNet> {
        self.add_pod_of(self.pod_cidrs(), namespace, name)
    }

    /// As [`Self::add_pod`], with addresses of other prefixes than the plan's; on Azure's own networks they are Azure's anyway.
    pub fn add_pod_of(&self, cidrs: [IpNet; 2], namespace: &str, name: &str) -> Result<PodNet> {
        let container = format!("{}-{namespace}-{name}", self.lab);
        if self.networking.is_azures() {
            let place = self.addressed.fetch_add(1, Ordering::Relaxed);
            let ips = plan::nth_pod(self.networking.pods(self.number), place);
            return transparent::add(self, &container, namespace, name, ips);
        }
        let attachment = cni::Attachment {
            node: self.ns.clone(),
            pod: format!("{namespace}/{name}"),
            container,
            plugin: self.plugin,
            config: cni::config(
                self.plugin,
                &self.networks(),
                &cidrs,
                self.mtu.unwrap_or(self.networking.pod_mtu()),
            ),
            hold: self.hold.clone().map(|hold| (self.name.clone(), hold)),
            results: self.results(),
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
        let mut node = serde_json::json!({
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": self.name, "labels": {"kubernetes.io/hostname": self.name}},
            "spec": {"podCIDR": cidrs[0], "podCIDRs": cidrs, "providerID": format!("azure:///{}", self.name)},
            "status": {"addresses": addresses},
        });
        match self.networking {
            Networking::Udr => {}
            Networking::HostLocal => drop(node["spec"]["providerID"].take()),
            Networking::Flannel => node["metadata"]["annotations"] = flannel::annotations(self),
            Networking::AzureCni | Networking::AzureOverlay => {
                node["spec"] = serde_json::json!({"providerID": node["spec"]["providerID"]});
            }
        }
        node
    }
}
