//! Staged policies as if they were enforced.

use crate::model::{Key, Policy, Resource, StagedAction};
use crate::policy::store::{Event, Store};

/// `Set` puts the policy in the place of the enforced one of its name, or adds it; `Delete` takes that one away.
pub(super) fn apply(store: &mut Store) {
    let staged: Vec<_> = store
        .policies()
        .filter(|policy| policy.staged.is_some())
        .cloned()
        .collect();
    for policy in staged {
        let key = Key {
            kind: policy.key.kind.enforced().unwrap_or(policy.key.kind),
            ..policy.key.clone()
        };
        match policy.staged {
            Some(StagedAction::Set) => {
                let enforced = Policy {
                    key,
                    staged: None,
                    ..Policy::clone(&policy)
                };
                store.apply(Event::Upsert(Resource::Policy(enforced)));
            }
            Some(StagedAction::Delete) => {
                store.apply(Event::Delete(key));
            }
            Some(StagedAction::Learn | StagedAction::Ignore) | None => {}
        }
    }
}
