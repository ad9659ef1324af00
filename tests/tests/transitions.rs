//! No transient widening: every single map operation of an update is simulated, and after each one every probe
//! packet gets the old or the new verdict. And an apply that fails anywhere changes nothing.

use std::collections::BTreeMap;

use anyhow::Result;
use calico_azure_ebpf::abi::{CONFIG_ALLOW_UNKNOWN, CONFIG_BRIDGED, Hook, Reason};
use calico_azure_ebpf::packet::SlicePacket;
use calico_azure_ebpf::verdict::{Outcome, fabric, workload};
use calico_azure_tests::harness::packet::Frame;
use calico_azure_tests::harness::settings;
use calico_azure_userspace::dataplane::host::HostTables;
use calico_azure_userspace::dataplane::plan::Settings;
use calico_azure_userspace::dataplane::{
    Applied, ApplyError, Dataplane, FakeIo, Image, Plan, plan, plan_change,
};
use calico_azure_userspace::policy::generate::{self, Rng, Shape, host_cases, probes};
use calico_azure_userspace::policy::lookup::route_of;
use calico_azure_userspace::policy::{Change, Compiler, Desired, Direction, Event, Store};

/// A packet at a pod's interface.
struct Probe {
    hook: Hook,
    ifindex: u32,
    bytes: Vec<u8>,
}

/// Packets at pods' interfaces. Whether an address is the host's own has no slots: of packets to one that becomes that
/// with the update, or is it no more, nothing is said.
fn packets(stores: &[&Store], tables: [&Desired; 2], seed: u64, limit: usize) -> Vec<Probe> {
    let mut cases: Vec<_> = stores.iter().flat_map(|store| probes(store, seed, 1)).collect();
    let stays = |address| route_of(tables[0], address) == route_of(tables[1], address);
    cases.retain(|case| stays(case.probe.own) && stays(case.probe.peer));
    Rng::new(seed).shuffle(&mut cases);
    cases.truncate(limit);
    cases
        .iter()
        .map(|case| {
            let probe = &case.probe;
            let (hook, src, dst) = match case.direction {
                Direction::Egress => (Hook::FromWorkload, probe.own, probe.peer),
                Direction::Ingress => (Hook::ToWorkload, probe.peer, probe.own),
            };
            let frame = Frame::new(src, dst, probe.protocol, probe.sport, probe.dport);
            Probe {
                hook,
                ifindex: case.ifindex,
                bytes: frame.bytes(),
            }
        })
        .collect()
}

/// Packets at the fabric interfaces, for host endpoints. Routes have no slots, so packets whose addresses change their
/// nature with the update are left out.
fn host_packets(stores: &[&Store], tables: [&Desired; 2], seed: u64, limit: usize) -> Vec<Probe> {
    let mut cases: Vec<_> = stores
        .iter()
        .flat_map(|store| host_cases(store, seed, 1))
        .collect();
    Rng::new(seed).shuffle(&mut cases);
    let stays = |address| route_of(tables[0], address) == route_of(tables[1], address);
    cases.retain(|case| stays(case.probe.own) && stays(case.probe.peer));
    cases.truncate(limit);
    (2..)
        .zip(&cases)
        .map(|(place, case)| {
            let probe = &case.probe;
            let (hook, src, dst) = match case.direction {
                Direction::Egress => (Hook::ToFabric, probe.own, probe.peer),
                Direction::Ingress => (Hook::FromFabric, probe.peer, probe.own),
            };
            let frame = Frame::new(src, dst, probe.protocol, probe.sport, probe.dport);
            Probe {
                hook,
                ifindex: 2 + place % 2,
                bytes: frame.bytes(),
            }
        })
        .collect()
}

/// Why a packet passes or not, by which rule, and whether it is logged. An endpoint on its way in or out is not ready, and unknown without an
/// entry: that is one.
type Verdict = (Reason, u32, bool);

/// Verdicts on packets that belong to no flow.
fn judge(tables: &mut HostTables, probes: &[Probe]) -> Vec<Verdict> {
    let judge = |probe: &Probe| {
        tables.forget_flows();
        tables.configured.set(0);
        let packet = SlicePacket {
            bytes: &probe.bytes,
            ifindex: probe.ifindex,
            // What leaves by eth0 is the host's own.
            ingress_ifindex: if probe.ifindex == 2 { 0 } else { 1 },
            mark: Default::default(),
        };
        let Outcome { reason, rule, log } = match probe.hook {
            Hook::FromWorkload => workload::from_workload(&packet, tables),
            Hook::FromFabric => fabric::from_fabric(&packet, tables),
            Hook::ToFabric => fabric::to_fabric(&packet, tables),
            _ => workload::to_workload(&packet, tables),
        };
        // At the fabric two programs have a say, one after the other, and tunnels' port is asked for.
        let programs = match probe.hook {
            Hook::FromFabric | Hook::ToFabric => 3,
            _ => 1,
        };
        assert!(
            tables.configured.get() <= programs,
            "{reason:?}: a packet is judged in one epoch"
        );
        let reason = match reason {
            Reason::NotReady => Reason::NoEndpoint,
            reason => reason,
        };
        (reason, rule, log)
    };
    probes.iter().map(judge).collect()
}

