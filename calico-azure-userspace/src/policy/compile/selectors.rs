//! Finds the selectors that match an object without trying each.

use std::collections::{BTreeMap, HashMap};

use crate::selector::{LabelSource, Selector};

/// Selectors with their ids.
type List<'a> = Vec<(u32, &'a Selector)>;

/// Selectors by a `label == value` that they cannot match without.
#[derive(Default)]
pub(super) struct SelectorIndex<'a> {
    by_label: BTreeMap<&'a str, HashMap<&'a str, List<'a>>>,
    others: List<'a>,
}

impl<'a> SelectorIndex<'a> {
    pub(super) fn new(selectors: impl IntoIterator<Item = (u32, &'a Selector)>) -> Self {
        let mut index = Self::default();
        for (id, selector) in selectors {
            let list = match selector.required_equals() {
                Some((key, value)) => index.by_label.entry(key).or_default().entry(value).or_default(),
                None => &mut index.others,
            };
            list.push((id, selector));
        }
        index
    }

    /// Ids of those that match, ascending.
    pub(super) fn matching(&self, labels: &impl LabelSource) -> Vec<u32> {
        let required = self
            .by_label
            .iter()
            .filter_map(|(key, values)| values.get(labels.get(key)?))
            .flatten();
        let mut found: Vec<u32> = required
            .chain(&self.others)
            .filter(|(_, selector)| selector.matches(labels))
            .map(|(id, _)| *id)
            .collect();
        found.sort_unstable();
        found
    }
}
