//! Established flows: throughput, request rate, latency, and the cost of a packet.

use anyhow::{Context as _, Result, ensure};

use super::sender::{Sender, frame};
use super::{Contender, Path, tcp, tick};
use crate::bench::Scope;
use crate::bench::plot::{Kind, Plot, Series};
use crate::bench::report::{Report, Table, Target};
use crate::bench::stats::{Figure, Samples, rounds};

/// What of the throughput and request rate of the same path must be left.
const SHARE: f64 = 0.97;
/// The engines accept what they know before they look at rules.
const RULES: usize = 100;

/// One kind of measurement.
struct Measure {
    name: &'static str,
    /// Whether more is better.
    rate: bool,
    /// Of each contender.
    samples: Vec<Samples>,
}

pub(super) fn measure(scope: &Scope, contenders: &mut [Contender], report: &mut Report) -> Result<()> {
    for contender in &mut *contenders {
        contender.install(RULES)?;
    }
    let mut table = Table::new(
        format!("Established flows, {RULES} rules (median ± median absolute deviation)"),
        ["path", "measure", "engine", "figure", "x no program"],
    );
    let mut bars: Vec<Series> = contenders
        .iter()
        .map(|contender| Series {
            name: contender.engine.name().to_owned(),
            ..Series::default()
        })
        .collect();
    let mut names = Vec::new();
    for path in Path::ALL {
        let measures = [bulk(scope, contenders, path)?, cost(scope, contenders, path)?];
        for measure in requests(scope, contenders, path)?.into_iter().chain(measures) {
            let baseline = measure.samples.first().context("no contenders")?;
            for ((contender, samples), bars) in contenders.iter().zip(&measure.samples).zip(&mut bars) {
                let ratio = samples.over(baseline)?;
                let figure = samples.figure()?;
                table.row([
                    path.name().into(),
                    measure.name.into(),
                    contender.engine.name().into(),
                    figure.into(),
                    ratio.into(),
                ]);
                if measure.rate {
                    bars.points.push((names.len() as f64, percent(ratio)));
                }
                if measure.rate && contender.engine == super::Engine::Ours {
                    report.targets.push(Target::at_least(
                        format!("{}, {}, of no program", path.name(), measure.name),
                        ratio.median,
                        SHARE,
                    ));
                }
            }
            if measure.rate {
                let short = measure.name.split(',').next().unwrap_or_default();
                names.push(format!("{short}, {}", path.name()));
            }
        }
    }
    report.tables.push(table);
    report.plots.push(Plot {
        name: "rates".into(),
        title: "What of the rate without any program is left".into(),
        x: format!("established flows, {RULES} rules"),
        y: "% of no program".into(),
        kind: Kind::Bars(names),
        series: bars,
    });
    Ok(())
}

fn percent(ratio: Figure) -> Figure {
    Figure {
        median: ratio.median * 100.0,
        spread: ratio.spread * 100.0,
        runs: ratio.runs,
    }
}

fn bulk(scope: &Scope, contenders: &mut [Contender], path: Path) -> Result<Measure> {
    let samples = rounds(scope.runs, contenders, |contender| {
        tcp::throughput(contender.client()?, contender.servers(path), scope.quick)
    })?;
    Ok(Measure {
        name: "TCP throughput, Gbit/s",
        rate: true,
        samples,
    })
}

fn requests(scope: &Scope, contenders: &mut [Contender], path: Path) -> Result<[Measure; 3]> {
    let mut measures = [
        ("requests, per second", true),
        ("latency p50, µs", false),
        ("latency p99, µs", false),
    ]
    .map(|(name, rate)| Measure {
        name,
        rate,
        samples: vec![Samples::default(); contenders.len()],
    });
    // Twice as many rounds: they are short, and the scheduler has a say in each.
    for round in 0..=scope.runs * 2 {
        for (i, contender) in contenders.iter().enumerate() {
            let found = tcp::requests(contender.client()?, contender.servers(path), tick(scope))?;
            if round == 0 {
                continue;
            }
            for (measure, value) in measures.iter_mut().zip([found.rate, found.p50, found.p99]) {
                if let Some(samples) = measure.samples.get_mut(i) {
                    samples.push(value);
                }
            }
        }
    }
    Ok(measures)
}

/// Datagrams of one flow that the other side has answered.
fn cost(scope: &Scope, contenders: &mut [Contender], path: Path) -> Result<Measure> {
    const PORT: u16 = 5600;
    let samples = rounds(scope.runs, contenders, |contender| {
        let (from, to) = (contender.client()?, contender.server(path)?);
        let there = frame(from, to.ip, 17, PORT);
        // The answer comes from the port that the flow goes to.
        let mut back = frame(to, from.ip, 17, 1024);
        back[34..36].copy_from_slice(&PORT.to_be_bytes());
        let (sender, answerer) = (Sender::open(from)?, Sender::open(to)?);
        let once = tick(scope);
        for _ in 0..2 {
            sender.send(&there, &mut std::iter::once(1024), once)?;
            answerer.send(&back, &mut std::iter::once(PORT), once)?;
        }
        let before = to.received()?;
        let sent = sender.send(&there, &mut std::iter::repeat(1024), once)?;
        let arrived = to.received()?.saturating_sub(before);
        ensure!(
            arrived * 100 >= sent.packets * 95,
            "{}: {arrived} of {} datagrams arrived",
            contender.engine.name(),
            sent.packets
        );
        Ok(sent.cost())
    })?;
    Ok(Measure {
        name: "processor time, ns per UDP packet",
        rate: false,
        samples,
    })
}
