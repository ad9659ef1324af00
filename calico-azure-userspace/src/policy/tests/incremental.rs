//! Events one by one give what everything at once gives, whatever their order and number.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use calico_azure_ebpf::abi::Reason;

use super::canonical::Canonical;
use crate::policy::generate::{self, Rng, Shape, probes};
use crate::policy::reference::Oracle;
use crate::policy::topology::{Topology, pod_name};
use crate::policy::{Compiler, Event, Interfaces, NodeFacts, Problem, Store, lookup};

/// Events that turn clusters of one shape into others, object by object; names repeat, so objects change.
fn churn(rng: &mut Rng, seeds: std::ops::Range<u64>, shape: &Shape) -> Vec<Event> {
    let mut events: Vec<Event> = Vec::new();
    for seed in seeds {
        for event in generate::events(seed, shape) {
            match event {
                Event::Upsert(resource) if rng.chance(20) => {
                    events.push(Event::Upsert(resource.clone()));
                    events.push(Event::Delete(resource.key()));
                }
                Event::Upsert(resource) if rng.chance(10) => {
                    events.extend([Event::Upsert(resource.clone()), Event::Upsert(resource)]);
                }
                Event::Interfaces(interfaces) => {
                    for _ in 0..6 {
                        let mut some = interfaces.clone();
                        some.by_ifindex.retain(|_, _| rng.chance(70));
                        for interface in some.by_ifindex.values_mut() {
                            if rng.chance(10) {
                                interface.behind.pop();
                            }
                            if rng.chance(10) {
                                interface.pod = Some(("ns-0".into(), format!("pod-{}", rng.below(4))));
                            }
                            if rng.chance(10) {
                                interface.pod = None;
                            }
                            interface.own ^= rng.chance(5);
                        }
                        events.push(Event::Interfaces(some));
                    }
                    events.push(Event::Interfaces(interfaces));
                }
                Event::Node(facts) => {
                    let allowed = NodeFacts {
                        allowed_sources: vec!["10.0.0.0/25".parse().unwrap()],
                        ..facts.clone()
                    };
                    let other = NodeFacts {
                        node: "node-2".into(),
                        ..facts.clone()
                    };
                    let unnamed = NodeFacts {
                        interface_prefixes: Vec::new(),
                        ..facts.clone()
                    };
                    events.extend([allowed, other, unnamed].map(Event::Node));
                    events.extend((0..6).map(|_| Event::Node(facts.clone())));
                }
                event => events.push(event),
            }
        }
    }
    rng.shuffle(&mut events);
    events
}

/// What a compiler that saw nothing else finds.
fn anew(store: &Store) -> Canonical {
    Canonical::of(&Compiler::default().compile(store).unwrap())
}

fn check(compiler: &Compiler, context: &str) {
    assert_eq!(
        Canonical::of(&compiler.output()),
        anew(compiler.store()),
        "{context}"
    );
    check_topology(compiler, context);
}

/// Endpoints and addresses are those that the plain search finds.
fn check_topology(compiler: &Compiler, context: &str) {
    let topology = Topology::of(compiler.store());
    let expected: Vec<_> = topology
        .endpoints
        .iter()
        .filter_map(|e| Some((e.ifindex?, pod_name(e.pod), e.addresses.clone())))
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect();
    let found = compiler.desired().endpoints.iter();
    let found: Vec<_> = found
        .map(|(i, e)| (*i, e.pod.clone(), e.addresses.clone()))
        .collect();
    assert_eq!(found, expected, "{context}");
    let hosts = (0..=u8::MAX).flat_map(|host| {
        let four: IpAddr = Ipv4Addr::new(10, 0, 0, host).into();
        let six: IpAddr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, u16::from(host)).into();
        [four, six]
    });
    for address in hosts {
        let owner = topology.owner(address).map(|endpoint| pod_name(endpoint.pod));
        assert_eq!(compiler.owner(address), owner, "{context}: {address}");
    }
    let contested = |problem: &&Problem| {
        matches!(
            problem,
            Problem::InterfaceContested { .. }
                | Problem::AddressContested { .. }
                | Problem::SourcePrefixesRefused { .. }
        )
    };
    let found: BTreeSet<&Problem> = compiler.problems().filter(contested).collect();
    assert_eq!(found, topology.problems.iter().collect(), "{context}");
}

#[test]
fn every_single_event_gives_what_everything_at_once_gives() {
    let mut updates = 0;
    for seed in 0..4 {
        let mut rng = Rng::new(seed);
        let mut compiler = Compiler::default();
        for (place, event) in churn(&mut rng, seed * 10..seed * 10 + 2, &Shape::default())
            .into_iter()
            .enumerate()
        {
            let text = format!("seed {seed}, event {place}, {event:?}");
            compiler.apply(event);
            compiler.update().unwrap();
            check(&compiler, &text);
            if rng.chance(30) {
                compiler.applied();
            }
            updates += 1;
        }
    }
    assert!(updates > 500, "{updates}");
}

#[test]
fn any_order_and_grouping_of_events_gives_the_same() {
    for seed in 100..110 {
        let mut rng = Rng::new(seed);
        let events = generate::events(seed, &Shape::default());
        let expected = anew(&generate::store(seed, &Shape::default()));
        let mut orders = vec![events.clone(), events.iter().rev().cloned().collect()];
        for _ in 0..3 {
            let mut shuffled = [events.clone(), events.iter().take(30).cloned().collect()].concat();
            rng.shuffle(&mut shuffled);
            orders.push(shuffled);
        }
        for (order, events) in orders.into_iter().enumerate() {
            let mut compiler = Compiler::default();
            let often = 1 + rng.below(40);
            for event in events {
                compiler.apply(event);
                if rng.below(often) == 0 {
                    compiler.update().unwrap();
                }
            }
            compiler.update().unwrap();
            assert_eq!(
                Canonical::of(&compiler.output()),
                expected,
                "seed {seed}, order {order}"
            );
            assert_eq!(
                compiler.update().unwrap(),
                Default::default(),
                "nothing happened since"
            );
        }
    }
}

