//! A pod's network as Azure's own plug-in makes it in transparent mode (azure-container-networking, `network/transparent_*`): a
//! veth with a computed name, a host route for each address, and a gateway that is nobody.

use std::net::IpAddr;
use std::process::Command;

use super::cni::PodNet;
use super::{NetNs, Node, Result, exec};

const HOST_MAC: &str = "aa:aa:aa:aa:aa:aa";
/// The pod's gateways.
const GATEWAYS: [&str; 2] = ["169.254.1.1", "fe80::1234:5678:9abc"];

pub(super) fn add(
    node: &Node,
    container: &str,
    namespace: &str,
    name: &str,
    ips: [IpAddr; 2],
) -> Result<PodNet> {
    // Not by our own function: it is what the agent looks for.
    let mut digest = Command::new("sha1sum");
    let digest = exec::run(&mut digest, format!("{namespace}.{name}").as_bytes(), "sha1sum")?;
    let host = format!("azv{}", digest.get(..11).unwrap_or_default());
    let ns = NetNs::create(container)?;
    ns.sysctl(&[
        ("ipv6/conf/all/accept_dad", "0"),
        ("ipv6/conf/default/accept_dad", "0"),
    ])?;
    node.ns().ip(&[
        "link",
        "add",
        &host,
        "address",
        HOST_MAC,
        "type",
        "veth",
        "peer",
        "name",
        "eth0",
        "netns",
        ns.name(),
    ])?;
    node.ns().ip(&["link", "set", &host, "up"])?;
    let proxy = format!("ipv4/conf/{host}/proxy_arp");
    node.ns().sysctl(&[(proxy.as_str(), "1")])?;
    ns.ip(&["link", "set", "lo", "up"])?;
    ns.ip(&["link", "set", "eth0", "up"])?;
    for (ip, gateway) in ips.iter().zip(GATEWAYS) {
        let (own, now): (String, &[&str]) = match ip {
            IpAddr::V4(ip) => (format!("{ip}/32"), &[]),
            IpAddr::V6(ip) => (format!("{ip}/128"), &["nodad"]),
        };
        ns.ip(&[&["addr", "add", &own, "dev", "eth0"], now].concat())?;
        if ip.is_ipv4() {
            ns.ip(&["route", "add", gateway, "dev", "eth0", "scope", "link"])?;
        }
        let family = if ip.is_ipv6() { "-6" } else { "-4" };
        ns.ip(&[family, "route", "add", "default", "via", gateway, "dev", "eth0"])?;
        ns.ip(&[
            "neigh",
            "add",
            gateway,
            "lladdr",
            HOST_MAC,
            "dev",
            "eth0",
            "nud",
            "permanent",
        ])?;
        node.ns().ip(&[family, "route", "add", &own, "dev", &host])?;
    }
    Ok(PodNet::transparent(
        ns,
        ips,
        host,
        format!("{namespace}/{name}"),
        node.ns().clone(),
    ))
}
