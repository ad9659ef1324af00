//! Kernel verdict = compiled verdict = reference verdict at host endpoints, over generated clusters and packets, on the
//! loaded programs of the fabric interface, in both families. Some packets are for a service and translated to what the case is
//! about; their verdict is that of two programs.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;

use anyhow::Result;
use calico_azure_ebpf::abi::{
    DEFAULT_MARK_MASK, Event as Record, Hook, MARK_HOST, Reason, ServiceKey4, ServiceKey6, program, route,
};
use calico_azure_tests::harness::packet::Frame;
use calico_azure_tests::harness::{At, Harness, Returned, pin, settings};
use calico_azure_userspace::dataplane::plan::Settings;
use calico_azure_userspace::model::HostEndpoint;
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
/// Exists in the harness's.
const OTHER: u32 = 10;
const MARK: u32 = MARK_HOST << DEFAULT_MARK_MASK.trailing_zeros();

/// Where services are, at the host's own addresses and at a load balancer's. Some are failsafe ports.
const PORTS: [u16; 5] = [22, 443, 6443, 8080, 30_080];
const PROTOCOLS: [u8; 3] = [6, 17, 132];

fn lb(v6: bool) -> IpAddr {
    let text = if v6 { "2001:db8:1b::7" } else { "198.51.100.7" };
    text.parse().unwrap_or_else(|_| unreachable!("an address"))
}

fn is_service(probe: &Probe, own: &[IpAddr]) -> bool {
    let here = own.contains(&probe.own) || probe.own == lb(probe.own.is_ipv6());
    here && PORTS.contains(&probe.dport) && PROTOCOLS.contains(&probe.protocol)
}

/// What a packet was before it became `probe`: most of those that can be were for a service.
fn original(number: usize, direction: Direction, probe: &Probe, own: &[IpAddr]) -> Probe {
    let mut original = *probe;
    if direction == Direction::Ingress && PROTOCOLS.contains(&probe.protocol) && !number.is_multiple_of(3) {
        let v6 = probe.own.is_ipv6();
        let node = own.iter().copied().find(|ip| ip.is_ipv6() == v6);
        let node = node.filter(|_| number.is_multiple_of(2));
        original.own = node.unwrap_or_else(|| lb(v6));
        original.dport = PORTS[number / 6 % PORTS.len()];
    }
    original
}

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
    (desired.services4, desired.services6) = Default::default();
    let places = own.iter().copied().chain([false, true].map(lb));
    for (address, port) in places.flat_map(|address| PORTS.map(|port| (address, port))) {
        for protocol in PROTOCOLS.map(u16::from) {
            match address {
                IpAddr::V4(ip) => {
                    let addr = wire::addr4(ip);
                    desired.services4.insert(ServiceKey4 { addr, port, protocol }, 1);
                }
                IpAddr::V6(ip) => {
                    let addr = wire::addr6(ip);
                    desired.services6.insert(ServiceKey6 { addr, port, protocol }, 1);
                }
            }
        }
    }
    desired
}

/// What the kernel said of a packet.
struct Said {
    allow: bool,
    reason: Reason,
    rule: u32,
    log: bool,
    /// By two programs.
    deferred: bool,
}

impl Said {
    fn new(event: &Record, deferred: bool, log: bool) -> Option<Self> {
        let reason = Reason::try_from(event.reason).ok()?;
        Some(Self {
            allow: reason.passes(),
            reason,
            rule: event.rule,
            log: log || event.log != 0,
            deferred,
        })
    }
}

