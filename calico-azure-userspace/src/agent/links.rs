//! Which links get which programs, and whose they are, as pure decisions.

use std::collections::{BTreeMap, BTreeSet};

use crate::dataplane::attach::Role;
use crate::policy::{Interface, Interfaces};
use crate::sources::attachments::Attachment;
use crate::sources::links::{Link, LinkKind, Snapshot};

use super::config::FabricChoice;
use super::networking::is_flannel;

/// How a node's links are told apart.
#[derive(Clone, Debug)]
pub struct LinkNames {
    /// Of pods' host-side interfaces.
    pub prefixes: Vec<String>,
    pub fabric: FabricChoice,
    /// Bridges whose ports are pods' interfaces, whatever those are called.
    pub bridges: Vec<String>,
}

impl LinkNames {
    /// kubenet's and the one that the bridge plug-in makes if nothing else is said, for kube-flannel, too.
    pub const BRIDGES: [&'static str; 2] = ["cbr0", "cni0"];

    /// The role of every link that gets programs because of what it is called or where it leads. Links that are pods'
    /// only by their host route are found by policy.
    pub(super) fn roles(&self, snapshot: &Snapshot) -> Vec<(u32, String, Role)> {
        let bridges = self.bridges(snapshot);
        let role = |ifindex: &u32, link: &Link| {
            let leads_out = snapshot.default_links.contains(ifindex) || is_flannel(link);
            let found = self.fabric == FabricChoice::Auto && leads_out;
            if link.master == 0 && (found || self.names_the_fabric(link)) {
                Some(Role::Fabric)
            } else if self.is_pods(link, &bridges) {
                Some(Role::Workload)
            } else {
                None
            }
        };
        let links = snapshot.links.iter();
        links
            .filter_map(|(ifindex, link)| Some((*ifindex, link.name.clone(), role(ifindex, link)?)))
            .collect()
    }

    /// The bridges that are there of those whose ports are pods'.
    pub(super) fn bridges(&self, snapshot: &Snapshot) -> BTreeSet<u32> {
        let links = snapshot.links.iter();
        let named = links.filter(|(_, link)| self.is_pods_bridge(link));
        named.map(|(ifindex, _)| *ifindex).collect()
    }

    pub(super) fn is_pods_bridge(&self, link: &Link) -> bool {
        link.kind == LinkKind::Bridge && self.bridges.contains(&link.name)
    }

    /// Whether a link is a pod's by its name alone, or by the bridge that it is a port of.
    pub(super) fn is_pods(&self, link: &Link, bridges: &BTreeSet<u32>) -> bool {
        let named = || self.prefixes.iter().any(|prefix| link.name.starts_with(prefix));
        let port = bridges.contains(&link.master);
        (port || link.master == 0 && named()) && !self.names_the_fabric(link)
    }

    /// Whether a link is the host's own, and so no pod's, whatever CNI plug-ins, routes or workload endpoints say: what leads out of the
    /// node, what is a part of that, bridges and tunnels, and what has addresses of the host and nobody behind it. (ptp gives the
    /// host's end an address, too: the pod's gateway.)
    pub(super) fn is_own(&self, snapshot: &Snapshot, ifindex: u32, link: &Link) -> bool {
        let leads_out = |ifindex: u32, link: &Link| {
            snapshot.default_links.contains(&ifindex) || self.names_the_fabric(link)
        };
        let bonded = snapshot
            .links
            .get(&link.master)
            .filter(|master| master.kind != LinkKind::Bridge);
        leads_out(ifindex, link)
            || bonded.is_some()
            || matches!(link.kind, LinkKind::Bridge | LinkKind::Vxlan { .. })
            || link.name == "lo"
            || !link.addresses.is_empty()
                && link.host_routes.is_empty()
                && !self.is_pods(link, &self.bridges(snapshot))
    }

    fn names_the_fabric(&self, link: &Link) -> bool {
        matches!(&self.fabric, FabricChoice::Named(names) if names.contains(&link.name))
    }
}

/// The node's links with what is known of the pods behind them: by host routes, and by what CNI plug-ins said when they made them. An
/// answer about a link that is gone, or about another of that name, is an old one.
pub(super) fn interfaces(names: &LinkNames, snapshot: &Snapshot, attachments: &[Attachment]) -> Interfaces {
    let mut by_ifindex = BTreeMap::new();
    let mut by_name = BTreeMap::new();
    for (ifindex, link) in &snapshot.links {
        by_name.insert(link.name.as_str(), (*ifindex, link));
        by_ifindex.insert(
            *ifindex,
            Interface {
                name: link.name.clone(),
                behind: link.host_routes.clone(),
                addresses: link.addresses.clone(),
                pod: None,
                own: names.is_own(snapshot, *ifindex, link),
            },
        );
    }
    // A later answer is about the pod's present interface, and about the interface's present pod.
    let mut ordered: Vec<&Attachment> = attachments.iter().collect();
    ordered.sort_by(|a, b| (b.since, &b.pod).cmp(&(a.since, &a.pod)));
    let mut placed = BTreeSet::new();
    for attachment in ordered {
        let there = attachment.interfaces.iter().find_map(|(name, mac)| {
            let (ifindex, link) = by_name.get(name.as_str())?;
            let same = mac.is_empty() || link.mac.eq_ignore_ascii_case(mac);
            (same && !names.is_own(snapshot, *ifindex, link)).then_some(*ifindex)
        });
        let Some(interface) = there.and_then(|ifindex| by_ifindex.get_mut(&ifindex)) else {
            continue;
        };
        if interface.pod.is_some() || !placed.insert(&attachment.pod) {
            continue;
        }
        interface.pod = Some(attachment.pod.clone());
        interface.behind.extend(&attachment.addresses);
        interface.behind.sort_unstable();
        interface.behind.dedup();
    }
    Interfaces { by_ifindex }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    fn link(name: &str, master: u32) -> Link {
        Link {
            name: name.into(),
            master,
            mac: format!("02:00:00:00:00:{:02x}", name.len()),
            ..Link::default()
        }
    }

    fn bridge(name: &str) -> Link {
        Link {
            kind: LinkKind::Bridge,
            ..link(name, 0)
        }
    }

    fn snapshot() -> Snapshot {
        Snapshot {
            links: [
                (1, link("lo", 0)),
                (2, link("eth0", 0)),
                (3, link("enP1s1", 2)),
                (4, link("azv01234567890", 0)),
                (5, bridge("docker0")),
                (6, link("cali0", 5)),
                (
                    7,
                    Link {
                        kind: LinkKind::Vxlan {
                            port: 8472,
                            parent: 2,
                            v6: false,
                        },
                        ..link("flannel.1", 0)
                    },
                ),
                (8, bridge("cni0")),
                (9, link("veth01234567", 8)),
                (10, link("vethdocker", 5)),
            ]
            .into(),
            default_links: [2, 3].into(),
            ..Snapshot::default()
        }
    }

    fn names(fabric: &str) -> LinkNames {
        LinkNames {
            prefixes: vec!["cali".into(), "azv".into()],
            fabric: fabric.parse().unwrap_or(FabricChoice::None),
            bridges: LinkNames::BRIDGES.map(str::to_owned).into(),
        }
    }

    #[test]
    fn what_is_the_hosts_own_is_no_pods() {
        let mut snapshot = snapshot();
        let mut with = |ifindex: u32, name: &str, address: &str, route: &str| {
            let ips = |ip: &str| ip.parse().into_iter().collect();
            let link = Link {
                addresses: ips(address),
                host_routes: ips(route),
                ..link(name, 0)
            };
            snapshot.links.insert(ifindex, link);
        };
        with(11, "eth1", "10.1.0.4", "");
        with(12, "vethptp", "10.244.0.1", "10.244.0.9");
        with(13, "azvffffffffff", "10.244.0.1", "");
        with(14, "anything", "", "10.244.0.8");
        for fabric in ["auto", "none", "eth0"] {
            let own = snapshot.links.iter();
            let own = own.filter(|(i, link)| names(fabric).is_own(&snapshot, **i, link));
            let own: Vec<u32> = own.map(|(i, _)| *i).collect();
            assert_eq!(own, [1, 2, 3, 5, 7, 8, 11], "{fabric}");
        }
        // An answer may say what it likes.
        let said = |interface: &str| Attachment {
            pod: ("a".into(), "x".into()),
            interfaces: vec![(interface.into(), String::new())],
            addresses: Vec::new(),
            since: SystemTime::UNIX_EPOCH,
        };
        for (interface, is) in [
            ("eth0", false),
            ("enP1s1", false),
            ("eth1", false),
            ("vethptp", true),
        ] {
            let found = interfaces(&names("none"), &snapshot, &[said(interface)]).by_ifindex;
            assert_eq!(found.values().any(|link| link.pod.is_some()), is, "{interface}");
        }
    }

    #[test]
    fn prefixes_and_bridges_make_workloads_and_default_routes_the_fabric() {
        let get = |fabric: &str| {
            let roles = names(fabric).roles(&snapshot()).into_iter();
            roles.map(|(i, _, role)| (i, role)).collect::<Vec<_>>()
        };
        let pods = [(4, Role::Workload), (9, Role::Workload)];
        assert_eq!(get("none"), pods);
        assert_eq!(
            get("auto"),
            [(2, Role::Fabric), pods[0], (7, Role::Fabric), pods[1]]
        );
        assert_eq!(
            get("docker0, eth0"),
            [(2, Role::Fabric), pods[0], (5, Role::Fabric), pods[1]]
        );
    }

    #[test]
    fn an_answer_counts_if_its_interface_is_there_and_it_is_the_last() {
        let said = |pod: &str, interface: &str, mac: &str, second: u64| Attachment {
            pod: ("a".into(), pod.into()),
            interfaces: vec![("cni0".into(), String::new()), (interface.into(), mac.into())],
            addresses: vec![format!("10.0.0.{second}").parse().unwrap()],
            since: SystemTime::UNIX_EPOCH + Duration::from_secs(second),
        };
        let get = |said: &[Attachment]| {
            let interfaces = interfaces(&names("auto"), &snapshot(), said).by_ifindex;
            let known = interfaces.into_iter().filter_map(|(i, interface)| {
                let behind: Vec<String> = interface.behind.iter().map(ToString::to_string).collect();
                Some((i, interface.pod?.1, behind.join(" ")))
            });
            known.collect::<Vec<_>>()
        };
        let mac = "02:00:00:00:00:0C";
        let one = |i, pod: &str, behind: &str| vec![(i, pod.to_owned(), behind.to_owned())];
        assert_eq!(get(&[said("x", "veth01234567", mac, 1)]), one(9, "x", "10.0.0.1"));
        assert_eq!(get(&[said("x", "veth01234567", "", 1)]), one(9, "x", "10.0.0.1"));
        // Before the machine's last start somebody else was called so.
        assert_eq!(get(&[said("x", "veth01234567", "02:00:00:00:00:ff", 1)]), []);
        assert_eq!(get(&[said("x", "vethgone", "", 1)]), []);
        let both = [said("x", "veth01234567", "", 1), said("y", "veth01234567", "", 2)];
        assert_eq!(get(&both), one(9, "y", "10.0.0.2"));
        let moved = [
            said("x", "azv01234567890", "", 1),
            said("x", "veth01234567", "", 2),
        ];
        assert_eq!(get(&moved), one(9, "x", "10.0.0.2"));
    }
}
