//! The kernel's word that something in a directory has changed. Other sources use this, and `agent::cni`.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode, EventKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};

/// An update is a burst of notifications: it is over when there was none for this long…
const QUIET: Duration = Duration::from_millis(5);
/// …or when it has lasted this long.
const BURST: Duration = Duration::from_millis(50);

/// Returns at the end of a burst of notifications, or after `timeout`.
pub(crate) fn wait(woken: &Receiver<()>, timeout: Duration) {
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
pub(crate) struct Notifications {
    dir: PathBuf,
    wake: SyncSender<()>,
    /// With the device and inode of what is watched: a directory made anew needs a new watch.
    watcher: Option<(RecommendedWatcher, (u64, u64))>,
    complained: bool,
}

impl Notifications {
    /// `wake`: one pending wake-up says as much as many.
    pub(crate) fn new(dir: PathBuf, wake: SyncSender<()>) -> Self {
        Self {
            dir,
            wake,
            watcher: None,
            complained: false,
        }
    }

    /// Watches the directory that is there now, or the nearest above it, in which it may be made.
    pub(crate) fn keep_up(&mut self) {
        // It may be made while we begin to watch.
        while let Some((path, now)) = nearest(&self.dir) {
            if self.watcher.as_ref().is_some_and(|(_, watched)| *watched == now) {
                return;
            }
            self.watcher = None;
            match start(&path, path == self.dir, self.wake.clone()) {
                Ok(watcher) => self.watcher = Some((watcher, now)),
                Err(error) => {
                    if !std::mem::replace(&mut self.complained, true) {
                        let dir = self.dir.display();
                        tracing::warn!(%error, "no notifications about {dir}; it is looked at again and again");
                    }
                    return;
                }
            }
        }
    }
}

fn start(dir: &Path, whole: bool, wake: SyncSender<()>) -> notify::Result<RecommendedWatcher> {
    let handler = move |event: notify::Result<notify::Event>| {
        if event.is_ok_and(|event| !is_change(event.kind)) {
            return;
        }
        // Full: a wake-up is pending. Closed: nobody looks any more.
        let _pending = wake.try_send(());
    };
    let mut watcher = notify::recommended_watcher(handler)?;
    let mode = if whole {
        RecursiveMode::Recursive
    } else {
        RecursiveMode::NonRecursive
    };
    watcher.watch(dir, mode)?;
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

/// The directory or the nearest above it that is there, with its device and inode.
fn nearest(dir: &Path) -> Option<(PathBuf, (u64, u64))> {
    dir.ancestors().find_map(|path| {
        let metadata = std::fs::metadata(path).ok()?;
        Some((path.to_owned(), (metadata.dev(), metadata.ino())))
    })
}
