//! A directory of manifests, watched.
//!
//! Never forgets on a whim: a file that turns unreadable keeps its objects, as do files of a directory that is gone;
//! and nothing is in sync before every file could be read once.

mod objects;
#[cfg(test)]
mod tests;
mod tracker;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, sync_channel};
use std::thread;
use std::time::Duration;

use self::tracker::Tracker;
use super::Event;
use super::notifications::{Notifications, wait};

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
    let (wake, woken) = sync_channel(1);
    let mut notifications = Notifications::new(dir.clone(), wake);
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
