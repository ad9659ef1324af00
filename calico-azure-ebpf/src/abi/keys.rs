//! Keys and values of the policy, endpoint, route and configuration maps.

use super::abi_struct;

abi_struct! {
    /// Value of `ENDPOINTS`, keyed by ifindex: who is behind a pod's host-side interface.
    pub struct Endpoint {
        /// Slot word: policy set of the pod's egress. Slot 0 = not ready: everything drops.
        pub egress: u64,
        /// Slot word: policy set of the pod's ingress.
        pub ingress: u64,
        /// Mark word: what the pod's service traffic is marked with.
        pub mark: u64,
    }
}

abi_struct! {
    /// Key of `SERVICES4`: what kube-proxy translates. The value's bit 0 says so for even epochs, bit 1 for odd ones.
    pub struct ServiceKey4 {
        /// Cluster, load balancer or external address; for a node port each address of this node. Network order.
        pub addr: u32,
        /// Service port or node port, host order. [`ANY_PORT`] of [`ANY_PROTOCOL`]: the address is a load balancer's or an external one, which
        /// answers that leave this node have as their source.
        pub port: u16,
        /// IP protocol number.
        pub protocol: u16,
    }
}

/// Of a `ServiceKey`: no port in particular.
pub const ANY_PORT: u16 = 0;
/// Of a `ServiceKey`: no protocol in particular.
pub const ANY_PROTOCOL: u8 = 0;

abi_struct! {
    /// Key of `SERVICES6`.
    pub struct ServiceKey6 {
        /// As [`ServiceKey4::addr`].
        pub addr: [u32; 4],
        /// Service port or node port, host order.
        pub port: u16,
        /// IP protocol number.
        pub protocol: u16,
    }
}

abi_struct! {
    /// Key of `OWNERS4`: addresses that the interface's pod may send from. The value's bit 0 says so for even epochs,
    /// bit 1 for odd ones.
    pub struct OwnerKey4 {
        /// The pod's host-side interface.
        pub ifindex: u32,
        /// Source address, network order.
        pub addr: u32,
    }
}

abi_struct! {
    /// Key of `OWNERS6`.
    pub struct OwnerKey6 {
        /// The pod's host-side interface.
        pub ifindex: u32,
        /// Source address, network order.
        pub addr: [u32; 4],
    }
}

abi_struct! {
    /// Key of `POLICY`; the value is a table word.
    pub struct PolicyKey {
        /// Policy set.
        pub set: u32,
        /// Peer class; [`CLASS_DEFAULT_V4`] or [`CLASS_DEFAULT_V6`] for the set's default table.
        pub class: u32,
    }
}

abi_struct! {
    /// Key of `PORTS`; the value is a decision word.
    pub struct PortKey {
        /// Port table.
        pub table: u32,
        /// Destination port (source port if the table says so: `word::hint::SOURCE`); `type << 8 | code` for ICMP; the
        /// port's high byte at [`LEVEL_BLOCK`]; else 0.
        pub port: u16,
        /// IP protocol number; 0 at [`LEVEL_TABLE`].
        pub protocol: u8,
        /// One of the `LEVEL_*`.
        pub level: u8,
    }
}

abi_struct! {
    /// Key of `CIDR4` and `ROUTES4`.
    pub struct PrefixKey4 {
        /// Prefix length in bits.
        pub len: u32,
        /// Network order, bits beyond the prefix zero.
        pub addr: u32,
    }
}

abi_struct! {
    /// Key of `CIDR6` and `ROUTES6`.
    pub struct PrefixKey6 {
        /// Prefix length in bits.
        pub len: u32,
        /// Network order, bits beyond the prefix zero.
        pub addr: [u32; 4],
    }
}

abi_struct! {
    /// Value of `CIDR4` and `CIDR6`. Not a slot word: the kernel aligns it to 4 bytes only. It need not be one
    /// either, because a trie replaces its nodes and frees the old after a grace period.
    pub struct CidrClass {
        /// Peer class in even and in odd epochs, 0 for none.
        pub slots: [u32; 2],
    }
}

abi_struct! {
    /// The only value of `CONFIG`: what is in force, and room for what is next. So a program sees one epoch and one set of settings from the
    /// first byte of a packet to its verdict, however long it takes: what it looked up is written again only after a grace period.
    pub struct Configs {
        /// Which of them is in force, in the lowest bit.
        pub live: u32,
        /// That of what is in force, which is the machine's and does not change: whoever only wants to know the time need not choose.
        pub tick: u32,
        pub of: [Config; 2],
    }
}

