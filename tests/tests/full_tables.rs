//! Tables of the loaded programs that are full, each in turn: the apply fails and says which, no verdict changes, and once there
//! is room, or what is wanted fits, the next one gets through.

use std::net::IpAddr;

use anyhow::{Context as _, Result};
use calico_azure_ebpf::abi::{Hook, Reason, program};
use calico_azure_tests::harness::hosts::{allow, cluster, deny, host, of_host};
use calico_azure_tests::harness::packet::Frame;
use calico_azure_tests::harness::scenario::{A, B, Bench, FABRIC, address, policy, rule};
use calico_azure_tests::harness::{At, Harness};
use calico_azure_userspace::dataplane::apply::ApplyError;
use calico_azure_userspace::dataplane::kernel::Sizes;
use calico_azure_userspace::dataplane::{MapIo as _, Table};
use calico_azure_userspace::model::{
    Action, HostRole, Labels, NetworkSet, Peer, Pod, Resource, Rule, Service, ServicePort, TargetPort,
};
use calico_azure_userspace::policy::{Event, Interface, Store};
use calico_azure_userspace::selector::Selector;

const TCP: u8 = 6;
/// Of the tables whose size can be chosen.
const ROOM: u32 = 1024;
/// Interface of pod `c`, which is new.
const C: u32 = 13;

fn bench(name: &str, store: &Store) -> Result<Bench> {
    let sizes = Sizes {
        conntrack: 1024,
        half_open: 1024,
        tables: ROOM,
    };
    Bench::on(Harness::with_sizes(name, sizes)?, store)
}

/// `b` takes TCP port 80 from anybody.
fn before() -> Store {
    let port_80 = Some(vec![rule(Action::Allow, Some(TCP), &[(80, 80)])]);
    cluster([policy("b", "b", port_80, None)])
}

fn net(v6: bool) -> IpAddr {
    let text = if v6 { "2001:db8:77::1" } else { "198.18.7.1" };
    text.parse().unwrap_or_else(|_| unreachable!("an address"))
}

/// What takes new entries in every table: a pod, a service, a host endpoint, a set; and `b` takes more ports from more peers, and
/// no longer port 80.
fn after() -> Store {
    let from = |peer: Peer, port: u16| Rule {
        source: peer,
        ..rule(Action::Allow, Some(TCP), &[(port, port)])
    };
    let labelled = |value: &str| Peer {
        selector: Some(Selector::eq("app", value)),
        ..Peer::default()
    };
    let rules = vec![
        from(labelled("set"), 81),
        from(labelled("c"), 82),
        from(Peer::default(), 83),
    ];
    let rules = (0..)
        .zip(rules)
        .map(|(index, rule)| Rule { index, ..rule })
        .collect();
    let set = Resource::NetworkSet(NetworkSet {
        namespace: None,
        name: "set".into(),
        labels: [("app".to_owned(), "set".to_owned())].into(),
        nets: [false, true]
            .map(|v6| format!("{}/{}", net(v6), if v6 { 64 } else { 24 }))
            .iter()
            .filter_map(|net| net.parse().ok())
            .collect(),
    });
    let service = Resource::Service(Service {
        namespace: "ns".into(),
        name: "web".into(),
        selector: None,
        cluster_ips: ["10.96.0.1", "fd00:10:96::1"]
            .iter()
            .filter_map(|ip| ip.parse().ok())
            .collect(),
        external_ips: Vec::new(),
        ports: vec![ServicePort {
            name: None,
            protocol: TCP,
            port: 443,
            target: TargetPort::Number(80),
            node_port: None,
        }],
    });
    let ips = ["10.244.1.4", "fd00:10:244:1::4"]
        .iter()
        .filter_map(|ip| ip.parse().ok());
    let ips: Vec<IpAddr> = ips.collect();
    let c = Resource::Pod(Pod {
        namespace: "ns".into(),
        name: "c".into(),
        labels: Labels::from([("app".to_owned(), "c".to_owned())]).into(),
        service_account: "default".into(),
        node: "n1".into(),
        ips: ips.clone(),
        ..Pod::default()
    });
    let mut store = cluster([
        policy("b", "b", Some(rules), None),
        set,
        service,
        c,
        host("eth0"),
        of_host("host", HostRole::Normal, deny(TCP, 9999), allow(TCP, 9998)),
    ]);
    let mut interfaces = store.interfaces().clone();
    interfaces.by_ifindex.insert(
        C,
        Interface {
            name: "veth-c".into(),
            behind: ips.into_iter().collect(),
            ..Interface::default()
        },
    );
    store.apply(Event::Interfaces(interfaces));
    store
}

