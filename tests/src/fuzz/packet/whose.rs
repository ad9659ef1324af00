//! Whose an address is, by the manifests.

use std::net::IpAddr;

use super::Seen;
use crate::harness::scenario::address;

impl Seen<'_> {
    /// Whether an address belongs to this node or its pods.
    pub(super) fn ours(&self, address: IpAddr) -> bool {
        let mut nodes = self.store.nodes().filter(|node| node.name == "n1");
        nodes.any(|node| {
            node.internal_ips.contains(&address) || node.pod_cidrs.iter().any(|cidr| cidr.contains(&address))
        })
    }

    /// Whether it is an address of this node's podCIDRs without a pod.
    pub(super) fn is_nobodys(&self, ip: IpAddr) -> bool {
        let pods = ["a", "b"]
            .into_iter()
            .flat_map(|name| [false, true].map(|v6| address(name, v6)));
        let mut others = pods.filter(|pod| *pod == ip);
        others.next().is_none() && !self.is_own(ip) && self.ours(ip)
    }

    /// Whether it is this node's own.
    pub(super) fn is_own(&self, address: IpAddr) -> bool {
        let mut nodes = self.store.nodes().filter(|node| node.name == "n1");
        nodes.any(|node| node.internal_ips.contains(&address))
    }
}
