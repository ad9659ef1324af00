//! Peer classes: which predicates hold together for some address.

use std::collections::{BTreeSet, HashMap};

use super::counted::{Counted, Turnover};
use super::intern::{Handle, Interner};
use super::predicate::{Family, Held};

/// What a class is: the predicates (ascending, at least one) that hold for its addresses.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Class {
    pub(super) family: Family,
    pub(super) holding: Box<[Held]>,
}

impl Class {
    /// Predicates that hold, at whatever port.
    pub(super) fn predicates(&self) -> impl Iterator<Item = u32> {
        let without_ports = self.holding.iter().filter(|held| held.port().is_none());
        without_ports.map(|held| held.predicate())
    }
}

/// The classes in use: some prefix is shown to have them, because they are not what the prefix around it has.
#[derive(Debug, Default)]
pub(super) struct Classes {
    used: Counted<Class>,
    by_predicate: HashMap<u32, BTreeSet<u32>>,
}

impl Classes {
    /// A prefix is shown to have another class than before.
    pub(super) fn replace(&mut self, old: Option<&Handle<Class>>, new: Option<&Handle<Class>>) {
        if let Some(class) = new {
            self.used.hold(class);
        }
        if let Some(class) = old {
            self.used.release(class.id());
        }
    }

    /// What changed since the last call.
    pub(super) fn turnover(&mut self, interner: &mut Interner<Class>) -> Turnover<Class> {
        let turnover = self.used.turnover(interner);
        for class in &turnover.new {
            for predicate in class.value().predicates() {
                let classes = self.by_predicate.entry(predicate).or_default();
                classes.insert(class.id());
            }
        }
        for class in &turnover.gone {
            for predicate in class.value().predicates() {
                if let Some(classes) = self.by_predicate.get_mut(&predicate) {
                    classes.remove(&class.id());
                    if classes.is_empty() {
                        self.by_predicate.remove(&predicate);
                    }
                }
            }
        }
        turnover
    }

    /// Classes in use for which at least one of the predicates holds, each once, in order.
    pub(super) fn touching(&self, predicates: &[u32]) -> impl Iterator<Item = &Handle<Class>> {
        let ids = predicates
            .iter()
            .filter_map(|predicate| self.by_predicate.get(predicate))
            .flatten();
        let ids: BTreeSet<u32> = ids.copied().collect();
        ids.into_iter().filter_map(|id| self.used.get(id))
    }

    #[cfg(test)]
    pub(super) fn counts(&self) -> Vec<usize> {
        vec![self.used.len(), self.by_predicate.len()]
    }
}
