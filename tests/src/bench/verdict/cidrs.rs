//! New flows over one rule about a growing number of CIDRs.

use anyhow::Result;

use super::{Bench, Case};
use crate::bench::plot::{Kind, Plot, Series};
use crate::bench::report::{Report, Table};
use crate::bench::rules::{self, Rule, Source};
use crate::bench::stats::rounds;
use crate::harness::At;
use crate::harness::scenario::B;

const COUNTS: [usize; 4] = [10, 1_000, 100_000, 1_000_000];
const COUNTS_QUICK: [usize; 2] = [10, 500];

pub(super) fn measure(bench: &mut Bench, report: &mut Report) -> Result<()> {
    let counts = if bench.scope.quick {
        &COUNTS_QUICK[..]
    } else {
        &COUNTS
    };
    let mut table = Table::new(
        "New flows, one rule about a network set, nanoseconds per packet",
        [
            "CIDRs",
            "allowed",
            "denied, event buffer full",
            "walk, allowed",
            "walk, denied",
            "allowed, ours : walk",
        ],
    );
    let names = ["ours, allowed", "ours, denied", "walk, allowed", "walk, denied"];
    let mut curves: Vec<Series> = names
        .iter()
        .map(|name| Series {
            name: (*name).to_owned(),
            ..Series::default()
        })
        .collect();
    let at = At::to_workload(B);
    for &count in counts {
        let rules = [Rule {
            source: Source::Listed(count),
            protocol: 6,
            ports: (80, 80),
        }];
        bench.apply(&rules::cluster(&rules, &["b"]))?;
        let (walk, members) = rules::walk(&rules);
        bench.yardstick.set_rules(&walk, members)?;
        let [allowed, denied] = [rules::allowed(&rules), rules::denied(&rules)].map(|frame| frame.bytes());
        let mut cases = [
            Case::ours(at, allowed.clone(), true),
            Case::ours(at, denied.clone(), false),
            Case::yardstick("walk", allowed, true),
            Case::yardstick("walk", denied, false),
        ];
        let samples = rounds(bench.scope.runs, &mut cases, |case| bench.measure(case))?;
        for (curve, samples) in curves.iter_mut().zip(&samples) {
            curve.points.push((count as f64, samples.figure()?));
        }
        if let [ours, ours_denied, walk, walk_denied] = &samples[..] {
            table.row([
                (count as f64).into(),
                ours.figure()?.into(),
                ours_denied.figure()?.into(),
                walk.figure()?.into(),
                walk_denied.figure()?.into(),
                ours.over(walk)?.into(),
            ]);
        }
    }
    bench.yardstick.set_rules(&[], Vec::new())?;
    report.tables.push(table);
    report.plots.push(Plot {
        name: "cidrs".into(),
        title: "Cost of a new flow over the number of CIDRs".into(),
        x: "CIDRs in the rule's network set".into(),
        y: "ns per packet".into(),
        kind: Kind::Curves,
        series: curves,
    });
    Ok(())
}
