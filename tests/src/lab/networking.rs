//! How pods' packets get from node to node: by routes of Azure's, in flannel's VXLAN, or because Azure knows the pods.

use ipnet::IpNet;

use super::plan;

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
    /// The same plug-in's overlay: a /24 for each node in a routing domain of the fabric's that holds pods only. Towards the virtual
    /// network pods have their node's address.
    AzureOverlay,
}

impl Networking {
    /// Whether Azure's own plug-in makes pods' interfaces.
    #[must_use]
    pub const fn is_azures(self) -> bool {
        matches!(self, Self::AzureCni | Self::AzureOverlay)
    }

    /// What `--networking` calls it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Udr => "udr",
            Self::HostLocal => "host-local",
            Self::Flannel => "flannel",
            Self::AzureCni | Self::AzureOverlay => "azure-cni",
        }
    }

    /// Where a node's pods get their addresses from, IPv4 and IPv6.
    #[must_use]
    pub const fn pods(self, number: u8) -> [IpNet; 2] {
        match self {
            Self::Udr | Self::HostLocal | Self::Flannel => plan::pod_cidrs(number),
            Self::AzureCni => plan::azure_pods(number),
            Self::AzureOverlay => plan::overlay_pods(number),
        }
    }

    /// What `--fabric-interface` is to be.
    #[must_use]
    pub const fn fabric_interfaces(self) -> &'static str {
        match self {
            Self::Udr | Self::HostLocal | Self::AzureCni | Self::AzureOverlay => "eth0",
            // The default route's, and the tunnels.
            Self::Flannel => "auto",
        }
    }

    /// What fits between nodes.
    pub(super) const fn pod_mtu(self) -> u32 {
        match self {
            Self::Udr | Self::HostLocal | Self::AzureCni | Self::AzureOverlay => 1500,
            Self::Flannel => 1430,
        }
    }
}
