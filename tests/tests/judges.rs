//! One packet, three judges, one answer: what `verdict` and `explain` ask, over the example and generated clusters.

#![expect(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use calico_azure_tests::harness::object;
use calico_azure_userspace::analysis::Inhabited;
use calico_azure_userspace::judge::{Answer, Cluster, Compiled, InKernel, Judge, Packet, Reference};
use calico_azure_userspace::model::load::load_paths;
use calico_azure_userspace::policy::generate::{self, Shape, probes};
use calico_azure_userspace::policy::reference::Flow;
use calico_azure_userspace::policy::{Direction, Store};

/// Packets that must at least be compared over generated clusters.
const PACKETS: usize = 20_000;

/// IPv6 treats these as extension headers, not as protocols.
fn is_extension(flow: &Flow) -> bool {
    flow.src.is_ipv6() && matches!(flow.protocol, 0 | 43 | 44 | 51 | 60)
}

/// Asks all three; counts answers by reason. The kernel's engine takes its thread into another network namespace.
fn compare(store: &Store, packets: &[Packet], reasons: &mut BTreeMap<&'static str, usize>) {
    let cluster = Cluster::new(store);
    let mut reference = Judge::new(&cluster, Reference);
    let mut compiled = Judge::new(&cluster, Compiled::new(&cluster).unwrap());
    let mut kernel = Judge::new(&cluster, InKernel::new(&cluster, &object().unwrap()).unwrap());
    for packet in packets {
        let said: Answer = reference.answer(packet).unwrap();
        assert_eq!(compiled.answer(packet).unwrap(), said, "compiled: {packet:?}");
        assert_eq!(kernel.answer(packet).unwrap(), said, "kernel: {packet:?}");
        *reasons.entry(said.reason).or_default() += 1;
    }
}

#[test]
fn over_generated_clusters() {
    let mut reasons = BTreeMap::new();
    let mut seed = 1000;
    while reasons.values().sum::<usize>() < PACKETS {
        let store = generate::store(seed, &Shape::whole_language());
        let mut packets = Vec::new();
        for case in probes(&store, seed, 2) {
            let probe = case.probe;
            let (src, dst) = match case.direction {
                Direction::Egress => (probe.own, probe.peer),
                Direction::Ingress => (probe.peer, probe.own),
            };
            let flow = Flow {
                src,
                dst,
                protocol: probe.protocol,
                sport: probe.sport,
                dport: probe.dport,
            };
            if is_extension(&flow) {
                continue;
            }
            let at = Some((case.direction, format!("{}/{}", case.namespace, case.pod)));
            packets.extend([at, None].map(|at| Packet { flow, at }));
        }
        compare(&store, &packets, &mut reasons);
        seed += 1;
    }
    println!("{reasons:?}");
    for reason in ["policy-allow", "policy-deny"] {
        assert!(reasons[reason] * 10 > PACKETS, "{reasons:?}");
    }
}

#[test]
fn over_the_example() {
    let shop = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/shop");
    let loaded = load_paths(&[shop]);
    assert!(
        !loaded.unreadable && loaded.problems.is_empty(),
        "{:?}",
        loaded.problems
    );
    let world = Inhabited::new(loaded.resources.into_iter().collect(), true);
    let mut ends: Vec<IpAddr> = world.store.pods().flat_map(|pod| pod.ips.clone()).collect();
    let strangers = [
        "203.0.113.9",
        "203.0.113.200",
        "198.51.100.7",
        "2001:db8:ffff::1",
        "2001:db8::1",
    ];
    ends.extend(strangers.map(|address| address.parse::<IpAddr>().unwrap()));
    let mut packets = Vec::new();
    for src in &ends {
        for dst in ends.iter().filter(|dst| dst.is_ipv4() == src.is_ipv4()) {
            for port in [0, 22, 80, 443, 5432, 6379, 8080, 8125, 9100] {
                for (protocol, dport) in [
                    (6, port),
                    (17, port),
                    (132, port),
                    (1, port << 8),
                    (58, port << 8),
                    (47, 0),
                ] {
                    let flow = Flow {
                        src: *src,
                        dst: *dst,
                        protocol,
                        sport: 50_000,
                        dport,
                    };
                    packets.push(Packet { flow, at: None });
                }
            }
        }
    }
    let mut reasons = BTreeMap::new();
    compare(&world.store, &packets, &mut reasons);
    println!("{reasons:?}");
    assert!(
        reasons["policy-allow"] > 50 && reasons["policy-deny"] > 1000,
        "{reasons:?}"
    );
    assert!(
        reasons["within-pod"] > 100 && reasons["no-policy"] > 100,
        "{reasons:?}"
    );
}
