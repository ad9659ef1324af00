//! Repeated measurements: median, spread, and ratios of what was measured in the same round.

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

/// What repeated measurements say.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Figure {
    pub(super) median: f64,
    /// Median absolute deviation from the median.
    pub(super) spread: f64,
    pub(super) runs: usize,
}

/// Single measurements, in the order in which they were made.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Samples(Vec<f64>);

impl Samples {
    pub(super) fn push(&mut self, sample: f64) {
        self.0.push(sample);
    }

    /// Median and spread of all.
    pub(super) fn figure(&self) -> Result<Figure> {
        let median = middle(self.0.clone());
        ensure!(median.is_finite(), "nothing was measured");
        Ok(Figure {
            median,
            spread: middle(self.0.iter().map(|sample| (sample - median).abs()).collect()),
            runs: self.0.len(),
        })
    }

    /// Of each round, what `of` makes of this and the other's measurement.
    pub(super) fn paired(&self, other: &Self, of: impl Fn(f64, f64) -> f64) -> Self {
        Self(self.0.iter().zip(&other.0).map(|(a, b)| of(*a, *b)).collect())
    }

    /// Of each round, this as a multiple of the baseline.
    pub(super) fn over(&self, baseline: &Self) -> Result<Figure> {
        self.paired(baseline, |a, b| a / b).figure()
    }

    /// The value that so many percent do not exceed.
    pub(super) fn percentile(&self, percent: usize) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let place = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
        sorted.get(place).copied().unwrap_or(f64::NAN)
    }
}

fn middle(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let (low, high) = (
        values.get(values.len().saturating_sub(1) / 2),
        values.get(values.len() / 2),
    );
    match (low, high) {
        (Some(low), Some(high)) => f64::midpoint(*low, *high),
        _ => f64::NAN,
    }
}

/// So many rounds in which each variant gets its turn, after one that does not count: what else the machine does meets
/// all of them alike.
pub(super) fn rounds<V>(
    runs: usize,
    variants: &mut [V],
    mut measure: impl FnMut(&mut V) -> Result<f64>,
) -> Result<Vec<Samples>> {
    ensure!(runs > 0, "--runs: expected at least 1");
    let mut samples = vec![Samples::default(); variants.len()];
    for round in 0..=runs {
        for (variant, samples) in variants.iter_mut().zip(&mut samples) {
            let sample = measure(variant)?;
            if round > 0 {
                samples.push(sample);
            }
        }
    }
    Ok(samples)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(values: &[f64]) -> Samples {
        Samples(values.to_vec())
    }

    #[test]
    fn the_median_is_not_moved_by_an_outlier() {
        let figure = samples(&[10.0, 12.0, 11.0, 900.0, 10.5]).figure().unwrap();
        assert_eq!((figure.median, figure.spread, figure.runs), (11.0, 1.0, 5));
        assert_eq!(samples(&[1.0, 2.0]).figure().unwrap().median, 1.5);
        assert!(samples(&[]).figure().is_err());
    }

    #[test]
    fn ratios_are_of_the_same_round() {
        // The machine was half as fast in the second round, for both.
        let ratio = samples(&[10.0, 20.0]).over(&samples(&[5.0, 10.0])).unwrap();
        assert_eq!((ratio.median, ratio.spread), (2.0, 0.0));
    }

    #[test]
    fn percentiles_are_of_the_sorted_values() {
        let values: Vec<f64> = (0..100).rev().map(f64::from).collect();
        assert_eq!(
            (samples(&values).percentile(50), samples(&values).percentile(99)),
            (50.0, 99.0)
        );
    }

    #[test]
    fn variants_take_turns_and_the_first_round_does_not_count() {
        let mut order = Vec::new();
        let found = rounds(2, &mut ["a", "b"], |variant| {
            order.push(*variant);
            Ok(order.len() as f64)
        });
        assert_eq!(order, ["a", "b", "a", "b", "a", "b"]);
        assert_eq!(found.unwrap(), [samples(&[3.0, 5.0]), samples(&[4.0, 6.0])]);
    }
}
