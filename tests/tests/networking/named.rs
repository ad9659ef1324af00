//! The networks by name, and what calico-node's variables say of them.

use std::net::IpAddr;
use std::time::Instant;

use calico_azure_tests::lab::probe::{Crafted, Payload};
use calico_azure_tests::lab::{AgentSpec, FabricDrop, Networking, Plugin};

use crate::world::{FORGED, NEVER, SOON, WEB, World};

/// Agents that are told by their environment.
fn told(pairs: &[(&str, &str)]) -> AgentSpec {
    pairs
        .iter()
        .fold(AgentSpec::new().unwrap(), |spec, (key, value)| {
            spec.env(*key, *value)
        })
}

impl World {
    fn problems(&self) -> Vec<String> {
        let statuses = self
            .cluster
            .agents
            .iter()
            .map(|agent| agent.status().unwrap().unwrap());
        let mut all: Vec<String> = statuses.flat_map(|status| status.problems).collect();
        all.sort();
        all.dedup();
        all
    }
}

#[test]
fn each_network_by_name_does_what_it_does_when_it_is_found() {
    for networking in [
        Networking::Udr,
        Networking::HostLocal,
        Networking::Flannel,
        Networking::AzureCni,
        Networking::AzureOverlay,
    ] {
        let name = networking.name();
        let spec = told(&[
            ("CALICO_AZURE_NETWORKING", name),
            ("CALICO_NETWORKING_BACKEND", "none"),
        ]);
        let world = World::start_as(networking, Plugin::Ptp, Some(name), spec);
        world.allowed_and_denied();
        world.known();
        world.forged_sources();
        assert_eq!(world.problems(), Vec::<String>::new(), "{name}");
    }
}

#[test]
fn a_backend_that_would_make_a_network_is_reported_and_policy_is_in_force() {
    let spec = told(&[("CALICO_NETWORKING_BACKEND", "bird")]);
    let world = World::start_as(Networking::Udr, Plugin::Ptp, None, spec);
    let problems = world.problems();
    let [only] = problems.as_slice() else {
        panic!("{problems:#?}");
    };
    assert!(
        only.contains("CALICO_NETWORKING_BACKEND=bird: expected none"),
        "{only}"
    );
    assert!(world.tcp("client", world.ip("far", false), WEB, SOON));
    assert!(!world.tcp("stranger", world.ip("far", false), WEB, NEVER));
}

/// Kinds of the routes that have one of a podCIDR.
fn cidrs(world: &World) -> Vec<String> {
    let routes = world.routes().into_iter().map(|(_, kinds, _)| kinds);
    routes.filter(|kinds| kinds.contains("pod-cidr")).collect()
}

/// A packet from the fabric for an address of the node's podCIDR that no pod has.
fn to_nobody(world: &World) -> u64 {
    let before = world.counted("no-such-workload");
    let nobody: IpAddr = world.cluster.node("node-1").unwrap().pod_cidrs()[0]
        .hosts()
        .nth(200)
        .unwrap();
    let payload = Payload::Udp {
        sport: FORGED,
        dport: FORGED,
    };
    let src = world.cluster.node("node-2").unwrap().ips()[0];
    let crafted = Crafted {
        src,
        dst: nobody,
        payload,
    };
    let end = Instant::now() + SOON / 3;
    crafted.send(world.cluster.node("node-2").unwrap().ns()).unwrap();
    while world.counted("no-such-workload") == before && Instant::now() < end {
        std::thread::sleep(NEVER / 20);
    }
    world.counted("no-such-workload") - before
}

#[test]
fn use_pod_cidr_says_whether_nodes_pod_cidrs_count() {
    // They do where host-local gives addresses, unless calico-node's variable says otherwise.
    let world = World::start(Networking::Udr);
    assert_eq!(cidrs(&world).len(), 4);
    assert_eq!(to_nobody(&world), 1);
    drop(world);
    let world = World::start_as(
        Networking::Udr,
        Plugin::Ptp,
        None,
        told(&[("USE_POD_CIDR", "false")]),
    );
    assert_eq!(cidrs(&world), Vec::<String>::new());
    assert_eq!(to_nobody(&world), 0);
    world.allowed_and_denied();
    world.forged_sources();
    drop(world);
    // The other way round where Azure gives them: a podCIDR that a node's object happens to have counts if it is said.
    for (said, counted) in [("true", 2), ("", 0)] {
        let spec = if said.is_empty() {
            AgentSpec::new().unwrap()
        } else {
            told(&[("USE_POD_CIDR", said)])
        };
        let world = World::start_as(Networking::AzureCni, Plugin::Ptp, None, spec);
        let mut nodes: Vec<_> = world.cluster.nodes.iter().map(|node| node.manifest()).collect();
        for (node, cidr) in nodes.iter_mut().zip(["10.250.1.0/24", "10.250.2.0/24"]) {
            node["spec"]["podCIDRs"] = serde_json::json!([cidr]);
        }
        world.cluster.source.write_objects("nodes.yaml", &nodes).unwrap();
        let end = Instant::now() + SOON / 2;
        while cidrs(&world).len() != 2 && Instant::now() < end {
            std::thread::sleep(NEVER / 10);
        }
        assert_eq!(cidrs(&world).len(), counted, "USE_POD_CIDR={said}");
        assert!(world.tcp("client", world.ip("far", false), WEB, SOON));
    }
}

#[test]
fn an_overlay_is_a_domain_of_its_own() {
    let world = World::start(Networking::AzureOverlay);
    world.allowed_and_denied();
    world.known();
    world.forged_sources();
    // What a node sends to an overlay's pod as itself is in the wrong domain, and so is a pod's address in the virtual network.
    let (one, two) = (
        world.cluster.node("node-1").unwrap(),
        world.cluster.node("node-2").unwrap(),
    );
    for v6 in [false, true] {
        for (from, src, dst) in [
            (one, one.ips()[usize::from(v6)], world.ip("far", v6)),
            (one, world.ip("client", v6), two.ips()[usize::from(v6)]),
        ] {
            let before = world.cluster.fabric.dropped(one, FabricDrop::Overlay).unwrap();
            let payload = Payload::Udp {
                sport: FORGED,
                dport: FORGED,
            };
            // As the host itself: with its rules for translation a pod's own packet would have another source.
            if src == one.ips()[usize::from(v6)] {
                Crafted { src, dst, payload }.send(from.ns()).unwrap();
                let end = Instant::now() + SOON;
                while world.cluster.fabric.dropped(one, FabricDrop::Overlay).unwrap() == before {
                    assert!(Instant::now() < end, "{src} to {dst}");
                }
            } else {
                // Pods reach nodes by their own node's address.
                let client = world.ns("client");
                let reached = calico_azure_tests::lab::probe::icmp(&client, dst, SOON).unwrap();
                assert!(reached.reached(), "{src} to {dst}");
                assert_eq!(
                    world.cluster.fabric.dropped(one, FabricDrop::Overlay).unwrap(),
                    before
                );
            }
        }
    }
}
