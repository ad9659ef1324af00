//! The tables of host endpoints decide as the reference does.

use std::collections::{BTreeMap, BTreeSet};

use calico_azure_ebpf::abi::Reason;

use crate::policy::generate::{self, HostCase, Shape, host_cases};
use crate::policy::lookup::host_verdict;
use crate::policy::reference::{Oracle, Stage};
use crate::policy::{Compiler, Direction, Event, NodeFacts, Output, RuleRef, Store};

/// How often each stage decided, and how.
#[derive(Default)]
struct Tally {
    cases: usize,
    /// Of host endpoints that govern no interface.
    elsewhere: usize,
    stages: BTreeMap<(String, bool), usize>,
    logged: usize,
}

impl Tally {
    fn judge(&mut self, context: &str, store: &Store, output: &Output, case: &HostCase) {
        let Some(desired) = output.desired.hosts.values().find(|host| host.name == case.host) else {
            self.elsewhere += 1;
            return;
        };
        let HostCase {
            direction,
            traffic,
            probe,
            ..
        } = *case;
        let oracle = Oracle::new(store);
        let host = store.host_endpoint(&case.host).unwrap();
        // Of what comes in, half was for a load balancer before it was translated.
        let mut original = probe;
        if direction == Direction::Ingress && self.cases.is_multiple_of(2) {
            let lb = if probe.own.is_ipv4() {
                "198.51.100.7"
            } else {
                "2001:db8:1b::7"
            };
            (original.own, original.dport) = (lb.parse().unwrap(), probe.dport ^ 1);
        }
        let expected = oracle.host(host, direction, traffic, &original, &probe);
        let found = host_verdict(&output.desired, desired, direction, traffic, &original, &probe);
        let rule = match (found.stage, found.rule) {
            (Stage::Forward, 0) => Some(&RuleRef::Forwarded),
            (Stage::EndpointToHost, 0) => Some(&RuleRef::EndpointToHost),
            (_, rule) => output.rules.get(&rule),
        };
        let verdict = &expected.verdict;
        let reason = if verdict.allow {
            Reason::PolicyAllow
        } else {
            Reason::PolicyDeny
        };
        assert_eq!(
            (found.stage, found.reason, found.log, rule),
            (expected.stage, reason, verdict.log, Some(&verdict.rule)),
            "{context}: {case:?}\n{expected:#?}"
        );
        self.cases += 1;
        self.logged += usize::from(verdict.log);
        *self
            .stages
            .entry((expected.stage.to_string(), verdict.allow))
            .or_default() += 1;
    }
}

/// The endpoint of every interface is the one that the reference finds.
fn check_interfaces(context: &str, store: &Store, output: &Output) {
    let oracle = Oracle::new(store);
    let node = &store.facts().node;
    let pods = &output.desired.endpoints;
    let mut expected: BTreeMap<u32, String> = BTreeMap::new();
    for (ifindex, interface) in &store.interfaces().by_ifindex {
        let prefixes = &store.facts().interface_prefixes;
        let of_pod =
            pods.contains_key(ifindex) || prefixes.iter().any(|p| interface.name.starts_with(p.as_str()));
        let host = oracle.host_endpoint(node, Some(&interface.name), &interface.addresses);
        if let Some(host) = host.filter(|_| !of_pod) {
            expected.insert(*ifindex, host.name.clone());
        }
    }
    expected.extend(
        oracle
            .host_for_all_interfaces(node)
            .map(|host| (0, host.name.clone())),
    );
    let found = output
        .desired
        .hosts
        .iter()
        .filter(|(_, host)| !host.name.is_empty());
    let found: BTreeMap<u32, String> = found
        .map(|(ifindex, host)| (*ifindex, host.name.clone()))
        .collect();
    assert_eq!(found, expected, "{context}");
}

#[test]
fn tables_decide_at_host_endpoints_as_policies_do() {
    let mut tally = Tally::default();
    let mut interfaces = 0;
    for seed in 0..160 {
        let mut store = generate::store(seed, &Shape::default());
        for node in ["node-1", "node-2"] {
            let context = format!("seed {seed}, {node}");
            let facts = NodeFacts {
                node: node.into(),
                ..store.facts().clone()
            };
            store.apply(Event::Node(facts));
            let output = Compiler::default().compile(&store).unwrap();
            check_interfaces(&context, &store, &output);
            interfaces += output.desired.hosts.len();
            for case in host_cases(&store, seed, 12) {
                tally.judge(&context, &store, &output, &case);
            }
        }
    }
    let Tally {
        cases,
        elsewhere,
        stages,
        logged,
    } = tally;
    println!(
        "{cases} cases at {interfaces} interfaces ({elsewhere} of others), {logged} logged: {stages:#?}"
    );
    assert!(cases > 20_000 && interfaces > 300, "{cases}, {interfaces}");
    let kinds: BTreeSet<&str> = stages.keys().map(|(stage, _)| stage.as_str()).collect();
    assert_eq!(kinds.len(), 6, "{kinds:?}");
    assert!(stages.values().all(|count| *count > 50), "{stages:?}");
    assert!(logged > 500, "{logged}");
}
