//! kube-proxy's rules for services that are reached from outside: several backends, hidden clients or not, affinity or not.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use calico_azure_tests::lab::{KubeProxy, NetNs, VirtualServer, ipvs};

/// What clients send to, and what kube-proxy of this node makes of it.
#[derive(Clone, Debug)]
pub(crate) struct Inbound {
    pub(crate) address: SocketAddr,
    /// Those that this node knows for the traffic policy: with `Local` its own only.
    pub(crate) backends: Vec<SocketAddr>,
    /// `externalTrafficPolicy: Cluster`.
    pub(crate) masquerade: bool,
    /// `sessionAffinity: ClientIP`.
    pub(crate) affinity: bool,
}

pub(crate) fn install(proxy: KubeProxy, node: &NetNs, services: &[Inbound]) {
    match proxy {
        KubeProxy::Ipvs => ipvs::install(node, &virtual_servers(services)).unwrap(),
        KubeProxy::Nftables => node.nft(&nftables(services)).unwrap(),
        KubeProxy::Iptables => {
            for (program, v6) in [("iptables-restore", false), ("ip6tables-restore", true)] {
                let of_family: Vec<&Inbound> = services
                    .iter()
                    .filter(|service| service.address.is_ipv6() == v6)
                    .collect();
                restore(node, program, &iptables(&of_family));
            }
        }
    }
}

fn restore(node: &NetNs, program: &str, rules: &str) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), rules).unwrap();
    node.exec(program, &[&file.path().to_string_lossy()]).unwrap();
}

/// TCP and UDP alike.
const PROTOCOLS: [&str; 2] = ["tcp", "udp"];

fn virtual_servers(services: &[Inbound]) -> Vec<VirtualServer> {
    let all = services
        .iter()
        .flat_map(|service| PROTOCOLS.map(|protocol| (service, protocol)));
    all.map(|(service, protocol)| VirtualServer {
        address: service.address,
        protocol,
        backends: service.backends.clone(),
        masquerade: service.masquerade,
        affinity: service.affinity,
        hairpin: false,
    })
    .collect()
}

fn iptables(services: &[&Inbound]) -> String {
    let mut chains = String::from(
        "*nat\n:PREROUTING ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]\n:KUBE-SERVICES - [0:0]\n:KUBE-POSTROUTING - [0:0]\n",
    );
    let mut rules = String::from(
        "-A PREROUTING -j KUBE-SERVICES\n-A POSTROUTING -j KUBE-POSTROUTING\n\
         -A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN\n\
         -A KUBE-POSTROUTING -j MARK --xor-mark 0x4000\n-A KUBE-POSTROUTING -j MASQUERADE --random-fully\n",
    );
    for (number, service) in services.iter().enumerate() {
        let (ip, port) = (service.address.ip(), service.address.port());
        for protocol in PROTOCOLS {
            let svc = format!("KUBE-SVC-{number}-{protocol}");
            let _infallible = writeln!(chains, ":{svc} - [0:0]");
            let _infallible = writeln!(
                rules,
                "-A KUBE-SERVICES -d {ip} -p {protocol} -m {protocol} --dport {port} -j {svc}"
            );
            if service.masquerade {
                let _infallible = writeln!(rules, "-A {svc} -j MARK --or-mark 0x4000");
            }
            let seps =
                (0..service.backends.len()).map(|backend| format!("KUBE-SEP-{number}-{backend}-{protocol}"));
            let seps: Vec<String> = seps.collect();
            for sep in seps.iter().filter(|_| service.affinity) {
                let _infallible = writeln!(
                    rules,
                    "-A {svc} -m recent --name {sep} --rcheck --seconds 10800 --reap -j {sep}"
                );
            }
            for (left, (sep, backend)) in (1..=seps.len()).rev().zip(seps.iter().zip(&service.backends)) {
                let _infallible = writeln!(chains, ":{sep} - [0:0]");
                let chance = if left > 1 {
                    format!(
                        "-m statistic --mode random --probability {:.6} ",
                        1.0 / left as f64
                    )
                } else {
                    String::new()
                };
                let _infallible = writeln!(rules, "-A {svc} {chance}-j {sep}");
                let set = if service.affinity {
                    format!("-m recent --name {sep} --set ")
                } else {
                    String::new()
                };
                let _infallible = writeln!(
                    rules,
                    "-A {sep} {set}-p {protocol} -m {protocol} -j DNAT --to-destination {backend}"
                );
            }
        }
    }
    format!("{chains}{rules}COMMIT\n")
}

fn nftables(services: &[Inbound]) -> String {
    let (mut chains, mut jumps) = (String::new(), String::new());
    for (number, service) in services.iter().enumerate() {
        let ip = if service.address.is_ipv6() { "ip6" } else { "ip" };
        let kind = if service.address.is_ipv6() {
            "ipv6_addr"
        } else {
            "ipv4_addr"
        };
        let (address, port) = (service.address.ip(), service.address.port());
        for protocol in PROTOCOLS {
            let name = format!("{number}-{protocol}");
            let _infallible = writeln!(
                jumps,
                "{ip} daddr {address} {protocol} dport {port} goto service-{name}"
            );
            let mut body = String::new();
            if service.masquerade {
                body.push_str("meta mark set meta mark or 0x4000\n");
            }
            let mut choice = Vec::new();
            for (backend, to) in service.backends.iter().enumerate() {
                let endpoint = format!("endpoint-{name}-{backend}");
                let mut update = String::new();
                if service.affinity {
                    let set = format!("affinity-{name}-{backend}");
                    let _infallible = writeln!(
                        chains,
                        "set {set} {{ type {kind}; flags dynamic,timeout; timeout 3h; }}"
                    );
                    let _infallible = writeln!(body, "{ip} saddr @{set} goto {endpoint}");
                    update = format!("update @{set} {{ {ip} saddr }}\n");
                }
                let _infallible = writeln!(
                    chains,
                    "chain {endpoint} {{\n{update}meta l4proto {protocol} dnat {ip} to {to}\n}}"
                );
                choice.push(format!("{backend} : goto {endpoint}"));
            }
            let _infallible = writeln!(
                body,
                "numgen random mod {} vmap {{ {} }}",
                choice.len(),
                choice.join(", ")
            );
            let _infallible = writeln!(chains, "chain service-{name} {{\n{body}}}");
        }
    }
    format!(
        "table inet kube-proxy\ndelete table inet kube-proxy\ntable inet kube-proxy {{\n{chains}\
         chain services {{\n{jumps}}}\n\
         chain prerouting {{ type nat hook prerouting priority dstnat; policy accept; jump services; }}\n\
         chain postrouting {{ type nat hook postrouting priority srcnat - 1; policy accept;\n\
         meta mark and 0x4000 == 0x0 return\nmeta mark set meta mark xor 0x4000\nmasquerade fully-random\n}}\n}}\n"
    )
}

/// The other family's or the same's.
pub(crate) fn with_port(ip: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(ip, port)
}
