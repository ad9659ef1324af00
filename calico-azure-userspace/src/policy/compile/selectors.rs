//! Finds the selectors that match an object without trying each.

use std::collections::{BTreeMap, HashMap};

use crate::selector::{LabelSource, Selector};

/// Selectors with their ids.
type List = Vec<(u32, Selector)>;

/// Selectors by a `label == value` that they cannot match without.
#[derive(Debug, Default)]
pub(super) struct SelectorIndex {
    by_label: BTreeMap<String, HashMap<String, List>>,
    others: List,
}

impl SelectorIndex {
    #[cfg(test)]
    fn new<'a>(selectors: impl IntoIterator<Item = (u32, &'a Selector)>) -> Self {
        let mut index = Self::default();
        for (id, selector) in selectors {
            index.insert(id, selector);
        }
        index
    }

    pub(super) fn insert(&mut self, id: u32, selector: &Selector) {
        let list = match selector.required_equals() {
            Some((key, value)) => {
                let values = self.by_label.entry(key.to_owned()).or_default();
                values.entry(value.to_owned()).or_default()
            }
            None => &mut self.others,
        };
        list.push((id, selector.clone()));
    }

    /// Takes out what was inserted with the same arguments.
    pub(super) fn remove(&mut self, id: u32, selector: &Selector) {
        let Some((key, value)) = selector.required_equals() else {
            self.others.retain(|(other, _)| *other != id);
            return;
        };
        let Some(values) = self.by_label.get_mut(key) else {
            return;
        };
        if let Some(list) = values.get_mut(value) {
            list.retain(|(other, _)| *other != id);
            if list.is_empty() {
                values.remove(value);
            }
        }
        if values.is_empty() {
            self.by_label.remove(key);
        }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.by_label.is_empty() && self.others.is_empty()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_out_matches_no_longer_and_leaves_nothing_behind() {
        let texts = [
            "app == 'web'",
            "app == 'web' && has(x)",
            "has(app)",
            "app == 'db'",
        ];
        let selectors = texts.map(|text| Selector::parse(text).unwrap());
        let labels = BTreeMap::from([("app".to_owned(), "web".to_owned())]);
        let mut index = SelectorIndex::new((1..).zip(&selectors));
        assert_eq!(index.matching(&labels), [1, 3]);
        index.remove(1, &selectors[0]);
        assert_eq!(index.matching(&labels), [3]);
        for (id, selector) in (1..).zip(&selectors) {
            index.remove(id, selector);
        }
        assert!(index.is_empty() && index.matching(&labels).is_empty());
    }
}
