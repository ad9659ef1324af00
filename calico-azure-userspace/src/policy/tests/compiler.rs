//! Properties of the compiler's output: stability, minimality, fail-closed corners.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use calico_azure_ebpf::abi::{LEVEL_TABLE, Reason, word};

use crate::model::{Action, HostRole, Key, Kind, Namespace, Peer, Pod, Policy, Resource, Rule};
use crate::policy::generate::{self, Case, Shape, probes};
use crate::policy::reference::Oracle;
use crate::policy::store::{Event, Interface, Interfaces, NodeFacts};
use crate::policy::topology::Topology;
use crate::policy::{
    CompileError, Compiler, Desired, Direction, Output, Probe, Problem, Reserved, Store, lookup,
};
use crate::selector::Selector;

fn compiled(seed: u64) -> Output {
    Compiler::default()
        .compile(&generate::store(seed, &Shape::default()))
        .unwrap()
}

#[test]
fn every_reference_between_tables_resolves_and_every_table_is_used() {
    for seed in 0..50 {
        let Output {
            desired, rules, sets, ..
        } = compiled(seed);
        for endpoint in desired.endpoints.values() {
            assert!(sets.contains_key(&endpoint.ingress) && sets.contains_key(&endpoint.egress));
        }
        let classes: BTreeSet<u32> = desired
            .class4
            .values()
            .chain(desired.class6.values())
            .chain(desired.cidr4.values())
            .chain(desired.cidr6.values())
            .copied()
            .chain([1, 2])
            .collect();
        assert!(!classes.contains(&0));
        let stages: BTreeSet<u32> = desired.hosts.values().flat_map(|host| host.sets).collect();
        let mut hints: BTreeMap<u32, u8> = BTreeMap::new();
        let mut inner = BTreeSet::new();
        for (key, value) in &desired.policy {
            assert_eq!((value >> 32) as u32, word::table_check(key.set, key.class));
            assert!(classes.contains(&key.class), "{key:?}");
            if word::table_hints(*value) == word::hint::SET {
                assert!(stages.contains(&key.set) && sets.contains_key(&word::table_id(*value)));
                inner.insert(word::table_id(*value));
                continue;
            }
            assert!(sets.contains_key(&key.set), "{key:?}");
            let old = hints.insert(word::table_id(*value), word::table_hints(*value));
            assert!(
                old.is_none_or(|old| old == word::table_hints(*value)),
                "a table has its own hints"
            );
        }
        let of_pods = desired.endpoints.values().flat_map(|x| [x.ingress, x.egress]);
        let used: BTreeSet<u32> = inner.into_iter().chain(of_pods).collect();
        assert_eq!(used, sets.keys().copied().collect());
        for set in sets.keys().chain(stages.iter().filter(|set| **set != 0)) {
            for class in [1, 2] {
                assert!(
                    desired
                        .policy
                        .keys()
                        .any(|key| (key.set, key.class) == (*set, class)),
                    "no default"
                );
            }
        }
        let mut found: BTreeMap<u32, u8> = BTreeMap::new();
        for (key, decision) in &desired.ports {
            assert_eq!(word::decision_table(*decision), key.table);
            let next = word::decision_next(*decision);
            if word::decision_leads(*decision) {
                *found.entry(key.table).or_default() |= word::hint::SOURCE;
                assert_eq!(word::table_hints(next) & word::hint::SOURCE, 0, "one step only");
                let old = hints.insert(word::table_id(next), word::table_hints(next));
                assert!(old.is_none_or(|old| old == word::table_hints(next)));
            } else {
                let known = rules.contains_key(&word::decision_rule(*decision));
                assert!(known || word::decision_goes_on(*decision));
            }
            let hint = if key.level == LEVEL_TABLE {
                0
            } else {
                word::hint::of(key.protocol)
            };
            *found.entry(key.table).or_default() |= hint;
        }
        assert_eq!(found, hints, "hints say exactly which protocols have entries");
    }
}

