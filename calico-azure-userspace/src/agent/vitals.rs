//! What other threads may know of the owner of all state: written by that, read for health and metrics.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use super::status::Status;
use crate::dataplane::expire::Pass;
use crate::sources::kube::KubeStatus;

/// Tells what time it is.
pub(super) struct Clock(Box<dyn Fn() -> Instant + Send + Sync>);

impl std::fmt::Debug for Clock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Clock")
    }
}

/// Shared by all threads.
#[derive(Debug)]
pub(super) struct Vitals {
    clock: Clock,
    started: Instant,
    /// When the batch that is being handled was begun, in milliseconds since the start and one more; 0: none is.
    busy_since: AtomicU64,
    seen: Mutex<Seen>,
    conntrack: Mutex<Conntrack>,
    kube: OnceLock<Arc<KubeStatus>>,
}

/// As of the end of the last batch.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    pub(super) status: Status,
    /// Every source has reported once.
    pub(super) in_sync: bool,
    /// As `Store::sizes`.
    pub(super) cluster: [usize; 6],
    /// Policies that decide something on this node.
    pub(super) active_policies: usize,
    /// Entries of the tables that the agent writes.
    pub(super) tables: Vec<(&'static str, usize)>,
    /// Applies that failed.
    pub(super) failures: u64,
    /// What each apply took, in seconds.
    pub(super) apply_seconds: f64,
    /// Endpoints that a program could not be attached for.
    pub(super) failed_endpoints: usize,
}

/// What sweeps of conntrack found.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Conntrack {
    pub(super) entries: usize,
    pub(super) removed: u64,
    pub(super) sweeps: u64,
    pub(super) last: Duration,
}

impl Default for Vitals {
    fn default() -> Self {
        Self::new(Instant::now)
    }
}

impl Vitals {
    pub(super) fn new(clock: impl Fn() -> Instant + Send + Sync + 'static) -> Self {
        Self {
            started: clock(),
            clock: Clock(Box::new(clock)),
            busy_since: AtomicU64::new(0),
            seen: Mutex::default(),
            conntrack: Mutex::default(),
            kube: OnceLock::new(),
        }
    }

    pub(super) fn now(&self) -> Instant {
        (self.clock.0)()
    }

    /// Since the agent's start.
    pub(super) fn elapsed(&self) -> Duration {
        self.now().duration_since(self.started)
    }

    /// The owner of all state begins a batch.
    pub(super) fn begin(&self) {
        let now = u64::try_from(self.elapsed().as_millis()).unwrap_or(u64::MAX - 1);
        self.busy_since.store(now + 1, Ordering::Relaxed);
    }

    /// It is through with it.
    pub(super) fn end(&self) {
        self.busy_since.store(0, Ordering::Relaxed);
    }

    /// For how long it has been at the same batch.
    pub(super) fn busy(&self) -> Option<Duration> {
        let since = self.busy_since.load(Ordering::Relaxed).checked_sub(1)?;
        self.elapsed().checked_sub(Duration::from_millis(since))
    }

    pub(super) fn publish(&self, change: impl FnOnce(&mut Seen)) {
        change(&mut lock(&self.seen));
    }

    pub(super) fn seen(&self) -> Seen {
        lock(&self.seen).clone()
    }

    pub(super) fn swept(&self, pass: Pass, took: Duration) {
        let mut conntrack = lock(&self.conntrack);
        conntrack.entries = pass.seen.saturating_sub(pass.removed);
        conntrack.removed += u64::try_from(pass.removed).unwrap_or(0);
        conntrack.sweeps += 1;
        conntrack.last = took;
    }

    pub(super) fn conntrack(&self) -> Conntrack {
        *lock(&self.conntrack)
    }

    /// The source is a Kubernetes API.
    pub(super) fn follows(&self, status: Arc<KubeStatus>) {
        // There is one source.
        let _again = self.kube.set(status);
    }

    pub(super) fn kube(&self) -> Option<&KubeStatus> {
        self.kube.get().map(AsRef::as_ref)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A clock that stands until it is put forward, by seconds, and what goes by it.
    pub(crate) fn by_hand() -> (Arc<AtomicU64>, Vitals) {
        let (start, ahead) = (Instant::now(), Arc::new(AtomicU64::new(0)));
        let now = Arc::clone(&ahead);
        let clock = move || start + Duration::from_secs(now.load(Ordering::Relaxed));
        (ahead, Vitals::new(clock))
    }
}
