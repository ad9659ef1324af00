//! Kernel verdict = compiled verdict = reference verdict at host endpoints, over generated clusters and packets, on the
//! loaded programs of the fabric interface, in both families.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;

use anyhow::Result;
use calico_azure_ebpf::abi::{Reason, program, route};
use calico_azure_tests::harness::packet::Frame;
use calico_azure_tests::harness::{At, Harness, Returned, settings};
use calico_azure_userspace::policy::generate::{self, Shape, host_cases};
use calico_azure_userspace::policy::lookup::{host_verdict, route_of};
use calico_azure_userspace::policy::reference::{Oracle, Stage};
use calico_azure_userspace::policy::{
    Compiler, Desired, Direction, Event, NodeFacts, Probe, RuleRef, Traffic, wire,
};

/// Packets that must at least be compared.
const CASES: usize = 15_000;

/// Exists in every network namespace, and no generated pod is behind it.
const LOOPBACK: u32 = 1;

/// The tables with one host endpoint, on [`LOOPBACK`], and every source allowed.
fn only(desired: &Desired, ifindex: u32, own: &[IpAddr]) -> Desired {
    let mut desired = desired.clone();
    let host = desired.hosts.remove(&ifindex);
    desired.hosts = host.map(|host| (LOOPBACK, host)).into_iter().collect();
    desired.routes4 = BTreeMap::from([((0, 0), route::ALLOWED_SOURCE)]);
    desired.routes6 = BTreeMap::from([(([0; 4], 0), route::ALLOWED_SOURCE)]);
    for address in own {
        match address {
            IpAddr::V4(ip) => desired.routes4.insert((wire::addr4(*ip), 32), route::LOCAL_HOST),
            IpAddr::V6(ip) => desired.routes6.insert((wire::addr6(*ip), 128), route::LOCAL_HOST),
        };
    }
    desired
}

/// Where the packet is, and what it is there; `None` if source validation has the first word.
fn place(desired: &Desired, direction: Direction, traffic: Traffic, probe: &Probe) -> Option<(At, Traffic)> {
    let is_own = |ip| route_of(desired, ip) & route::LOCAL_HOST != 0;
    let multicast = |ip: IpAddr| ip.is_multicast() || ip.to_string().starts_with("255.");
    let at = |program, ingress_ifindex| At {
        program,
        ifindex: LOOPBACK,
        ingress_ifindex,
    };
    match (direction, traffic) {
        (Direction::Ingress, _) if is_own(probe.peer) => None,
        (Direction::Ingress, _) if is_own(probe.own) || multicast(probe.own) => {
            Some((at(program::FROM_FABRIC, LOOPBACK), Traffic::Local))
        }
        (Direction::Ingress, _) => Some((at(program::FROM_FABRIC, LOOPBACK), Traffic::Forwarded)),
        (Direction::Egress, Traffic::Local) => Some((at(program::TO_FABRIC, 0), Traffic::Local)),
        (Direction::Egress, _) if matches!(probe.protocol, 4 | 47) || multicast(probe.peer) => None,
        (Direction::Egress, _) => Some((at(program::TO_FABRIC, 10), Traffic::Forwarded)),
    }
}

