//! Ids for content. The same content keeps its id for as long as somebody holds its handle; an id that became free
//! rests until the kernel is known to have forgotten it.

use std::borrow::Borrow;
use std::collections::{BTreeSet, HashSet};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use super::CompileError;

/// Content with its id. Compares and hashes as the content.
#[derive(Debug)]
pub(super) struct Handle<T>(Arc<(u32, T)>);

impl<T> Handle<T> {
    pub(super) fn id(&self) -> u32 {
        self.0.0
    }

    pub(super) fn value(&self) -> &T {
        &self.0.1
    }
}

impl<T> Clone for Handle<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T: PartialEq> PartialEq for Handle<T> {
    fn eq(&self, other: &Self) -> bool {
        self.value() == other.value()
    }
}

impl<T: Eq> Eq for Handle<T> {}

impl<T: Hash> Hash for Handle<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.value().hash(state);
    }
}

impl<T> Borrow<T> for Handle<T> {
    fn borrow(&self) -> &T {
        self.value()
    }
}

/// All handles of one kind of content.
#[derive(Debug)]
pub(super) struct Interner<T> {
    ids: IdSpace,
    handles: HashSet<Handle<T>>,
}

impl<T: Eq + Hash> Interner<T> {
    /// Ids from `first` to `last`, the first time above and later around those `taken` by somebody before.
    pub(super) fn new(what: &'static str, first: u32, last: u32, taken: BTreeSet<u32>) -> Self {
        Self {
            ids: IdSpace::new(what, first, last, taken),
            handles: HashSet::new(),
        }
    }

    pub(super) fn intern(&mut self, value: T) -> Result<Handle<T>, CompileError> {
        if let Some(handle) = self.handles.get(&value) {
            return Ok(handle.clone());
        }
        let handle = Handle(Arc::new((self.ids.allocate()?, value)));
        self.handles.insert(handle.clone());
        Ok(handle)
    }

    /// Forgets content that nobody holds any more.
    pub(super) fn sweep(&mut self) {
        let ids = &mut self.ids;
        self.handles.retain(|handle| {
            let held = Arc::strong_count(&handle.0) > 1;
            if !held {
                ids.free(handle.id());
            }
            held
        });
    }

    /// Lets freed ids be given out again.
    pub(super) fn release(&mut self) {
        self.ids.resting.clear();
    }
}

#[derive(Debug)]
struct IdSpace {
    what: &'static str,
    first: u32,
    last: u32,
    next: u32,
    used: HashSet<u32>,
    resting: HashSet<u32>,
}

impl IdSpace {
    fn new(what: &'static str, first: u32, last: u32, taken: BTreeSet<u32>) -> Self {
        let next = taken.last().map_or(first, |id| id.saturating_add(1)).max(first);
        Self {
            what,
            first,
            last,
            next,
            used: HashSet::new(),
            resting: taken.into_iter().collect(),
        }
    }

    fn allocate(&mut self) -> Result<u32, CompileError> {
        let size = u64::from(self.last - self.first) + 1;
        // Every id that is not free is in one of the two sets, so this ends after that many steps.
        if (self.used.len() + self.resting.len()) as u64 >= size {
            return Err(CompileError::OutOfIds {
                what: self.what,
                limit: self.last,
            });
        }
        loop {
            if self.next > self.last || self.next < self.first {
                self.next = self.first;
            }
            let id = self.next;
            self.next = self.next.wrapping_add(1);
            if !self.resting.contains(&id) && self.used.insert(id) {
                return Ok(id);
            }
        }
    }

    fn free(&mut self, id: u32) {
        self.used.remove(&id);
        self.resting.insert(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interner(last: u32, taken: &[u32]) -> Interner<&'static str> {
        Interner::new("tests", 1, last, taken.iter().copied().collect())
    }

    #[test]
    fn the_same_content_keeps_its_id_while_it_is_held() {
        let mut names = interner(9, &[]);
        let a = names.intern("a").unwrap();
        let b = names.intern("b").unwrap();
        assert_eq!([a.id(), b.id()], [1, 2]);
        drop(a);
        assert_eq!(names.intern("a").unwrap().id(), 1, "not swept yet");
        names.sweep();
        assert_eq!(names.intern("a").unwrap().id(), 3);
        assert_eq!(names.intern("b").unwrap().id(), 2);
    }

    #[test]
    fn a_freed_id_rests_until_the_kernel_has_forgotten_it() {
        let mut names = interner(2, &[]);
        names.intern("a").unwrap();
        let _b = names.intern("b").unwrap();
        names.sweep();
        let error = names.intern("c").unwrap_err();
        assert_eq!(
            error,
            CompileError::OutOfIds {
                what: "tests",
                limit: 2
            }
        );
        names.release();
        assert_eq!(names.intern("c").unwrap().id(), 1);
    }

    #[test]
    fn ids_start_above_those_that_an_earlier_agent_left_and_wrap_around_them() {
        let mut names = interner(4, &[2, 3]);
        let held: Vec<_> = ["a", "b"].map(|name| names.intern(name).unwrap()).into();
        assert_eq!(held.iter().map(Handle::id).collect::<Vec<_>>(), [4, 1]);
        assert!(names.intern("c").is_err());
    }
}
