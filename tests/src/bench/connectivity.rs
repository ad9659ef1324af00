//! `calico-azure connectivity` over a cluster of a thousand pods, without reading files or printing.

use std::time::Instant;

use anyhow::{Result, anyhow, ensure};
use calico_azure_userspace::analysis::{Options, connectivity, example};
use calico_azure_userspace::model::load::parse_text;

use super::Scope;
use super::report::{Report, Table, Target};
use super::stats::Samples;

/// Seconds.
const LIMIT: f64 = 2.0;

pub(super) fn run(scope: &Scope) -> Result<Report> {
    let (pods, policies) = if scope.quick { (60, 20) } else { (1_000, 200) };
    let text = example::manifests(pods, policies);
    let mut table = Table::new(
        "Who may talk to whom, milliseconds",
        ["pods", "policies", "pairs", "reading", "analysing", "together"],
    );
    let [mut reading, mut analysing, mut together] = <[Samples; 3]>::default();
    let mut pairs = 0;
    for round in 0..=scope.runs {
        let begun = Instant::now();
        let loaded = parse_text("cluster.yaml".as_ref(), &text);
        ensure!(loaded.problems.is_empty(), "the example is not understood");
        let read = begun.elapsed();
        let found = connectivity(loaded.resources, Options::default()).map_err(|error| anyhow!("{error}"))?;
        pairs = found.pairs().count();
        let all = begun.elapsed();
        if round > 0 {
            reading.push(read.as_secs_f64() * 1e3);
            analysing.push((all - read).as_secs_f64() * 1e3);
            together.push(all.as_secs_f64() * 1e3);
        }
    }
    ensure!(pairs > 0, "nobody may talk to anybody");
    let all = together.figure()?;
    table.row([
        (pods as f64).into(),
        (policies as f64).into(),
        (pairs as f64).into(),
        reading.figure()?.into(),
        analysing.figure()?.into(),
        all.into(),
    ]);
    Ok(Report {
        tables: vec![table],
        targets: vec![Target::at_most(
            format!("{pods} pods, {policies} policies, seconds"),
            all.median / 1e3,
            LIMIT,
        )],
        ..Report::default()
    })
}
