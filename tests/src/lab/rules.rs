//! The nftables rules that make a namespace behave like Azure's fabric, and a node like a node.

use std::net::IpAddr;

use ipnet::IpNet;

use super::plan;

/// The table in the fabric's namespace. Ports add their chains with [`port`].
pub(super) fn fabric() -> String {
    "table inet azure {
        counter internet_unknown_source { }
        set node_v4 {
            type ipv4_addr
        }
        set node_v6 {
            type ipv6_addr
        }
        map ports {
            type ifname : verdict
        }
        map deliveries {
            type ifname : verdict
        }
        chain to_internet {
            ip saddr != @node_v4 counter name internet_unknown_source drop
            ip6 saddr != @node_v6 counter name internet_unknown_source drop
        }
        chain from_nics {
            type filter hook prerouting priority raw; policy accept;
            iifname vmap @ports
        }
        chain to_nics {
            type filter hook forward priority filter; policy accept;
            oifname \"internet\" jump to_internet
            oifname vmap @deliveries
        }
    }\n"
    .to_owned()
}

/// One NIC: what may leave it, what is delivered to it. IPv6 neighbour discovery and MLD are the link's own business.
pub(super) fn port(port: &str, v4: &str, v6: &str) -> String {
    format!(
        "table inet azure {{
        counter {port}_unknown_source {{ }}
        counter {port}_protocol {{ }}
        counter {port}_multicast {{ }}
        counter {port}_broadcast {{ }}
        counter {port}_not_for_nic {{ }}
        counter {port}_overlay {{ }}
        set {port}_v4 {{
            type ipv4_addr
            flags interval
            elements = {{ {v4} }}
        }}
        set {port}_v6 {{
            type ipv6_addr
            flags interval
            elements = {{ {v6} }}
        }}
        chain {port}_out {{
            icmpv6 type {{ 130, 131, 132, 133, 134, 135, 136, 143 }} accept
            meta l4proto {{ 4, 47 }} counter name {port}_protocol drop
            meta pkttype broadcast counter name {port}_broadcast drop
            ip daddr 255.255.255.255 counter name {port}_broadcast drop
            ip daddr 224.0.0.0/4 counter name {port}_multicast drop
            ip6 daddr ff00::/8 counter name {port}_multicast drop
            ip saddr != @{port}_v4 counter name {port}_unknown_source drop
            ip6 saddr != @{port}_v6 counter name {port}_unknown_source drop
            ip saddr {overlay_v4} ip daddr != {overlay_v4} counter name {port}_overlay drop
            ip saddr != {overlay_v4} ip daddr {overlay_v4} counter name {port}_overlay drop
            ip6 saddr {overlay_v6} ip6 daddr != {overlay_v6} counter name {port}_overlay drop
            ip6 saddr != {overlay_v6} ip6 daddr {overlay_v6} counter name {port}_overlay drop
        }}
        chain {port}_in {{
            ip daddr != @{port}_v4 counter name {port}_not_for_nic drop
            ip6 daddr != @{port}_v6 counter name {port}_not_for_nic drop
        }}
    }}
    add element inet azure ports {{ \"{port}\" : jump {port}_out }}
    add element inet azure deliveries {{ \"{port}\" : jump {port}_in }}
    add element inet azure node_v4 {{ {v4} }}
    add element inet azure node_v6 {{ {v6} }}\n",
        overlay_v4 = plan::OVERLAY_V4,
        overlay_v6 = plan::OVERLAY_V6,
    )
}

/// What Azure's plug-in installs for an overlay: towards anything but pods these have the node's address; what is for DNS and for the
/// instance metadata service has it by a chain of its own, before anybody else's.
pub(super) fn overlay([pods_v4, pods_v6]: [IpNet; 2], [v4, v6]: [IpAddr; 2]) -> String {
    format!(
        "table inet swift {{
        chain postrouting {{
            type nat hook postrouting priority srcnat - 10; policy accept;
            ip saddr {pods_v4} ip daddr {} meta l4proto {{ tcp, udp }} th dport 53 snat ip to {v4}
            ip saddr {pods_v4} ip daddr {} tcp dport 80 snat ip to {v4}
        }}
    }}
    table inet masq {{
        chain postrouting {{
            type nat hook postrouting priority srcnat; policy accept;
            oifname \"eth0\" ip saddr {pods_v4} ip daddr != {} snat ip to {v4}
            oifname \"eth0\" ip6 saddr {pods_v6} ip6 daddr != {} snat ip6 to {v6}
        }}
    }}\n",
        plan::WIRESERVER,
        plan::IMDS,
        plan::OVERLAY_V4,
        plan::OVERLAY_V6,
    )
}

/// What an ip-masq-agent installs: pods leave the virtual network with the node's address.
pub(super) fn masquerade(pods_v4: &str, pods_v6: &str) -> String {
    format!(
        "table inet masq {{
        chain postrouting {{
            type nat hook postrouting priority srcnat; policy accept;
            oifname \"eth0\" ip saddr {pods_v4} ip daddr != {} masquerade
            oifname \"eth0\" ip6 saddr {pods_v6} ip6 daddr != {} masquerade
        }}
    }}\n",
        plan::PRIVATE_V4,
        plan::PRIVATE_V6,
    )
}
