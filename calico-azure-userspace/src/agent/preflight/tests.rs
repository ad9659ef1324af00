//! Each thing that can be wrong with a node, and that nothing else is found then.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use super::files::Reservation;
use super::*;
use crate::model::Node;

fn link(name: &str) -> Link {
    Link {
        name: name.into(),
        mtu: 1500,
        mac: format!("02:00:00:00:00:{:02x}", name.len()),
        ..Link::default()
    }
}

/// A node with a NIC and a pod, on which nothing is wrong.
fn fine() -> Seen {
    let pod = Link {
        host_routes: vec!["10.244.1.2".parse().unwrap(), "fd00::2".parse().unwrap()],
        ..link("azv01234567890")
    };
    Seen {
        kernel: "6.8.0-1015-azure".into(),
        btf: true,
        bpffs: true,
        bpffs_path: "/sys/fs/bpf".into(),
        cgroup2: true,
        jit: Some(1),
        forwarding: [Some(1), Some(1)],
        rp_filter: vec![("all".into(), 1), ("eth0".into(), 1)],
        links: Snapshot {
            links: [(1, link("lo")), (2, link("eth0")), (3, pod)].into(),
            default_links: [2].into(),
            ..Snapshot::default()
        },
        ..Seen::default()
    }
}

#[test]
fn nothing_is_found_where_nothing_is_wrong() {
    assert_eq!(preflight(&fine(), &Options::default()), []);
}

#[test]
fn each_thing_that_is_wrong_is_found_and_nothing_else() {
    type Spoil = fn(&mut Seen, &mut Options);
    let cases: [(Check, Severity, &str, Spoil); 19] = [
        (Check::Kernel, Severity::Error, "expected 5.10", |seen, _| {
            seen.kernel = "5.4.0".into();
        }),
        (Check::Kernel, Severity::Info, "no tcx", |seen, _| {
            seen.kernel = "5.15.0-1089-azure".into();
        }),
        (Check::Btf, Severity::Error, "vmlinux is missing", |seen, _| {
            seen.btf = false;
        }),
        (Check::Bpffs, Severity::Error, "/sys/fs/bpf is no", |seen, _| {
            seen.bpffs = false;
        }),
        (Check::Jit, Severity::Warning, "bpf_jit_enable is 0", |seen, _| {
            seen.jit = Some(0);
        }),
        (Check::Cgroup, Severity::Error, "control groups", |seen, _| {
            seen.cgroup2 = false;
        }),
        (
            Check::Forwarding,
            Severity::Error,
            "ip_forward is 0",
            |seen, _| seen.forwarding[0] = Some(0),
        ),
        (Check::Forwarding, Severity::Error, "IPv6 addresses", |seen, _| {
            seen.forwarding[1] = Some(0);
        }),
        (
            Check::BridgeCalls,
            Severity::Warning,
            "bridge-nf-call",
            |seen, _| seen.bridge_calls = [Some(0), Some(1)],
        ),
        (
            Check::FabricInterface,
            Severity::Error,
            "no default route",
            |seen, _| seen.links.default_links.clear(),
        ),
        (
            Check::PodInterfaces,
            Severity::Info,
            "begins with cali or azv",
            |seen, _| {
                seen.links.links.remove(&3);
            },
        ),
        (
            Check::VirtualFunction,
            Severity::Info,
            "enP1s1 is the accelerated half of eth0",
            |seen, _| {
                let half = Link {
                    name: "enP1s1".into(),
                    master: 2,
                    ..link("eth0")
                };
                seen.links.links.insert(4, half);
            },
        ),
        (
            Check::ReversePath,
            Severity::Warning,
            "strict on eth0",
            |seen, options| {
                seen.links.links.insert(4, link("eth1"));
                seen.links.default_links.insert(4);
                options.names.fabric = FabricChoice::Named(vec!["eth0".into()]);
            },
        ),
        (Check::Network, Severity::Error, "bridge azure0", |seen, _| {
            let bridge = Link {
                kind: LinkKind::Bridge,
                ..link("azure0")
            };
            seen.links.links.insert(4, bridge);
        }),
        (
            Check::Marks,
            Severity::Warning,
            "mark 0x20000/0xf0000",
            |seen, _| seen.rules = vec![(0x20000, 0xf0000, 9)],
        ),
        (
            Check::OtherPrograms,
            Severity::Error,
            "cil_from_netdev runs on eth0",
            |seen, _| {
                seen.programs = vec![("eth0".into(), "ingress".into(), "cil_from_netdev".into())];
            },
        ),
        (
            Check::OtherPrograms,
            Severity::Info,
            "ipv6_hp runs on eth0",
            |seen, _| {
                seen.programs = vec![("eth0".into(), "ingress".into(), "ipv6_hp".into())];
            },
        ),
        (Check::OtherDataplane, Severity::Error, "of Cilium", |seen, _| {
            seen.links.links.insert(4, link("cilium_host"));
        }),
        (
            Check::OtherDataplane,
            Severity::Error,
            "of Calico's eBPF",
            |seen, _| {
                seen.links.links.insert(4, link("bpfin.cali"));
            },
        ),
    ];
    for (check, severity, part, spoil) in cases {
        let (mut seen, mut options) = (fine(), Options::default());
        spoil(&mut seen, &mut options);
        let found = preflight(&seen, &options);
        let [only] = found.as_slice() else {
            panic!("{check:?}: {found:#?}");
        };
        assert_eq!((only.check, only.severity), (check, severity), "{only:?}");
        assert!(only.evidence.contains(part), "{part}: {only:?}");
        assert!(only.check.name().len() > 2 && !only.consequence.is_empty());
    }
    // Rules about kube-proxy's marks, or Cilium's where ours are elsewhere, are nobody's business.
    let seen = Seen {
        rules: vec![(0x4000, 0xc000, 1)],
        ..fine()
    };
    assert_eq!(preflight(&seen, &Options::default()), []);
}

