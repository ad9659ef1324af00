//! Kernel verdict = compiled verdict = reference verdict, over generated clusters and packets aimed at their rules,
//! on the loaded programs, in both families.

use std::collections::HashSet;

use anyhow::Result;
use calico_azure_ebpf::abi::Reason;
use calico_azure_tests::harness::packet::Frame;
use calico_azure_tests::harness::{At, Harness, Returned, expected, settings};
use calico_azure_userspace::policy::generate::{self, Case, Shape, probes};
use calico_azure_userspace::policy::reference::Oracle;
use calico_azure_userspace::policy::{Compiler, Direction, lookup};

/// Pairs that must at least be compared.
const PAIRS: usize = 100_000;

/// IPv6 treats these as extension headers, not as protocols.
fn is_extension(protocol: u8) -> bool {
    matches!(protocol, 0 | 43 | 44 | 51 | 60)
}

fn frame(case: &Case) -> (At, Frame) {
    let probe = &case.probe;
    let (at, src, dst) = match case.direction {
        Direction::Egress => (At::from_workload(case.ifindex), probe.own, probe.peer),
        Direction::Ingress => (At::to_workload(case.ifindex), probe.peer, probe.own),
    };
    (at, Frame::new(src, dst, probe.protocol, probe.sport, probe.dport))
}

#[test]
fn kernel_compiled_and_reference_verdicts_agree() -> Result<()> {
    let mut harness = Harness::new("verdicts")?;
    let mut compiler = Compiler::default();
    let (mut pairs, mut v6, mut denied, mut left_out) = (0_usize, 0_usize, 0_usize, 0_usize);
    let (mut to_host, mut by_host, mut strangers) = (0_usize, 0_usize, 0_usize);
    for seed in 0_u64.. {
        if pairs >= PAIRS {
            break;
        }
        let store = generate::store(seed, &Shape::default());
        let output = compiler.compile(&store)?;
        harness.dataplane.apply(&output.desired, settings())?;
        harness.dataplane.io().maps().forget_flows()?;
        let oracle = Oracle::new(&store);
        let mut flows = HashSet::new();
        for case in &probes(&store, seed, 3) {
            let probe = &case.probe;
            if probe.own.is_ipv6() && is_extension(probe.protocol) {
                left_out += 1;
                continue;
            }
            let pod = store
                .pod(&case.namespace, &case.pod)
                .expect("probes are aimed at pods of the store");
            let (allow, log, rule) = oracle.decide(pod, case.direction, probe);
            let compiled = lookup::verdict(&output.desired, case.ifindex, case.direction, probe);
            let (at, frame) = frame(case);
            // A packet of a flow that is remembered would not be asked about. Without ports every packet between two
            // addresses is of one.
            let ports = match probe.protocol {
                6 | 17 | 132 | 136 => (probe.sport.min(probe.dport), probe.sport.max(probe.dport)),
                _ => (0, 0),
            };
            let ends = (probe.own.min(probe.peer), probe.own.max(probe.peer));
            if !flows.insert((ends, probe.protocol, ports)) {
                harness.dataplane.io().maps().forget_flows()?;
                flows.clear();
                flows.insert((ends, probe.protocol, ports));
            }
            let (returned, event) = harness.observe(at, &frame.bytes())?;
            let event = event.unwrap_or_else(|| panic!("seed {seed}: no event for {case:?}"));
            let expected = expected::at_pod(&oracle, &output.desired, pod, case, (allow, log, rule.clone()));
            let reason = expected.reason;
            let of_pod = if allow {
                Reason::PolicyAllow
            } else {
                Reason::PolicyDeny
            };
            let context = || format!("seed {seed}: {case:?}\n{compiled:?}\nreference: {allow} by {rule}");
            assert_eq!(
                returned,
                if reason.passes() {
                    Returned::Next
                } else {
                    Returned::Drop
                },
                "{}",
                context()
            );
            assert_eq!(Reason::try_from(event.reason), Ok(reason), "{}", context());
            assert_eq!((compiled.reason, compiled.log), (of_pod, log), "{}", context());
            assert_eq!(
                (output.rules.get(&event.rule), event.log != 0),
                (expected.rule.as_ref(), expected.log),
                "{}",
                context()
            );
            assert_eq!(output.rules.get(&compiled.rule), Some(&rule), "{}", context());
            by_host += usize::from(expected.by_host);
            to_host += usize::from(reason == Reason::EndpointToHost);
            strangers += usize::from(matches!(reason, Reason::NoSuchWorkload | Reason::UnknownSource));
            pairs += 1;
            v6 += usize::from(probe.own.is_ipv6());
            denied += usize::from(!allow);
        }
    }
    println!(
        "{pairs} pairs agree ({v6} IPv6, {denied} denied, {to_host} kept from their host, {strangers} from strangers, {by_host} denied by endpoints for all interfaces); {left_out} left out (extension header numbers)"
    );
    assert!(by_host > 300, "{by_host}");
    assert!(strangers > 300, "{strangers}");
    assert!(v6 * 4 > pairs, "{v6} of {pairs} are IPv6");
    assert!(
        denied * 10 > pairs && denied * 10 < pairs * 9,
        "{denied} of {pairs} denied"
    );
    Ok(())
}