/// What must be so with [`before`] (`true`) or with [`after`].
fn verdicts(bench: &mut Bench, old: bool) -> Result<()> {
    bench.harness.dataplane.io().maps().forget_flows()?;
    let one_of = |before, after| if old { before } else { after };
    for v6 in [false, true] {
        let to_b = |from: IpAddr, port| Frame::new(from, address("b", v6), TCP, 1000, port).bytes();
        let outside = address("outside", v6);
        let (allow, deny) = (Reason::PolicyAllow, Reason::PolicyDeny);
        for (from, port, reason) in [
            (outside, 80, one_of(allow, deny)),
            (outside, 81, deny),
            (net(v6), 81, one_of(deny, allow)),
            (outside, 82, deny),
            (outside, 83, one_of(deny, allow)),
        ] {
            bench.expect(At::to_workload(B), &to_b(from, port), Hook::ToWorkload, reason)?;
        }
        let c: IpAddr = if v6 { "fd00:10:244:1::4" } else { "10.244.1.4" }.parse()?;
        let sends = Frame::new(c, outside, TCP, 1000, 80).bytes();
        let reason = one_of(Reason::NoEndpoint, Reason::PolicyAllow);
        bench.expect(At::from_workload(C), &sends, Hook::FromWorkload, reason)?;
        let spoofs = Frame::new(c, outside, TCP, 1000, 80).bytes();
        bench.expect(
            At::from_workload(A),
            &spoofs,
            Hook::FromWorkload,
            Reason::SpoofedSource,
        )?;
        let to_host = Frame::new(outside, address("node", v6), TCP, 1000, 9999).bytes();
        let at = At {
            program: program::FROM_FABRIC,
            ifindex: FABRIC,
            ingress_ifindex: FABRIC,
        };
        bench.expect(at, &to_host, Hook::FromFabric, one_of(Reason::FabricPass, deny))?;
    }
    Ok(())
}

/// The sizes of a key and of a value, and where the bytes of a number may stand in the key.
fn shape(table: Table) -> (usize, usize, usize) {
    match table {
        Table::Config => unreachable!("an array"),
        Table::Endpoints => (4, 24, 0),
        Table::Hosts => (4, 8 * calico_azure_ebpf::abi::HOST_SETS, 0),
        Table::Owners4 => (8, 4, 4),
        Table::Owners6 => (20, 4, 4),
        Table::Class4 => (4, 8, 0),
        Table::Class6 => (16, 8, 0),
        Table::Cidr4 => (8, 8, 4),
        Table::Cidr6 => (20, 8, 4),
        Table::Policy | Table::Ports => (8, 8, 0),
        Table::Services4 => (8, 4, 0),
        Table::Services6 => (20, 4, 0),
        Table::Marks => (4, 8, 0),
        Table::Routes4 => (8, 4, 4),
        Table::Routes6 => (20, 4, 4),
    }
}

/// Puts into a table what belongs to nobody until there is no room; the keys.
fn fill(bench: &mut Bench, table: Table) -> Result<Vec<Vec<u8>>> {
    let (key, value, place) = shape(table);
    let mut keys = Vec::new();
    for number in 0_u32.. {
        let mut bytes = vec![0; key];
        // No address, interface, class or id that the scenario has.
        let number = 0xe000_0000 | number;
        bytes[place..place + 4].copy_from_slice(&number.to_be_bytes());
        // A prefix has a length.
        match table {
            Table::Cidr4 | Table::Routes4 => bytes[..4].copy_from_slice(&32_u32.to_ne_bytes()),
            Table::Cidr6 | Table::Routes6 => bytes[..4].copy_from_slice(&128_u32.to_ne_bytes()),
            _ => {}
        }
        match bench.harness.dataplane.io().put(table, &bytes, &vec![0; value]) {
            Ok(()) => keys.push(bytes),
            Err(error) => {
                let code = error.raw_os_error();
                assert!(
                    matches!(code, Some(libc::E2BIG | libc::ENOSPC)),
                    "{table:?}: {error}"
                );
                break;
            }
        }
    }
    Ok(keys)
}

