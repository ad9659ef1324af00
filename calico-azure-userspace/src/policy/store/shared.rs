//! Labels that many pods have, kept once: those of a ReplicaSet are alike. Only the store uses this.

use std::collections::HashSet;
use std::sync::Arc;

use crate::model::Labels;

/// Sets that may be there, whoever still has them.
const FEW: usize = 1000;

/// Labels by what they say.
#[derive(Clone, Debug, Default)]
pub(super) struct SharedLabels {
    known: HashSet<Arc<Labels>>,
    /// How many there were after the last look for those that nobody has.
    kept: usize,
}

impl SharedLabels {
    /// The same labels, and the same as others have.
    pub(super) fn share(&mut self, labels: Arc<Labels>) -> Arc<Labels> {
        if let Some(known) = self.known.get(&labels) {
            return Arc::clone(known);
        }
        // Now and then, so that it costs each only a little.
        if self.known.len() >= 2 * self.kept + FEW {
            self.known.retain(|labels| Arc::strong_count(labels) > 1);
            self.kept = self.known.len();
        }
        self.known.insert(Arc::clone(&labels));
        labels
    }
}

/// What is shared says nothing that the pods do not say.
impl PartialEq for SharedLabels {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(value: usize) -> Arc<Labels> {
        Arc::new(Labels::from([("app".to_owned(), value.to_string())]))
    }

    #[test]
    fn equal_labels_are_one_and_what_nobody_has_goes() {
        let mut shared = SharedLabels::default();
        let first = shared.share(labels(0));
        assert!(Arc::ptr_eq(&first, &shared.share(labels(0))));
        assert!(!Arc::ptr_eq(&first, &shared.share(labels(1))));
        for job in 0..10 * FEW {
            drop(shared.share(labels(job)));
        }
        assert!(shared.known.len() <= FEW + 1, "{}", shared.known.len());
        assert!(Arc::ptr_eq(&first, &shared.share(labels(0))));
    }
}