fn node(cidrs: &[&str]) -> Option<Node> {
    Some(Node {
        name: "n".into(),
        pod_cidrs: cidrs.iter().map(|cidr| cidr.parse().unwrap()).collect(),
        ..Node::default()
    })
}

/// The only finding; its evidence has this.
#[track_caller]
fn only(seen: &Seen, options: &Options, check: Check, part: &str) -> Finding {
    let found = preflight(seen, options);
    let [only] = found.as_slice() else {
        panic!("{check:?}: {found:#?}");
    };
    assert_eq!(only.check, check, "{only:?}");
    assert!(only.evidence.contains(part), "{part}: {only:?}");
    only.clone()
}

/// [`fine`], with what CNI plug-ins keep, on a node whose object is known.
fn kept() -> (Seen, Options) {
    let mut seen = fine();
    seen.links.links.get_mut(&3).unwrap().name = "cali0123456789a".into();
    seen.sees_pods = true;
    seen.attachments = vec![Attachment {
        pod: ("a".into(), "web".into()),
        interfaces: vec![("cali0123456789a".into(), String::new())],
        addresses: vec!["10.244.1.2".parse().unwrap(), "fd00::2".parse().unwrap()],
        since: SystemTime::UNIX_EPOCH,
    }];
    let reserved = |address: &str| Reservation {
        address: address.parse().unwrap(),
        container: "0123456789abcdef".into(),
        age: Duration::from_secs(600),
    };
    seen.pools = vec![
        Pool {
            name: "cbr0".into(),
            dir: "/var/lib/cni/networks/cbr0".into(),
            reserved: vec![reserved("10.244.1.2"), reserved("fd00::2")],
        },
        // Somebody else's containers.
        Pool {
            name: "podman".into(),
            dir: "/var/lib/cni/networks/podman".into(),
            reserved: vec![reserved("10.88.0.2")],
        },
    ];
    seen.ranges = vec![Range {
        file: "/etc/cni/net.d/10-cbr0.conflist".into(),
        network: "cbr0".into(),
        net: "10.244.1.0/24".parse().unwrap(),
    }];
    let options = Options {
        node: node(&["10.244.1.0/24", "fd00::/64"]),
        ..Options::default()
    };
    (seen, options)
}

