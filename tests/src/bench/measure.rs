//! Repeats a measurement and keeps the median and the spread.

use std::time::Duration;

use anyhow::{Result, bail};

/// Nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Figure {
    pub(super) median: f64,
    pub(super) lowest: f64,
    pub(super) highest: f64,
}

/// Single measurements, in nanoseconds.
#[derive(Clone, Debug, Default)]
pub(super) struct Samples(Vec<f64>);

impl Samples {
    /// Adds `runs` measurements, after one that does not count.
    pub(super) fn take(&mut self, runs: usize, mut run: impl FnMut(usize) -> Result<Duration>) -> Result<()> {
        run(runs)?;
        for i in 0..runs {
            self.0.push(run(i)?.as_secs_f64() * 1e9);
        }
        Ok(())
    }

    /// Median and spread of all.
    pub(super) fn figure(&self) -> Result<Figure> {
        let mut nanos = self.0.clone();
        nanos.sort_by(f64::total_cmp);
        let middle = nanos.get(nanos.len() / 2).copied();
        let (Some(median), Some(&lowest), Some(&highest)) = (middle, nanos.first(), nanos.last()) else {
            bail!("--runs: expected at least 1");
        };
        Ok(Figure {
            median,
            lowest,
            highest,
        })
    }
}

/// Over `runs` runs.
pub(super) fn median(runs: usize, mut run: impl FnMut() -> Result<Duration>) -> Result<Figure> {
    let mut samples = Samples::default();
    samples.take(runs, |_| run())?;
    samples.figure()
}