/// Some of another cluster's objects in place of, or beside, this one's; some gone.
fn change(store: &Store, seed: u64, rng: &mut Rng) -> Store {
    let mut changed = store.clone();
    let mut events = generate::events(seed, &Shape::default());
    rng.shuffle(&mut events);
    let amount = 1 + rng.below(12);
    for event in events.into_iter().take(amount) {
        let event = match event {
            Event::Upsert(resource) if rng.chance(25) => Event::Delete(resource.key()),
            event => event,
        };
        changed.apply(event);
    }
    changed
}

#[test]
fn each_operation_leaves_the_old_or_the_new_verdict() -> Result<()> {
    let mut checks = 0_usize;
    let mut differing = 0_usize;
    let mut differing_hosts = 0_usize;
    for seed in 0..30 {
        let settings = || Settings {
            flags: [0, CONFIG_ALLOW_UNKNOWN, CONFIG_BRIDGED][(seed % 3) as usize],
            ..settings()
        };
        let mut rng = Rng::new(seed);
        let mut compiler = Compiler::default();
        let mut store = generate::store(seed, &Shape::default());
        let mut tables = HostTables::default();
        let first = plan(&Image::default(), &compiler.compile(&store)?.desired, settings())?;
        run(&mut tables.image, &first);
        for round in 0..4 {
            let next = change(&store, seed * 100 + round, &mut rng);
            let old = compiler.desired().clone();
            let change = compiler.follow(&next)?;
            let desired = compiler.desired().clone();
            let mut probes = packets(&[&store, &next], [&old, &desired], seed, 60);
            probes.extend(host_packets(&[&store, &next], [&old, &desired], seed, 40));
            let whole = plan(&tables.image, &desired, settings())?;
            let plan = plan_change(&tables.image, &desired, &change, settings())?;
            assert!(
                sorted(&plan) == sorted(&whole),
                "seed {seed}, round {round}: the change does not name all there is to do"
            );
            let before = judge(&mut tables, &probes);
            let mut goal = HostTables::new(tables.image.clone());
            run(&mut goal.image, &plan);
            let after = judge(&mut goal, &probes);
            let changes = |(probe, _): &(&Probe, (&Verdict, &Verdict))| {
                matches!(probe.hook, Hook::FromFabric | Hook::ToFabric)
            };
            let changed = probes.iter().zip(before.iter().zip(&after));
            let (host, pod): (Vec<_>, Vec<_>) =
                changed.filter(|(_, (old, new))| old != new).partition(changes);
            differing += pod.len();
            differing_hosts += host.len();
            let context = |what: &str| format!("seed {seed}, round {round}, {what}");
            for op in &plan.prepare {
                tables.image.follow(op);
                assert_eq!(
                    judge(&mut tables, &probes),
                    before,
                    "{}",
                    context(&format!("prepare {op:?}"))
                );
                checks += probes.len();
            }
            for op in plan.flip.iter().chain(&plan.settle) {
                tables.image.follow(op);
                assert_eq!(
                    judge(&mut tables, &probes),
                    after,
                    "{}",
                    context(&format!("after the flip, {op:?}"))
                );
                checks += probes.len();
            }
            assert_eq!(tables.image, goal.image);
            check_contents(&tables.image, &desired);
            store = next;
        }
    }
    println!(
        "{checks} verdicts after single operations; {differing} verdicts of pods and {differing_hosts} of host \
         endpoints changed by their update"
    );
    assert!(
        checks > 100_000 && differing > 100 && differing_hosts > 100,
        "{checks} checks, {differing} and {differing_hosts} changes"
    );
    Ok(())
}

fn run(image: &mut Image, plan: &Plan) {
    for op in plan.prepare.iter().chain(&plan.flip).chain(&plan.settle) {
        image.follow(op);
    }
}

/// The order of the operations of one part does not matter.
fn sorted(plan: &Plan) -> Plan {
    let mut plan = plan.clone();
    plan.prepare.sort_unstable();
    plan.settle.sort_unstable();
    plan
}

