//! A million generated cases: the reference's verdict is the one that the verdict engine, run on the host over the
//! compiled tables, gives for a real frame.

use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, Result, ensure};
use calico_azure_ebpf::abi::Reason;
use calico_azure_ebpf::packet::SlicePacket;
use calico_azure_ebpf::verdict::workload;
use calico_azure_tests::harness::packet::Frame;
use calico_azure_tests::harness::{expected, settings};
use calico_azure_userspace::dataplane::host::HostTables;
use calico_azure_userspace::dataplane::{Image, plan};
use calico_azure_userspace::policy::generate::{self, Case, Shape, probes};
use calico_azure_userspace::policy::reference::Oracle;
use calico_azure_userspace::policy::{Compiler, Direction, Output};

/// Cases that must at least be compared.
const CASES: usize = 1_000_000;

/// IPv6 treats these as extension headers, not as protocols.
fn is_extension(protocol: u8) -> bool {
    matches!(protocol, 0 | 43 | 44 | 51 | 60)
}

#[derive(Default)]
struct Tally {
    cases: AtomicUsize,
    v6: AtomicUsize,
    denied: AtomicUsize,
    /// Not let through to the pod's own host.
    to_host: AtomicUsize,
}

fn tables(output: &Output) -> Result<HostTables> {
    let mut image = Image::default();
    let plan = plan(&image, &output.desired, settings())?;
    for op in plan.prepare.iter().chain(&plan.flip).chain(&plan.settle) {
        image.follow(op);
    }
    Ok(HostTables::new(image))
}

fn frame(case: &Case) -> Frame {
    let probe = &case.probe;
    let (src, dst) = match case.direction {
        Direction::Egress => (probe.own, probe.peer),
        Direction::Ingress => (probe.peer, probe.own),
    };
    Frame::new(src, dst, probe.protocol, probe.sport, probe.dport)
}

/// All cases of one generated cluster.
fn compare(seed: u64, tally: &Tally) -> Result<()> {
    // Mostly small clusters, some in which many policies meet.
    let crowded = Shape {
        pods: 60,
        policies: 24,
        rules: 8,
        ..Shape::default()
    };
    let shape = if seed % 8 == 7 { crowded } else { Shape::default() };
    let store = generate::store(seed, &shape);
    let output = Compiler::default().compile(&store)?;
    let mut tables = tables(&output)?;
    let oracle = Oracle::new(&store);
    for case in probes(&store, seed, 8) {
        let probe = &case.probe;
        if probe.own.is_ipv6() && is_extension(probe.protocol) {
            continue;
        }
        let pod = store
            .pod(&case.namespace, &case.pod)
            .context("probes are aimed at pods of the store")?;
        let (allow, log, rule) = oracle.decide(pod, case.direction, probe);
        let bytes = frame(&case).bytes();
        let packet = SlicePacket {
            bytes: &bytes,
            ifindex: case.ifindex,
            ingress_ifindex: 1,
            mark: Default::default(),
        };
        let outcome = match case.direction {
            Direction::Egress => workload::from_workload(&packet, &tables),
            Direction::Ingress => workload::to_workload(&packet, &tables),
        };
        let expected = expected::at_pod(&oracle, &output.desired, pod, &case, (allow, log, rule));
        let reason = expected.reason;
        ensure!(
            (outcome.reason, outcome.log, output.rules.get(&outcome.rule))
                == (reason, expected.log, expected.rule.as_ref()),
            "seed {seed}: {case:?}\n{outcome:?}: {:?}\nreference: {:#?}",
            output.rules.get(&outcome.rule),
            oracle.verdict(pod, case.direction, probe)
        );
        tables.forget_flows();
        tally
            .to_host
            .fetch_add(usize::from(reason == Reason::EndpointToHost), Ordering::Relaxed);
        tally.cases.fetch_add(1, Ordering::Relaxed);
        tally
            .v6
            .fetch_add(usize::from(probe.own.is_ipv6()), Ordering::Relaxed);
        tally.denied.fetch_add(usize::from(!allow), Ordering::Relaxed);
    }
    Ok(())
}

#[test]
fn a_million_cases_on_the_host_engine() -> Result<()> {
    let tally = Tally::default();
    let next = AtomicUsize::new(1_000_000);
    let work = || -> Result<()> {
        while tally.cases.load(Ordering::Relaxed) < CASES {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            compare(u64::try_from(seed)?, &tally)?;
        }
        Ok(())
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers
            .into_iter()
            .try_for_each(|worker| worker.join().map_err(|_| anyhow::anyhow!("a worker panicked"))?)
    })?;
    let [cases, v6, denied, to_host] =
        [&tally.cases, &tally.v6, &tally.denied, &tally.to_host].map(|count| count.load(Ordering::Relaxed));
    println!("{cases} cases agree ({v6} IPv6, {denied} denied, {to_host} kept from their host)");
    assert!(
        to_host * 1000 > cases,
        "{to_host} of {cases} are kept from their host"
    );
    assert!(v6 * 4 > cases, "{v6} of {cases} are IPv6");
    assert!(
        denied * 10 > cases && denied * 10 < cases * 9,
        "{denied} of {cases} denied"
    );
    Ok(())
}
