//! Contradictions that are in force, each as often as somebody reports it.

use std::collections::BTreeMap;

use crate::policy::Problem;

#[derive(Debug, Default)]
pub(super) struct Problems {
    all: BTreeMap<Problem, usize>,
}

impl Problems {
    /// One reporter's problems in place of those that it had before.
    pub(super) fn replace(&mut self, old: &mut Vec<Problem>, new: Vec<Problem>) {
        if *old == new {
            return;
        }
        for problem in &new {
            *self.all.entry(problem.clone()).or_default() += 1;
        }
        for problem in std::mem::replace(old, new) {
            if let Some(count) = self.all.get_mut(&problem) {
                *count -= 1;
                if *count == 0 {
                    self.all.remove(&problem);
                }
            }
        }
    }

    /// Each once, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.all.keys()
    }
}
