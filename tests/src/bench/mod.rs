//! Measures the loaded programs through `BPF_PROG_TEST_RUN`, in one run, and prints ratios with the raw figures.

mod clusters;
mod measure;
mod scale;
mod town;

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use calico_azure_ebpf::abi::{DEFAULT_MARK_MASK, DEFAULT_TIMEOUTS, program};
use calico_azure_userspace::dataplane::kernel::{Kernel, PROGRAMS, Sizes};
use calico_azure_userspace::dataplane::plan::Settings;
use calico_azure_userspace::policy::Compiler;
use serde_json::{Map, Value, json};

use self::clusters::Shape;
use self::measure::{Figure, Samples};
use crate::harness::packet::{ACK, Frame, SYN};
use crate::harness::scenario::{B, address, store};
use crate::harness::{At, Harness, object};

/// Options of `bench`.
#[derive(Debug, clap::Parser)]
pub struct Args {
    /// Only the verifier's figures for each program.
    #[arg(long)]
    verifier: bool,
    /// Only how long changes take in a large cluster.
    #[arg(long)]
    scale: bool,
    /// Changes of each kind in the large cluster.
    #[arg(long, default_value_t = 400)]
    changes: usize,
    /// Runs of each measurement; the median and the spread are printed.
    #[arg(long, default_value_t = 9)]
    runs: usize,
    /// Packets in each run.
    #[arg(long, default_value_t = 100_000)]
    packets: u32,
    /// Rules on the endpoint.
    #[arg(long, value_delimiter = ',', default_values_t = [10, 1_000, 10_000])]
    rules: Vec<usize>,
    /// Where the figures go, as JSON.
    #[arg(long, default_value = "target/bench.json")]
    json: std::path::PathBuf,
}

/// The verifier may look at this many instructions of a program at most.
const VERIFIED_LIMIT: u32 = 100_000;
/// What 10,000 rules may cost more than 10.
const GROWTH_LIMIT: f64 = 1.2;