/// Runs the program at `at` on the packet as it comes in or goes out; on one that this marks, also the program where it leaves after
/// translation. `None` if nothing was recorded.
fn run(
    harness: &mut Harness,
    at: At,
    (original, packet): (&Frame, &Frame),
    traffic: Traffic,
) -> Result<Option<Said>> {
    let (returned, mark, events) = harness.observe_marked(at, &original.bytes(), 0)?;
    if mark == 0 {
        let said = events.first().and_then(|event| Said::new(event, false, false));
        assert!(
            said.as_ref()
                .is_none_or(|said| said.allow == (returned == Returned::Next))
        );
        return Ok(said);
    }
    assert_eq!((mark, returned), (MARK, Returned::Next));
    let logged = events.iter().any(|event| event.log != 0);
    let local = traffic == Traffic::Local;
    let leaves = At {
        program: if local {
            program::TO_HOST
        } else {
            program::TO_WORKLOAD
        },
        ifindex: if local { LOOPBACK } else { OTHER },
        ingress_ifindex: LOOPBACK,
    };
    let (returned, mark, events) = harness.observe_marked(leaves, &packet.bytes(), mark)?;
    let mut events = events.iter().filter(|event| event.hook == Hook::Service as u8);
    let said = events.next().and_then(|event| Said::new(event, true, logged));
    if let Some(said) = &said {
        // At a pod's interface its own program goes on, and says what it likes.
        let passes = !local && said.allow || (returned == Returned::Next);
        assert_eq!((mark == 0, passes), (said.allow, said.allow));
    }
    Ok(said)
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
        (Direction::Egress, _) => Some((at(program::TO_FABRIC, OTHER), Traffic::Forwarded)),
    }
}

/// What XDP drops of the same from other source ports: those that failsafe ports and rules tell apart, and those that they do not. What it has
/// denied before it remembers, and so each is run twice.
fn remembered(
    harness: &mut Harness,
    oracle: &Oracle<'_>,
    endpoint: &HostEndpoint,
    traffic: Traffic,
    original: &Probe,
) -> Result<usize> {
    let mut dropped = 0;
    for sport in [original.sport, 0, 53, 67, 6443, 6667, 6668, 33_000, 65_535] {
        let probe = Probe { sport, ..*original };
        let frame = Frame::new(probe.peer, probe.own, probe.protocol, sport, probe.dport);
        let passes = [false, true].map(|_| harness.dataplane.io().run_untracked(&frame.bytes()));
        let [first, second] = passes;
        let (first, second) = (first?, second?);
        assert_eq!(first, second, "{probe:?}");
        if !first {
            let expected = oracle.host(endpoint, Direction::Ingress, traffic, &probe, &probe);
            assert!(
                expected.stage == Stage::Untracked && !expected.verdict.allow,
                "{probe:?}: {expected:#?}"
            );
            dropped += 1;
        }
    }
    Ok(dropped)
}

