//! When to ask again.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::time::Duration;

/// Waits twice as long after each failure, up to a limit, and never as long as another node does.
#[derive(Debug)]
pub(super) struct Backoff {
    first: Duration,
    most: Duration,
    failures: u32,
}

impl Backoff {
    pub(super) fn new(first: Duration, most: Duration) -> Self {
        Self {
            first,
            most,
            failures: 0,
        }
    }

    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }

    /// Failures in a row.
    pub(super) fn failures(&self) -> u32 {
        self.failures
    }

    /// After one more failure. What the server wishes counts if it is more.
    pub(super) fn next(&mut self, wish: Option<Duration>) -> Duration {
        let doubled = self.first.saturating_mul(1 << self.failures.min(16));
        self.failures = self.failures.saturating_add(1);
        let wait = doubled.min(self.most);
        between(wait / 2, wait).max(wish.map_or(Duration::ZERO, |wish| between(wish, wish * 2)))
    }
}

/// Some time between two.
pub(super) fn between(least: Duration, most: Duration) -> Duration {
    // Every `RandomState` has keys of its own.
    let random = RandomState::new().build_hasher().finish() % 1024;
    let share = u32::try_from(random).unwrap_or_default();
    least + most.saturating_sub(least) * share / 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_longer_each_time_up_to_a_limit() {
        let (first, most) = (Duration::from_millis(100), Duration::from_secs(30));
        let mut backoff = Backoff::new(first, most);
        let waits: Vec<Duration> = (0..20).map(|_| backoff.next(None)).collect();
        for (failure, wait) in waits.iter().enumerate() {
            let limit = first.saturating_mul(1 << failure.min(10)).min(most);
            assert!(limit / 2 <= *wait && *wait <= limit, "{failure}: {wait:?}");
        }
        backoff.reset();
        assert!(backoff.next(None) <= first);
        assert!(backoff.next(Some(most * 2)) >= most * 2);
    }
}
