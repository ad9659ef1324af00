//! How long changes take in a large cluster, from the event to the kernel's maps.

use std::time::{Duration, Instant};

use anyhow::Result;
use calico_azure_userspace::policy::{Change, Compiler, Event};

use super::Scope;
use super::report::{Cell, Report, Table, Target as Promise};
use super::stats::Samples;
use super::town::{self, Town};
use crate::harness::Harness;
use crate::harness::scenario::quiet;
use crate::process;

/// One update.
struct Sample {
    /// From the event until every packet obeys.
    in_force: Duration,
    /// From the event to the last map operation, without waiting for programs.
    work: Duration,
    /// With it.
    settled: Duration,
    operations: usize,
}

/// What one kind of change may take.
enum Target {
    None,
    /// At most so much work.
    Work(Duration),
    /// At most so much work, and a microsecond for each map operation.
    WorkAndOperations(Duration),
}

struct Row {
    name: &'static str,
    target: Target,
    samples: Vec<Sample>,
}

struct Bench {
    harness: Harness,
    compiler: Compiler,
}

const RESIDENT_LIMIT: u64 = 300 << 20;

/// Changes of each kind.
const CHANGES: usize = 400;

/// Measures every kind of change.
pub(super) fn run(scope: &Scope) -> Result<Report> {
    let repetitions = if scope.quick { 4 } else { CHANGES };
    let mut bench = Bench {
        harness: Harness::new("scale")?,
        compiler: Compiler::default(),
    };
    let mut rows = vec![cold(&mut bench)?];
    let resident = process::memory("self", "VmRSS")?;
    let town = Town;
    let mut row = |name, target, repetitions: usize, event: &mut dyn FnMut(usize) -> Vec<Event>| {
        // Once before, so that each repetition finds what the one before it left.
        bench.change(event(1))?;
        let samples = (0..repetitions)
            .map(|i| bench.change(event(i)))
            .collect::<Result<_>>()?;
        rows.push(Row {
            name,
            target,
            samples,
        });
        anyhow::Ok(())
    };
    let edit = || Target::WorkAndOperations(Duration::from_millis(20));
    let pod = || Target::Work(Duration::from_millis(1));
    row("one policy: other ports", edit(), repetitions, &mut |i| {
        town.edit_ports(i)
    })?;
    row("one policy: other peers", edit(), repetitions, &mut |i| {
        town.edit_peers(i)
    })?;
    row("one policy: other pods selected", edit(), repetitions, &mut |i| {
        town.edit_selector(i)
    })?;
    row(
        "a policy for everybody: other ports",
        edit(),
        repetitions,
        &mut |i| town.edit_global(i),
    )?;
    row("a remote pod comes or goes", pod(), repetitions, &mut |i| {
        town.remote_pod(i)
    })?;
    row("a local pod comes or goes", pod(), repetitions, &mut |i| {
        town.local_replica(i)
    })?;
    row("the first local pod of a team", edit(), repetitions, &mut |i| {
        town.local_pod(i)
    })?;
    row("a remote pod's label", pod(), repetitions, &mut |i| {
        town.relabel(i)
    })?;
    let few = repetitions.div_ceil(10);
    row("a namespace's label", Target::None, few, &mut |i| {
        town.namespace(i)
    })?;
    row("a network set of 10,000 CIDRs", Target::None, few, &mut |i| {
        town.network_set(i)
    })?;
    Ok(report(&rows, resident))
}

/// From nothing to everything, a few times.
fn cold(bench: &mut Bench) -> Result<Row> {
    let mut samples = Vec::new();
    for _ in 0..3 {
        let reserved = bench.harness.dataplane.reserved();
        bench.compiler = Compiler::new(reserved);
        bench.change(Vec::new())?;
        samples.push(bench.change(town::events())?);
    }
    Ok(Row {
        name: "cold start",
        target: Target::Work(Duration::from_secs(2)),
        samples,
    })
}

impl Bench {
    fn change(&mut self, events: Vec<Event>) -> Result<Sample> {
        let settings = quiet();
        let anew = self.compiler.desired().endpoints.is_empty();
        let begun = Instant::now();
        for event in events {
            self.compiler.apply(event);
        }
        let mut change = self.compiler.update()?;
        if anew {
            change = Change::everything();
        }
        let published = self
            .harness
            .dataplane
            .publish(self.compiler.desired(), &change, settings)?;
        let in_force = begun.elapsed();
        let applied = self.harness.dataplane.settle(published)?;
        let settled = begun.elapsed();
        self.compiler.applied();
        Ok(Sample {
            in_force,
            work: settled.saturating_sub(applied.waited),
            settled,
            operations: applied.operations,
        })
    }
}

impl Row {
    /// Milliseconds.
    fn times(&self, of: impl Fn(&Sample) -> Duration) -> Samples {
        let mut times = Samples::default();
        for sample in &self.samples {
            times.push(of(sample).as_secs_f64() * 1e3);
        }
        times
    }

    /// In milliseconds; what each operation may take is taken off.
    fn promise(&self) -> Option<Promise> {
        let (limit, times) = match self.target {
            Target::None => return None,
            Target::Work(limit) => (limit, self.times(|sample| sample.work)),
            Target::WorkAndOperations(limit) => {
                let allowed = |sample: &Sample| Duration::from_micros(sample.operations as u64);
                (
                    limit,
                    self.times(|sample| sample.work.saturating_sub(allowed(sample))),
                )
            }
        };
        let name = match self.target {
            Target::WorkAndOperations(_) => {
                format!("{}, p99 of the work less 1 µs per operation, ms", self.name)
            }
            _ => format!("{}, p99 of the work, ms", self.name),
        };
        Some(Promise::at_most(
            name,
            times.percentile(99),
            limit.as_secs_f64() * 1e3,
        ))
    }
}

fn report(rows: &[Row], resident: u64) -> Report {
    let mut table = Table::new(
        "Milliseconds from the event, p50 / p99",
        ["change", "in force", "work", "cleared up", "map operations"],
    );
    for row in rows {
        let pair = |of: &dyn Fn(&Sample) -> Duration| {
            let times = row.times(of);
            Cell::Text(format!(
                "{:.2} / {:.2}",
                times.percentile(50),
                times.percentile(99)
            ))
        };
        let operations = row.samples.iter().map(|sample| sample.operations).max();
        table.row([
            row.name.into(),
            pair(&|s| s.in_force),
            pair(&|s| s.work),
            pair(&|s| s.settled),
            (operations.unwrap_or(0) as f64).into(),
        ]);
    }
    let mut targets: Vec<Promise> = rows.iter().filter_map(Row::promise).collect();
    let mib = |bytes: u64| bytes as f64 / 1_048_576.0;
    targets.push(Promise::at_most(
        "resident after the cold start, MiB",
        mib(resident),
        mib(RESIDENT_LIMIT),
    ));
    let note = format!(
        "{} pods on {} nodes, {} policies, {} local pods. In force: every packet obeys. Work: to the last map \
         operation, without the wait for programs that were running at the flip.",
        town::PODS,
        town::NODES,
        town::POLICIES,
        town::LOCAL
    );
    Report {
        tables: vec![table],
        targets,
        notes: vec![note],
        plots: Vec::new(),
    }
}
