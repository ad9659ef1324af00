//! Two nodes and three pods in network namespaces, joined by veth pairs and nothing else:
//!
//! ```text
//!   pod a ── va node-1 eth0 ── eth0 node-2 vr ── pod remote
//!   pod b ── vb
//! ```
//!
//! Neighbours are known from the start, so that only the traffic under test is on the links. Addresses and interface
//! indices are those of the scenario.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::Result;

use crate::harness::scenario::{A, B, FABRIC, address};
use crate::lab::{LabDir, NetNs};

/// A pod and its host-side interface.
#[derive(Clone)]
pub(in crate::bench) struct Pod {
    pub(in crate::bench) ns: NetNs,
    pub(in crate::bench) ip: IpAddr,
    pub(in crate::bench) ifname: &'static str,
    pub(in crate::bench) ifindex: u32,
    /// MAC addresses of the pod and of its host side.
    pub(in crate::bench) mac: [[u8; 6]; 2],
}

/// A node and its pods.
pub(in crate::bench) struct Node {
    /// As the scenario calls it.
    pub(in crate::bench) name: &'static str,
    pub(in crate::bench) ns: NetNs,
    pub(in crate::bench) pods: Vec<Pod>,
}

/// Everything.
pub(in crate::bench) struct Topology {
    pub(in crate::bench) nodes: [Node; 2],
    _dir: LabDir,
}

/// Pods route everything through this address, which is no interface's.
const GATEWAY: &str = "169.254.1.1";

impl Topology {
    /// Builds it; dropped, its namespaces go, as they do on a signal.
    pub(in crate::bench) fn new() -> Result<Self> {
        // A lab without a fabric: its name is what a signal's clean-up goes by.
        let dir = LabDir::create()?;
        let prefix = format!("{}-bench", dir.id());
        let mut nodes = [
            Node::new(&prefix, "n1", "node")?,
            Node::new(&prefix, "n2", "other-node")?,
        ];
        let [one, two] = &mut nodes;
        let index = FABRIC.to_string();
        one.ns.ip(&[
            "link",
            "add",
            "eth0",
            "index",
            &index,
            "type",
            "veth",
            "peer",
            "name",
            "eth0",
            "index",
            &index,
            "netns",
            two.ns.name(),
        ])?;
        for (node, own, other, remote) in [
            (&*one, "node", "other-node", "10.244.2.0/24"),
            (&*two, "other-node", "node", "10.244.1.0/24"),
        ] {
            node.ns.ip(&[
                "addr",
                "add",
                &format!("{}/24", address(own, false)),
                "dev",
                "eth0",
            ])?;
            node.ns.ip(&["link", "set", "eth0", "up"])?;
            let via = address(other, false).to_string();
            node.ns
                .ip(&["route", "add", remote, "via", &via, "dev", "eth0"])?;
        }
        one.add_pod(&prefix, "a", "va", A)?;
        one.add_pod(&prefix, "b", "vb", B)?;
        two.add_pod(&prefix, "remote", "vr", A)?;
        Ok(Self { nodes, _dir: dir })
    }

    /// A pod by the name of its interface's second letter: `va`, `vb`, `vr`.
    pub(in crate::bench) fn pod(&self, ifname: &str) -> Result<&Pod> {
        let mut pods = self.nodes.iter().flat_map(|node| &node.pods);
        pods.find(|pod| pod.ifname == ifname)
            .ok_or_else(|| anyhow::anyhow!("no pod has interface {ifname}"))
    }
}

impl Node {
    fn new(prefix: &str, name: &'static str, own: &str) -> Result<Self> {
        let ns = NetNs::create(&format!("{prefix}-{own}"))?;
        ns.sysctl(&[
            ("ipv4/ip_forward", "1"),
            ("ipv6/conf/all/disable_ipv6", "1"),
            ("ipv6/conf/default/disable_ipv6", "1"),
        ])?;
        Ok(Self {
            name,
            ns,
            pods: Vec::new(),
        })
    }

    fn add_pod(&mut self, prefix: &str, name: &str, ifname: &'static str, ifindex: u32) -> Result<()> {
        let ns = NetNs::create(&format!("{prefix}-{name}"))?;
        ns.sysctl(&[
            ("ipv6/conf/all/disable_ipv6", "1"),
            ("ipv6/conf/default/disable_ipv6", "1"),
        ])?;
        let last = u8::try_from(ifindex)?;
        let mac = [[2, 0, 0, 0, 1, last], [2, 0, 0, 0, 2, last]];
        let [inside, outside] = mac.map(|mac| mac.map(|byte| format!("{byte:02x}")).join(":"));
        let ip = address(name, false);
        self.ns.ip(&[
            "link",
            "add",
            ifname,
            "index",
            &ifindex.to_string(),
            "address",
            &outside,
            "type",
            "veth",
            "peer",
            "name",
            "eth0",
            "address",
            &inside,
            "netns",
            ns.name(),
        ])?;
        self.ns.ip(&["link", "set", ifname, "up"])?;
        self.ns
            .ip(&["route", "add", &format!("{ip}/32"), "dev", ifname])?;
        self.ns
            .ip(&["neigh", "add", &ip.to_string(), "lladdr", &inside, "dev", ifname])?;
        ns.ip(&["addr", "add", &format!("{ip}/32"), "dev", "eth0"])?;
        ns.ip(&["link", "set", "eth0", "up"])?;
        ns.ip(&["route", "add", GATEWAY, "dev", "eth0", "scope", "link"])?;
        ns.ip(&["route", "add", "default", "via", GATEWAY, "dev", "eth0"])?;
        ns.ip(&["neigh", "add", GATEWAY, "lladdr", &outside, "dev", "eth0"])?;
        self.pods.push(Pod {
            ns,
            ip,
            ifname,
            ifindex,
            mac,
        });
        Ok(())
    }
}

impl Pod {
    /// The pod's IPv4 address.
    pub(in crate::bench) fn v4(&self) -> Ipv4Addr {
        match self.ip {
            IpAddr::V4(ip) => ip,
            IpAddr::V6(_) => Ipv4Addr::UNSPECIFIED,
        }
    }

    /// Index of the pod's own interface.
    pub(in crate::bench) fn inside(&self) -> Result<u32> {
        // SAFETY: a C string that outlives the call.
        let index = self
            .ns
            .run(|| unsafe { libc::if_nametoindex(c"eth0".as_ptr()) })?;
        anyhow::ensure!(index != 0, "{} has no interface eth0", self.ns.name());
        Ok(index)
    }

    /// Packets that the pod's own interface has received.
    pub(in crate::bench) fn received(&self) -> Result<u64> {
        // Of the thread's namespace; `/proc/net` would be the process's.
        let text = self
            .ns
            .run(|| std::fs::read_to_string("/proc/thread-self/net/dev"))??;
        let line = text.lines().find_map(|line| line.trim().strip_prefix("eth0:"));
        let packets = line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
        packets.ok_or_else(|| anyhow::anyhow!("{} has no interface eth0", self.ns.name()))
    }
}
