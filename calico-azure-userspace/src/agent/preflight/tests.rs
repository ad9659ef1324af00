//! Each thing that can be wrong with a node, and that nothing else is found then.

use super::*;
use crate::sources::links::{Link, LinkKind};

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
            |seen, _| seen.bridge_calls = Some(0),
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