#[test]
fn entries_that_say_what_would_be_found_anyway_are_left_out() {
    for seed in 0..50 {
        let Desired {
            class4,
            cidr4,
            policy,
            ..
        } = compiled(seed).desired;
        for (address, class) in &class4 {
            let mut without = Desired {
                class4: class4.clone(),
                cidr4: cidr4.clone(),
                ..Desired::default()
            };
            without.class4.remove(address);
            let ip = crate::policy::wire::ipv4(*address).into();
            assert_ne!(lookup::class_of(&without, ip), *class);
        }
        for (key, value) in policy.iter().filter(|(key, _)| key.class > 2) {
            let defaults = policy
                .iter()
                .filter(|(other, _)| other.set == key.set && other.class <= 2);
            let same: Vec<u32> = defaults
                .filter(|(_, d)| word::table_id(**d) == word::table_id(*value))
                .map(|(k, _)| k.class)
                .collect();
            assert!(same.len() < 2, "{key:?} is what either default is");
        }
    }
}

#[test]
fn an_entry_never_changes_its_value_while_its_key_lives() {
    for seed in 0..12 {
        let mut store = generate::store(seed, &Shape::default());
        let mut compiler = Compiler::default();
        let mut old = compiler.compile(&store).unwrap();
        // Turns the cluster into another one, event by event.
        for (place, event) in generate::events(seed + 1000, &Shape::default())
            .into_iter()
            .enumerate()
        {
            store.apply(event);
            let new = compiler.compile(&store).unwrap();
            for (key, value) in &new.desired.policy {
                assert!(
                    old.desired.policy.get(key).is_none_or(|old| old == value),
                    "{key:?}"
                );
            }
            for (key, value) in &new.desired.ports {
                assert!(
                    old.desired.ports.get(key).is_none_or(|old| old == value),
                    "{key:?}"
                );
            }
            for (id, rule) in &new.rules {
                assert!(old.rules.get(id).is_none_or(|old| old == rule), "{id}");
            }
            if place % 3 == 0 {
                compiler.applied();
            }
            old = new;
        }
    }
}

#[test]
fn a_restarted_agent_takes_none_of_the_ids_that_it_finds() {
    let store = generate::store(3, &Shape::default());
    let first = Compiler::default().compile(&store).unwrap();
    let ids = |output: &Output| {
        let desired = &output.desired;
        let classes = desired
            .class4
            .values()
            .chain(desired.cidr4.values())
            .chain(desired.class6.values());
        Reserved {
            sets: output.sets.keys().copied().collect(),
            classes: classes.chain(desired.cidr6.values()).copied().collect(),
            tables: desired
                .policy
                .values()
                .map(|value| word::table_id(*value))
                .collect(),
            rules: output.rules.keys().copied().collect(),
        }
    };
    let left = ids(&first);
    let second = ids(&Compiler::new(left.clone()).compile(&store).unwrap());
    assert!(left.sets.is_disjoint(&second.sets) && !second.sets.is_empty());
    assert!(left.classes.is_disjoint(&second.classes) && !second.classes.is_empty());
    assert!(left.tables.is_disjoint(&second.tables) && !second.tables.is_empty());
    assert!(left.rules.is_disjoint(&second.rules) && !second.rules.is_empty());
}

#[test]
fn running_out_of_ids_is_an_error_and_leaves_the_compiler_as_it_was() {
    const LAST_SET: u32 = word::SLOT_MAX - 0x10000;
    let store = generate::store(3, &Shape::default());
    // One id is left for policy sets, and the cluster needs several.
    let reserved = Reserved {
        sets: (1..LAST_SET).collect(),
        ..Reserved::default()
    };
    let mut compiler = Compiler::new(reserved);
    let error = compiler.compile(&store).unwrap_err();
    assert_eq!(
        error,
        CompileError::OutOfIds {
            what: "policy sets",
            limit: LAST_SET
        }
    );
    assert!(compiler.compile(&store).is_err());
    compiler.applied();
    assert!(
        compiler.compile(&store).is_ok(),
        "once the kernel has let go of the others"
    );
}

