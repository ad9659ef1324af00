//! Staged policies as if they were enforced: the oracle's way, the store's, and the tables'.

use calico_azure_ebpf::abi::Reason;

use crate::policy::generate::{self, Shape, probes};
use crate::policy::reference::Oracle;
use crate::policy::{Compiler, RuleRef, lookup};

#[test]
fn staged_policies_carried_out_are_what_the_oracle_says_is_pending() {
    let (mut judged, mut different, mut staged) = (0, 0, 0);
    for seed in 0..30 {
        let store = generate::store(seed, &Shape::whole_language());
        let (now, pending) = (Oracle::new(&store), Oracle::pending(&store));
        let carried_out = store.pending();
        assert!(carried_out.policies().all(|policy| policy.staged.is_none()));
        let enforced = Oracle::new(&carried_out);
        let output = Compiler::default().compile(&carried_out).unwrap();
        for case in probes(&store, seed, 2) {
            let pod = store.pod(&case.namespace, &case.pod).unwrap();
            let expected = pending.decide(pod, case.direction, &case.probe);
            let context = || format!("seed {seed}: {case:?}");
            assert_eq!(
                enforced.decide(pod, case.direction, &case.probe),
                expected,
                "{}",
                context()
            );
            let compiled = lookup::verdict(&output.desired, case.ifindex, case.direction, &case.probe);
            let (allow, log, rule) = &expected;
            let said = (
                compiled.reason == Reason::PolicyAllow,
                compiled.log,
                output.rules.get(&compiled.rule),
            );
            assert_eq!(said, (*allow, *log, Some(rule)), "{}", context());
            judged += 1;
            different += usize::from(now.decide(pod, case.direction, &case.probe).0 != *allow);
            staged +=
                usize::from(matches!(rule, RuleRef::Rule { policy, .. } if policy.kind.enforced().is_some()));
        }
    }
    println!("{judged} packets, {different} with another verdict, {staged} decided by a staged policy");
    assert!(judged > 8_000 && different * 20 > judged && staged * 40 > judged);
}