#[test]
fn kernel_compiled_and_reference_verdicts_agree_at_host_endpoints() -> Result<()> {
    let mut harness = Harness::new("hostverdicts")?;
    let mut compiler = Compiler::default();
    let (mut cases, mut v6, mut denied, mut left_out) = (0_usize, 0_usize, 0_usize, 0_usize);
    let (mut early, mut late) = (0_usize, 0_usize);
    let mut stages: BTreeMap<String, usize> = BTreeMap::new();
    for seed in 0_u64.. {
        if cases >= CASES {
            break;
        }
        let mut store = generate::store(seed, &Shape::default());
        let node = if seed % 2 == 0 { "node-1" } else { "node-2" };
        store.apply(Event::Node(NodeFacts {
            node: node.into(),
            ..store.facts().clone()
        }));
        let output = compiler.compile(&store)?;
        let oracle = Oracle::new(&store);
        let all = host_cases(&store, seed, 12);
        let mut seen = HashSet::new();
        for (ifindex, host) in output.desired.hosts.iter().filter(|(ifindex, _)| **ifindex != 0) {
            if !seen.insert(host.name.clone()) {
                continue;
            }
            let endpoint = store.host_endpoint(&host.name).expect("it is in the tables");
            let desired = only(&output.desired, *ifindex, &endpoint.expected_ips);
            harness.dataplane.apply(&desired, settings())?;
            harness.dataplane.io().maps().forget_flows()?;
            let mut flows = HashSet::new();
            for case in all.iter().filter(|case| case.host == host.name) {
                let probe = &case.probe;
                let place = place(&desired, case.direction, case.traffic, probe);
                // IPv6 takes some protocol numbers for extension headers.
                let extension = probe.own.is_ipv6() && matches!(probe.protocol, 0 | 43 | 44 | 51 | 60);
                let dhcp = probe.protocol == 17 && matches!((probe.sport, probe.dport), (68, 67) | (67, 68));
                let Some((at, traffic)) = place.filter(|_| !extension && !dhcp) else {
                    left_out += 1;
                    continue;
                };
                let expected = oracle.host(endpoint, case.direction, traffic, probe, probe);
                let compiled = host_verdict(&output.desired, host, case.direction, traffic, probe, probe);
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
                let (src, dst) = match case.direction {
                    Direction::Ingress => (probe.peer, probe.own),
                    Direction::Egress => (probe.own, probe.peer),
                };
                let frame = Frame::new(src, dst, probe.protocol, probe.sport, probe.dport);
                let (returned, event) = harness.observe(at, &frame.bytes())?;
                let event = event.unwrap_or_else(|| panic!("seed {seed}: no event for {case:?}"));
                let allow = expected.verdict.allow;
                let context = || format!("seed {seed}: {case:?} at {at:?}\n{compiled:?}\n{expected:#?}");
                let reason = if allow {
                    Reason::PolicyAllow
                } else {
                    Reason::PolicyDeny
                };
                let passed = if allow { Returned::Next } else { Returned::Drop };
                assert_eq!(returned, passed, "{}", context());
                assert_eq!(Reason::try_from(event.reason), Ok(reason), "{}", context());
                let log = expected.verdict.log;
                assert_eq!((compiled.reason, compiled.log), (reason, log), "{}", context());
                assert_eq!(
                    (event.rule, event.log != 0),
                    (compiled.rule, log),
                    "{}",
                    context()
                );
                if case.direction == Direction::Ingress {
                    let is_untracked = expected.stage == Stage::Untracked && !allow;
                    if !harness.dataplane.io().run_untracked(&frame.bytes())? {
                        assert!(is_untracked, "XDP: {}", context());
                        early += 1;
                    } else if is_untracked {
                        // May answer what a failsafe port let through, which only the next program knows.
                        assert_eq!(traffic, Traffic::Local, "XDP: {}", context());
                        late += 1;
                    }
                }
                let named = match (expected.stage, event.rule) {
                    (Stage::Forward, 0) => Some(&RuleRef::Forwarded),
                    (_, rule) => output.rules.get(&rule),
                };
                assert_eq!(named, Some(&expected.verdict.rule), "{}", context());
                cases += 1;
                v6 += usize::from(probe.own.is_ipv6());
                denied += usize::from(!allow);
                *stages.entry(expected.stage.to_string()).or_default() += 1;
            }
        }
    }
    println!(
        "{cases} packets agree ({v6} IPv6, {denied} denied, by stage {stages:?}); {left_out} left out (source \
         validation, extension header numbers, DHCP)"
    );
    println!("{early} of them dropped by XDP, {late} left by it for the next program to drop");
    assert!(early > 200 && late < early, "{early}, {late}");
    assert!(v6 * 5 > cases, "{v6} of {cases} are IPv6");
    assert!(
        denied * 10 > cases && denied * 10 < cases * 9,
        "{denied} of {cases}"
    );
    assert!(
        stages.len() == 5 && stages.values().all(|count| *count > 30),
        "{stages:?}"
    );
    Ok(())
}