#[test]
fn nothing_is_compiled_for_other_nodes() {
    let mut store = generate::store(5, &Shape::default());
    assert!(
        !Compiler::default()
            .compile(&store)
            .unwrap()
            .desired
            .class4
            .is_empty()
    );
    store.apply(Event::Interfaces(Interfaces::default()));
    store.apply(Event::Node(NodeFacts {
        node: "elsewhere".into(),
        ..store.facts().clone()
    }));
    let Output {
        desired, rules, sets, ..
    } = Compiler::default().compile(&store).unwrap();
    assert!(desired.endpoints.is_empty() && desired.class4.is_empty() && desired.policy.is_empty());
    assert!(rules.is_empty() && sets.is_empty() && desired.ports.is_empty());
    assert!(!desired.routes4.is_empty(), "routes do not wait for interfaces");
}

/// Packets to or from an address that the pod is not known to have.
#[test]
fn a_stranger_in_the_pods_place_gets_no_more_than_the_policies_give_it() {
    let mut asked = 0;
    for seed in 0..60 {
        let store = generate::store(seed, &Shape::default());
        let output = Compiler::default().compile(&store).unwrap();
        let oracle = Oracle::new(&store);
        for Case {
            namespace,
            pod,
            ifindex,
            direction,
            probe,
        } in probes(&store, seed, 2)
        {
            let pod = store.pod(&namespace, &pod).unwrap();
            let addresses = &output.desired.endpoints[&ifindex].addresses;
            // The other family, where the pod has no address at all.
            let (own, peer) = if probe.own.is_ipv4() {
                ("2001:db8::5".parse().unwrap(), "fd00::7".parse().unwrap())
            } else {
                ("203.0.113.5".parse().unwrap(), "10.0.0.7".parse().unwrap())
            };
            if addresses.iter().any(|ip| ip.is_ipv4() == probe.peer.is_ipv6()) {
                continue;
            }
            let probe = Probe { own, peer, ..probe };
            let compiled = lookup::verdict(&output.desired, ifindex, direction, &probe);
            asked += 1;
            if compiled.reason.passes() {
                let (allow, _, rule) = oracle.decide(pod, direction, &probe);
                assert!(allow, "seed {seed}: {probe:?} {rule}");
            }
        }
    }
    assert!(asked > 1000, "{asked}");
}

#[test]
fn a_rule_that_holds_for_some_of_the_pods_addresses_only_is_closed() {
    let mut store = generate::store(
        0,
        &Shape {
            pods: 0,
            policies: 0,
            network_sets: 0,
            ..Shape::default()
        },
    );
    let address = |last: u8| IpAddr::from([10, 0, 0, last]);
    let pod = Pod {
        namespace: "ns-0".into(),
        name: "two".into(),
        node: generate::NODE.into(),
        ips: vec![address(1), address(2)],
        ..Pod::default()
    };
    let links = Interface {
        name: "veth".into(),
        behind: pod.ips.clone(),
        ..Interface::default()
    };
    store.apply(Event::Upsert(Resource::Namespace(Namespace {
        name: "ns-0".into(),
        ..Default::default()
    })));
    store.apply(Event::Upsert(Resource::Pod(pod)));
    store.apply(Event::Interfaces(Interfaces {
        by_ifindex: [(1, links)].into(),
    }));
    let rule = |index, action| Rule {
        index,
        action,
        ip_version: None,
        protocol: Some(if action == Action::Allow { 6 } else { 17 }),
        not_protocol: None,
        icmp: None,
        not_icmp: None,
        source: Peer::default(),
        destination: Peer {
            nets: vec!["10.0.0.1/32".parse().unwrap()],
            ..Peer::default()
        },
    };
    store.apply(Event::Upsert(Resource::Policy(Policy {
        key: Key {
            kind: Kind::GlobalNetworkPolicy,
            namespace: None,
            name: "p".into(),
        },
        tier: "ghost".into(),
        order: None,
        selector: Selector::all(),
        ingress: Some(vec![rule(0, Action::Allow), rule(1, Action::Pass)]),
        egress: None,
        staged: None,
        host: HostRole::Normal,
    })));
    let output = Compiler::default().compile(&store).unwrap();
    let ask = |protocol| {
        let packet = Probe {
            peer: address(9),
            own: address(1),
            protocol,
            sport: 1024,
            dport: 80,
        };
        let verdict = lookup::verdict(&output.desired, 1, Direction::Ingress, &packet);
        (verdict.reason, output.rules[&verdict.rule].to_string())
    };
    let closed = |by: &str| (Reason::PolicyDeny, format!("tier ghost / {by}"));
    assert_eq!(ask(6), closed("default action"));
    assert_eq!(ask(17), closed("GlobalNetworkPolicy p / ingress[1]"));
    let ambiguous = output
        .problems
        .iter()
        .filter(|p| matches!(p, Problem::OwnAddressAmbiguous { .. }));
    assert_eq!(ambiguous.count(), 2);
}

