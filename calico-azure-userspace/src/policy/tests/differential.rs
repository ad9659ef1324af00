//! The tables decide as the reference does, over generated clusters and packets.

use std::collections::{BTreeMap, BTreeSet};

use calico_azure_ebpf::abi::{Reason, word};

use crate::policy::generate::{self, Case, Rng, Shape, probes};
use crate::policy::pending::pending;
use crate::policy::reference::Oracle;
use crate::policy::{Compiler, Output, RuleRef, Store, lookup};

/// Asserts that the tables decide as the policies do; the decided rules.
fn agree(seed: u64, store: &Store, output: &Output, cases: &[Case], decided: &mut BTreeSet<RuleRef>) {
    compare(seed, store, &Oracle::new(store), output, cases, decided);
}

fn compare(
    seed: u64,
    store: &Store,
    oracle: &Oracle<'_>,
    output: &Output,
    cases: &[Case],
    decided: &mut BTreeSet<RuleRef>,
) {
    for case in cases {
        let probe = &case.probe;
        let pod = store.pod(&case.namespace, &case.pod).unwrap();
        let (allow, log, rule) = oracle.decide(pod, case.direction, probe);
        let compiled = lookup::verdict(&output.desired, case.ifindex, case.direction, probe);
        let reason = if allow {
            Reason::PolicyAllow
        } else {
            Reason::PolicyDeny
        };
        let named = output.rules.get(&compiled.rule);
        assert_eq!(
            (compiled.reason, compiled.log, named),
            (reason, log, Some(&rule)),
            "seed {seed}: {case:?}\n{compiled:?}\nreference: {:#?}",
            oracle.verdict(pod, case.direction, probe),
        );
        decided.insert(rule);
    }
}

fn differential(seeds: std::ops::Range<u64>, shape: &Shape, per_rule: usize, at_least: usize) {
    let mut pairs = 0;
    let (mut decided, mut reached) = (0, 0);
    for seed in seeds {
        let store = generate::store(seed, shape);
        let output = Compiler::default().compile(&store).unwrap();
        let cases = probes(&store, seed, per_rule);
        let mut rules = BTreeSet::new();
        agree(seed, &store, &output, &cases, &mut rules);
        pairs += cases.len();
        decided += rules.len();
        // Rules that some packet can reach; others are shadowed or contradict themselves.
        let desired = &output.desired;
        // Those of host endpoints are none of pods'.
        let sets: BTreeSet<u32> = desired
            .endpoints
            .values()
            .flat_map(|endpoint| [endpoint.ingress, endpoint.egress])
            .collect();
        let of_pods = desired.policy.iter().filter(|(key, _)| sets.contains(&key.set));
        let mut tables: BTreeSet<u32> = of_pods.map(|(_, entry)| word::table_id(*entry)).collect();
        for (key, decision) in &desired.ports {
            if tables.contains(&key.table) && word::decision_leads(*decision) {
                tables.insert(word::table_id(word::decision_next(*decision)));
            }
        }
        let reachable = desired
            .ports
            .iter()
            .filter(|(key, decision)| tables.contains(&key.table) && !word::decision_leads(**decision))
            .map(|(_, decision)| word::decision_rule(*decision));
        reached += reachable.collect::<BTreeSet<_>>().len();
    }
    println!("{pairs} pairs, {decided} of {reached} rules decided some");
    assert!(pairs >= at_least, "only {pairs} pairs");
    assert!(decided * 100 > reached * 80, "{decided} of {reached}");
}

#[test]
fn tables_decide_as_policies_do_in_small_clusters() {
    differential(0..160, &Shape::default(), 8, 150_000);
}

#[test]
fn tables_of_what_is_pending_decide_as_staged_policies_would() {
    let (mut pairs, mut staged) = (0, 0);
    for seed in 0..160 {
        let store = generate::store(seed, &Shape::default());
        let Some(pending) = pending(&store) else { continue };
        let output = Compiler::default().compile(&pending).unwrap();
        let cases = probes(&store, seed, 3);
        let mut decided = BTreeSet::new();
        compare(
            seed,
            &store,
            &Oracle::pending(&store),
            &output,
            &cases,
            &mut decided,
        );
        pairs += cases.len();
        let is_staged = |rule: &RuleRef| match rule {
            RuleRef::Rule { policy, .. } => policy.kind.enforced().is_some(),
            _ => false,
        };
        staged += decided.iter().filter(|rule| is_staged(rule)).count();
    }
    println!("{pairs} pairs, {staged} rules of staged policies decided some");
    assert!(pairs > 30_000 && staged > 80, "{pairs}, {staged}");
}

#[test]
fn tables_decide_as_policies_do_in_crowded_clusters() {
    let shape = Shape {
        namespaces: 3,
        pods: 60,
        network_sets: 15,
        policies: 24,
        rules: 8,
        ..Shape::default()
    };
    differential(1000..1020, &shape, 4, 100_000);
}

/// The tables with everything that depends on ids left out of the comparison: verdicts by rule, and sizes.
fn sizes(output: &Output) -> BTreeMap<&'static str, usize> {
    let d = &output.desired;
    BTreeMap::from([
        ("class", d.class4.len() + d.class6.len()),
        ("cidr", d.cidr4.len() + d.cidr6.len()),
        ("policy", d.policy.len()),
        ("ports", d.ports.len()),
        ("rules", output.rules.len()),
        ("sets", output.sets.len()),
    ])
}

#[test]
fn the_order_of_events_does_not_matter() {
    for seed in 0..20 {
        let mut events = generate::events(seed, &Shape::default());
        let expected = Compiler::default()
            .compile(&generate::store(seed, &Shape::default()))
            .unwrap();
        Rng::new(seed).shuffle(&mut events);
        let mut compiler = Compiler::default();
        let mut store = Store::default();
        let step = events.len() / 3;
        for (place, event) in events.into_iter().enumerate() {
            store.apply(event);
            if place % step == 0 {
                compiler.compile(&store).unwrap();
            }
        }
        // A compiler that has seen nothing else gives the same to the last bit; one with a past, up to ids.
        assert_eq!(
            Compiler::default().compile(&store).unwrap(),
            expected,
            "seed {seed}"
        );
        let output = compiler.compile(&store).unwrap();
        assert_eq!(sizes(&output), sizes(&expected), "seed {seed}");
        agree(
            seed,
            &store,
            &output,
            &probes(&store, seed, 1),
            &mut BTreeSet::new(),
        );
        assert_eq!(
            compiler.compile(&store).unwrap(),
            output,
            "seed {seed}: again without a change"
        );
    }
}
