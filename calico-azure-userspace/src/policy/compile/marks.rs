//! Marks of endpoints: the same for the same interface wherever possible.

use std::collections::{BTreeMap, BTreeSet};

use crate::policy::MARK_MAX;

/// Marks in use, by interface.
#[derive(Debug, Default)]
pub(super) struct Marks {
    by_ifindex: BTreeMap<u32, u32>,
    used: BTreeSet<u32>,
}

impl Marks {
    /// The interface's mark. Beyond [`MARK_MAX`] interfaces, which the kernel's tables cannot hold either, they share.
    pub(super) fn of(&mut self, ifindex: u32) -> u32 {
        if let Some(mark) = self.by_ifindex.get(&ifindex) {
            return *mark;
        }
        let first = ifindex % MARK_MAX;
        let free = (0..MARK_MAX).map(|step| 1 + (first + step) % MARK_MAX);
        let mark = free
            .clone()
            .find(|mark| !self.used.contains(mark))
            .unwrap_or(1 + first);
        self.used.insert(mark);
        self.by_ifindex.insert(ifindex, mark);
        mark
    }

    pub(super) fn free(&mut self, ifindex: u32) {
        if let Some(mark) = self.by_ifindex.remove(&ifindex) {
            self.used.remove(&mark);
        }
    }

    #[cfg(test)]
    pub(super) fn counts(&self) -> [usize; 2] {
        [self.by_ifindex.len(), self.used.len()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_that_would_share_a_mark_do_not() {
        let mut marks = Marks::default();
        let (a, b, c) = (marks.of(5), marks.of(5 + MARK_MAX), marks.of(MARK_MAX - 1));
        assert_eq!([a, b, c, marks.of(5)], [6, 7, MARK_MAX, 6]);
        assert_eq!(marks.of(2 * MARK_MAX - 1), 1, "after the last comes the first");
        marks.free(5);
        assert_eq!(marks.of(5 + 2 * MARK_MAX), 6);
        for ifindex in [5 + MARK_MAX, MARK_MAX - 1, 2 * MARK_MAX - 1, 5 + 2 * MARK_MAX] {
            marks.free(ifindex);
        }
        assert_eq!(marks.counts(), [0, 0]);
    }
}