#[test]
fn addresses_that_are_not_the_nodes_and_addresses_that_nobody_has_are_found() {
    let (seen, options) = kept();
    assert_eq!(preflight(&seen, &options), []);

    let mut leaked = seen.clone();
    for (last, age) in [(9, 600), (10, 5)] {
        leaked.pools[0].reserved.push(Reservation {
            address: format!("10.244.1.{last}").parse().unwrap(),
            container: "fedcba9876543210".into(),
            age: Duration::from_secs(age),
        });
    }
    let found = only(
        &leaked,
        &options,
        Check::AddressLeaks,
        "1 of 4 addresses for containers that are gone: 10.244.1.9",
    );
    assert_eq!(found.fix, ["rm -f /var/lib/cni/networks/cbr0/10.244.1.9"]);
    // Where pods cannot be seen, nobody is said to be gone.
    leaked.sees_pods = false;
    assert_eq!(preflight(&leaked, &options), []);

    let mut ranged = seen.clone();
    ranged.ranges[0].net = "10.244.0.0/16".parse().unwrap();
    only(
        &ranged,
        &options,
        Check::PodAddresses,
        "gives out 10.244.0.0/16; expected a part of",
    );

    // The node was made anew with another podCIDR, and its pods were not.
    let moved = Options {
        node: node(&["10.244.7.0/24", "fd00::/64"]),
        ..Options::default()
    };
    let found = preflight(&seen, &moved);
    let parts = [
        "1 of pods' addresses, 10.244.1.2 (pod a/web) among them, are outside",
        "gives out 10.244.1.0/24",
        "gave out 1 addresses, 10.244.1.2 among them",
    ];
    assert_eq!(found.len(), 3, "{found:#?}");
    for part in parts {
        assert!(
            found.iter().any(|finding| finding.evidence.contains(part)),
            "{part}: {found:#?}"
        );
    }
    assert_eq!(found[0].fix, ["kubectl delete pod -n a web"]);
    // Under Azure's plug-in addresses are Azure's.
    let azure = Options {
        networking: Choice {
            networking: Some(Networking::AzureCni),
            ..Choice::default()
        },
        ..moved
    };
    assert_eq!(preflight(&seen, &azure), []);
}

#[test]
fn subnet_env_is_held_against_the_node_and_the_device() {
    let mut seen = kept().0;
    let tunnel = Link {
        kind: LinkKind::Vxlan {
            port: 8472,
            parent: 2,
            v6: false,
        },
        mtu: 1450,
        ..link("flannel.1")
    };
    let mac = tunnel.mac.clone();
    seen.links.links.insert(4, tunnel);
    seen.links.links.get_mut(&3).unwrap().mtu = 1450;
    seen.links.host_ips.insert("10.240.0.4".parse().unwrap());
    let options = Options {
        node: node(&["10.244.1.0/24", "fd00::/64"]).map(|node| Node {
            flannel_backend: "vxlan".into(),
            tunnel_ips: vec!["10.240.0.4".parse().unwrap()],
            tunnel_macs: vec![mac],
            ..node
        }),
        ..Options::default()
    };
    let right = [
        ("FLANNEL_NETWORK", "10.244.0.0/16"),
        ("FLANNEL_SUBNET", "10.244.1.1/24"),
        ("FLANNEL_IPV6_SUBNET", "fd00::1/64"),
        ("FLANNEL_MTU", "1450"),
    ];
    let said = |wrong: &str, value: Option<&str>| {
        let mut said: BTreeMap<String, String> = right
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into();
        match value {
            Some(value) => drop(said.insert(wrong.to_owned(), value.to_owned())),
            None => drop(said.remove(wrong)),
        }
        Some(SubnetEnv {
            path: "/run/flannel/subnet.env".into(),
            said: Some(said),
        })
    };
    seen.subnet_env = said("", None);
    assert_eq!(preflight(&seen, &options), []);
    for (key, value, told) in [
        (
            "FLANNEL_SUBNET",
            Some("10.244.9.1/24"),
            "FLANNEL_SUBNET=10.244.9.1/24; expected the node's podCIDR 10.244.1.0/24",
        ),
        ("FLANNEL_SUBNET", Some("x"), "FLANNEL_SUBNET=x; expected"),
        ("FLANNEL_IPV6_SUBNET", None, "FLANNEL_IPV6_SUBNET is missing"),
        (
            "FLANNEL_NETWORK",
            Some("10.96.0.0/12"),
            "podCIDR 10.244.1.0/24 is not in it",
        ),
        (
            "FLANNEL_MTU",
            Some("1500"),
            "FLANNEL_MTU=1500, and flannel.1 carries 1450",
        ),
        ("FLANNEL_MTU", None, "FLANNEL_MTU is missing"),
        ("FLANNEL_MTU", Some("many"), "FLANNEL_MTU is many"),
    ] {
        seen.subnet_env = said(key, value);
        let found = only(&seen, &options, Check::SubnetEnv, told);
        assert!(found.fix[0].starts_with("kubectl -n kube-flannel "), "{found:?}");
    }
    seen.subnet_env = Some(SubnetEnv {
        path: "/run/flannel/subnet.env".into(),
        said: None,
    });
    only(&seen, &options, Check::SubnetEnv, "subnet.env is missing");
}

