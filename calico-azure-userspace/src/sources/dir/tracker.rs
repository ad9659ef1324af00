//! What a directory's manifests say, and how that differs from what they said before. No threads.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::objects::{Contents, Files, Objects};
use crate::model::load::{Loaded, load_file, manifests};
use crate::model::{Key, Kind, Problem, Severity};
use crate::sources::Event;

/// How long a file must be gone, or empty, before its objects are: editors move the old one away, or truncate it,
/// and then write the new one, and policy must not lapse in between.
pub(super) const GRACE: Duration = Duration::from_millis(100);
/// A file changed so shortly before it was read may change again without its time stamp telling.
const CLOCK_TICK: Duration = Duration::from_millis(20);
const KEPT: &str = "mend it; what it held before stays in force until then";

pub(super) struct Tracker {
    dir: PathBuf,
    files: BTreeMap<Arc<Path>, FileState>,
    objects: Objects,
    problems: Vec<Problem>,
    in_sync: bool,
}

#[derive(Default)]
struct FileState {
    /// Of the content that was read last, if it will show the next change.
    stamp: Option<Stamp>,
    contents: Contents,
    problems: Vec<Problem>,
    /// Whether `contents` is what a file held, be it an earlier version of it.
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

    /// Looks at a file that is there. Returns its contents if they are to replace those before; what cannot be
    /// understood does not.
    fn look(&mut self, path: &Path, now: Instant) -> Option<Contents> {
        let before = Stamp::of(path).ok();
        if before.is_some() && before == self.stamp {
            return None;
        }
        // Opening a pipe would wait for a writer.
        let is_special = std::fs::metadata(path).is_ok_and(|metadata| !metadata.is_file());
        let loaded = if is_special {
            special(path)
        } else {
            load_file(path)
        };
        let Loaded {
            resources,
            origins,
            mut problems,
            ignored,
            unreadable,
            ..
        } = loaded;
        let is_empty = resources.is_empty() && ignored.is_empty() && problems.is_empty();
        if is_empty && !self.contents.is_empty() && !self.vanish(now) {
            return None;
        }
        self.vanished = None;
        let settled = before.filter(|stamp| Stamp::of(path).is_ok_and(|after| after == *stamp));
        self.stamp = settled.filter(|stamp| !stamp.is_recent());
        if unreadable {
            self.problems = problems;
            if self.understood {
                self.problems = self.problems.drain(..).map(kept).collect();
            }
            return None;
        }
        self.understood = true;
        let keyed = resources
            .into_iter()
            .map(|resource| (Arc::new(resource.key()), Arc::new(resource)));
        let mut contents: Contents = keyed
            .zip(origins)
            .map(|((key, resource), origin)| (key, (resource, origin)))
            .collect();
        let names: BTreeSet<String> = contents.keys().map(|key| as_written(key)).collect();
        let is_nameless = |problem: &Problem| {
            let is_named = problem
                .object
                .as_ref()
                .is_some_and(|object| names.contains(object));
            problem.severity == Severity::Error && !is_named
        };
        if problems.iter().any(is_nameless) {
            // An object that can no longer be told may be one of those that are missing now.
            for (key, object) in &self.contents {
                contents.entry(Arc::clone(key)).or_insert_with(|| object.clone());
            }
            problems = problems
                .into_iter()
                .map(|p| if is_nameless(&p) { kept(p) } else { p })
                .collect();
        }
        self.problems = problems;
        Some(contents)
    }
}

/// How problems name an object.
fn as_written(key: &Key) -> String {
    let kind = match key.kind {
        Kind::KubernetesNetworkPolicy => Kind::NetworkPolicy,
        kind => kind,
    };
    Key { kind, ..key.clone() }.to_string()
}

fn special(path: &Path) -> Loaded {
    Loaded::failed(Problem::of_file(
        path,
        "cannot read it: expected a regular file".to_owned(),
    ))
}

impl Files for BTreeMap<Arc<Path>, FileState> {
    fn contents(&self, file: &Path) -> Option<(&Contents, bool)> {
        let file = self.get(file)?;
        Some((&file.contents, file.vanished.is_none()))
    }
}

impl Tracker {
    pub(super) fn new(dir: PathBuf) -> Self {
        Self {
            dir,
            files: BTreeMap::new(),
            objects: Objects::default(),
            problems: Vec::new(),
            in_sync: false,
        }
    }

    /// If a file's fate is open, how soon to look again.
    pub(super) fn look_again_within(&self) -> Option<Duration> {
        let undecided = self.files.values().any(|file| file.vanished.is_some());
        undecided.then_some(GRACE / 2)
    }

    /// Looks at the directory. Returns what changed.
    pub(super) fn scan(&mut self) -> Vec<Event> {
        self.scan_at(Instant::now())
    }

    pub(super) fn scan_at(&mut self, now: Instant) -> Vec<Event> {
        let listed = manifests(&self.dir).map(|files| self.take_in(&files, now));
        let complete = listed.is_ok() && self.files.values().all(|file| file.understood);
        let mut events = self.objects.changes(&self.files);

        let mut problems: Vec<Problem> = listed.err().map(|problem| kept(*problem)).into_iter().collect();
        let there = self.files.values().filter(|file| file.vanished.is_none());
        problems.extend(there.flat_map(|file| &file.problems).cloned());
        problems.extend(self.objects.duplicates(&self.files));
        if problems != self.problems {
            self.problems.clone_from(&problems);
            events.push(Event::Problems(problems));
        }
        if complete && !self.in_sync {
            self.in_sync = true;
            events.push(Event::InSync);
        }
        events
    }

    /// `listed` is sorted.
    fn take_in(&mut self, listed: &[PathBuf], now: Instant) {
        let Self { files, objects, .. } = self;
        files.retain(|path, file| {
            let is_listed = listed
                .binary_search_by(|listed| listed.as_path().cmp(path))
                .is_ok();
            let stays = is_listed || (file.understood && !file.vanish(now));
            if !stays {
                objects.replace(path, &file.contents, &Contents::new());
            }
            stays
        });
        for path in listed {
            let path: Arc<Path> = Arc::from(path.as_path());
            let file = files.entry(Arc::clone(&path)).or_default();
            if let Some(contents) = file.look(&path, now) {
                objects.replace(&path, &file.contents, &contents);
                file.contents = contents;
            }
        }
    }
}

fn kept(mut problem: Problem) -> Problem {
    problem.help.get_or_insert_with(|| KEPT.to_owned());
    problem
}
