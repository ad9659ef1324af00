//! Policy and source validation on each of the networks, in both families: who reaches whom, what is denied, and where four kinds
//! of forged sources end.

#![expect(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod azures;
mod bridge;
mod named;
mod routes;
mod world;

use std::time::Instant;

use calico_azure_tests::lab::probe::{Crafted, Payload};
use calico_azure_tests::lab::{FabricDrop, Flow, Networking};

use crate::world::{FORGED, SOON, WEB, World};

#[test]
fn user_defined_routes() {
    let world = World::start(Networking::Udr);
    world.allowed_and_denied();
    world.known();
    world.as_documented();
    world.forged_sources();
    // From the fabric: what claims to be this node's own.
    let other = world.cluster.node("node-2").unwrap();
    for v6 in [false, true] {
        let own = world.ip("client", v6);
        let agent = world
            .cluster
            .agents
            .iter()
            .find(|agent| agent.node() == "node-2")
            .unwrap();
        let (flows, dropped) = (
            agent.flows(),
            world
                .cluster
                .fabric
                .dropped(other, FabricDrop::UnknownSource)
                .unwrap(),
        );
        // A host's own packets are its business; here it is the fabric that knows better.
        let payload = Payload::Udp {
            sport: FORGED,
            dport: FORGED,
        };
        let mark = flows.mark();
        Crafted {
            src: own,
            dst: world.ip("near", v6),
            payload,
        }
        .send(other.ns())
        .unwrap();
        let end = Instant::now() + SOON;
        while world
            .cluster
            .fabric
            .dropped(other, FabricDrop::UnknownSource)
            .unwrap()
            == dropped
        {
            assert!(Instant::now() < end, "{own} from node-2");
        }
        assert!(
            flows
                .since(mark)
                .unwrap()
                .iter()
                .all(|flow| flow.verdict != "deny")
        );
    }
}

#[test]
fn flannel() {
    let world = World::start(Networking::Flannel);
    world.allowed_and_denied();
    world.known();
    world.forged_sources();
    // Azure knows the nodes only: what leaves bare, dies there. All that pods of two nodes say to each other goes in the tunnel.
    for v6 in [false, true] {
        let node = world.cluster.node("node-1").unwrap();
        let cidr = world.cluster.node("node-2").unwrap().pod_cidrs()[usize::from(v6)].to_string();
        let device = if v6 { "flannel-v6.1" } else { "flannel.1" };
        let route = node
            .ns()
            .ip(&[if v6 { "-6" } else { "-4" }, "route", "show", &cidr])
            .unwrap();
        assert!(route.contains(device), "{route}");
        let before = world.fabric_drops();
        assert!(world.tcp("client", world.ip("far", v6), WEB, SOON));
        assert_eq!(world.fabric_drops(), before);
    }
    // In the tunnel: what another node sends as its own, and is not. The record names the sender.
    let source = &world.cluster.source;
    source
        .write(
            "node-3.yaml",
            "{apiVersion: v1, kind: Node, metadata: {name: node-3}, spec: {podCIDRs: [10.244.3.0/24, 'fd00:10:244:3::/64']}}",
        )
        .unwrap();
    let other = world.cluster.node("node-2").unwrap();
    for v6 in [false, true] {
        let strangers = if v6 {
            ["fd00:10:244:3::5", "2001:db8::9"]
        } else {
            ["10.244.3.5", "198.51.100.9"]
        };
        let strangers = strangers.map(|ip| ip.parse().unwrap());
        for src in [world.ip("near", v6), strangers[0], strangers[1]] {
            let sender = other.ips()[usize::from(v6)];
            let mine = |flow: &Flow| flow.src == Some(sender) && flow.reason == "tunnel-source";
            world.forge_as(
                other.ns(),
                "node-1",
                src,
                world.ip("client", v6),
                "from-fabric",
                &mine,
            );
        }
    }
    for agent in &world.cluster.agents {
        let status = agent.status().unwrap().unwrap();
        assert_eq!(status.problems, Vec::<String>::new());
    }
}

#[test]
fn azures_own_plug_in() {
    let world = World::start(Networking::AzureCni);
    for pod in world.cluster.pods.values() {
        assert!(pod.net.ifname().starts_with("azv"), "{}", pod.net.ifname());
    }
    world.allowed_and_denied();
    world.known();
    world.as_documented();
    world.forged_sources();
}

#[test]
fn host_local_where_the_network_knows_pods() {
    let world = World::start(Networking::HostLocal);
    world.allowed_and_denied();
    world.known();
    world.forged_sources();
}
