//! What a directory's manifests say, and how that differs from what they said before. No threads.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use super::Event;
use crate::model::files::{self, Listing};
use crate::model::load::parse_text;
use crate::model::problem::{Problem, Severity};
use crate::model::{Key, Resource};

/// How long a file must be gone, or empty, before its objects are: editors move the old one away, or truncate it,
/// and then write the new one, and policy must not lapse in between.
pub(super) const GRACE: Duration = Duration::from_millis(100);
/// A file changed so shortly before it was read may change again without its time stamp telling.
const CLOCK_TICK: Duration = Duration::from_millis(20);

pub(super) struct Tracker {
    dir: PathBuf,
    files: BTreeMap<PathBuf, FileState>,
    known: BTreeMap<Key, Resource>,
    problems: Vec<Problem>,
    in_sync: bool,
}

#[derive(Default)]
struct FileState {
    /// Of the content that was read last, if it will show the next change.
    stamp: Option<Stamp>,
    resources: Vec<Resource>,
    problems: Vec<Problem>,
    /// Whether `resources` is what a file held, be it an earlier version of it.
    understood: bool,
    /// Gone or empty since then, but not yet for long enough.
    vanished: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(path: &Path) -> io::Result<Self> {
        let metadata = std::fs::metadata(path)?;
        Ok(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }

    fn is_recent(self) -> bool {
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let (seconds, nanos) = self.changed;
        let changed = Duration::from_secs(seconds.try_into().unwrap_or(0))
            + Duration::from_nanos(nanos.try_into().unwrap_or(0));
        now < changed + CLOCK_TICK
    }
}

impl FileState {
    /// Whether the objects may go now; until then they stay.
    fn vanish(&mut self, now: Instant) -> bool {
        self.stamp = None;
        now.duration_since(*self.vanished.get_or_insert(now)) >= GRACE
    }

    /// Takes in a file that is there. Keeps the objects that it had if it cannot be understood now.
    fn look(&mut self, path: &Path, now: Instant) {
        let before = Stamp::of(path).ok();
        if before.is_some() && before == self.stamp {
            return;
        }
        let text = match files::read(path) {
            Ok(text) => text,
            Err(error) => {
                self.vanished = None;
                self.stamp = None;
                self.problems = vec![self.unreadable(path, &error)];
                return;
            }
        };
        if text.trim().is_empty() && !self.resources.is_empty() && !self.vanish(now) {
            return;
        }
        self.vanished = None;
        let settled = before.filter(|stamp| Stamp::of(path).is_ok_and(|after| after == *stamp));
        self.stamp = settled.filter(|stamp| !stamp.is_recent());
        let loaded = parse_text(path, &text);
        self.problems = loaded.problems;
        if !loaded.unreadable {
            self.resources = loaded.resources;
            self.understood = true;
        }
    }

    fn unreadable(&self, path: &Path, error: &io::Error) -> Problem {
        let kept = if self.understood {
            "; the objects that it held before stay in force"
        } else {
            ""
        };
        problem(path, format!("cannot be read: {error}{kept}"))
    }
}

impl Tracker {
    pub(super) fn new(dir: PathBuf) -> Self {
        Self {
            dir,
            files: BTreeMap::new(),
            known: BTreeMap::new(),
            problems: Vec::new(),
            in_sync: false,
        }
    }

    /// If a file's fate is open, how soon to look again.
    pub(super) fn look_again_within(&self) -> Option<Duration> {
        let undecided = self.files.values().any(|file| file.vanished.is_some());
        undecided.then_some(GRACE / 2)
    }

    /// Looks at the directory. Returns what changed: new and changed objects before those that are gone, so that
    /// a policy's successor is there before it goes.
    pub(super) fn scan(&mut self) -> Vec<Event> {
        self.scan_at(Instant::now())
    }

    pub(super) fn scan_at(&mut self, now: Instant) -> Vec<Event> {
        let Listing { files, failed } = files::manifests(&self.dir);
        let mut problems: Vec<_> = failed
            .iter()
            .map(|(dir, error)| problem(dir, self.unlisted(dir, error)))
            .collect();
        self.files.retain(|path, file| {
            let unknown = failed.iter().any(|(dir, _)| path.starts_with(dir));
            let listed = files.binary_search(path).is_ok();
            unknown || listed || (file.understood && !file.vanish(now))
        });
        for path in files {
            let file = self.files.entry(path.clone()).or_default();
            file.look(&path, now);
        }
        let objects = self.merge(&mut problems);

        let mut events = Vec::new();
        for (key, resource) in &objects {
            if self.known.get(key) != Some(*resource) {
                events.push(Event::Upsert((*resource).clone()));
            }
        }
        let gone = self.known.keys().filter(|key| !objects.contains_key(key));
        events.extend(gone.cloned().map(Event::Delete));
        for event in &events {
            match event {
                Event::Upsert(resource) => drop(self.known.insert(resource.key(), resource.clone())),
                Event::Delete(key) => drop(self.known.remove(key)),
                Event::Problems(_) | Event::InSync => {}
            }
        }
        if problems != self.problems {
            self.problems.clone_from(&problems);
            events.push(Event::Problems(problems));
        }
        if !self.in_sync && failed.is_empty() && self.files.values().all(|file| file.understood) {
            self.in_sync = true;
            events.push(Event::InSync);
        }
        events
    }

    fn unlisted(&self, dir: &Path, error: &io::Error) -> String {
        let kept = self.files.keys().any(|path| path.starts_with(dir));
        let kept = if kept {
            "; the objects of its manifests stay in force"
        } else {
            ""
        };
        format!("cannot be listed: {error}{kept}")
    }

    /// The objects of all files by key, and every file's problems. The first file of an object wins, except that
    /// one which is vanishing yields to any other: the object was moved.
    fn merge(&self, problems: &mut Vec<Problem>) -> BTreeMap<Key, &Resource> {
        let mut objects: BTreeMap<Key, (&Path, &Resource)> = BTreeMap::new();
        let (vanishing, present): (Vec<_>, Vec<_>) =
            self.files.iter().partition(|(_, file)| file.vanished.is_some());
        for (path, file) in present {
            problems.extend(file.problems.iter().cloned());
            for resource in &file.resources {
                match objects.entry(resource.key()) {
                    Entry::Vacant(free) => drop(free.insert((path, resource))),
                    Entry::Occupied(taken) => problems.push(duplicate(path, taken.key(), taken.get().0)),
                }
            }
        }
        for (path, file) in vanishing {
            for resource in &file.resources {
                objects.entry(resource.key()).or_insert((path, resource));
            }
        }
        objects
            .into_iter()
            .map(|(key, (_, resource))| (key, resource))
            .collect()
    }
}

fn duplicate(file: &Path, key: &Key, first: &Path) -> Problem {
    Problem {
        object: Some(key.to_string()),
        help: Some("remove one of the two; until then this one is ignored".into()),
        ..problem(file, format!("this object is in {} already", first.display()))
    }
}

fn problem(file: &Path, message: String) -> Problem {
    Problem {
        severity: Severity::Error,
        file: file.to_owned(),
        line: None,
        column: None,
        object: None,
        field: None,
        message,
        help: None,
        excerpt: None,
    }
}
