//! How the source fares, for whoever asks.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde::Serialize;

use crate::model::Kind;

/// Of every kind that is watched. Shared: the source writes, others read.
#[derive(Debug, Default)]
pub struct KubeStatus {
    shared: Mutex<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    in_sync: bool,
    kinds: BTreeMap<Kind, Watched>,
}

#[derive(Debug, Default)]
pub(super) struct Watched {
    pub(super) api: String,
    pub(super) synced: bool,
    pub(super) heard: Option<Instant>,
    pub(super) relists: u64,
    pub(super) errors: u64,
    pub(super) last_error: Option<String>,
    pub(super) objects: usize,
}

/// One kind at one moment.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct KindStatus {
    /// As the model calls it.
    pub kind: &'static str,
    /// Group and version that it is read from.
    pub api: String,
    /// A complete list has been read at least once.
    pub synced: bool,
    /// Since the last object or bookmark.
    pub seconds_since_heard: Option<f64>,
    /// Lists that were needed after the first one.
    pub relists: u64,
    /// Requests that failed.
    pub errors: u64,
    pub last_error: Option<String>,
    pub objects: usize,
}

impl KubeStatus {
    /// Whether everything that is served has been read once.
    #[must_use]
    pub fn in_sync(&self) -> bool {
        self.shared().in_sync
    }

    /// Every kind that is watched.
    #[must_use]
    pub fn kinds(&self) -> Vec<KindStatus> {
        self.kinds_at(Instant::now())
    }

    /// As it is at this time.
    #[must_use]
    pub fn kinds_at(&self, now: Instant) -> Vec<KindStatus> {
        let status = |(kind, watched): (&Kind, &Watched)| KindStatus {
            kind: kind.as_str(),
            api: watched.api.clone(),
            synced: watched.synced,
            seconds_since_heard: watched.heard.map(|heard| now.duration_since(heard).as_secs_f64()),
            relists: watched.relists,
            errors: watched.errors,
            last_error: watched.last_error.clone(),
            objects: watched.objects,
        };
        self.shared().kinds.iter().map(status).collect()
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_in_sync(&self) {
        self.shared().in_sync = true;
    }

    pub(super) fn edit(&self, kind: Kind, edit: impl FnOnce(&mut Watched)) {
        edit(self.shared().kinds.entry(kind).or_default());
    }

    /// A kind that has been read to its end, of which something was heard last then.
    #[cfg(test)]
    pub(crate) fn pretend(&self, kind: Kind, api: &str, heard: Option<Instant>) {
        self.edit(kind, |status| {
            status.api = api.to_owned();
            status.synced = true;
            status.heard = heard;
        });
    }

    pub(super) fn forget(&self, kind: Kind) {
        self.shared().kinds.remove(&kind);
    }
}
