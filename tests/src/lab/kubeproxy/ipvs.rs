//! kube-proxy's IPVS mode: virtual servers, their addresses on a dummy interface, and netfilter only to hide clients.
//!
//! Source: kube-proxy's own README of the mode (`pkg/proxy/ipvs`), as of 1.31.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::SocketAddr;

use super::super::{NetNs, Result, exec};

/// kube-proxy's interface. It stays down; addresses are the host's own all the same.
const INTERFACE: &str = "kube-ipvs0";

/// A virtual server.
#[derive(Clone, Debug)]
pub struct VirtualServer {
    pub address: SocketAddr,
    /// `tcp` or `udp`.
    pub protocol: &'static str,
    pub backends: Vec<SocketAddr>,
    /// Clients' addresses are hidden behind the node's.
    pub masquerade: bool,
    /// `sessionAffinity: ClientIP`.
    pub affinity: bool,
    /// Backends that reach themselves by it do not see themselves as the client; kube-proxy does this for pods of the node.
    pub hairpin: bool,
}

/// Puts `servers` in place of those of an earlier call.
pub fn install(node: &NetNs, servers: &[VirtualServer]) -> Result<()> {
    node.sysctl(&[("ipv4/vs/conntrack", "1"), ("ipv4/vs/expire_nodest_conn", "1")])?;
    let _not_there_yet = node.ip(&["link", "del", INTERFACE]);
    node.ip(&["link", "add", INTERFACE, "type", "dummy"])?;
    let own = node.ip(&["-o", "addr", "show"])?;
    let addresses: BTreeSet<_> = servers.iter().map(|server| server.address.ip()).collect();
    for address in addresses {
        // Node ports are at addresses that the node has anyway.
        if own.contains(&format!(" {address}/")) {
            continue;
        }
        let (prefix, now): (_, &[&str]) = if address.is_ipv6() {
            (format!("{address}/128"), &["nodad"])
        } else {
            (format!("{address}/32"), &[])
        };
        node.ip(&[&["addr", "add", &prefix, "dev", INTERFACE], now].concat())?;
    }
    node.exec("ipvsadm", &["--clear"])?;
    exec::run(
        node.command("ipvsadm").arg("--restore"),
        virtual_servers(servers).as_bytes(),
        node.name(),
    )?;
    node.nft(&masquerade(servers))
}

/// As `ipvsadm --restore` reads them.
fn virtual_servers(servers: &[VirtualServer]) -> String {
    let mut text = String::new();
    for server in servers {
        let kind = if server.protocol == "tcp" { "-t" } else { "-u" };
        let address = server.address;
        let affinity = if server.affinity { " -p 10800" } else { "" };
        let _infallible = writeln!(text, "-A {kind} {address} -s rr{affinity}");
        for backend in &server.backends {
            let _infallible = writeln!(text, "-a {kind} {address} -r {backend} -m -w 1");
        }
    }
    text
}

/// What is left for netfilter: a mark before, a source after, and pods that reach themselves.
fn masquerade(servers: &[VirtualServer]) -> String {
    let (mut marks, mut loops) = (String::new(), String::new());
    for server in servers {
        let ip = if server.address.is_ipv6() { "ip6" } else { "ip" };
        let (address, protocol) = (server.address, server.protocol);
        if server.masquerade {
            let (to, port) = (address.ip(), address.port());
            let _infallible = writeln!(
                marks,
                "{ip} daddr {to} {protocol} dport {port} meta mark set meta mark or 0x4000"
            );
        }
        for backend in server.backends.iter().filter(|_| server.hairpin) {
            let (pod, port) = (backend.ip(), backend.port());
            let _infallible = writeln!(
                loops,
                "{ip} saddr {pod} {ip} daddr {pod} {protocol} dport {port} masquerade"
            );
        }
    }
    format!(
        "table inet kube-proxy\ndelete table inet kube-proxy\ntable inet kube-proxy {{\nchain services {{\n{marks}}}\n\
         chain prerouting {{ type nat hook prerouting priority dstnat; policy accept; jump services; }}\n\
         chain output {{ type nat hook output priority -100; policy accept; jump services; }}\n\
         chain postrouting {{ type nat hook postrouting priority srcnat - 1; policy accept;\n{loops}\
         meta mark and 0x4000 == 0x0 return\nmeta mark set meta mark xor 0x4000\nmasquerade fully-random\n}}\n}}\n"
    )
}