#[test]
fn bridges_count_for_ipv6_and_have_two_switches() {
    let (mut seen, options) = (fine(), Options::default());
    let bridge = Link {
        kind: LinkKind::Bridge,
        addresses: vec!["10.244.1.1".parse().unwrap()],
        ..link("cni0")
    };
    // Pods on a bridge have no routes of their own.
    seen.links.links.get_mut(&3).unwrap().host_routes.clear();
    seen.links.links.insert(4, bridge);
    seen.forwarding[1] = Some(0);
    seen.bridge_calls = [Some(1), Some(0)];
    assert_eq!(preflight(&seen, &options), [], "nobody speaks IPv6");
    let v6 = "fd00:10:244:1::1".parse().unwrap();
    seen.links.links.get_mut(&4).unwrap().addresses.push(v6);
    let found = preflight(&seen, &options);
    let parts: Vec<(&str, &str)> = found
        .iter()
        .map(|finding| (finding.check.name(), finding.fix[0].as_str()))
        .collect();
    assert_eq!(
        parts,
        [
            ("forwarding", "sysctl -w net.ipv6.conf.all.forwarding=1"),
            ("bridge-calls", "sysctl -w net.bridge.bridge-nf-call-ip6tables=1"),
        ]
    );
}

#[test]
fn rules_that_match_or_write_our_marks_are_named() {
    let rule = |matched, written| MarkRule {
        place: "table t, chain c".into(),
        matched,
        written,
    };
    for (rule, told) in [
        (rule(0x10_0000, 0), Some("matches bits 0x100000 of")),
        (rule(0, 0xffff_ffff), Some("writes bits 0xffffffff of")),
        (
            rule(0x1_0000, 0x2_0000),
            Some("matches bits 0x10000 and writes bits 0x20000 of"),
        ),
        (rule(0x4000, 0xc000), None),
    ] {
        let seen = Seen {
            mark_rules: vec![rule.clone(), rule],
            ..fine()
        };
        match told {
            Some(told) => drop(only(&seen, &Options::default(), Check::Marks, told)),
            None => assert_eq!(preflight(&seen, &Options::default()), []),
        }
    }
}

#[test]
fn pods_that_send_too_much_are_made_anew_by_name() {
    let (mut seen, options) = kept();
    let tunnel = Link {
        kind: LinkKind::Vxlan {
            port: 8472,
            parent: 2,
            v6: false,
        },
        mtu: 1450,
        ..link("flannel.1")
    };
    seen.links.links.insert(4, tunnel);
    let options = Options {
        node: None,
        ..options
    };
    let found = only(
        &seen,
        &options,
        Check::Network,
        "cali0123456789a among them, have MTU 1500",
    );
    assert_eq!(found.fix, ["kubectl delete pod -n a web"]);
}
