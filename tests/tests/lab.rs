//! The lab itself, without agents: what the fabric carries and what it swallows, and that nothing is left behind.

#![expect(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::net::IpAddr;
use std::time::{Duration, Instant};

use calico_azure_tests::lab::probe::{self, Crafted, LiveConnection, Payload, Prober};
use calico_azure_tests::lab::{
    Cluster, ClusterSpec, Counter, FabricDrop, LabError, NetNs, PodManifest, Port, labs, plan, remove,
};

/// For what must be answered: generous, because nothing waits for it.
const SOON: Duration = Duration::from_secs(3);
/// For what must not be answered.
const NEVER: Duration = Duration::from_millis(300);

const PORTS: [Port; 2] = [Port::Tcp(8080), Port::Udp(8125)];

/// `a/one` and `a/two` on node-1, `b/three` on node-2.
fn cluster() -> Cluster {
    let mut cluster = Cluster::start(&ClusterSpec::default()).unwrap();
    for (namespace, name, node) in [
        ("a", "one", "node-1"),
        ("a", "two", "node-1"),
        ("b", "three", "node-2"),
    ] {
        cluster
            .add_pod(PodManifest::new(namespace, name, node, &[("app", name)], &PORTS))
            .unwrap();
    }
    cluster
}

fn ns(cluster: &Cluster, pod: &str) -> NetNs {
    cluster.pod(pod).unwrap().net.ns().clone()
}

fn ip(cluster: &Cluster, pod: &str, v6: bool) -> IpAddr {
    cluster.pod(pod).unwrap().ip(v6).unwrap()
}

/// Probes TCP, UDP and ICMP.
fn reached(from: &NetNs, dst: IpAddr) -> [bool; 3] {
    [
        probe::tcp(from, dst, 8080, SOON).unwrap().reached(),
        probe::udp(from, dst, 8125, SOON).unwrap().reached(),
        probe::icmp(from, dst, SOON).unwrap().reached(),
    ]
}

#[test]
fn pods_reach_pods_nodes_and_the_world_in_both_families() {
    let cluster = cluster();
    let one = ns(&cluster, "a/one");
    for v6 in [false, true] {
        for peer in ["a/two", "b/three"] {
            let dst = ip(&cluster, peer, v6);
            assert_eq!(reached(&one, dst), [true; 3], "a/one to {peer} at {dst}");
        }
        let outside: IpAddr = if v6 {
            plan::OUTSIDE_V6.into()
        } else {
            plan::OUTSIDE_V4.into()
        };
        assert!(
            probe::tcp(&one, outside, 443, SOON).unwrap().reached(),
            "{outside}"
        );
        assert!(probe::icmp(&one, outside, SOON).unwrap().reached(), "{outside}");
        let host = cluster.node("node-2").unwrap().ips()[usize::from(v6)];
        assert!(probe::icmp(&one, host, SOON).unwrap().reached(), "{host}");
    }
    // Nobody listens, and the destination says so.
    let refused = probe::tcp(&one, ip(&cluster, "b/three", false), 9, SOON).unwrap();
    assert!(matches!(refused, probe::Outcome::Refused(_)), "{refused}");
    let refused = probe::udp(&one, ip(&cluster, "b/three", true), 9, SOON).unwrap();
    assert!(matches!(refused, probe::Outcome::Refused(_)), "{refused}");
    for (name, counter) in cluster.fabric.counters().unwrap() {
        assert_eq!(
            counter,
            Counter::default(),
            "honest traffic was dropped as {name}"
        );
    }
}

#[test]
fn the_fabric_carries_pod_addresses_only_along_user_defined_routes() {
    let cluster = cluster();
    let (one, three) = (ns(&cluster, "a/one"), ip(&cluster, "b/three", false));
    let node = cluster.node("node-2").unwrap();
    let cidr = node.pod_cidrs()[0];
    cluster.fabric.remove_route(cidr, node).unwrap();
    assert!(
        !probe::tcp(&one, three, 8080, NEVER).unwrap().passed(),
        "without a route"
    );
    cluster.fabric.add_route(cidr, node).unwrap();
    assert!(
        probe::tcp(&one, three, 8080, SOON).unwrap().reached(),
        "with the route back"
    );

    cluster.fabric.set_ip_forwarding(node, false).unwrap();
    assert!(
        !probe::tcp(&one, three, 8080, NEVER).unwrap().passed(),
        "without IP forwarding on the NIC"
    );
    assert!(cluster.fabric.dropped(node, FabricDrop::NotForNic).unwrap() > 0);
    let back = ip(&cluster, "a/one", false);
    assert!(
        !probe::udp(&ns(&cluster, "b/three"), back, 8125, NEVER)
            .unwrap()
            .passed()
    );
    assert!(cluster.fabric.dropped(node, FabricDrop::UnknownSource).unwrap() > 0);
    cluster.fabric.set_ip_forwarding(node, true).unwrap();
    assert!(
        probe::tcp(&one, three, 8080, SOON).unwrap().reached(),
        "with IP forwarding again"
    );
}

