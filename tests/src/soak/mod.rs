//! `cargo xtask soak`: a cluster under load for a long time, while policies change, pods come and go, agents are killed
//! and tables are too small, with everything counted.
//!
//! Exit code 0: nothing was lost, leaked or judged wrongly; 1: something was; 2: the soak could not be set up.

mod changes;
mod load;
mod watch;
mod world;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;

use changes::Changes;
use load::Load;
use watch::Watch;
use world::World;

/// Runs a cluster under load and change, and counts what went wrong.
#[derive(Debug, Clone, clap::Parser)]
#[command(name = "soak", version)]
pub struct Args {
    /// How long.
    #[arg(long, default_value_t = 30, value_name = "N", conflicts_with = "seconds")]
    minutes: u32,
    /// How long, for tests.
    #[arg(long, value_name = "N", hide = true)]
    seconds: Option<u32>,
    /// New flows per second that policy allows; a tenth as many are denied.
    #[arg(long, default_value_t = 1000, value_name = "N")]
    flows: u32,
    /// Established flows that an agent's table holds: fewer than there are, so that entries must make room.
    #[arg(long, default_value_t = 16_384, value_name = "N")]
    conntrack: u32,
}

impl Args {
    /// For tests: seconds instead of minutes.
    #[must_use]
    pub const fn short(seconds: u32, flows: u32) -> Self {
        Self {
            minutes: 0,
            seconds: Some(seconds),
            flows,
            conntrack: 2048,
        }
    }

    fn time(&self) -> Duration {
        Duration::from_secs(u64::from(self.seconds.unwrap_or(self.minutes * 60)))
    }
}

/// Runs it.
#[must_use]
pub fn main(args: &Args) -> ExitCode {
    match run(args, &mut |line| println!("{line}")) {
        Ok(findings) if findings.is_empty() => {
            println!("nothing was lost, nothing leaked, no verdict was wrong");
            ExitCode::SUCCESS
        }
        Ok(findings) => {
            for finding in &findings {
                eprintln!("WRONG: {finding}");
            }
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Runs it and returns what was wrong.
///
/// # Errors
/// What kept it from running.
pub fn run(args: &Args, say: &mut dyn FnMut(&str)) -> Result<Vec<String>> {
    let mut world = World::start(args.conntrack)?;
    say(&format!(
        "two nodes, {} pods; {} flows/s allowed, {} denied; {} conntrack entries",
        world.cluster.pods.len(),
        args.flows,
        args.flows / 10,
        args.conntrack
    ));
    let before = world.counters()?;
    let mut findings = Vec::new();
    let load = Load::start(&world, args.flows)?;
    let mut watch = Watch::default();
    let mut changes = Changes::start(&world)?;
    let begun = Instant::now();
    // Processes and tables grow to their size first.
    let warm = (args.time() / 5).min(Duration::from_secs(180));
    let mut next = Duration::ZERO;
    while begun.elapsed() < args.time() {
        changes.step(&mut world, begun.elapsed(), &mut findings)?;
        if begun.elapsed() >= next {
            let now = load.counts();
            watch.look(&world, begun.elapsed() >= warm)?;
            findings.extend(load.dead_connections());
            say(&format!(
                "{:>5} s  flows {} late {} lost {} denied {} passed {}  connections {} failed {}  {}  {}",
                begun.elapsed().as_secs(),
                now.allowed,
                now.late,
                now.lost,
                now.denied,
                now.wrong,
                now.connections,
                now.failed,
                changes.told(),
                watch.told()
            ));
            next += (args.time() / 60).clamp(Duration::from_secs(5), Duration::from_secs(60));
        }
    }
    findings.extend(load.dead_connections());
    let changed = changes.finish(&mut world, &mut findings)?;
    let counts = load.finish();
    say(&format!(
        "in all: flows {} (answered late: {}), lost {}; denied {}, passed all the same {}; connections {}, failed {}; {}",
        counts.allowed,
        counts.late,
        counts.lost,
        counts.denied,
        counts.wrong,
        counts.connections,
        counts.failed,
        changes::Told(&changed)
    ));
    findings.extend(counts.findings());
    findings.extend(watch.findings());
    let denied = counts.denied + changed.denied..=counts.denied + changed.denied + changed.early;
    findings.extend(world.account(&before, denied, say)?);
    findings.extend(world.end()?);
    Ok(findings)
}
