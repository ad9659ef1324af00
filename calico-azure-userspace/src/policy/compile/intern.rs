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
    /// Perhaps held by nobody else any more.
    retired: Vec<Handle<T>>,
}

impl<T: Eq + Hash> Interner<T> {
    /// Ids from `first` to `last`, the first time above and later around those `taken` by somebody before.
    pub(super) fn new(what: &'static str, first: u32, last: u32, taken: BTreeSet<u32>) -> Self {
        Self {
            ids: IdSpace::new(what, first, last, taken),
            handles: HashSet::new(),
            retired: Vec::new(),
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

    /// Lets go of a handle: the next [`Self::sweep`] forgets its content if nobody else holds it by then.
    pub(super) fn retire(&mut self, handle: Handle<T>) {
        self.retired.push(handle);
    }

    /// Forgets retired content that nobody holds any more; `inner` are handles that content itself holds.
    pub(super) fn sweep(&mut self, inner: impl Fn(&T) -> &[Handle<T>]) {
        while !self.retired.is_empty() {
            let mut retired = std::mem::take(&mut self.retired);
            retired.sort_unstable_by_key(Handle::id);
            retired.dedup_by_key(|handle| handle.id());
            for handle in retired {
                // The interner's, and this one.
                if Arc::strong_count(&handle.0) == 2 {
                    self.handles.remove(handle.value());
                    self.ids.free(handle.id());
                    self.retired.extend_from_slice(inner(handle.value()));
                }
            }
        }
    }

    /// Forgets whatever nobody holds any more, retired or not.
    pub(super) fn sweep_all(&mut self) {
        self.retired.clear();
        loop {
            let ids = &mut self.ids;
            let before = self.handles.len();
            self.handles.retain(|handle| {
                let held = Arc::strong_count(&handle.0) > 1;
                if !held {
                    ids.free(handle.id());
                }
                held
            });
            // Content may have held other content.
            if self.handles.len() == before {
                return;
            }
        }
    }

    /// The ids in use are about to be known outside: once free, they must rest.
    pub(super) fn publish(&mut self) {
        self.ids.unpublished.clear();
    }

    /// Lets freed ids be given out again.
    pub(super) fn release(&mut self) {
        self.ids.resting.clear();
    }

    /// Content that is known, and ids that are in use or rest.
    #[cfg(test)]
    pub(super) fn counts(&self) -> [usize; 2] {
        [self.handles.len(), self.ids.used.len() + self.ids.resting.len()]
    }
}

#[derive(Debug)]
struct IdSpace {
    what: &'static str,
    first: u32,
    last: u32,
    next: u32,
    used: HashSet<u32>,
    /// Those of `used` that nobody outside has seen.
    unpublished: HashSet<u32>,
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
            unpublished: HashSet::new(),
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
                self.unpublished.insert(id);
                return Ok(id);
            }
        }
    }

    fn free(&mut self, id: u32) {
        self.used.remove(&id);
        if !self.unpublished.remove(&id) {
            self.resting.insert(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interner(last: u32, taken: &[u32]) -> Interner<&'static str> {
        Interner::new("tests", 1, last, taken.iter().copied().collect())
    }

    fn none<'a>(_: &'a &'static str) -> &'a [Handle<&'static str>] {
        &[]
    }

    #[test]
    fn the_same_content_keeps_its_id_while_it_is_held() {
        let mut names = interner(9, &[]);
        let a = names.intern("a").unwrap();
        let b = names.intern("b").unwrap();
        names.publish();
        assert_eq!([a.id(), b.id()], [1, 2]);
        names.retire(a);
        names.retire(b.clone());
        assert_eq!(names.intern("a").unwrap().id(), 1, "not swept yet");
        names.sweep(none);
        assert_eq!(names.intern("a").unwrap().id(), 3);
        assert_eq!(names.intern("b").unwrap().id(), 2, "still held");
        drop(b);
        names.sweep_all();
        assert_eq!(names.handles.len(), 0);
    }

    #[test]
    fn a_freed_id_rests_until_the_kernel_has_forgotten_it() {
        let mut names = interner(2, &[]);
        let a = names.intern("a").unwrap();
        let _b = names.intern("b").unwrap();
        names.publish();
        names.retire(a);
        names.sweep(none);
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
    fn an_id_that_nobody_outside_has_seen_need_not_rest() {
        let mut names = interner(1, &[]);
        for name in ["a", "b", "c"] {
            let handle = names.intern(name).unwrap();
            assert_eq!(handle.id(), 1);
            names.retire(handle);
            names.sweep(none);
        }
    }

    #[test]
    fn content_lets_go_of_the_content_it_holds() {
        #[derive(PartialEq, Eq, Hash)]
        struct Node(u8, Vec<Handle<Node>>);
        let mut nodes = Interner::new("tests", 1, 9, BTreeSet::new());
        let leaf = nodes.intern(Node(0, Vec::new())).unwrap();
        let root = nodes.intern(Node(1, vec![leaf])).unwrap();
        nodes.retire(root);
        nodes.sweep(|node| &node.1);
        assert_eq!(nodes.handles.len(), 0);
    }

    #[test]
    fn ids_start_above_those_that_an_earlier_agent_left_and_wrap_around_them() {
        let mut names = interner(4, &[2, 3]);
        let held: Vec<_> = ["a", "b"].map(|name| names.intern(name).unwrap()).into();
        assert_eq!(held.iter().map(Handle::id).collect::<Vec<_>>(), [4, 1]);
        assert!(names.intern("c").is_err());
    }
}
