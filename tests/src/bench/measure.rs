//! Repeats a measurement and keeps the median and the spread.

use std::time::Duration;

use anyhow::{Result, ensure};

/// Nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Figure {
    pub(super) median: f64,
    pub(super) lowest: f64,
    pub(super) highest: f64,
}

/// Over `runs` runs, after one that does not count.
pub(super) fn median(runs: usize, mut run: impl FnMut() -> Result<Duration>) -> Result<Figure> {
    run()?;
    each(runs, |_| run())
}

/// Over single measurements that each differ.
pub(super) fn each(runs: usize, mut run: impl FnMut(usize) -> Result<Duration>) -> Result<Figure> {
    ensure!(runs > 0, "--runs: expected at least 1");
    let mut nanos = Vec::with_capacity(runs);
    for i in 0..runs {
        nanos.push(run(i)?.as_secs_f64() * 1e9);
    }
    nanos.sort_by(f64::total_cmp);
    let at = |index: usize| nanos.get(index).copied().unwrap_or(f64::NAN);
    Ok(Figure {
        median: at(runs / 2),
        lowest: at(0),
        highest: at(runs - 1),
    })
}
