//! How long changes take in a large cluster, from the event to the kernel's maps.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use calico_azure_ebpf::abi::{DEFAULT_MARK_MASK, DEFAULT_TIMEOUTS};
use calico_azure_userspace::dataplane::plan::Settings;
use calico_azure_userspace::policy::{Change, Compiler, Event};
use serde_json::{Value, json};

use super::town::{self, Town};
use crate::harness::Harness;

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

/// Measures, prints, and says whether every target was met; the figures as JSON.
pub(super) fn run(repetitions: usize) -> Result<(bool, Value)> {
    let mut bench = Bench {
        harness: Harness::new("scale")?,
        compiler: Compiler::default(),
    };
    let mut rows = vec![cold(&mut bench)?];
    let resident = resident()?;
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
        let settings = Settings {
            flags: 0,
            timeouts: DEFAULT_TIMEOUTS,
            mark_mask: DEFAULT_MARK_MASK,
        };
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
    /// Of all samples, ascending.
    fn sorted(&self, of: impl Fn(&Sample) -> Duration) -> Vec<Duration> {
        let mut all: Vec<Duration> = self.samples.iter().map(of).collect();
        all.sort_unstable();
        all
    }

    /// `None` without a target.
    fn met(&self) -> Option<bool> {
        let (limit, all) = match self.target {
            Target::None => return None,
            Target::Work(limit) => (limit, self.sorted(|sample| sample.work)),
            Target::WorkAndOperations(limit) => {
                let allowed = |sample: &Sample| Duration::from_micros(sample.operations as u64);
                (
                    limit,
                    self.sorted(|sample| sample.work.saturating_sub(allowed(sample))),
                )
            }
        };
        Some(percentile(&all, 99) <= limit)
    }

    fn target(&self) -> String {
        match self.target {
            Target::None => String::new(),
            Target::Work(limit) => format!("{limit:?}"),
            Target::WorkAndOperations(limit) => format!("{limit:?} + 1 µs/op"),
        }
    }
}

fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let place = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
    sorted.get(place).copied().unwrap_or_default()
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

fn report(rows: &[Row], resident: u64) -> (bool, Value) {
    println!(
        "{:<36} {:>17} {:>17} {:>17} {:>8}  TARGET (p99 OF WORK)",
        "MILLISECONDS, p50 / p99", "IN FORCE", "WORK", "CLEARED UP", "MAP OPS"
    );
    let mut fine = true;
    let mut figures = Vec::new();
    for row in rows {
        let pair = |of: &dyn Fn(&Sample) -> Duration| {
            let all = row.sorted(of);
            [50, 99].map(|percent| millis(percentile(&all, percent)))
        };
        let [in_force, work, settled] = [pair(&|s| s.in_force), pair(&|s| s.work), pair(&|s| s.settled)];
        let operations = row
            .samples
            .iter()
            .map(|sample| sample.operations)
            .max()
            .unwrap_or(0);
        let met = row.met();
        fine &= met != Some(false);
        let verdict = met.map_or("", |met| if met { "ok" } else { "MISSED" });
        let text = |[p50, p99]: [f64; 2]| format!("{p50:.2} / {p99:.2}");
        println!(
            "{:<36} {:>17} {:>17} {:>17} {operations:>8}  {} {verdict}",
            row.name,
            text(in_force),
            text(work),
            text(settled),
            row.target(),
        );
        figures.push(json!({
            "name": row.name, "repetitions": row.samples.len(), "operations": operations, "met": met,
            "in_force_ms": in_force, "work_ms": work, "cleared_up_ms": settled,
        }));
    }
    let met = resident <= RESIDENT_LIMIT;
    let verdict = if met { "ok" } else { "MISSED" };
    println!(
        "resident after the cold start: {} MiB (at most {}): {verdict}",
        resident >> 20,
        RESIDENT_LIMIT >> 20
    );
    println!(
        "{} pods on {} nodes, {} policies, {} local pods. IN FORCE: every packet obeys. WORK: to the last map \
         operation, without the wait for programs that were running at the flip",
        town::PODS,
        town::NODES,
        town::POLICIES,
        town::LOCAL
    );
    let all = json!({"figures": figures, "resident_bytes": resident});
    (fine && met, all)
}

/// Of this process.
fn resident() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line
        .and_then(|line| line.trim().strip_suffix(" kB"))
        .context("no VmRSS")?;
    Ok(kib.trim().parse::<u64>()? << 10)
}