impl Configs {
    /// What is in force.
    #[must_use]
    pub const fn config(&self) -> &Config {
        let [even, odd] = &self.of;
        if self.live & 1 == 0 { even } else { odd }
    }

    /// As it is written before a change and by it: first with `next` beside what is in force, then with `next` in force.
    #[must_use]
    pub const fn change(live: u32, now: Config, next: Config) -> [Self; 2] {
        let of = if live & 1 == 0 { [now, next] } else { [next, now] };
        let tick = next.tick;
        let live = live & 1;
        [
            Self { live, tick, of },
            Self {
                live: live ^ 1,
                tick,
                of,
            },
        ]
    }
}

abi_struct! {
    /// What the programs are set to.
    pub struct Config {
        /// Current epoch: its parity names the live slots, and conntrack entries approved in another epoch are
        /// judged again. Never 0 once the agent has applied; 0 drops everything.
        pub epoch: u32,
        /// `CONFIG_*` bits.
        pub flags: u32,
        /// Idle time in nanoseconds after which a conntrack entry is dead, by `TIMEOUT_*`.
        pub timeouts: [u64; 8],
        /// Bits of packets' marks that are ours, contiguous; 0: none, and service traffic is judged by its service address.
        pub mark_mask: u32,
        /// Nanoseconds per jiffy of the kernel: what its cheapest clock counts.
        pub tick: u32,
        /// UDP destination port of VXLAN, by which tunnels of pods' making are told.
        pub vxlan_port: u16,
        /// UDP destination port of the VXLAN in which nodes carry their pods' packets to each other; 0: they do not.
        pub tunnel_port: u16,
        /// Until when TCP connections in their middle are adopted, in units of 2³⁰ nanoseconds of the clock that `tick` makes of jiffies; 0:
        /// never.
        pub adopt_until: u32,
        /// Events that each processor may record in a window of `RECORD_WINDOW`; 0: all.
        pub records: u32,
        /// Source ports from here on make no difference to what untracked policy and failsafe ports say of what comes in; 0: each may.
        pub alike_from: u16,
        /// Zero.
        pub reserved: u16,
    }
}

impl Config {
    /// A packet's mark with an endpoint's in it; 0 takes it out.
    #[inline(always)]
    #[must_use]
    pub const fn with_mark(&self, mark: u32, id: u32) -> u32 {
        let shifted = if self.mark_mask == 0 {
            0
        } else {
            id << (self.mark_mask.trailing_zeros() & 31)
        };
        (mark & !self.mark_mask) | (shifted & self.mark_mask)
    }

    /// The endpoint's mark in a packet's; 0 for none.
    #[inline(always)]
    #[must_use]
    pub const fn mark_of(&self, mark: u32) -> u32 {
        if self.mark_mask == 0 {
            0
        } else {
            (mark & self.mark_mask) >> (self.mark_mask.trailing_zeros() & 31)
        }
    }
}

/// The mark of what came in by a host endpoint's interface and is for a service; no endpoint has it, nor a higher one.
pub const MARK_HOST: u32 = (1 << 12) - 1;

/// Decision for one port of a protocol.
pub const LEVEL_PORT: u8 = 0;
/// Decision for 256 ports that share their high byte.
pub const LEVEL_BLOCK: u8 = 1;
/// Decision for the rest of a protocol.
pub const LEVEL_PROTOCOL: u8 = 2;
/// Decision for every protocol without entries.
pub const LEVEL_TABLE: u8 = 3;

/// Class of an IPv4 address that no predicate holds for. Such addresses are not stored.
pub const CLASS_DEFAULT_V4: u32 = 1;
/// Class of an IPv6 address that no predicate holds for.
pub const CLASS_DEFAULT_V6: u32 = 2;

/// `Config::flags`: approved flows stay approved when policy changes (Calico's behaviour).
pub const CONFIG_KEEP_ESTABLISHED: u32 = 1;
/// `Config::flags`: an event is recorded for every new allowed flow, not only for drops and `Log` rules.
pub const CONFIG_LOG_ALLOWED: u32 = 2;
/// `Config::flags`: pods may send IPIP.
pub const CONFIG_ALLOW_IPIP: u32 = 0x100;
/// `Config::flags`: pods may send VXLAN.
pub const CONFIG_ALLOW_VXLAN: u32 = 0x200;
/// `Config::flags`: policy alone decides whether pods reach the wireserver's privileged ports.
pub const CONFIG_ALLOW_WIRESERVER: u32 = 0x400;
/// `Config::flags`: no pod reaches the instance metadata service, whatever policy says.
pub const CONFIG_DENY_IMDS: u32 = 0x800;
/// `Config::flags`: every pod does, whatever policy says.
pub const CONFIG_ALLOW_IMDS: u32 = 0x1000;
/// `Config::flags`: pods' interfaces are ports of a bridge, where each also gets what is not for it.
pub const CONFIG_BRIDGED: u32 = 0x2000;
/// `Config::flags`: a pod's new flows pass only through interfaces in `LINKS`.
pub const CONFIG_LINKS: u32 = 0x4000;
/// `Config::flags`: pods' interfaces behind which no endpoint is known are open.
pub const CONFIG_ALLOW_UNKNOWN: u32 = 0x8000;
/// VXLAN's port (RFC 7348), which is Felix's default too.
pub const DEFAULT_VXLAN_PORT: u16 = 4789;

