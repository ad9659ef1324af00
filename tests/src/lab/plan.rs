//! Who has which address: fixed by node number, so that a reader of a trace knows who speaks.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// The virtual network's gateway, on every port of the fabric.
pub const GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(10, 240, 0, 1);
/// The gateway's IPv6 address; nodes use the link-local one.
pub const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x10, 0x240, 0, 0, 0, 0, 1);
/// The MAC address of every port: on Azure, all frames come from one.
pub const GATEWAY_MAC: &str = "12:34:56:78:9a:bc";

/// Outside: an address that policies may allow.
pub const OUTSIDE_V4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
/// Outside: an address that policies may allow.
pub const OUTSIDE_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 0x10);
/// Outside: an address for deny lists.
pub const THREAT_V4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 66);
/// Outside: an address for deny lists.
pub const THREAT_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0xbad, 0, 0, 0, 0x66);

/// Azure's wireserver: DNS, the guest agent's ports, and the source of load balancers' probes.
pub const WIRESERVER: Ipv4Addr = Ipv4Addr::new(168, 63, 129, 16);
/// Azure's instance metadata service.
pub const IMDS: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);

/// All overlays' pods.
pub(super) const OVERLAY_V4: &str = "192.168.0.0/16";
pub(super) const OVERLAY_V6: &str = "fd00:192:168::/48";

/// Inside the private ranges nothing is masqueraded.
pub(super) const PRIVATE_V4: &str = "10.0.0.0/8";
pub(super) const PRIVATE_V6: &str = "fd00::/8";

/// Nodes are numbered from 1. Azure keeps a subnet's first four addresses.
#[must_use]
pub const fn node_v4(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 240, 0, 3 + number)
}

/// The node's IPv6 address.
#[must_use]
pub const fn node_v6(number: u8) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 0x10, 0x240, 0, 0, 0, 0, 3 + number as u16)
}

/// The node's podCIDRs: `10.244.N.0/24`, `fd00:10:244:N::/64`.
#[must_use]
pub const fn pod_cidrs(number: u8) -> [IpNet; 2] {
    let v6 = Ipv6Addr::new(0xfd00, 0x10, 0x244, number as u16, 0, 0, 0, 0);
    [
        IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(10, 244, number, 0), 24)),
        IpNet::V6(Ipv6Net::new_assert(v6, 64)),
    ]
}

/// Addresses of the virtual network's that Azure gives a node's pods: `10.240.(100+N).0/24`, `fd00:10:240:N::/64`.
#[must_use]
pub const fn azure_pods(number: u8) -> [IpNet; 2] {
    let v6 = Ipv6Addr::new(0xfd00, 0x10, 0x240, number as u16, 0, 0, 0, 0);
    [
        IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(10, 240, 100 + number, 0), 24)),
        IpNet::V6(Ipv6Net::new_assert(v6, 64)),
    ]
}

/// Addresses of an overlay's domain that a node's pods have: `192.168.N.0/24`, `fd00:192:168:N::/64`.
#[must_use]
pub const fn overlay_pods(number: u8) -> [IpNet; 2] {
    let v6 = Ipv6Addr::new(0xfd00, 0x192, 0x168, number as u16, 0, 0, 0, 0);
    [
        IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(192, 168, number, 0), 24)),
        IpNet::V6(Ipv6Net::new_assert(v6, 64)),
    ]
}

/// The addresses of the pod in this place, of those of a node's that Azure's plug-in gives out.
#[must_use]
pub fn nth_pod(pods: [IpNet; 2], place: u8) -> [IpAddr; 2] {
    pods.map(|net| match net {
        IpNet::V4(net) => IpAddr::V4(Ipv4Addr::from_bits(
            net.network().to_bits() + 10 + u32::from(place),
        )),
        IpNet::V6(net) => IpAddr::V6(Ipv6Addr::from_bits(
            net.network().to_bits() + 10 + u128::from(place),
        )),
    })
}

/// Every node's addresses and nothing else, by family.
#[must_use]
pub fn node_ips(number: u8) -> [IpAddr; 2] {
    [node_v4(number).into(), node_v6(number).into()]
}

/// Highest node number that the addressing has room for.
pub const MAX_NODES: u8 = 200;
