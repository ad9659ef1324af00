//! No transient widening through services: after every single map operation of an update, what a pod or somebody outside sends to a
//! service or straight to a backend gets the verdict of the state before or of the state after.

use std::net::IpAddr;

use anyhow::Result;
use calico_azure_ebpf::abi::{DEFAULT_MARK_MASK, Reason};
use calico_azure_ebpf::packet::{Packet as _, SlicePacket};
use calico_azure_ebpf::verdict::{behind, fabric, service, workload};
use calico_azure_tests::harness::hosts::{self, host, of_host};
use calico_azure_tests::harness::packet::Frame;
use calico_azure_tests::harness::scenario::{A, B, FABRIC, address, policy, quiet, rule};
use calico_azure_userspace::dataplane::host::HostTables;
use calico_azure_userspace::dataplane::{Image, Plan, plan, plan_change};
use calico_azure_userspace::model::{Action, HostRole, Resource, Service, ServicePort, TargetPort};
use calico_azure_userspace::policy::generate::Rng;
use calico_azure_userspace::policy::{Compiler, Event, Interface, Interfaces, Store};

const TCP: u8 = 6;

fn vip(number: usize, v6: bool) -> IpAddr {
    let text = if v6 {
        format!("fd00:10:96::{number}")
    } else {
        format!("10.96.0.{number}")
    };
    text.parse().unwrap_or_else(|_| unreachable!("an address"))
}

/// Some services at some ports, policies about some ports, one pod or both, and a host endpoint or none.
fn cluster(rng: &mut Rng) -> Store {
    let mut resources = Vec::new();
    for number in 1..=3 {
        if !rng.chance(70) {
            continue;
        }
        let mut ports = Vec::new();
        for port in [443, 80] {
            if rng.chance(70) {
                ports.push(ServicePort {
                    name: None,
                    protocol: TCP,
                    port,
                    target: TargetPort::Number(port),
                    node_port: rng.chance(30).then_some(30_080),
                });
            }
        }
        resources.push(Resource::Service(Service {
            namespace: "ns".into(),
            name: format!("s{number}"),
            selector: None,
            // Two services may say that they are at one address: the last one to go takes it away.
            cluster_ips: [false, true].map(|v6| vip(1 + number % 2, v6)).into(),
            external_ips: Vec::new(),
            ports,
        }));
    }
    for pod in ["a", "b"] {
        let egress = rng.chance(80).then(|| {
            let ports = [(80, 80), (443, 443)].into_iter().filter(|_| rng.chance(50));
            ports
                .map(|port| rule(Action::Allow, Some(TCP), &[port]))
                .collect()
        });
        resources.push(policy(pod, pod, None, egress));
    }
    if rng.chance(75) {
        resources.push(host(if rng.chance(70) { "eth0" } else { "*" }));
    }
    for (name, role) in [
        ("pre", HostRole::PreDnat),
        ("forward", HostRole::Forward),
        ("normal", HostRole::Normal),
    ] {
        if rng.chance(60) {
            let action = if rng.chance(50) {
                Action::Allow
            } else {
                Action::Deny
            };
            let ports = [(80, 80), (443, 443), (30_080, 30_080)];
            let ports = ports.into_iter().filter(|_| rng.chance(40));
            let rules = ports.map(|port| rule(action, Some(TCP), &[port])).collect();
            resources.push(of_host(name, role, Some(rules), None));
        }
    }
    let mut store = hosts::cluster(resources);
    if rng.chance(25) {
        // One of the pods is gone, and its mark with it.
        let (ifindex, name) = if rng.chance(50) { (A, "a") } else { (B, "b") };
        let behind = [false, true].map(|v6| address(name, v6)).into();
        let interface = Interface {
            name: format!("veth-{name}"),
            behind,
            ..Interface::default()
        };
        let mut by_ifindex = store.interfaces().by_ifindex.clone();
        by_ifindex.retain(|ifindex, _| *ifindex == FABRIC);
        by_ifindex.insert(ifindex, interface);
        store.apply(Event::Interfaces(Interfaces { by_ifindex }));
    }
    store
}

