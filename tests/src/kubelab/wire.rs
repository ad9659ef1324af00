//! Traffic that is watched while objects change, and how long it takes until it obeys.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use super::KubeLab;
use crate::apiserver::Written;
use crate::lab::probe::{Prober, Sample};

/// A flow that says nothing for so long is stopped.
const QUIET: Duration = Duration::from_millis(120);
/// What was sent by then may still be answered.
const GRACE: Duration = Duration::from_millis(200);

/// Datagrams between pairs of pods, each pair with a name.
#[derive(Default)]
pub struct Wire {
    probers: BTreeMap<&'static str, Prober>,
}

impl Wire {
    /// Begins to send from one pod to a port of another.
    pub fn watch(
        &mut self,
        name: &'static str,
        lab: &KubeLab,
        from: &str,
        to: &str,
        port: u16,
        interval: Duration,
    ) -> Result<()> {
        let from = lab.cluster.pod(from)?.net.ns();
        let prober = Prober::start(from, lab.address(to, false, port)?, interval)?;
        self.probers.insert(name, prober);
        Ok(())
    }

    fn prober(&self, name: &str) -> Result<&Prober> {
        self.probers
            .get(name)
            .with_context(|| format!("nobody watches {name}"))
    }

    /// Waits until the pair is as it should be; how long after `since` the first packet was sent that obeyed.
    pub fn obeys(&self, name: &str, allowed: bool, since: Instant, patience: Duration) -> Result<Duration> {
        let prober = self.prober(name)?;
        let first = if allowed {
            prober.wait_answered(since, patience)?
        } else {
            prober.wait_silent(QUIET, patience)?
        };
        Ok(first.sent.saturating_duration_since(since))
    }

    /// Whether the pair is as it should be at this moment.
    pub fn is(&self, name: &str, allowed: bool, patience: Duration) -> Result<()> {
        self.obeys(name, allowed, Instant::now(), patience).map(drop)
    }

    /// Ends a pair.
    pub fn forget(&mut self, name: &str) {
        self.probers.remove(name);
    }

    /// Ends a pair that was always to be allowed, or always denied, and says what was not.
    pub fn end_constant(&mut self, name: &str, allowed: bool) -> Result<String> {
        let prober = self
            .probers
            .remove(name)
            .with_context(|| format!("nobody watches {name}"))?;
        let samples = prober.finish(GRACE);
        let end = Instant::now();
        let settled = |sample: &&Sample| end.duration_since(sample.sent) > GRACE;
        let samples: Vec<_> = samples.iter().filter(settled).collect();
        let wrong: Vec<_> = samples
            .iter()
            .filter(|sample| sample.answered.is_some() != allowed)
            .collect();
        let should = if allowed { "allowed" } else { "denied" };
        let told = format!("{} packets that were to be {should}", samples.len());
        ensure!(samples.len() > 100, "{name}: only {told}");
        if let ([first, ..], [earliest, .., last]) = (samples.as_slice(), wrong.as_slice()) {
            let at = |sample: &Sample| sample.sent.duration_since(first.sent).as_secs_f64();
            bail!(
                "{name}: of {told}, {} were not, from {:.1} s to {:.1} s after the first",
                wrong.len(),
                at(earliest),
                at(last)
            );
        }
        ensure!(wrong.is_empty(), "{name}: of {told}, one was not");
        Ok(told)
    }
}

/// From a write until the wire obeyed, by what was written.
#[derive(Default)]
pub struct Latencies {
    seen: BTreeMap<&'static str, Vec<Seen>>,
}

#[derive(Clone, Copy)]
struct Seen {
    write: Duration,
    total: Duration,
}

impl Latencies {
    /// Notes one.
    pub fn add(&mut self, what: &'static str, written: Written, total: Duration) {
        self.seen.entry(what).or_default().push(Seen {
            write: written.took,
            total,
        });
    }

    /// Of all, except those of some kind.
    #[must_use]
    pub fn percentile(&self, share: f64, except: &[&str]) -> Duration {
        let kinds = self.seen.iter().filter(|(what, _)| !except.contains(what));
        percentile(kinds.flat_map(|(_, seen)| seen).map(|seen| seen.total), share)
    }
}

impl fmt::Display for Latencies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let title = "from the request to the first packet that obeys, ms";
        writeln!(
            f,
            "{title:<52} {:>4} {:>7} {:>7} {:>7} {:>10}",
            "n", "p50", "p99", "max", "answer p50"
        )?;
        let mut row = |what: &str, seen: &[Seen]| {
            let of = |share| percentile(seen.iter().map(|seen| seen.total), share).as_secs_f64() * 1e3;
            let answer = percentile(seen.iter().map(|seen| seen.write), 0.5).as_secs_f64() * 1e3;
            let n = seen.len();
            writeln!(
                f,
                "{what:<52} {n:>4} {:>7.1} {:>7.1} {:>7.1} {answer:>10.1}",
                of(0.5),
                of(0.99),
                of(1.0)
            )
        };
        for (what, seen) in &self.seen {
            row(what, seen)?;
        }
        let all: Vec<Seen> = self.seen.values().flatten().copied().collect();
        row("all", &all)
    }
}

/// The smallest that is not exceeded by so many.
fn percentile(durations: impl Iterator<Item = Duration>, share: f64) -> Duration {
    let mut sorted: Vec<Duration> = durations.collect();
    sorted.sort_unstable();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a share of a small count"
    )]
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    sorted
        .get(rank.saturating_sub(1))
        .or(sorted.last())
        .copied()
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_what_was_seen() {
        let all = || (1..=100).map(Duration::from_millis);
        for (share, expected) in [(0.5, 50), (0.99, 99), (1.0, 100)] {
            assert_eq!(percentile(all(), share), Duration::from_millis(expected));
        }
        assert_eq!(percentile(std::iter::empty(), 0.5), Duration::ZERO);
    }
}
