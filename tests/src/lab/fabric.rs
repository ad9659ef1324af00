//! Azure, as far as a packet can tell: NICs, user-defined routes, and silent drops with a counter each.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ipnet::IpNet;

use super::{LabError, NetNs, Node, Result, plan, rules};

/// Why the fabric discards a packet of a NIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FabricDrop {
    /// The source is neither an ipConfiguration of the NIC nor routed to it.
    UnknownSource,
    /// IP-in-IP or GRE.
    Protocol,
    /// Multicast.
    Multicast,
    /// Broadcast.
    Broadcast,
    /// Routed to the NIC, which takes only what is addressed to itself (IP forwarding disabled).
    NotForNic,
    /// Between an overlay's domain and anything else.
    Overlay,
}

impl FabricDrop {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::UnknownSource,
        Self::Protocol,
        Self::Multicast,
        Self::Broadcast,
        Self::NotForNic,
        Self::Overlay,
    ];

    /// The name of the reason in the names of counters.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UnknownSource => "unknown_source",
            Self::Protocol => "protocol",
            Self::Multicast => "multicast",
            Self::Broadcast => "broadcast",
            Self::NotForNic => "not_for_nic",
            Self::Overlay => "overlay",
        }
    }
}

/// A counter of the fabric.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counter {
    pub packets: u64,
    pub bytes: u64,
}

/// The namespace that plays Azure.
#[derive(Debug)]
pub struct Fabric {
    ns: NetNs,
    nics: Mutex<BTreeMap<u8, Nic>>,
}

#[derive(Debug, Default)]
struct Nic {
    forwarding: bool,
    routes: Vec<IpNet>,
}

/// The namespace behind the fabric that stands for the rest of the world.
#[derive(Debug)]
pub struct Internet {
    pub ns: NetNs,
}

impl Fabric {
    /// Creates the fabric `<lab>-fabric` and the world behind it, `<lab>-internet`.
    pub fn create(lab: &str) -> Result<(Self, Internet)> {
        let ns = NetNs::create(&format!("{lab}-fabric"))?;
        let internet = NetNs::create(&format!("{lab}-internet"))?;
        for ns in [&ns, &internet] {
            ns.sysctl(&[
                ("ipv6/conf/all/accept_dad", "0"),
                ("ipv6/conf/default/accept_dad", "0"),
            ])?;
        }
        ns.sysctl(&[
            ("ipv4/ip_forward", "1"),
            ("ipv6/conf/all/forwarding", "1"),
            // The rules below do this, and count it.
            ("ipv4/conf/all/rp_filter", "0"),
            ("ipv4/conf/default/rp_filter", "0"),
            ("ipv4/conf/all/send_redirects", "0"),
            ("ipv4/conf/default/send_redirects", "0"),
        ])?;
        // Sources of the fabric's own ICMP errors.
        ns.ip(&["addr", "add", &format!("{}/32", plan::GATEWAY_V4), "dev", "lo"])?;
        ns.ip(&["addr", "add", &format!("{}/128", plan::GATEWAY_V6), "dev", "lo"])?;
        // Azure's own, on every port.
        for own in [plan::WIRESERVER, plan::IMDS] {
            ns.ip(&["addr", "add", &format!("{own}/32"), "dev", "lo"])?;
        }
        veth(&ns, "internet", &internet)?;
        for (ns, dev, addresses) in [
            (
                &ns,
                "internet",
                ["203.0.113.1/24", "2001:db8:ffff::1/48"].as_slice(),
            ),
            (
                &internet,
                "eth0",
                &[
                    &format!("{}/24", plan::OUTSIDE_V4),
                    &format!("{}/24", plan::THREAT_V4),
                    &format!("{}/48", plan::OUTSIDE_V6),
                    &format!("{}/48", plan::THREAT_V6),
                ],
            ),
        ] {
            for address in addresses {
                // Usable at once, however busy the machine is.
                let now: &[&str] = if address.contains(':') { &["nodad"] } else { &[] };
                ns.ip(&[&["addr", "add", address, "dev", dev], now].concat())?;
            }
        }
        internet.ip(&["route", "add", "default", "via", "203.0.113.1"])?;
        internet.ip(&["-6", "route", "add", "default", "via", "2001:db8:ffff::1"])?;
        ns.nft(&rules::fabric())?;
        Ok((
            Self {
                ns,
                nics: Mutex::default(),
            },
            Internet { ns: internet },
        ))
    }

    /// The fabric's namespace.
    #[must_use]
    pub fn ns(&self) -> &NetNs {
        &self.ns
    }

    /// Plugs a NIC: port `pN` here, `eth0` in `node`, with IP forwarding enabled.
    pub(super) fn plug(&self, number: u8, node: &NetNs) -> Result<()> {
        let port = port(number);
        veth(&self.ns, &port, node)?;
        self.ns.ip(&["link", "set", &port, "down"])?;
        self.ns
            .ip(&["link", "set", &port, "address", plan::GATEWAY_MAC])?;
        self.ns.ip(&["link", "set", &port, "up"])?;
        self.ns
            .ip(&["addr", "replace", "fe80::1/64", "dev", &port, "nodad"])?;
        self.ns
            .ip(&["addr", "add", &format!("{}/32", plan::GATEWAY_V4), "dev", &port])?;
        let [v4, v6] = plan::node_ips(number).map(|ip| ip.to_string());
        self.ns.ip(&["route", "add", &v4, "dev", &port])?;
        self.ns.ip(&["-6", "route", "add", &v6, "dev", &port])?;
        self.ns.nft(&rules::port(&port, &v4, &v6))?;
        self.nics().insert(
            number,
            Nic {
                forwarding: true,
                routes: Vec::new(),
            },
        );
        Ok(())
    }

