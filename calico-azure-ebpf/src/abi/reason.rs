//! Why a packet passed or died, and where.

macro_rules! codes {
    ($(#[$meta:meta])* $name:ident { $($(#[$vmeta:meta])* $variant:ident = $value:literal, $text:literal;)+ }) => {
        $(#[$meta])*
        #[repr(u8)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name { $($(#[$vmeta])* $variant = $value,)+ }
        impl $name {
            /// Every code, in order.
            pub const ALL: &[Self] = &[$(Self::$variant),+];
            /// The name in counters, metrics and JSON.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }
        impl TryFrom<u8> for $name {
            type Error = u8;
            fn try_from(value: u8) -> Result<Self, u8> {
                match value { $($value => Ok(Self::$variant),)+ other => Err(other) }
            }
        }
    };
}

codes! {
    /// Why a verdict is what it is. Codes under [`Reason::FIRST_DROP`] pass the packet.
    Reason {
        /// A new flow that a rule, a tier's default or a profile allows.
        PolicyAllow = 1, "policy-allow";
        /// A packet of a flow that is already approved.
        Established = 2, "established";
        /// ARP, neighbour discovery, MLD, DHCP.
        AlwaysAllowed = 3, "always-allowed";
        /// The host itself sent it to a local pod.
        FromHost = 4, "from-host";
        /// The fabric interface has nothing against it.
        FabricPass = 5, "fabric-pass";
        /// To a service address: judged where the translated packet leaves.
        Service = 6, "service";
        /// A pod reaches itself through a service.
        Hairpin = 7, "hairpin";
        /// No endpoint is known behind the interface, and the node's settings leave it open until one is.
        UnknownInterface = 15, "unknown-interface";
        /// An ICMP error about a flow that is approved.
        Related = 16, "related";
        /// A rule, a tier's default or a profile denies it.
        PolicyDeny = 32, "policy-deny";
        /// No endpoint is known behind the interface.
        NoEndpoint = 33, "no-endpoint";
        /// The endpoint is known but its policy is not complete yet.
        NotReady = 34, "endpoint-not-ready";
        /// The pod sent from an address that is not its own.
        SpoofedSource = 35, "spoofed-source";
        /// Headers are truncated or contradict each other.
        Malformed = 36, "malformed";
        /// Neither IPv4, IPv6 nor ARP.
        UnsupportedEthertype = 37, "unsupported-ethertype";
        /// A later fragment of a datagram whose first fragment was not seen here, and policy tells its ports apart.
        UnknownFragment = 38, "unknown-fragment";
        /// More IPv6 extension headers than are followed, or a routing header of type 0.
        ExtensionHeaders = 39, "extension-headers";
        /// A table changed under the packet's feet; the next packet will be fine.
        TableRace = 40, "table-race";
        /// A table entry that must exist does not.
        TableMissing = 41, "table-missing";
        /// The conntrack table refused a new entry.
        ConntrackFull = 42, "conntrack-full";
        /// Forwarded to the fabric with a source that the fabric does not know on this node; or, new to a pod, from where a pod may be that
        /// nobody knows: the node's podCIDR, or an interface that no agent has looked at.
        UnknownSource = 43, "unknown-source";
        /// Arrived from the fabric with a source that belongs to this node.
        LocalSource = 44, "local-source";
        /// For this node's podCIDR, but no pod has the address: passed on, it would loop; or for an unknown address behind an interface that no
        /// agent has looked at.
        NoSuchWorkload = 45, "no-such-workload";
        /// IPIP, GRE, multicast or broadcast, which the fabric discards without a word.
        FabricUnsupported = 46, "fabric-unsupported";
        /// The agent has not completed its first apply.
        NotConfigured = 47, "not-configured";
        /// From a pod to its own host, which `defaultEndpointToHostAction` forbids.
        EndpointToHost = 48, "endpoint-to-host";
        /// In a tunnel between nodes, with an inner source that is not the sending node's.
        TunnelSource = 55, "tunnel-source";
        /// An ICMP error about a packet that its receiver did not send, or (from a pod) that the pod did not receive.
        UnrelatedError = 56, "unrelated-error";
        /// More VLAN tags than are followed (two).
        VlanTagged = 57, "vlan-tagged";
        /// IPIP or VXLAN that a pod made.
        WorkloadTunnel = 58, "workload-tunnel";
        /// IPv4 options from or to a pod.
        IpOptions = 59, "ip-options";
        /// From a pod to the privileged ports of Azure's wireserver.
        Wireserver = 60, "wireserver";
        /// From a pod to Azure's instance metadata service, which the node's settings forbid.
        Imds = 61, "imds";
        /// On its way to a pod that does not have the address: a bridge sends what it cannot place to all its ports.
        ForeignDestination = 62, "foreign-destination";
    }
}

impl Reason {
    /// The lowest code that drops.
    pub const FIRST_DROP: u8 = 32;

    /// Whether the packet passes.
    #[inline(always)]
    #[must_use]
    pub const fn passes(self) -> bool {
        (self as u8) < Self::FIRST_DROP
    }
}

codes! {
    /// Where a program is attached.
    Hook {
        /// Pod's host-side interface, TC ingress.
        FromWorkload = 1, "from-workload";
        /// Pod's host-side interface, TC egress.
        ToWorkload = 2, "to-workload";
        /// Fabric interface, TC ingress.
        FromFabric = 3, "from-fabric";
        /// Fabric interface, TC egress.
        ToFabric = 4, "to-fabric";
        /// Where service traffic leaves, after translation: egress policy of the pod that sent it, or policy of the host endpoint by whose
        /// interface it came in.
        Service = 5, "service";
        /// Fabric interface, XDP.
        Untracked = 6, "untracked";
    }
}