/// TCP before both sides were seen.
pub const TIMEOUT_TCP_HALF_OPEN: usize = 0;
/// TCP, both sides seen.
pub const TIMEOUT_TCP_ESTABLISHED: usize = 1;
/// TCP after FINs of both sides.
pub const TIMEOUT_TCP_FINS: usize = 2;
/// TCP after a RST.
pub const TIMEOUT_TCP_RESET: usize = 3;
/// UDP.
pub const TIMEOUT_UDP: usize = 4;
/// ICMP and `ICMPv6`.
pub const TIMEOUT_ICMP: usize = 5;
/// Every other protocol.
pub const TIMEOUT_GENERIC: usize = 6;

const SECOND: u64 = 1_000_000_000;

/// Felix's defaults (`BPFConntrackTimeouts`), in nanoseconds.
pub const DEFAULT_TIMEOUTS: [u64; 8] = [
    20 * SECOND,
    3600 * SECOND,
    30 * SECOND,
    40 * SECOND,
    60 * SECOND,
    5 * SECOND,
    600 * SECOND,
    0,
];

/// Felix's `IptablesMarkMask`.
pub const DEFAULT_MARK_MASK: u32 = 0xffff_0000;

/// Values of `ROUTES4` and `ROUTES6` (longest prefix): what this node knows of an address.
pub mod route {
    /// A pod on this node; always a full-length prefix.
    pub const LOCAL_WORKLOAD: u32 = 1;
    /// This node's own podCIDR.
    pub const LOCAL_POD_CIDR: u32 = 2;
    /// An address of this node.
    pub const LOCAL_HOST: u32 = 4;
    /// Another node's podCIDR.
    pub const REMOTE_POD_CIDR: u32 = 8;
    /// Another node's address.
    pub const REMOTE_HOST: u32 = 16;
    /// A source that may be forwarded although nothing here owns it (`--allowed-forwarded-sources`).
    pub const ALLOWED_SOURCE: u32 = 32;

    /// The bits above; the others are the number of the node that has a remote prefix, 0 for none.
    pub const KINDS: u32 = 63;
    /// Bits of that number.
    const NUMBER: u32 = 26;

    /// A node's number, from one of its addresses (network order): no two of private use (RFC 1918) have the same, and it stays as long
    /// as the address does, so that nothing has to be given out or kept. `0` is never given.
    #[must_use]
    pub const fn number(address: core::net::IpAddr) -> u32 {
        let number = match address {
            core::net::IpAddr::V4(ip) => {
                let [first, a, b, c] = ip.octets();
                let space = match first {
                    10 => 0,
                    172 => 1,
                    192 => 2,
                    _ => 3,
                };
                u32::from_be_bytes([space, a, b, c])
            }
            core::net::IpAddr::V6(ip) => {
                let bits = ip.to_bits();
                let folded = bits ^ bits >> 64;
                (folded ^ folded >> 32) as u32
            }
        };
        let number = number & ((1 << NUMBER) - 1);
        (if number == 0 { 1 } else { number }) << (32 - NUMBER)
    }

    /// Whether a packet's source is the sending node's own, of a tunnel between nodes: what is known of the outer source, and of the inner.
    #[inline(always)]
    #[must_use]
    pub const fn is_senders(outer: u32, inner: u32) -> bool {
        let same = outer & !KINDS == inner & !KINDS && inner & !KINDS != 0;
        inner & ALLOWED_SOURCE != 0
            || outer & REMOTE_HOST != 0 && inner & (REMOTE_POD_CIDR | REMOTE_HOST) != 0 && same
    }
}

/// The epoch after `epoch`: the other parity, never 0, never a `LEG_*`.
#[must_use]
pub const fn next_epoch(epoch: u32) -> u32 {
    if epoch >= super::EPOCH_MAX { 2 } else { epoch + 1 }
}