    /// Adds a user-defined route: `prefix` to `node`'s NIC.
    pub fn add_route(&self, prefix: IpNet, node: &Node) -> Result<()> {
        let number = node.number();
        let mut nics = self.nics();
        let nic = nics.get_mut(&number).ok_or_else(|| unknown(number))?;
        let via = plan::node_ips(number)[usize::from(prefix.addr().is_ipv6())].to_string();
        self.ns.ip(&[
            "route",
            "replace",
            &prefix.to_string(),
            "via",
            &via,
            "dev",
            &port(number),
            "onlink",
        ])?;
        if nic.forwarding {
            self.known("add", number, prefix)?;
        }
        nic.routes.push(prefix);
        Ok(())
    }

    /// Gives `node`'s NIC the addresses of `prefix`, as ip-configurations: known and delivered, whether it forwards or not.
    pub(super) fn add_configurations(&self, prefix: IpNet, node: &Node) -> Result<()> {
        let number = node.number();
        let via = plan::node_ips(number)[usize::from(prefix.addr().is_ipv6())].to_string();
        let (prefix_text, port) = (prefix.to_string(), port(number));
        self.ns.ip(&[
            "route",
            "replace",
            &prefix_text,
            "via",
            &via,
            "dev",
            &port,
            "onlink",
        ])?;
        self.known("add", number, prefix)
    }

    /// Gives `prefix` of an overlay's domain to `node`. The rules keep the domain apart from the virtual network.
    pub(super) fn add_overlay(&self, prefix: IpNet, node: &Node) -> Result<()> {
        self.add_configurations(prefix, node)
    }

    /// Removes the user-defined route to `prefix`, as someone with a portal and little time would.
    pub fn remove_route(&self, prefix: IpNet, node: &Node) -> Result<()> {
        let number = node.number();
        let mut nics = self.nics();
        let nic = nics.get_mut(&number).ok_or_else(|| unknown(number))?;
        self.ns.ip(&["route", "del", &prefix.to_string()])?;
        if nic.forwarding {
            self.known("delete", number, prefix)?;
        }
        nic.routes.retain(|p| *p != prefix);
        Ok(())
    }

    /// The NIC's `enableIPForwarding`.
    pub fn set_ip_forwarding(&self, node: &Node, enabled: bool) -> Result<()> {
        let number = node.number();
        let mut nics = self.nics();
        let nic = nics.get_mut(&number).ok_or_else(|| unknown(number))?;
        if nic.forwarding != enabled {
            for prefix in &nic.routes {
                self.known(if enabled { "add" } else { "delete" }, number, *prefix)?;
            }
            nic.forwarding = enabled;
        }
        Ok(())
    }

    /// How many packets of `node` the fabric has discarded for `why`.
    pub fn dropped(&self, node: &Node, why: FabricDrop) -> Result<u64> {
        let name = format!("{}_{}", port(node.number()), why.as_str());
        Ok(self.counters()?.get(&name).copied().unwrap_or_default().packets)
    }

    /// Every counter, by name: `p<node number>_<reason>`, `internet_unknown_source`.
    pub fn counters(&self) -> Result<BTreeMap<String, Counter>> {
        let text = self.ns.exec("nft", &["-j", "list", "counters"])?;
        let bad = |problem: String| LabError::Format {
            path: "nft -j list counters".into(),
            problem,
        };
        let json: serde_json::Value = serde_json::from_str(&text).map_err(|e| bad(e.to_string()))?;
        let list = json["nftables"]
            .as_array()
            .ok_or_else(|| bad(format!("no list in {text}")))?;
        let number = |value: &serde_json::Value| value.as_u64().unwrap_or_default();
        Ok(list
            .iter()
            .filter_map(|item| {
                let counter = item.get("counter")?;
                let name = counter.get("name")?.as_str()?.to_owned();
                Some((
                    name,
                    Counter {
                        packets: number(&counter["packets"]),
                        bytes: number(&counter["bytes"]),
                    },
                ))
            })
            .collect())
    }

    fn known(&self, verb: &str, number: u8, prefix: IpNet) -> Result<()> {
        let family = if prefix.addr().is_ipv6() { "v6" } else { "v4" };
        self.ns.nft(&format!(
            "{verb} element inet azure {}_{family} {{ {prefix} }}\n",
            port(number)
        ))
    }

    fn nics(&self) -> MutexGuard<'_, BTreeMap<u8, Nic>> {
        self.nics.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn port(number: u8) -> String {
    format!("p{number}")
}

fn unknown(number: u8) -> LabError {
    LabError::Unknown {
        kind: "NIC of node",
        name: number.to_string(),
        known: "other fabrics' nodes".to_owned(),
    }
}

/// A cable: `here` in `ns`, `eth0` in `there`.
fn veth(ns: &NetNs, here: &str, there: &NetNs) -> Result<()> {
    ns.ip(&[
        "link",
        "add",
        here,
        "type",
        "veth",
        "peer",
        "name",
        "eth0",
        "netns",
        there.name(),
    ])?;
    ns.ip(&["link", "set", here, "up"])?;
    there.ip(&["link", "set", "eth0", "up"])?;
    Ok(())
}
