//! The short way of plain packets against the long way of all: the same verdicts, and the same flows afterwards.

use std::net::IpAddr;

use anyhow::Result;
use calico_azure_ebpf::abi::{CONFIG_BRIDGED, DEFAULT_MARK_MASK, Hook, Reason};
use calico_azure_ebpf::packet::SlicePacket;
use calico_azure_ebpf::verdict::{Outcome, part, workload};
use calico_azure_tests::harness::packet::{ACK, FIN, Frame, RST, SYN};
use calico_azure_tests::harness::scenario::{A, B, address, policy, rule, store};
use calico_azure_tests::harness::settings;
use calico_azure_userspace::dataplane::host::HostTables;
use calico_azure_userspace::dataplane::plan::Settings;
use calico_azure_userspace::dataplane::{Image, plan};
use calico_azure_userspace::model::{Action, Resource, Service, ServicePort, TargetPort};
use calico_azure_userspace::policy::Compiler;
use calico_azure_userspace::policy::generate::Rng;
use etherparse::{LaxNetSlice, LaxSlicedPacket};

const TCP: u8 = 6;
const UDP: u8 = 17;
const ROUNDS: usize = 400_000;

/// `a` and `b` may talk on port 80; `a` also with a service that leads to `b`.
fn image() -> Result<Image> {
    let port_80 = || {
        Some(vec![
            rule(Action::Allow, Some(TCP), &[(80, 80)]),
            rule(Action::Allow, Some(UDP), &[(80, 80)]),
        ])
    };
    let service = Resource::Service(Service {
        namespace: "ns".into(),
        name: "web".into(),
        selector: None,
        cluster_ips: vec![address("outside", false), address("outside", true)],
        external_ips: Vec::new(),
        ports: vec![ServicePort {
            name: None,
            protocol: TCP,
            port: 1001,
            target: TargetPort::Number(80),
            node_port: None,
        }],
    });
    let policies = [
        policy("a", "a", port_80(), port_80()),
        policy("b", "b", port_80(), port_80()),
        service,
    ];
    let desired = Compiler::default().compile(&store(policies))?.desired;
    let settings = Settings {
        mark_mask: DEFAULT_MARK_MASK,
        ..settings()
    };
    let plan = plan(&Image::default(), &desired, settings)?;
    let mut image = Image::default();
    for op in plan.prepare.iter().chain(&plan.flip).chain(&plan.settle) {
        image.follow(op);
    }
    Ok(image)
}

/// Mostly plain packets of few flows.
fn packet(rng: &mut Rng) -> Vec<u8> {
    let names = ["a", "b", "remote", "outside", "unassigned", "node"];
    let (from, to) = match rng.below(3) {
        0 => (rng.one_of(names), rng.one_of(names)),
        _ => rng.one_of([("a", "b"), ("b", "a"), ("remote", "b"), ("b", "remote")]),
    };
    let v6 = rng.chance(50);
    let protocol = rng.one_of([TCP, TCP, TCP, UDP, UDP, if v6 { 58 } else { 1 }, 132]);
    let (sport, dport) = (
        rng.one_of([80, 80, 1000, 1001]),
        rng.one_of([80, 80, 1000, 1001, 4789]),
    );
    let flags = rng.one_of([SYN, SYN | ACK, ACK, ACK, ACK, FIN | ACK, RST, 0]);
    let mut frame = Frame::new(address(from, v6), address(to, v6), protocol, sport, dport).flags(flags);
    match rng.below(16) {
        0 => frame.tags = vec![(0x8100, 7)],
        1 => frame.ipv4_options = 1,
        2 => frame.extensions = vec![(0, 8)],
        3 => frame.fragment = Some((7, rng.one_of([0, 0, 3]), rng.chance(50))),
        _ => {}
    }
    let mut bytes = frame.bytes();
    match rng.below(24) {
        0 => bytes.truncate(rng.below(bytes.len())),
        1 => {
            let place = rng.below(bytes.len());
            bytes[place] = rng.byte();
        }
        // Padding, as Ethernet has it.
        2 => bytes.extend([0; 9]),
        _ => {}
    }
    bytes
}