fn apply(
    dataplane: &mut Dataplane<FakeIo>,
    desired: &Desired,
    change: &Change,
) -> Result<Applied, ApplyError> {
    let published = dataplane.publish(desired, change, settings())?;
    dataplane.settle(published)
}

/// After an update nothing of the old one is left.
fn check_contents(image: &Image, desired: &Desired) {
    assert_eq!(image.policy, desired.policy);
    assert_eq!(image.ports, desired.ports);
    let ids = |words: &BTreeMap<u32, u64>| words.keys().copied().collect::<Vec<_>>();
    assert_eq!(
        ids(&image.class4),
        desired.class4.keys().copied().collect::<Vec<_>>()
    );
    assert_eq!(image.cidr4.len(), desired.cidr4.len());
    assert_eq!(image.cidr6.len(), desired.cidr6.len());
    assert!(
        image
            .cidr4
            .values()
            .chain(image.cidr6.values())
            .all(|class| class.slots[0] == class.slots[1])
    );
    assert_eq!(
        image.hosts.keys().collect::<Vec<_>>(),
        desired.hosts.keys().collect::<Vec<_>>()
    );
    assert_eq!(
        image.endpoints.keys().collect::<Vec<_>>(),
        desired.endpoints.keys().collect::<Vec<_>>()
    );
    assert_eq!(
        image.owners4.keys().collect::<Vec<_>>(),
        desired.owners4.keys().collect::<Vec<_>>()
    );
    assert!(
        image
            .owners4
            .values()
            .chain(image.owners6.values())
            .all(|&slots| slots == 3)
    );
}

#[test]
fn nothing_to_do_is_nothing_done() -> Result<()> {
    let store = generate::store(1, &Shape::default());
    let mut compiler = Compiler::default();
    let mut image = Image::default();
    let first = plan(&image, &compiler.compile(&store)?.desired, settings())?;
    run(&mut image, &first);
    assert_eq!(
        plan(&image, &compiler.compile(&store)?.desired, settings())?,
        Plan::default()
    );
    Ok(())
}

#[test]
fn an_apply_that_fails_anywhere_widens_nothing_and_the_next_one_mends_it() -> Result<()> {
    let mut failures = 0;
    for seed in 0..3 {
        let mut rng = Rng::new(seed);
        let mut compiler = Compiler::default();
        let old = generate::store(seed, &Shape::default());
        let new = change(&old, seed + 500, &mut rng);
        let mut base = Dataplane::open(FakeIo::default())?;
        let first = compiler.compile(&old)?.desired;
        base.apply(&first, settings())?;
        let change = compiler.follow(&new)?;
        let desired = compiler.desired().clone();
        let held = compiler.desired();
        let probes = packets(&[&old, &new], [&first, held], seed, 40);
        let before = judge(&mut HostTables::new(base.image().clone()), &probes);
        let mut goal = Dataplane::open(base.io_ref().clone())?;
        let operations = apply(&mut goal, &desired, &change)?.operations;
        let after = judge(&mut HostTables::new(goal.image().clone()), &probes);
        for at in 1..=operations {
            let mut dataplane = Dataplane::open(base.io_ref().clone())?;
            dataplane.io().fail_in = Some(at);
            assert!(
                apply(&mut dataplane, &desired, &change).is_err(),
                "operation {at} was made to fail"
            );
            failures += 1;
            // What the kernel holds now, read as a new agent would after a crash at this very point.
            let crashed = Image::read(dataplane.io_ref())?;
            let now = judge(&mut HostTables::new(crashed.clone()), &probes);
            assert!(now == before || now == after, "seed {seed}, operation {at}");
            apply(&mut dataplane, &desired, &change)?;
            let mended = judge(&mut HostTables::new(dataplane.image().clone()), &probes);
            assert_eq!(mended, after, "seed {seed}, after a failure at operation {at}");
            check_contents(dataplane.image(), &desired);
            // A new agent does not know the old one's ids, and gets there all the same.
            let mut restarted = Dataplane::open(FakeIo {
                fail_in: None,
                ..dataplane.io_ref().clone()
            })?;
            let desired = Compiler::new(restarted.reserved()).compile(&new)?.desired;
            restarted.apply(&desired, settings())?;
            let outcomes = judge(&mut HostTables::new(restarted.image().clone()), &probes);
            // Rule ids are the new agent's own.
            let reasons =
                |verdicts: &[Verdict]| verdicts.iter().map(|(reason, _, _)| *reason).collect::<Vec<_>>();
            assert_eq!(
                reasons(&outcomes),
                reasons(&after),
                "seed {seed}, restart after operation {at}"
            );
            check_contents(restarted.image(), &desired);
        }
    }
    println!("{failures} applies made to fail");
    assert!(failures > 200, "{failures}");
    Ok(())
}
