//! Each part of the benchmarks runs in its cheapest form, says something, and saves it.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use calico_azure_tests::bench::{Part, quick};
use clap::ValueEnum as _;
use serde_json::Value;

/// Every number that is in the document.
fn numbers(value: &Value, found: &mut Vec<f64>) {
    match value {
        Value::Number(number) => found.extend(number.as_f64()),
        Value::Array(list) => list.iter().for_each(|value| numbers(value, found)),
        Value::Object(map) => map.values().for_each(|value| numbers(value, found)),
        _ => {}
    }
}

// One after the other: they measure time.
#[test]
fn every_part_measures_and_saves_what_it_found() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let json = dir.path().join("bench.json");
    let mut names = BTreeSet::new();
    for part in Part::value_variants() {
        let name = part.to_possible_value().context("a hidden part")?;
        names.insert(name.get_name().to_owned());
        let markdown = quick(*part, &json).with_context(|| format!("{part:?}"))?;
        ensure!(markdown.contains("| ---"), "{part:?}: no table in:\n{markdown}");
    }
    let saved: Value = serde_json::from_slice(&std::fs::read(&json)?)?;
    let saved = saved.as_object().context("expected an object")?;
    for name in &names {
        let mut found = Vec::new();
        numbers(&saved[name.as_str()], &mut found);
        ensure!(found.len() > 3, "{name}: only {found:?}");
        ensure!(found.iter().any(|number| *number > 0.0), "{name}: only zeros");
    }
    let plots = std::fs::read_dir(dir.path().join("bench"))?.count();
    ensure!(plots >= 5, "{plots} plots");
    Ok(())
}