#[test]
fn endpoints_of_several_namespaces_share_a_set_that_no_profile_ends() {
    let shape = Shape {
        policies: 0,
        ..Shape::default()
    };
    let mut store = generate::store(4, &shape);
    let sets = |store: &Store| {
        let output = Compiler::default().compile(store).unwrap();
        let ingress: BTreeSet<u32> = output.desired.endpoints.values().map(|e| e.ingress).collect();
        (ingress.len(), output)
    };
    assert!(sets(&store).0 > 1, "one for each namespace's profile");
    store.apply(Event::Upsert(Resource::Policy(Policy {
        key: Key {
            kind: Kind::GlobalNetworkPolicy,
            namespace: None,
            name: "p".into(),
        },
        tier: "ghost".into(),
        order: None,
        selector: Selector::all(),
        ingress: Some(vec![]),
        egress: None,
        staged: None,
        host: HostRole::Normal,
    })));
    let (count, output) = sets(&store);
    assert_eq!(count, 1);
    assert!(output.sets.values().any(|set| set.profile.is_none()));
}

#[test]
fn on_one_node_every_pod_with_an_address_is_an_endpoint() {
    let store = generate::store(7, &Shape::default()).on_one_node();
    let output = Compiler::default().compile(&store).unwrap();
    let isolated = Topology::of(&store).isolated.len();
    let live = store
        .pods()
        .filter(|pod| !pod.host_network && !pod.finished && !pod.ips.is_empty());
    assert_eq!(output.desired.endpoints.len() + isolated, live.count());
}

#[test]
fn contradictions_between_resources_are_reported() {
    let mut store = generate::store(1, &Shape::default());
    for name in ["ns-0", "ns-1", "ns-2", "ns-3"] {
        store.apply(Event::Delete(Key {
            kind: Kind::Namespace,
            namespace: None,
            name: name.into(),
        }));
    }
    for name in ["default", "first", "second", "second-twin"] {
        store.apply(Event::Delete(Key {
            kind: Kind::Tier,
            namespace: None,
            name: name.into(),
        }));
    }
    let output = Compiler::default().compile(&store).unwrap();
    let tiers = output
        .problems
        .iter()
        .filter(|p| matches!(p, Problem::TierMissing { .. }))
        .count();
    let namespaces = output
        .problems
        .iter()
        .filter(|p| matches!(p, Problem::NamespaceMissing { .. }))
        .count();
    // Tier default is there, object or not.
    let governs = |policy: &&std::sync::Arc<Policy>| {
        policy.staged.is_none() && matches!(policy.host, HostRole::Normal | HostRole::Forward)
    };
    let policies = store.policies().filter(governs);
    let missing = policies.filter(|policy| policy.tier != "default").count();
    assert!(missing > 0 && tiers == missing, "{tiers} of {missing}");
    assert_eq!(namespaces, output.desired.endpoints.len());
}