#[test]
fn many_changes_at_once_give_what_they_give_one_by_one() {
    for seed in 200..208 {
        let mut rng = Rng::new(seed);
        let events = churn(&mut rng, seed * 10..seed * 10 + 3, &Shape::default());
        let mut compiler = Compiler::default();
        let mut rest = events.into_iter().peekable();
        while rest.peek().is_some() {
            let amount = 1 + rng.below(60);
            for event in rest.by_ref().take(amount) {
                compiler.apply(event);
            }
            compiler.update().unwrap();
            check(&compiler, &format!("seed {seed}"));
        }
    }
}

#[test]
fn tables_with_a_past_decide_as_policies_do() {
    let mut asked = 0;
    for seed in 300..308 {
        let mut rng = Rng::new(seed);
        let mut compiler = Compiler::default();
        for (place, event) in churn(&mut rng, seed * 10..seed * 10 + 2, &Shape::default())
            .into_iter()
            .enumerate()
        {
            compiler.apply(event);
            if place % 7 == 0 {
                compiler.update().unwrap();
            }
        }
        for event in generate::events(seed, &Shape::default()) {
            compiler.apply(event);
        }
        compiler.update().unwrap();
        let oracle = Oracle::new(compiler.store());
        for case in probes(compiler.store(), seed, 2) {
            let pod = compiler.store().pod(&case.namespace, &case.pod).unwrap();
            let (allow, log, rule) = oracle.decide(pod, case.direction, &case.probe);
            let verdict = lookup::verdict(compiler.desired(), case.ifindex, case.direction, &case.probe);
            let reason = if allow {
                Reason::PolicyAllow
            } else {
                Reason::PolicyDeny
            };
            let named = compiler.rules().get(&verdict.rule);
            assert_eq!(
                (verdict.reason, verdict.log, named),
                (reason, log, Some(&rule)),
                "seed {seed}: {case:?}"
            );
            asked += 1;
        }
    }
    assert!(asked > 5_000, "{asked}");
}

#[test]
fn a_change_names_every_entry_that_is_different() {
    for seed in 400..406 {
        let mut rng = Rng::new(seed);
        let mut compiler = Compiler::default();
        let mut before = compiler.output();
        for event in churn(&mut rng, seed * 10..seed * 10 + 2, &Shape::default()) {
            compiler.apply(event);
            if rng.chance(70) {
                continue;
            }
            let change = compiler.update().unwrap();
            let after = compiler.output();
            let (old, new) = (&before.desired, &after.desired);
            assert!(!change.everything);
            macro_rules! named {
                ($($table:ident),*) => {$(
                    let keys = old.$table.keys().chain(new.$table.keys());
                    let different: BTreeSet<_> =
                        keys.filter(|key| old.$table.get(*key) != new.$table.get(*key)).copied().collect();
                    let named = change.$table.iter().copied().collect();
                    assert!(different.is_subset(&named), "seed {seed}: {}", stringify!($table));
                    assert!(change.$table.is_sorted());
                )*};
            }
            named!(
                endpoints, hosts, owners4, owners6, class4, class6, cidr4, cidr6, policy, ports, services4,
                services6, routes4, routes6
            );
            before = after;
        }
    }
}

/// Everything that happens to a cluster until nothing is left of it; how many events that were.
fn live_and_die(rng: &mut Rng, compiler: &mut Compiler, seeds: std::ops::Range<u64>, shape: &Shape) -> usize {
    let (mut seen, often) = (0, 1 + rng.below(300));
    for event in churn(rng, seeds.clone(), shape) {
        compiler.apply(event);
        if rng.below(often) == 0 {
            compiler.update().unwrap();
        }
        if rng.below(2 * often) == 0 {
            compiler.applied();
        }
        seen += 1;
    }
    compiler.update().unwrap();
    let mut keys = compiler.store().differing(&Store::default());
    rng.shuffle(&mut keys);
    seen += keys.len() + 2;
    for key in keys {
        compiler.apply(Event::Delete(key));
        if rng.below(often) == 0 {
            compiler.update().unwrap();
        }
    }
    compiler.apply(Event::Interfaces(Interfaces::default()));
    compiler.apply(Event::Node(NodeFacts::default()));
    compiler.update().unwrap();
    assert_eq!(compiler.desired(), &Default::default());
    compiler.applied();
    for (what, counts) in compiler.counts() {
        assert!(
            counts.iter().all(|count| *count == 0),
            "seed {}: {what} {counts:?}",
            seeds.start
        );
    }
    seen
}

/// Ids, too: one that is neither in use nor free is never given out again. `CALICO_AZURE_EVENTS=1000000` takes three minutes.
#[test]
fn nothing_is_left_behind_after_many_events() {
    let events = std::env::var("CALICO_AZURE_EVENTS")
        .ok()
        .and_then(|text| text.parse().ok());
    let events = events.unwrap_or(200_000);
    let mut rng = Rng::new(7);
    let mut compiler = Compiler::default();
    let (mut seen, mut seed) = (0, 1_000_u64);
    let with_hosts = Shape::default();
    let mut without = Shape::default();
    without.features.host_endpoints = false;
    while seen < events {
        // Host endpoints make many sets of many rules: ten times the work.
        let shape = if seed.is_multiple_of(80) {
            &with_hosts
        } else {
            &without
        };
        seen += live_and_die(&mut rng, &mut compiler, seed..seed + 20, shape);
        seed += 20;
    }
}
