//! New flows over a growing number of rules, against a linear walk over the same rules.

use anyhow::{Context as _, Result};

use super::{Bench, Case};
use crate::bench::plot::{Kind, Plot, Series};
use crate::bench::report::{Report, Table, Target};
use crate::bench::rules::{self, Shape};
use crate::bench::stats::Samples;
use crate::harness::At;
use crate::harness::packet::Frame;
use crate::harness::scenario::B;

/// What the highest number of rules may cost more than the lowest.
const GROWTH: f64 = 1.2;
/// Tables are built anew this often, so that what else the machine does meets all numbers of rules alike.
const ROUNDS: usize = 3;
/// Flows that are entered one by one.
const ENTERED: usize = 4_000;

/// In the order of the columns.
#[derive(Clone, Default)]
struct Measured {
    empty: Samples,
    allowed: Samples,
    denied: Samples,
    entered: Samples,
    walk_allowed: Samples,
    walk_denied: Samples,
}

pub(super) fn measure(bench: &mut Bench, report: &mut Report) -> Result<()> {
    let mut table = Table::new(
        "New flows, nanoseconds per packet (median ± median absolute deviation)",
        [
            "rules differ in",
            "rules",
            "allowed",
            "denied, event buffer full",
            "allowed and entered, run by run",
            "linear walk, allowed",
            "linear walk, denied",
            "walk : ours, allowed",
        ],
    );
    let mut curves = Vec::new();
    for shape in Shape::ALL {
        let measured = by_count(bench, shape)?;
        let mut ours = Series {
            name: format!("ours, {}", shape.name()),
            ..Series::default()
        };
        let mut walk = Series {
            name: format!("linear walk, {}", shape.name()),
            ..Series::default()
        };
        for (&rules, measured) in bench.scope.rules.iter().zip(&measured) {
            let allowed = measured.allowed.figure()?;
            let walked = measured.walk_allowed.figure()?;
            table.row([
                shape.name().into(),
                (rules as f64).into(),
                allowed.into(),
                measured.denied.figure()?.into(),
                measured.entered.figure()?.into(),
                walked.into(),
                measured.walk_denied.figure()?.into(),
                measured.walk_allowed.over(&measured.allowed)?.into(),
            ]);
            ours.points.push((rules as f64, allowed));
            walk.points.push((rules as f64, walked));
        }
        curves.extend([ours, walk]);
        let growth = growth(&measured)?;
        report.targets.push(Target::at_most(
            format!("new flow, {}: most rules : fewest rules", shape.name()),
            growth,
            GROWTH,
        ));
    }
    report.tables.push(table);
    report.plots.push(Plot {
        name: "rules".into(),
        title: "Cost of a new flow over the number of rules".into(),
        x: "rules on the endpoint".into(),
        y: "ns per packet".into(),
        kind: Kind::Curves,
        series: curves,
    });
    report.notes.push(
        "Ours looks for the flow in conntrack first, counts, and repeats every check against half-done updates; the walk \
         only parses and walks, with one longest-prefix match for each rule with a selector."
            .into(),
    );
    Ok(())
}

fn growth(measured: &[Measured]) -> Result<f64> {
    let (first, last) = (measured.first(), measured.last());
    let (first, last) = first.zip(last).context("--rules: expected at least one number")?;
    Ok(last.allowed.over(&first.allowed)?.median)
}

fn by_count(bench: &mut Bench, shape: Shape) -> Result<Vec<Measured>> {
    let at = At::to_workload(B);
    let counts = bench.scope.rules.clone();
    let mut measured = vec![Measured::default(); counts.len()];
    for _ in 0..ROUNDS.min(bench.scope.runs) {
        for (&count, measured) in counts.iter().zip(&mut measured) {
            let rules = rules::by_shape(shape, count);
            bench.apply(&rules::cluster(&rules, &["b"]))?;
            let (walk, members) = rules::walk(&rules);
            bench.yardstick.set_rules(&walk, members)?;
            measure_one(bench, at, &rules, measured)?;
        }
    }
    Ok(measured)
}

fn measure_one(bench: &mut Bench, at: At, rules: &[rules::Rule], measured: &mut Measured) -> Result<()> {
    let (allowed, denied) = (rules::allowed(rules), rules::denied(rules));
    // Each SYN asks policy anew.
    let cases = [
        (
            &mut measured.empty,
            Case::yardstick("empty", allowed.bytes(), true),
        ),
        (&mut measured.allowed, Case::ours(at, allowed.bytes(), true)),
        (&mut measured.denied, Case::ours(at, denied.bytes(), false)),
        (
            &mut measured.walk_allowed,
            Case::yardstick("walk", allowed.bytes(), true),
        ),
        (
            &mut measured.walk_denied,
            Case::yardstick("walk", denied.bytes(), false),
        ),
    ];
    let mut cases = cases;
    let runs = bench.scope.runs.div_ceil(ROUNDS);
    for round in 0..=runs {
        for (samples, case) in &mut cases {
            let sample = bench.measure(case)?;
            if round > 0 {
                samples.push(sample);
            }
        }
    }
    let entered = if bench.scope.quick { 50 } else { ENTERED };
    for i in 0..entered {
        let frame = Frame {
            sport: u16::try_from(1024 + i).unwrap_or(0),
            ..allowed.clone()
        };
        let case = Case::ours(at, frame.bytes(), true);
        measured.entered.push(bench.time(&case, 1)?);
    }
    Ok(())
}
