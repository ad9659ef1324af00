//! A directory of manifests, watched.
//!
//! Never forgets on a whim: a file that turns unreadable keeps its objects, as do files of a directory that is gone;
//! and nothing is in sync before every file could be read once.

mod objects;
#[cfg(test)]
mod tests;
mod tracker;

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode, EventKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};

use self::tracker::Tracker;
use super::Event;

/// The directory cannot be watched.
#[derive(Debug, thiserror::Error)]
pub enum DirError {
    #[error("{path}: {source}: expected a directory of manifests; create it first", path = path.display())]
    Open { path: PathBuf, source: io::Error },
    #[error("cannot start the thread that watches {path}: {source}", path = path.display())]
    Thread { path: PathBuf, source: io::Error },
}

/// Looks again without being told, should notifications be missed or not be had at all.
const RESCAN: Duration = Duration::from_secs(1);
/// An update is a burst of notifications: it is over when there was none for this long…
const QUIET: Duration = Duration::from_millis(5);
/// …or when it has lasted this long.
const BURST: Duration = Duration::from_millis(50);

/// Sends what the directory holds and then each change, from a thread of its own, until the receiver is gone. What was
/// found at one look comes as one message: an edit of several objects is never seen by halves.
///
/// # Errors
/// If there is no such directory. What happens to it later is reported as [`Event::Problems`].
pub fn watch<E: From<Vec<Event>> + Send + 'static>(dir: PathBuf, events: Sender<E>) -> Result<(), DirError> {
    watch_until(dir, events, Arc::default())
}

/// Like [`watch`], and ends within a second after `stop` is set.
///
/// # Errors
/// As [`watch`].
pub fn watch_until<E>(dir: PathBuf, events: Sender<E>, stop: Arc<AtomicBool>) -> Result<(), DirError>
where
    E: From<Vec<Event>> + Send + 'static,
{
    if let Err(source) = std::fs::read_dir(&dir) {
        return Err(DirError::Open { path: dir, source });
    }
    let path = dir.clone();
    let run = move || run(dir, &events, &stop);
    let spawned = thread::Builder::new().name("manifests".into()).spawn(run);
    spawned
        .map(drop)
        .map_err(|source| DirError::Thread { path, source })
}

fn run<E: From<Vec<Event>>>(dir: PathBuf, events: &Sender<E>, stop: &AtomicBool) {
    let (mut notifications, woken) = Notifications::new(dir.clone());
    let mut tracker = Tracker::new(dir);
    while !stop.load(Ordering::Relaxed) {
        // Before looking: what changes from here on wakes us.
        notifications.keep_up();
        let found = tracker.scan();
        if !found.is_empty() && events.send(E::from(found)).is_err() {
            return;
        }
        wait(&woken, tracker.look_again_within().unwrap_or(RESCAN));
    }
}

/// Returns at the end of a burst of notifications, or after `timeout`.
fn wait(woken: &Receiver<()>, timeout: Duration) {
    if woken.recv_timeout(timeout).is_err() {
        return;
    }
    let begun = Instant::now();
    loop {
        let quiet = woken.recv_timeout(QUIET) == Err(RecvTimeoutError::Timeout);
        if quiet || begun.elapsed() >= BURST {
            return;
        }
    }
}

/// The kernel's notifications about the directory, as far as they can be had.
struct Notifications {
    dir: PathBuf,
    wake: SyncSender<()>,
    /// With the device and inode of what is watched: a directory made anew needs a new watch.
    watcher: Option<(RecommendedWatcher, (u64, u64))>,
    complained: bool,
}

impl Notifications {
    fn new(dir: PathBuf) -> (Self, Receiver<()>) {
        // One pending wake-up says as much as many.
        let (wake, woken) = sync_channel(1);
        (
            Self {
                dir,
                wake,
                watcher: None,
                complained: false,
            },
            woken,
        )
    }

    fn keep_up(&mut self) {
        let now = identity(&self.dir);
        if self.watcher.as_ref().map(|(_, watched)| *watched) == now {
            return;
        }
        self.watcher = None;
        let Some(now) = now else { return };
        match start(&self.dir, self.wake.clone()) {
            Ok(watcher) => self.watcher = Some((watcher, now)),
            Err(error) if !self.complained => {
                self.complained = true;
                let dir = self.dir.display();
                tracing::warn!(%error, "no notifications about {dir}; it is looked at every {} s", RESCAN.as_secs());
            }
            Err(_) => {}
        }
    }
}

fn start(dir: &Path, wake: SyncSender<()>) -> notify::Result<RecommendedWatcher> {
    let handler = move |event: notify::Result<notify::Event>| {
        if event.is_ok_and(|event| !is_change(event.kind)) {
            return;
        }
        // Full: a wake-up is pending. Closed: nobody looks any more.
        let _pending = wake.try_send(());
    };
    let mut watcher = notify::recommended_watcher(handler)?;
    watcher.watch(dir, RecursiveMode::Recursive)?;
    Ok(watcher)
}

/// Our own reading notifies as well.
fn is_change(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        EventKind::Access(_) => false,
        _ => true,
    }
}

fn identity(dir: &Path) -> Option<(u64, u64)> {
    let metadata = std::fs::metadata(dir).ok()?;
    Some((metadata.dev(), metadata.ino()))
}