#[test]
fn whichever_table_is_full_the_old_verdicts_stay_until_there_is_room() -> Result<()> {
    let (old, new) = (before(), after());
    let mut bench = bench("fulltables", &old)?;
    verdicts(&mut bench, true)?;
    for table in Table::ALL.into_iter().filter(|table| *table != Table::Config) {
        let held = bench.harness.dataplane.io().dump(table)?.len();
        let keys = fill(&mut bench, table)?;
        let limit = usize::try_from(
            Sizes {
                conntrack: 1024,
                half_open: 1024,
                tables: ROOM,
            }
            .limits()[table.name()],
        )?;
        assert_eq!(held + keys.len(), limit, "{table:?} takes what it should");
        let refused = bench
            .apply(&new)
            .err()
            .with_context(|| format!("{table:?} is full"))?;
        match refused.downcast_ref::<ApplyError>() {
            Some(ApplyError::Write {
                map, remove: false, ..
            }) => assert_eq!(*map, table.name()),
            other => panic!("{table:?}: {other:?}"),
        }
        let text = refused.to_string();
        assert!(
            text.contains(table.name()) && text.contains("the map is full"),
            "{text}"
        );
        verdicts(&mut bench, true).with_context(|| format!("{table:?} is full"))?;
        // A second time it is no better.
        assert!(bench.apply(&new).is_err(), "{table:?}");
        verdicts(&mut bench, true)?;
        for key in keys {
            bench.harness.dataplane.io().delete(table, &key)?;
        }
        bench
            .apply(&new)
            .with_context(|| format!("{table:?} has room again"))?;
        verdicts(&mut bench, false).with_context(|| format!("{table:?} has room again"))?;
        bench.apply(&old)?;
        verdicts(&mut bench, true)?;
        assert_eq!(
            bench.harness.dataplane.io().dump(table)?.len(),
            held,
            "{table:?}: nothing is left"
        );
    }
    Ok(())
}

/// What did not fit leaves nothing behind that would keep out what does.
#[test]
fn after_too_much_something_else_that_fits_gets_through() -> Result<()> {
    let nets = |count: u32, third: u8| -> Store {
        let nets = (0..count).flat_map(|i| {
            [
                format!("100.{third}.{}.{}/32", i / 256, i % 256),
                format!("2001:db8:{third}::{i:x}/128"),
            ]
        });
        // Prefixes and single addresses: not the same tables.
        let wide = (0..count).flat_map(|i| {
            [
                format!("{}.{}.{}.0/24", 101 + u32::from(third % 2), i / 256, i % 256),
                format!("2001:db8:{third}:{i:x}::/64"),
            ]
        });
        let set = Resource::NetworkSet(NetworkSet {
            name: "set".into(),
            labels: [("app".to_owned(), "set".to_owned())].into(),
            nets: nets.chain(wide).filter_map(|net| net.parse().ok()).collect(),
            ..NetworkSet::default()
        });
        let allowed = Rule {
            source: Peer {
                selector: Some(Selector::eq("app", "set")),
                ..Peer::default()
            },
            ..rule(Action::Allow, Some(TCP), &[(81, 81)])
        };
        let port_80 = Rule {
            index: 1,
            ..rule(Action::Allow, Some(TCP), &[(80, 80)])
        };
        cluster([policy("b", "b", Some(vec![allowed, port_80]), None), set])
    };
    let mut bench = bench("leftovers", &before())?;
    for round in 0..3_u8 {
        let refused = bench
            .apply(&nets(1500, 40 + round))
            .err()
            .context("it does not fit")?;
        assert!(refused.to_string().contains("the map is full"), "{refused}");
        verdicts(&mut bench, true)?;
        let fits = nets(900, 60 + round);
        bench
            .apply(&fits)
            .with_context(|| format!("round {round}: what fits"))?;
        bench.harness.dataplane.io().maps().forget_flows()?;
        for v6 in [false, true] {
            let third = 60 + round;
            let from = if v6 {
                format!("2001:db8:{third}::17")
            } else {
                format!("100.{third}.0.17")
            };
            let packet = |from: IpAddr| Frame::new(from, address("b", v6), TCP, 1000, 81).bytes();
            let at = At::to_workload(B);
            bench.expect(at, &packet(from.parse()?), Hook::ToWorkload, Reason::PolicyAllow)?;
            bench.expect(
                at,
                &packet(address("outside", v6)),
                Hook::ToWorkload,
                Reason::PolicyDeny,
            )?;
        }
        bench.apply(&before())?;
    }
    Ok(())
}
