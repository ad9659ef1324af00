//! How many requests ARM will still take, as its answers say, so that we slow down before it makes us.

use std::sync::{Mutex, PoisonError};

use super::http::Answer;

/// Requests that ARM takes until it refuses; `None`: no answer has said so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Remaining {
    pub reads: Option<u64>,
    pub writes: Option<u64>,
}

/// Fewer, and we wait between requests: others of the subscription need some, too.
const LOW: u64 = 50;
/// ARM's headers; those with `global` are of all regions together.
const READS: [&str; 2] = [
    "x-ms-ratelimit-remaining-subscription-reads",
    "x-ms-ratelimit-remaining-subscription-global-reads",
];
const WRITES: [&str; 2] = [
    "x-ms-ratelimit-remaining-subscription-writes",
    "x-ms-ratelimit-remaining-subscription-global-writes",
];

#[derive(Default)]
pub(super) struct Limits(Mutex<Remaining>);

impl Limits {
    pub(super) fn note(&self, answer: &Answer) {
        let least = |names: [&str; 2]| {
            let numbers = names
                .into_iter()
                .filter_map(|name| answer.header(name)?.trim().parse().ok());
            numbers.min()
        };
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.reads = least(READS).or(known.reads);
        known.writes = least(WRITES).or(known.writes);
    }

    pub(super) fn remaining(&self) -> Remaining {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it is time to slow down.
    pub(super) fn is_low(&self) -> bool {
        let known = self.remaining();
        [known.reads, known.writes]
            .into_iter()
            .flatten()
            .any(|left| left < LOW)
    }
}
