//! What would be known if the staged policies were enforced.

use super::store::{Event, Store};
use crate::model::{Key, Policy, Resource, StagedAction};

impl Store {
    /// The same resources with every staged policy carried out: `Set` puts it in the place of the enforced one of its
    /// name, `Delete` takes that one away. It keeps its key, so that verdicts name it.
    #[must_use]
    pub fn pending(&self) -> Self {
        let mut store = self.clone();
        for staged in self.policies() {
            let Some(action) = staged.staged else { continue };
            store.apply(Event::Delete(staged.key.clone()));
            if matches!(action, StagedAction::Set | StagedAction::Delete) {
                store.apply(Event::Delete(Key {
                    kind: staged.key.kind.enforced().unwrap_or(staged.key.kind),
                    ..staged.key.clone()
                }));
            }
            if action == StagedAction::Set {
                store.apply(Event::Upsert(Resource::Policy(Policy {
                    staged: None,
                    ..Policy::clone(staged)
                })));
            }
        }
        store
    }
}
