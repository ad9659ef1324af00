//! Handles with the number of their users, and what came into use or went out of it.

use std::collections::HashMap;
use std::hash::Hash;

use super::intern::{Handle, Interner};

/// Content in use.
#[derive(Debug)]
pub(super) struct Counted<T> {
    used: HashMap<u32, (Handle<T>, usize)>,
    /// Whether content whose number of users changed was in use before.
    touched: HashMap<u32, bool>,
}

impl<T> Default for Counted<T> {
    fn default() -> Self {
        Self {
            used: HashMap::new(),
            touched: HashMap::new(),
        }
    }
}

/// Content that came into use, and that went out of it, by id.
#[derive(Debug)]
pub(super) struct Turnover<T> {
    pub(super) new: Vec<Handle<T>>,
    pub(super) gone: Vec<Handle<T>>,
}

impl<T: Eq + Hash> Counted<T> {
    pub(super) fn hold(&mut self, handle: &Handle<T>) {
        let used = self
            .used
            .entry(handle.id())
            .or_insert_with(|| (handle.clone(), 0));
        let before = used.1 > 0;
        used.1 += 1;
        self.touched.entry(handle.id()).or_insert(before);
    }

    pub(super) fn release(&mut self, id: u32) {
        if let Some(used) = self.used.get_mut(&id) {
            used.1 = used.1.saturating_sub(1);
            self.touched.entry(id).or_insert(true);
        }
    }

    pub(super) fn get(&self, id: u32) -> Option<&Handle<T>> {
        self.used.get(&id).map(|(handle, _)| handle)
    }

    /// What changed since the last call. What nobody uses any more is let go of.
    pub(super) fn turnover(&mut self, interner: &mut Interner<T>) -> Turnover<T> {
        let (mut new, mut gone) = (Vec::new(), Vec::new());
        for (id, before) in std::mem::take(&mut self.touched) {
            let Some((handle, users)) = self.used.get(&id) else {
                continue;
            };
            match (before, *users > 0) {
                (false, true) => new.push(handle.clone()),
                (true, false) => gone.push(handle.clone()),
                _ => {}
            }
            if *users == 0
                && let Some((handle, _)) = self.used.remove(&id)
            {
                interner.retire(handle);
            }
        }
        // So that nothing depends on the order of a hash map.
        new.sort_unstable_by_key(Handle::id);
        gone.sort_unstable_by_key(Handle::id);
        Turnover { new, gone }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.used.len() + self.touched.len()
    }
}
