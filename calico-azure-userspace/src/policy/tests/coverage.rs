//! The generators reach every branch of the reference.

use std::collections::BTreeSet;

use crate::policy::generate::{self, Shape, flows, host_cases, probes};
use crate::policy::reference::{Branch, Oracle};

#[test]
fn generated_clusters_and_packets_reach_the_whole_language() {
    let shape = Shape::whole_language();
    let mut taken = BTreeSet::new();
    let mut judged = 0;
    let mut decided = BTreeSet::new();
    for seed in 0..80 {
        let store = generate::store(seed, &shape);
        for oracle in [Oracle::new(&store), Oracle::pending(&store)] {
            for case in probes(&store, seed, 2) {
                let pod = store.pod(&case.namespace, &case.pod).unwrap();
                let (_, _, rule) = oracle.decide(pod, case.direction, &case.probe);
                decided.insert(rule);
                judged += 1;
            }
            for case in host_cases(&store, seed, 2) {
                let host = store
                    .host_endpoints()
                    .find(|host| host.name == case.host)
                    .unwrap();
                let probe = &case.probe;
                let said = oracle.host(host, case.direction, case.traffic, probe, probe);
                decided.insert(said.verdict.rule);
                judged += 1;
            }
            for flow in flows(&store, seed, 300) {
                judged += usize::from(!oracle.path(&flow).legs.is_empty());
            }
            taken.extend(oracle.coverage().taken());
        }
    }
    let missed: Vec<Branch> = Branch::all().filter(|branch| !taken.contains(branch)).collect();
    let total = Branch::all().count();
    println!(
        "{judged} packets took {} of {total} branches; not {missed:?}",
        taken.len()
    );
    assert!(taken.len() * 100 >= total * 98, "not reached: {missed:?}");
}