/// Where a packet is sent, and what kube-proxy makes of it.
#[derive(Clone, Copy, Debug)]
struct Probe {
    /// A pod, or who is outside.
    from: (&'static str, u32),
    v6: bool,
    to: (IpAddr, u16),
    backend: (&'static str, u16),
}

fn probes() -> Vec<Probe> {
    let mut probes = Vec::new();
    for (from, v6) in [("a", A), ("b", B), ("outside", FABRIC)]
        .into_iter()
        .flat_map(|from| [(from, false), (from, true)])
    {
        let places = [vip(1, v6), vip(2, v6), address("node", v6)];
        for (place, port) in places
            .into_iter()
            .flat_map(|place| [80, 443, 30_080].map(|port| (place, port)))
        {
            for backend in [("remote", 80), ("remote", 443), ("remote", 22)] {
                probes.push(Probe {
                    from,
                    v6,
                    to: (place, port),
                    backend,
                });
            }
        }
    }
    probes
}

/// Whether the packet gets where it is to go, and by which rule: at the pod's interface, and if it is marked there, where it leaves.
fn judge(tables: &mut HostTables, probes: &[Probe]) -> Vec<(bool, u32)> {
    let judge = |probe: &Probe| {
        tables.forget_flows();
        let (name, ifindex) = probe.from;
        let packet = |to, port| Frame::new(address(name, probe.v6), to, TCP, 1000, port).bytes();
        let bytes = packet(probe.to.0, probe.to.1);
        let sent = SlicePacket {
            bytes: &bytes,
            ifindex,
            ingress_ifindex: ifindex,
            mark: Default::default(),
        };
        let outside = ifindex == FABRIC;
        let outcome = if outside {
            fabric::from_fabric(&sent, tables)
        } else {
            workload::from_workload(&sent, tables)
        };
        if outcome.reason != Reason::Service {
            return (outcome.reason.passes(), outcome.rule);
        }
        let bytes = packet(address(probe.backend.0, probe.v6), probe.backend.1);
        let leaves = SlicePacket {
            bytes: &bytes,
            ifindex: FABRIC,
            ingress_ifindex: ifindex,
            mark: sent.mark().into(),
        };
        assert_eq!(behind::is_for(&leaves, tables), outside);
        let outcome = if outside {
            behind::leaving(&leaves, tables)
        } else {
            service::leaving(&leaves, tables)
        };
        (outcome.reason.passes(), outcome.rule)
    };
    probes.iter().map(judge).collect()
}

fn run(image: &mut Image, plan: &Plan) {
    for op in plan.prepare.iter().chain(&plan.flip).chain(&plan.settle) {
        image.follow(op);
    }
}

#[test]
fn each_operation_leaves_the_old_or_the_new_verdict_of_service_traffic() -> Result<()> {
    let settings = quiet();
    assert_eq!(settings.mark_mask, DEFAULT_MARK_MASK);
    let probes = probes();
    let (mut checks, mut through, mut differing) = (0, 0, 0);
    for seed in 0..20 {
        let mut rng = Rng::new(seed);
        let mut compiler = Compiler::default();
        let mut tables = HostTables::default();
        let first = plan(
            &Image::default(),
            &compiler.compile(&cluster(&mut rng))?.desired,
            settings,
        )?;
        run(&mut tables.image, &first);
        for round in 0..12 {
            let change = compiler.follow(&cluster(&mut rng))?;
            let plan = plan_change(&tables.image, compiler.desired(), &change, settings)?;
            let before = judge(&mut tables, &probes);
            let mut goal = HostTables::new(tables.image.clone());
            run(&mut goal.image, &plan);
            let after = judge(&mut goal, &probes);
            differing += before.iter().zip(&after).filter(|(old, new)| old != new).count();
            through += goal.image.services4.len();
            for (ops, expected) in [(&plan.prepare, &before), (&plan.settle, &after)] {
                if std::ptr::eq(ops, &raw const plan.settle) {
                    plan.flip.iter().for_each(|op| tables.image.follow(op));
                    assert_eq!(
                        &judge(&mut tables, &probes),
                        expected,
                        "seed {seed}, round {round}, the flip"
                    );
                }
                for op in ops {
                    tables.image.follow(op);
                    let now = judge(&mut tables, &probes);
                    let wrong = probes.iter().zip(now.iter().zip(expected));
                    let wrong = wrong.filter(|(_, (now, expected))| now != expected);
                    let wrong: Vec<_> = wrong.take(3).collect();
                    assert!(wrong.is_empty(), "seed {seed}, round {round}, {op:?}: {wrong:#?}");
                    checks += probes.len();
                }
            }
            assert_eq!(tables.image, goal.image);
        }
    }
    println!(
        "{checks} verdicts after single operations, {differing} changed by their update, {through} service places"
    );
    assert!(
        checks > 100_000 && differing > 1_000 && through > 200,
        "{checks} checks, {differing} changes, {through} places"
    );
    Ok(())
}