#[test]
fn the_fabric_swallows_and_counts_what_azure_does_not_carry() {
    let cluster = cluster();
    let one = ns(&cluster, "a/one");
    let node = cluster.node("node-1").unwrap();
    let dropped = |why| cluster.fabric.dropped(node, why).unwrap();
    // A packet may still be queued when its sender returns.
    let becomes = |why, count: u64| {
        let end = Instant::now() + SOON;
        while dropped(why) < count && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(5));
        }
        dropped(why) == count
    };
    let udp = Payload::Udp {
        sport: 4000,
        dport: 8125,
    };
    for v6 in [false, true] {
        let stranger: IpAddr = if v6 { "2001:db8::9" } else { "198.51.100.9" }.parse().unwrap();
        let before = dropped(FabricDrop::UnknownSource);
        let dst = ip(&cluster, "b/three", v6);
        Crafted {
            src: stranger,
            dst,
            payload: udp.clone(),
        }
        .send(&one)
        .unwrap();
        assert!(becomes(FabricDrop::UnknownSource, before + 1), "{stranger}");
        // The fabric cannot see that another pod of the same node is meant.
        let neighbour = ip(&cluster, "a/two", v6);
        Crafted {
            src: neighbour,
            dst,
            payload: udp.clone(),
        }
        .send(&one)
        .unwrap();
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(dropped(FabricDrop::UnknownSource), before + 1, "{neighbour}");
    }
    let (src, dst) = (ip(&cluster, "a/one", false), ip(&cluster, "b/three", false));
    let inner = Crafted {
        src,
        dst,
        payload: udp.clone(),
    };
    Crafted {
        payload: Payload::Ipip(Box::new(inner)),
        src,
        dst,
    }
    .send(&one)
    .unwrap();
    Crafted {
        payload: Payload::Other {
            protocol: 47,
            bytes: vec![0; 8],
        },
        src,
        dst,
    }
    .send(&one)
    .unwrap();
    assert!(becomes(FabricDrop::Protocol, 2));
    let multicast = Crafted {
        src: plan::node_v4(1).into(),
        dst: "224.0.0.251".parse().unwrap(),
        payload: udp,
    };
    multicast.send(node.ns()).unwrap();
    assert!(becomes(FabricDrop::Multicast, 1));
    let elsewhere = cluster.node("node-2").unwrap();
    for why in FabricDrop::ALL {
        assert_eq!(cluster.fabric.dropped(elsewhere, why).unwrap(), 0, "{why:?}");
    }
}

#[test]
fn what_goes_on_while_something_changes_is_timed() {
    let cluster = cluster();
    let one = ns(&cluster, "a/one");
    let tick = Duration::from_millis(5);
    let dst = ip(&cluster, "b/three", false);
    let connection = LiveConnection::open(&one, (dst, 8080).into(), tick).unwrap();
    let prober = Prober::start(&one, (dst, 8125).into(), tick).unwrap();
    let first = connection.wait_success(connection.last_success(), SOON).unwrap();
    prober.wait_answered(first, SOON).unwrap();

    let node = cluster.node("node-2").unwrap();
    cluster.fabric.set_ip_forwarding(node, false).unwrap();
    let cut = Instant::now();
    let stopped = prober.wait_silent(NEVER, SOON).unwrap();
    assert!(
        stopped.sent <= cut + tick * 4,
        "the first unanswered datagram was sent after the cut"
    );
    let last = connection.wait_quiet(NEVER, SOON).unwrap();
    assert!(last <= cut + tick * 4);

    cluster.fabric.set_ip_forwarding(node, true).unwrap();
    let restored = Instant::now();
    prober.wait_answered(restored, SOON).unwrap();
    connection.wait_success(restored, SOON).unwrap();
    let samples = prober.finish(NEVER);
    let unanswered = samples.iter().filter(|sample| sample.answered.is_none()).count();
    assert!(
        unanswered >= 5 && unanswered < samples.len(),
        "{unanswered} of {}",
        samples.len()
    );
}

#[test]
fn pods_come_and_go_and_the_manifests_follow() {
    let mut cluster = cluster();
    let manifest = PodManifest::new("a", "four", "node-2", &[], &PORTS);
    let file = manifest.file();
    let address = cluster.add_pod(manifest.clone()).unwrap().ip(false).unwrap();
    assert!(cluster.source.read(&file).unwrap().contains(&address.to_string()));
    cluster.label_pod("a/four", "quarantine", Some("yes")).unwrap();
    assert!(cluster.source.read(&file).unwrap().contains("quarantine"));
    cluster.delete_pod("a/four").unwrap();
    assert!(cluster.source.read(&file).is_err());
    let node = cluster.node("node-2").unwrap();
    assert!(
        !node.ns().ip(&["route"]).unwrap().contains(&address.to_string()),
        "its host route is gone"
    );
    let error = cluster
        .add_pod(PodManifest::new("a", "five", "node-9", &[], &[]))
        .unwrap_err();
    assert!(
        matches!(&error, LabError::Unknown { name, .. } if name == "node-9"),
        "{error}"
    );
}

#[test]
fn nothing_is_left_behind() {
    let (id, dir) = {
        let cluster = cluster();
        (cluster.dir.id().to_owned(), cluster.dir.path().to_owned())
    };
    let left = || labs().into_iter().any(|(lab, _)| lab == id);
    assert!(!left() && !dir.exists(), "after a drop");

    let id = cluster().keep();
    assert!(
        labs().into_iter().any(|(lab, alive)| lab == id && alive),
        "a kept lab is listed"
    );
    remove(&id).unwrap();
    assert!(
        !labs().into_iter().any(|(lab, _)| lab == id),
        "after removing it by name"
    );
    assert!(remove("not-a-lab").is_err());
}