#[test]
fn kernel_compiled_and_reference_verdicts_agree_at_host_endpoints() -> Result<()> {
    let mut harness = Harness::new("hostverdicts")?;
    // Each processor remembers for itself.
    pin(0)?;
    let mut compiler = Compiler::default();
    let (mut cases, mut v6, mut denied, mut left_out) = (0_usize, 0_usize, 0_usize, 0_usize);
    let (mut early, mut late, mut again) = (0_usize, 0_usize, 0_usize);
    let mut translated: BTreeMap<String, usize> = BTreeMap::new();
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
            let marking = Settings {
                mark_mask: DEFAULT_MARK_MASK,
                ..settings()
            };
            harness.dataplane.apply(&desired, marking)?;
            harness.dataplane.io().maps().forget_flows()?;
            let (mut flows, mut arrived) = (HashSet::new(), Vec::new());
            for (number, case) in all.iter().filter(|case| case.host == host.name).enumerate() {
                let probe = &case.probe;
                let place = place(&desired, case.direction, case.traffic, probe);
                // IPv6 takes some protocol numbers for extension headers.
                let extension = probe.own.is_ipv6() && matches!(probe.protocol, 0 | 43 | 44 | 51 | 60);
                let dhcp = probe.protocol == 17 && matches!((probe.sport, probe.dport), (68, 67) | (67, 68));
                let Some((at, traffic)) = place.filter(|_| !extension && !dhcp) else {
                    left_out += 1;
                    continue;
                };
                let own = &endpoint.expected_ips;
                let original = original(number, case.direction, probe, own);
                let expected = oracle.host(endpoint, case.direction, traffic, &original, probe);
                let compiled = host_verdict(&desired, host, case.direction, traffic, &original, probe);
                let ports = match probe.protocol {
                    6 | 17 | 132 | 136 => (probe.sport.min(probe.dport), probe.sport.max(probe.dport)),
                    _ => (0, 0),
                };
                let ends = (probe.own.min(probe.peer), probe.own.max(probe.peer));
                let is_new = flows.insert((ends, probe.protocol, ports));
                if !is_new || is_service(&original, own) {
                    harness.dataplane.io().maps().forget_flows()?;
                    flows.clear();
                    flows.insert((ends, probe.protocol, ports));
                }
                let frame = |probe: &Probe| {
                    let (src, dst) = match case.direction {
                        Direction::Ingress => (probe.peer, probe.own),
                        Direction::Egress => (probe.own, probe.peer),
                    };
                    Frame::new(src, dst, probe.protocol, probe.sport, probe.dport)
                };
                let frames = [&original, probe].map(frame);
                let [frame, packet] = &frames;
                let said = run(&mut harness, at, (frame, packet), traffic)?;
                let said = said.unwrap_or_else(|| panic!("seed {seed}: no event for {case:?}"));
                let allow = expected.verdict.allow;
                let context =
                    || format!("seed {seed}: {original:?}, {case:?} at {at:?}\n{compiled:?}\n{expected:#?}");
                let reason = if allow {
                    Reason::PolicyAllow
                } else {
                    Reason::PolicyDeny
                };
                assert_eq!(said.reason, reason, "{}", context());
                let undecided = is_service(&original, own) && case.direction == Direction::Ingress;
                let later = matches!(expected.stage, Stage::Failsafe | Stage::Forward | Stage::Normal);
                assert_eq!(said.deferred, undecided && later, "{}", context());
                let log = expected.verdict.log;
                assert_eq!((compiled.reason, compiled.log), (reason, log), "{}", context());
                assert_eq!((said.rule, said.log), (compiled.rule, log), "{}", context());
                if case.direction == Direction::Ingress {
                    let is_untracked = expected.stage == Stage::Untracked && !allow;
                    arrived.push((traffic, original));
                    if !harness.dataplane.io().run_untracked(&frame.bytes())? {
                        assert!(is_untracked, "XDP: {}", context());
                        early += 1;
                    } else if is_untracked {
                        // May answer what a failsafe port let through, which only the next program knows.
                        assert!(
                            traffic == Traffic::Local || original != *probe,
                            "XDP: {}",
                            context()
                        );
                        late += 1;
                    }
                }
                let named = match (expected.stage, said.rule) {
                    (Stage::Forward, 0) => Some(&RuleRef::Forwarded),
                    (_, rule) => output.rules.get(&rule),
                };
                assert_eq!(named, Some(&expected.verdict.rule), "{}", context());
                cases += 1;
                v6 += usize::from(probe.own.is_ipv6());
                denied += usize::from(!allow);
                *stages.entry(expected.stage.to_string()).or_default() += 1;
                if original != *probe {
                    *translated.entry(expected.stage.to_string()).or_default() += 1;
                }
            }
            let sparing = Settings {
                records: 1,
                ..marking
            };
            harness.dataplane.apply(&desired, sparing)?;
            for (traffic, original) in arrived {
                again += remembered(&mut harness, &oracle, endpoint, traffic, &original)?;
            }
        }
    }
    println!(
        "{cases} packets agree ({v6} IPv6, {denied} denied, by stage {stages:?}); {left_out} left out (source \
         validation, extension header numbers, DHCP)"
    );
    let counters = harness.dataplane.io_ref().maps().counters()?;
    let recalled: u64 = counters.early()?.iter().map(|count| count.packets).sum();
    assert!(recalled > 500, "{recalled} of {again} were remembered");
    println!("translated, by stage: {translated:?}");
    println!(
        "{early} of them dropped by XDP ({again} once more, by other source ports), {late} left by it for the next program to drop"
    );
    assert!(
        early > 150 && again > 500 && late < early,
        "{early}, {again}, {late}"
    );
    assert!(v6 * 5 > cases, "{v6} of {cases} are IPv6");
    assert!(
        denied * 10 > cases && denied * 10 < cases * 9,
        "{denied} of {cases}"
    );
    for stages in [&stages, &translated] {
        assert!(
            stages.len() == 5 && stages.values().all(|count| *count > 30),
            "{stages:?}"
        );
    }
    Ok(())
}
