//! Policies: a small cluster and a few edits of it. After each edit the tables that follow events decide as the
//! reference does, and so does the verdict engine over what was planned from them.

use calico_azure_ebpf::abi::Reason;
use calico_azure_ebpf::packet::SlicePacket;
use calico_azure_ebpf::verdict::workload;
use calico_azure_userspace::dataplane::host::HostTables;
use calico_azure_userspace::dataplane::{Image, plan};
use calico_azure_userspace::policy::generate::{Case, Features, Rng, Shape, events_drawn, probes};
use calico_azure_userspace::policy::reference::Oracle;
use calico_azure_userspace::policy::{Compiler, Direction, Event, lookup};

use crate::harness::expected::at_pod;
use crate::harness::packet::Frame;
use crate::harness::settings;

const SHAPE: Shape = Shape {
    namespaces: 2,
    pods: 6,
    network_sets: 2,
    policies: 4,
    rules: 3,
    features: Features::ALL,
};

/// Edits of one input.
const EDITS: usize = 6;

/// An input is a seed, a number of edits with two bytes each, and what chooses the cluster.
pub(super) fn check(data: &[u8]) {
    let Some((&[seed, count], rest)) = data.split_first_chunk::<2>() else {
        return;
    };
    let (edits, script) = rest.split_at((usize::from(count) % EDITS * 2).min(rest.len()));
    let seed = u64::from(seed);
    let events = events_drawn(&mut Rng::scripted(seed, script), &SHAPE);
    let others = events_drawn(&mut Rng::new(seed), &SHAPE);
    let mut node = Node::default();
    for event in &events {
        node.compiler.apply(event.clone());
    }
    node.agrees(seed);
    for edit in edits.chunks_exact(2) {
        for event in edited(edit, &events, &others) {
            node.compiler.apply(event);
        }
        node.agrees(seed);
    }
    node.is_as_from_scratch();
}

/// One or two changes: something goes, comes back, or becomes what it is in another cluster.
fn edited(edit: &[u8], events: &[Event], others: &[Event]) -> Vec<Event> {
    let &[what, which] = edit else { return Vec::new() };
    let of = |events: &[Event], which: usize| events.get(which % events.len().max(1)).cloned();
    let which = usize::from(which);
    let gone = |event| match event {
        Event::Upsert(resource) => Event::Delete(resource.key()),
        Event::Interfaces(_) => Event::Interfaces(Default::default()),
        event => event,
    };
    let changes = match what % 5 {
        0 => [of(events, which).map(gone), None],
        1 => [of(events, which), None],
        2 => [of(others, which), None],
        3 => [of(others, which).map(gone), None],
        _ => [
            of(events, which).map(gone),
            of(others, which.wrapping_add(usize::from(what / 5))),
        ],
    };
    changes.into_iter().flatten().collect()
}

#[derive(Default)]
struct Node {
    compiler: Compiler,
    image: Image,
}

impl Node {
    fn agrees(&mut self, seed: u64) {
        if let Err(error) = self.compiler.update() {
            panic!("a small cluster needs few ids: {error}");
        }
        let desired = self.compiler.desired();
        let plan = plan(&self.image, desired, settings()).unwrap_or_else(|error| panic!("{error}"));
        for op in plan.prepare.iter().chain(&plan.flip).chain(&plan.settle) {
            self.image.follow(op);
        }
        let mut tables = HostTables::new(self.image.clone());
        let store = self.compiler.store();
        let oracle = Oracle::new(store);
        for case in probes(store, seed, 2) {
            let Some(pod) = store.pod(&case.namespace, &case.pod) else {
                panic!("{case:?} is aimed at no pod");
            };
            let (allow, log, rule) = oracle.decide(pod, case.direction, &case.probe);
            let expected = if allow {
                Reason::PolicyAllow
            } else {
                Reason::PolicyDeny
            };
            let compiled = lookup::verdict(desired, case.ifindex, case.direction, &case.probe);
            let named = self.compiler.rules().get(&compiled.rule);
            assert_eq!(
                (compiled.reason, compiled.log, named),
                (expected, log, Some(&rule)),
                "{case:?}\nreference: {:#?}",
                oracle.verdict(pod, case.direction, &case.probe)
            );
            let Some(outcome) = engine(&tables, &case) else {
                continue;
            };
            let expected = at_pod(&oracle, desired, pod, &case, (allow, log, rule));
            let rules = self.compiler.rules();
            assert_eq!(
                (outcome.reason, outcome.log, rules.get(&outcome.rule)),
                (expected.reason, expected.log, expected.rule.as_ref()),
                "{case:?} by the engine"
            );
            tables.forget_flows();
        }
        self.compiler.applied();
    }

    /// However it came about, the state is the one that a new compiler finds.
    fn is_as_from_scratch(&self) {
        let store = self.compiler.store();
        let anew = Compiler::default()
            .compile(store)
            .unwrap_or_else(|error| panic!("a small cluster needs few ids: {error}"));
        let output = self.compiler.output();
        let sizes = |desired: &calico_azure_userspace::policy::Desired| {
            [
                desired.endpoints.len(),
                desired.class4.len() + desired.class6.len(),
                desired.cidr4.len() + desired.cidr6.len(),
                desired.policy.len(),
                desired.ports.len(),
            ]
        };
        assert_eq!(sizes(&output.desired), sizes(&anew.desired));
        assert_eq!(output.problems, anew.problems);
        assert_eq!(output.rules.len(), anew.rules.len());
        assert_eq!(output.sets.len(), anew.sets.len());
    }
}

/// Of a packet that can be made: IPv6 takes some protocol numbers for extension headers.
fn engine(tables: &HostTables, case: &Case) -> Option<calico_azure_ebpf::verdict::Outcome> {
    let probe = &case.probe;
    if probe.own.is_ipv6() && matches!(probe.protocol, 0 | 43 | 44 | 51 | 60) {
        return None;
    }
    let (src, dst) = match case.direction {
        Direction::Egress => (probe.own, probe.peer),
        Direction::Ingress => (probe.peer, probe.own),
    };
    let bytes = Frame::new(src, dst, probe.protocol, probe.sport, probe.dport).bytes();
    let packet = SlicePacket {
        bytes: &bytes,
        ifindex: case.ifindex,
        ingress_ifindex: 1,
        mark: Default::default(),
    };
    Some(match case.direction {
        Direction::Egress => workload::from_workload(&packet, tables),
        Direction::Ingress => workload::to_workload(&packet, tables),
    })
}