/// Runs the benchmarks. 1 if a target is missed, 2 if they cannot run.
#[must_use]
pub fn run(args: &Args) -> ExitCode {
    let result = match args {
        Args { verifier: true, .. } => verifier(),
        Args { scale: true, .. } => scale(args),
        _ => verdicts(args).and_then(|fine| Ok(fine & scale(args)?)),
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

/// Instructions that the verifier looked at, for each program.
fn verifier() -> Result<bool> {
    let mut kernel = Kernel::load(
        &object()?,
        None,
        Sizes {
            conntrack: 1024,
            half_open: 1024,
            tables: 1024,
        },
    )?;
    let mut fine = true;
    println!(
        "{:<16} {:>22} {:>14}",
        "PROGRAM", "VERIFIED INSTRUCTIONS", "JITED BYTES"
    );
    for name in PROGRAMS {
        let (instructions, bytes) = kernel.verified(name)?;
        fine &= instructions <= VERIFIED_LIMIT;
        println!("{name:<16} {instructions:>22} {bytes:>14}");
    }
    println!(
        "limit {VERIFIED_LIMIT}; the stack limit of 512 bytes is the verifier's own. {}",
        machine()
    );
    Ok(fine)
}

fn scale(args: &Args) -> Result<bool> {
    let (fine, figures) = scale::run(args.changes)?;
    write_json(&args.json, [("scale", figures)])?;
    Ok(fine)
}

fn verdicts(args: &Args) -> Result<bool> {
    let mut harness = Harness::new("bench")?;
    let mut rows: Vec<(String, Figure)> = Vec::new();
    let settings = Settings {
        flags: 0,
        timeouts: DEFAULT_TIMEOUTS,
        mark_mask: DEFAULT_MARK_MASK,
    };
    let timed = |harness: &mut Harness, at: At, frame: &Frame| -> Result<Figure> {
        let bytes = frame.bytes();
        let run = || Ok(harness.run_timed(at, &bytes, args.packets)?.1);
        measure::median(args.runs, run)
    };

    let mut compiler = Compiler::default();
    harness
        .dataplane
        .apply(&compiler.compile(&store([]))?.desired, settings)?;
    let syn = Frame::new(address("remote", false), address("b", false), 6, 1000, 80);
    let mut arp = syn.bytes();
    arp[12..14].copy_from_slice(&[8, 6]);
    let floor = measure::median(args.runs, || {
        Ok(harness.run_timed(At::to_workload(B), &arp, args.packets)?.1)
    })?;
    rows.push(("no verdict (ARP)".into(), floor));
    for v6 in [false, true] {
        let syn = Frame::new(address("remote", v6), address("b", v6), 6, 1000, 80);
        harness.run(At::to_workload(B), &syn.bytes())?;
        harness.run(At::from_workload(B), &syn.reply().flags(SYN | ACK).bytes())?;
        let ack = syn.flags(ACK);
        let family = if v6 { "IPv6" } else { "IPv4" };
        rows.push((
            format!("established, {family}"),
            timed(&mut harness, At::to_workload(B), &ack)?,
        ));
    }

    let mut growth: Vec<(String, f64)> = Vec::new();
    for shape in Shape::ALL {
        let figures = by_rules(&mut harness, &mut compiler, args, shape)?;
        if let (Some(first), Some(last)) = (figures.first(), figures.last()) {
            growth.push((shape.name().to_owned(), last[0].median / first[0].median));
        }
        for (rules, [asked, created, denied]) in args.rules.iter().zip(figures) {
            let name = |what: &str| format!("{}, {rules} rules, {what}", shape.name());
            rows.push((name("allowed"), asked));
            rows.push((name("allowed, entry created (single runs)"), created));
            rows.push((name("denied, with the ring buffer full"), denied));
        }
    }
    print(&rows, &growth, args);
    let (rows, ratios) = (figures(&rows), ratios(&growth));
    write_json(&args.json, [("figures", rows), ("growth", ratios)])?;
    Ok(growth.iter().all(|(_, ratio)| *ratio <= GROWTH_LIMIT))
}

/// For each number of rules: a new flow that is asked for, one that is also entered, one that is denied. The numbers of
/// rules take turns, so that what else the machine does meets all of them alike.
fn by_rules(
    harness: &mut Harness,
    compiler: &mut Compiler,
    args: &Args,
    shape: Shape,
) -> Result<Vec<[Figure; 3]>> {
    const ROUNDS: usize = 3;
    const SINGLE_RUNS: usize = 6_000;
    let settings = Settings {
        flags: 0,
        timeouts: DEFAULT_TIMEOUTS,
        mark_mask: DEFAULT_MARK_MASK,
    };
    let at = At {
        program: program::TO_WORKLOAD,
        ifindex: B,
        ingress_ifindex: 1,
    };
    let mut samples = vec![<[Samples; 3]>::default(); args.rules.len()];
    for _ in 0..ROUNDS {
        for (&rules, [asked, created, denied]) in args.rules.iter().zip(&mut samples) {
            let cluster = clusters::cluster(shape, rules);
            harness.dataplane.io().maps().forget_flows()?;
            harness
                .dataplane
                .apply(&compiler.compile(&cluster.store)?.desired, settings)?;
            compiler.applied();
            cluster.check(harness, at)?;
            let mut run = |frame: &Frame, repeat| Ok(harness.run_timed(at, &frame.bytes(), repeat)?.1);
            let runs = args.runs.div_ceil(ROUNDS);
            // Each SYN asks policy anew.
            asked.take(runs, |_| run(&cluster.allowed, args.packets))?;
            created.take(SINGLE_RUNS, |i| {
                let sport = u16::try_from(1024 + i).unwrap_or(0);
                run(
                    &Frame {
                        sport,
                        ..cluster.allowed.clone()
                    },
                    1,
                )
            })?;
            denied.take(runs, |_| run(&cluster.denied, args.packets))?;
        }
    }
    samples
        .iter()
        .map(|samples| Ok([samples[0].figure()?, samples[1].figure()?, samples[2].figure()?]))
        .collect()
}

fn print(rows: &[(String, Figure)], growth: &[(String, f64)], args: &Args) {
    let floor = rows.first().map_or(1.0, |(_, floor)| floor.median);
    println!(
        "{:<64} {:>9} {:>9} {:>9} {:>9}",
        "NANOSECONDS PER PACKET", "MEDIAN", "LOWEST", "HIGHEST", "x FLOOR"
    );
    for (
        name,
        Figure {
            median,
            lowest,
            highest,
        },
    ) in rows
    {
        println!(
            "{name:<64} {median:>9.0} {lowest:>9.0} {highest:>9.0} {:>9.2}",
            median / floor
        );
    }
    let (few, many) = (args.rules.first().unwrap_or(&0), args.rules.last().unwrap_or(&0));
    for (shape, ratio) in growth {
        let verdict = if *ratio <= GROWTH_LIMIT { "ok" } else { "MISSED" };
        println!(
            "new flow, {shape}: {many} rules cost {ratio:.2} x {few} rules (at most {GROWTH_LIMIT}): {verdict}"
        );
    }
    println!(
        "{} runs of {} packets each; {}",
        args.runs,
        args.packets,
        machine()
    );
}

fn figures(rows: &[(String, Figure)]) -> Value {
    rows.iter()
        .map(|(name, f)| json!({"name": name, "median_ns": f.median, "lowest_ns": f.lowest, "highest_ns": f.highest}))
        .collect()
}

fn ratios(growth: &[(String, f64)]) -> Value {
    growth
        .iter()
        .map(|(name, ratio)| json!({"shape": name, "ratio": ratio}))
        .collect()
}

/// Puts the parts into the file, beside those that other runs put there.
fn write_json<const N: usize>(path: &Path, parts: [(&str, Value); N]) -> Result<()> {
    let known = std::fs::read_to_string(path).ok();
    let known = known.and_then(|text| serde_json::from_str::<Map<String, Value>>(&text).ok());
    let mut all = known.unwrap_or_default();
    all.insert("machine".into(), machine().into());
    all.extend(parts.map(|(name, part)| (name.to_owned(), part)));
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
    }
    let mut file = std::fs::File::create(path).with_context(|| path.display().to_string())?;
    writeln!(file, "{:#}", Value::Object(all))?;
    println!("written to {}", path.display());
    Ok(())
}

/// Kernel and processor, for the figures' caption.
fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let kernel = read("/proc/sys/kernel/osrelease");
    let cpus = read("/proc/cpuinfo");
    let model = cpus
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    let count = cpus.lines().filter(|line| line.starts_with("processor")).count();
    format!(
        "kernel {}, {count} x {}",
        kernel.trim(),
        model.map_or("unknown processor", |(_, model)| model.trim())
    )
}
