//! `cargo xtask bench`: what the product costs, beside what it is compared with, measured in one run on one machine.

mod connectivity;
mod drop;
mod edit;
mod flood;
mod follow;
mod output;
mod plot;
mod report;
mod rules;
mod scale;
mod stats;
mod town;
mod verdict;
pub mod verifier;
mod wire;
mod yardstick;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result, anyhow};
use clap::ValueEnum as _;

use self::report::Report;

/// Options of `bench`.
#[derive(Debug, clap::Parser)]
#[command(name = "bench")]
pub struct Args {
    /// What to measure; everything without it.
    #[arg(value_enum)]
    parts: Vec<Part>,
    /// Runs of each measurement; medians and their spread are printed.
    #[arg(long, default_value_t = 9)]
    runs: usize,
    /// The cheapest form of everything, to see that it works: the figures mean little.
    #[arg(long)]
    quick: bool,
    /// Tables as Markdown, for the documentation.
    #[arg(long)]
    markdown: bool,
    /// Measure nothing: print what the last run found.
    #[arg(long)]
    last: bool,
    /// Numbers of rules on an endpoint.
    #[arg(long, value_delimiter = ',', default_values_t = [10, 100, 1_000, 10_000])]
    rules: Vec<usize>,
    /// Where the figures go, as JSON; plots go to the directory `bench` beside it.
    #[arg(long, default_value = "target/bench.json")]
    json: PathBuf,
    /// Only the verifier's figures for each program.
    #[arg(long, exclusive = true)]
    verifier: bool,
}

/// A named part of the benchmarks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Part {
    /// A packet's verdict, by `BPF_PROG_TEST_RUN`.
    Verdict,
    /// Traffic between pods, against iptables with IP sets and nftables.
    Wire,
    /// Packets per second that can be dropped on a veth.
    Drop,
    /// Established connections while a pod floods with SYNs.
    Flood,
    /// From a policy's changed file to the first packet that obeys.
    Edit,
    /// Who may talk to whom in a cluster of a thousand pods.
    Connectivity,
    /// A change in a large cluster, from the event to the kernel's maps.
    Scale,
    /// What following a large cluster's API costs an agent, and the API server.
    Follow,
}

/// How much to measure.
#[derive(Clone, Debug)]
struct Scope {
    runs: usize,
    quick: bool,
    rules: Vec<usize>,
}

impl Part {
    fn name(self) -> String {
        self.to_possible_value()
            .map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// On a thread of its own, because a part may move its thread into a network namespace for good.
    fn measure(self, scope: &Scope) -> Result<Report> {
        std::thread::scope(|threads| {
            let part = threads.spawn(|| match self {
                Self::Verdict => verdict::run(scope),
                Self::Wire => wire::run(scope),
                Self::Drop => drop::run(scope),
                Self::Flood => flood::run(scope),
                Self::Edit => edit::run(scope),
                Self::Connectivity => connectivity::run(scope),
                Self::Scale => scale::run(scope),
                Self::Follow => follow::run(scope),
            });
            part.join().map_err(|_| anyhow!("the benchmark panicked"))?
        })
        .with_context(|| self.name())
    }
}

/// Runs the benchmarks. 1 if a target is missed, 2 if they cannot run.
#[must_use]
pub fn run(args: &Args) -> ExitCode {
    let result = if args.verifier {
        verifier::run()
    } else {
        parts(args)
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// The cheapest form of one part, saved as `bench` would: what the part says of itself, as Markdown.
///
/// # Errors
/// If it cannot run, or measures nothing.
pub fn quick(part: Part, json: &std::path::Path) -> Result<String> {
    let scope = Scope {
        runs: 1,
        quick: true,
        rules: vec![10, 50],
    };
    let report = part.measure(&scope)?;
    output::save(json, &part.name(), &output::caption(), &report)?;
    let (_, saved) = output::saved(json, &part.name()).context("nothing was saved")?;
    Ok(saved.markdown())
}

/// Whether all targets were met; what `--quick` finds is no measure of that.
fn parts(args: &Args) -> Result<bool> {
    let parts = if args.parts.is_empty() {
        Part::value_variants()
    } else {
        &args.parts
    };
    let scope = Scope {
        runs: if args.quick { 1 } else { args.runs },
        quick: args.quick,
        rules: if args.quick {
            vec![10, 50]
        } else {
            args.rules.clone()
        },
    };
    let mut met = true;
    for part in parts {
        let name = part.name();
        let (caption, report) = if args.last {
            let saved = output::saved(&args.json, &name);
            saved.with_context(|| format!("{}: no figures of {name}", args.json.display()))?
        } else {
            let caption = output::caption();
            (caption, part.measure(&scope)?)
        };
        if args.markdown {
            println!("### {name}\n\n{}\n{caption}.\n", report.markdown());
        } else {
            println!("\n== {name}: {caption}{}", report.terminal());
        }
        if !args.last {
            output::save(&args.json, &name, &caption, &report)?;
        }
        met &= report.met() || args.quick;
    }
    Ok(met)
}
