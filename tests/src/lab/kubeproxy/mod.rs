//! What kube-proxy installs on a node, in the shape of its iptables, its nftables and its IPVS mode.

pub mod ipvs;

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use self::ipvs::VirtualServer;
use super::{Node, Port, Result, exec};

/// Which of kube-proxy's modes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KubeProxy {
    Iptables,
    Nftables,
    /// Of kernels that have it.
    Ipvs,
}

/// A service with one backend, so that a test knows where packets go.
#[derive(Clone, Copy, Debug)]
pub struct ServiceSpec {
    /// Where clients send to: a cluster address, or for a node port the node's.
    pub address: IpAddr,
    pub port: Port,
    pub backend: SocketAddr,
    /// Clients' addresses are hidden behind the node's, as for node ports of policy Cluster.
    pub masquerade: bool,
}

impl KubeProxy {
    /// The modes to test: those of `CALICO_AZURE_KUBE_PROXY` (`iptables,nftables,ipvs`), else iptables, nftables, and IPVS if the
    /// kernel has it (`cargo xtask test --kernels` has ones that do).
    ///
    /// # Panics
    /// If the variable names another.
    #[must_use]
    pub fn to_test() -> Vec<Self> {
        if let Ok(names) = std::env::var("CALICO_AZURE_KUBE_PROXY") {
            let named = |name: &str| match name {
                "iptables" => Self::Iptables,
                "nftables" => Self::Nftables,
                "ipvs" => Self::Ipvs,
                other => panic!("CALICO_AZURE_KUBE_PROXY: {other} is none of iptables, nftables, ipvs"),
            };
            return names.split(',').map(named).collect();
        }
        let mut all = vec![Self::Iptables, Self::Nftables];
        if Path::new("/proc/net/ip_vs").exists() {
            all.push(Self::Ipvs);
        } else {
            eprintln!("not run: kube-proxy's IPVS mode, this kernel has no IPVS");
        }
        all
    }

    /// Installs the rules in the node's namespace, in place of those of an earlier call.
    pub fn install(self, node: &Node, services: &[ServiceSpec]) -> Result<()> {
        match self {
            Self::Ipvs => {
                let servers: Vec<_> = services.iter().map(virtual_server).collect();
                ipvs::install(node.ns(), &servers)
            }
            Self::Nftables => node.ns().nft(&nftables(services)),
            Self::Iptables => {
                for (program, v6) in [("iptables-restore", false), ("ip6tables-restore", true)] {
                    let of_family = services.iter().filter(|service| service.address.is_ipv6() == v6);
                    let rules = iptables(of_family);
                    exec::run(&mut node.ns().command(program), rules.as_bytes(), node.name())?;
                }
                Ok(())
            }
        }
    }
}

fn virtual_server(service: &ServiceSpec) -> VirtualServer {
    let (protocol, port) = protocol(service.port);
    VirtualServer {
        address: SocketAddr::new(service.address, port),
        protocol,
        backends: vec![service.backend],
        masquerade: service.masquerade,
        affinity: false,
        hairpin: true,
    }
}

fn protocol(port: Port) -> (&'static str, u16) {
    match port {
        Port::Tcp(port) => ("tcp", port),
        Port::Udp(port) => ("udp", port),
    }
}

fn iptables<'s>(services: impl Iterator<Item = &'s ServiceSpec>) -> String {
    let mut chains = String::from(
        "*nat\n:PREROUTING ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]\n:KUBE-SERVICES - [0:0]\n\
         :KUBE-POSTROUTING - [0:0]\n:KUBE-MARK-MASQ - [0:0]\n",
    );
    let mut rules = String::from(
        "-A PREROUTING -j KUBE-SERVICES\n-A OUTPUT -j KUBE-SERVICES\n-A POSTROUTING -j KUBE-POSTROUTING\n\
         -A KUBE-MARK-MASQ -j MARK --or-mark 0x4000\n\
         -A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN\n\
         -A KUBE-POSTROUTING -j MARK --xor-mark 0x4000\n-A KUBE-POSTROUTING -j MASQUERADE --random-fully\n",
    );
    for (number, service) in services.enumerate() {
        let (protocol, port) = protocol(service.port);
        let (address, backend) = (service.address, service.backend);
        let (svc, sep) = (format!("KUBE-SVC-{number}"), format!("KUBE-SEP-{number}"));
        let text = [
            format!("-A KUBE-SERVICES -d {address} -p {protocol} -m {protocol} --dport {port} -j {svc}"),
            format!("-A {svc} -j {sep}"),
            // A pod that is its own backend must not see itself as the client.
            format!("-A {sep} -s {} -j KUBE-MARK-MASQ", backend.ip()),
            format!("-A {sep} -p {protocol} -m {protocol} -j DNAT --to-destination {backend}"),
        ];
        let masquerade = service.masquerade.then(|| format!("-A {svc} -j KUBE-MARK-MASQ"));
        let [first, rest @ ..] = text;
        for line in [Some(first), masquerade].into_iter().flatten().chain(rest) {
            let _infallible = writeln!(rules, "{line}");
        }
        let _infallible = writeln!(chains, ":{svc} - [0:0]\n:{sep} - [0:0]");
    }
    format!("{chains}{rules}COMMIT\n")
}

fn nftables(services: &[ServiceSpec]) -> String {
    let (mut chains, mut jumps) = (String::new(), String::new());
    for (number, service) in services.iter().enumerate() {
        let (protocol, port) = protocol(service.port);
        let (address, backend) = (service.address, service.backend);
        let ip = if address.is_ipv6() { "ip6" } else { "ip" };
        let _infallible = writeln!(
            jumps,
            "{ip} daddr {address} {protocol} dport {port} goto service-{number}"
        );
        let masquerade = if service.masquerade {
            "meta mark set meta mark or 0x4000"
        } else {
            ""
        };
        let _infallible = writeln!(
            chains,
            "chain service-{number} {{\n{masquerade}\ngoto endpoint-{number}\n}}\nchain endpoint-{number} {{\n{ip} saddr {} meta \
             mark set meta mark or 0x4000\nmeta l4proto {protocol} dnat {ip} to {backend}\n}}",
            backend.ip()
        );
    }
    format!(
        "table inet kube-proxy\ndelete table inet kube-proxy\ntable inet kube-proxy {{\n{chains}\
         chain services {{\n{jumps}}}\n\
         chain prerouting {{ type nat hook prerouting priority dstnat; policy accept; jump services; }}\n\
         chain output {{ type nat hook output priority -100; policy accept; jump services; }}\n\
         chain postrouting {{ type nat hook postrouting priority srcnat - 1; policy accept;\n\
         meta mark and 0x4000 == 0x0 return\nmeta mark set meta mark xor 0x4000\nmasquerade fully-random\n}}\n}}\n"
    )
}