/// As another parser reads it.
fn destination(bytes: &[u8]) -> IpAddr {
    match LaxSlicedPacket::from_ethernet(bytes)
        .ok()
        .and_then(|packet| packet.net)
    {
        Some(LaxNetSlice::Ipv4(packet)) => packet.header().destination_addr().into(),
        Some(LaxNetSlice::Ipv6(packet)) => packet.header().destination_addr().into(),
        other => panic!("{other:?}: {bytes:02x?}"),
    }
}

#[test]
fn plain_packets_are_judged_as_by_the_long_way() -> Result<()> {
    let image = image()?;
    let (mut short, mut long) = (HostTables::new(image.clone()), HostTables::new(image.clone()));
    let mut rng = Rng::new(11);
    let (mut passed, mut bridged) = (0, false);
    for round in 0..ROUNDS {
        match rng.below(400) {
            // Everything that was approved is to be judged again.
            0 => [&mut short, &mut long]
                .map(|tables| tables.image.config.epoch += 2)
                .into_iter()
                .collect(),
            // A pod goes, or comes back.
            1 => {
                let gone = short.image.endpoints.remove(&A).is_some();
                for tables in [&mut short, &mut long] {
                    if gone {
                        tables.image.endpoints.remove(&A);
                    } else {
                        tables.image.endpoints.clone_from(&image.endpoints);
                    }
                }
            }
            2 => {
                let later = short.clock.get() + 1_000_000_000 * rng.one_of([1, 20, 70, 4000]);
                short.clock.set(later);
                long.clock.set(later);
            }
            // Pods' interfaces are a bridge's ports, or no longer.
            3 => {
                bridged = !bridged;
                for tables in [&mut short, &mut long] {
                    tables.image.config.flags ^= CONFIG_BRIDGED;
                }
            }
            _ => {}
        }
        let bytes = packet(&mut rng);
        let ifindex = rng.one_of([A, B]);
        let hook = rng.one_of([Hook::FromWorkload, Hook::ToWorkload]);
        let ingress_ifindex = if hook == Hook::FromWorkload {
            ifindex
        } else {
            rng.one_of([0, 1, 1, 1])
        };
        let at = || SlicePacket {
            bytes: &bytes,
            ifindex,
            ingress_ifindex,
            mark: Default::default(),
        };
        let never = || Outcome::of(Reason::TableMissing);
        let (one, other) = (at(), at());
        let fast = workload::at_pod::<_, _, { part::WHOLE }>(&one, &short, hook, never);
        let slow = workload::at_pod::<_, _, { part::WHOLE | part::LONG }>(&other, &long, hook, never);
        assert_eq!(fast, slow, "round {round}, {hook:?} of {ifindex}: {bytes:02x?}");
        assert_eq!(one.mark.get(), other.mark.get(), "round {round}");
        passed += usize::from(fast.reason == Reason::Established);
        if bridged && hook == Hook::ToWorkload && fast.reason.passes() && fast.reason != Reason::AlwaysAllowed
        {
            let name = if ifindex == A { "a" } else { "b" };
            let own = [false, true].map(|v6| address(name, v6));
            let to = destination(&bytes);
            assert!(own.contains(&to), "round {round}: {to} at {name}: {bytes:02x?}");
        }
        if round % 1000 == 0 {
            assert!(short.has_flows_of(&long), "round {round}: flows differ");
        }
    }
    assert!(short.has_flows_of(&long));
    assert_eq!(*short.counters.borrow(), *long.counters.borrow());
    println!("{ROUNDS} packets, {passed} of them of established flows");
    assert!(passed > ROUNDS / 40, "{passed}");
    Ok(())
}
