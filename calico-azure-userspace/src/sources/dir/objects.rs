//! Which file says what an object is. Work is proportional to what changed, not to what there is.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use crate::model::load::{Origin, duplicate};
use crate::model::{Key, Problem, Resource};
use crate::sources::Event;

/// The objects of one file.
pub(super) type Contents = BTreeMap<Arc<Key>, (Arc<Resource>, Origin)>;

/// What a file says now.
pub(super) trait Files {
    /// Its objects, and whether the file is there, as opposed to vanishing.
    fn contents(&self, file: &Path) -> Option<(&Contents, bool)>;
}

/// Every object of every file.
#[derive(Default)]
pub(super) struct Objects {
    by_key: BTreeMap<Arc<Key>, Object>,
    /// Objects of more than one file.
    contested: BTreeSet<Arc<Key>>,
    /// Objects that may not be what was sent last.
    touched: BTreeSet<Arc<Key>>,
}

#[derive(Default)]
struct Object {
    files: BTreeSet<Arc<Path>>,
    sent: Option<Arc<Resource>>,
}

impl Objects {
    /// Notes that a file's contents changed.
    pub(super) fn replace(&mut self, file: &Arc<Path>, old: &Contents, new: &Contents) {
        for key in old.keys().filter(|key| !new.contains_key(*key)) {
            if let Some(object) = self.by_key.get_mut(key) {
                object.files.remove(file);
            }
            self.touched.insert(Arc::clone(key));
        }
        for key in new.keys() {
            self.by_key
                .entry(Arc::clone(key))
                .or_default()
                .files
                .insert(Arc::clone(file));
            self.touched.insert(Arc::clone(key));
        }
    }

    /// What changed since the last call: new and changed objects before those that are gone, so that a policy's
    /// successor is there before it goes.
    pub(super) fn changes(&mut self, files: &impl Files) -> Vec<Event> {
        let mut touched = std::mem::take(&mut self.touched);
        // Which of two files counts also changes when one begins to vanish.
        touched.extend(self.contested.iter().cloned());
        let (mut upserts, mut deletes) = (Vec::new(), Vec::new());
        for key in touched {
            let Some(object) = self.by_key.get_mut(&key) else {
                continue;
            };
            if object.files.len() > 1 {
                self.contested.insert(Arc::clone(&key));
            } else {
                self.contested.remove(&key);
            }
            let now = object.resource(&key, files);
            match &now {
                _ if now == object.sent => {}
                Some(resource) => upserts.push(Event::Upsert(Resource::clone(resource))),
                None => deletes.push(Event::Delete(Key::clone(&key))),
            }
            object.sent = now;
            if object.files.is_empty() {
                self.by_key.remove(&key);
            }
        }
        upserts.append(&mut deletes);
        upserts
    }

    /// Says of each object that is in several files which one counts.
    pub(super) fn duplicates(&self, files: &impl Files) -> Vec<Problem> {
        let mut problems = Vec::new();
        for key in &self.contested {
            let Some(object) = self.by_key.get(key) else {
                continue;
            };
            let mut origins = object.origins(key, files);
            if let Some(first) = origins.next() {
                problems.extend(origins.map(|second| duplicate(key, first, second)));
            }
        }
        problems
    }
}

impl Object {
    /// That of the first file; but one that is vanishing yields to any other: the object was moved.
    fn resource(&self, key: &Key, files: &impl Files) -> Option<Arc<Resource>> {
        let said = |file: &Arc<Path>| {
            let (contents, is_there) = files.contents(file)?;
            Some((!is_there, &contents.get(key)?.0))
        };
        let first = self
            .files
            .iter()
            .filter_map(said)
            .min_by_key(|(is_vanishing, _)| *is_vanishing);
        first.map(|(_, resource)| Arc::clone(resource))
    }

    /// In files that are there.
    fn origins<'a>(&'a self, key: &'a Key, files: &'a impl Files) -> impl Iterator<Item = &'a Origin> {
        let there = |file: &Arc<Path>| files.contents(file).filter(|(_, is_there)| *is_there);
        self.files
            .iter()
            .filter_map(there)
            .filter_map(move |(contents, _)| Some(&contents.get(key)?.1))
    }
}
