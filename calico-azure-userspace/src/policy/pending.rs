//! What would be if staged policies were enforced.

use std::collections::HashSet;
use std::sync::Arc;

use super::store::{Event, Store};
use crate::model::{Key, Policy, Resource, StagedAction};

/// The policies as if the staged ones were enforced, by key: `Set` stands in the place of the enforced one of its name
/// or is added, `Delete` removes that one. A policy that was staged keeps its own key. `None` if nothing would change.
#[must_use]
pub fn pending_policies(store: &Store) -> Option<Vec<Arc<Policy>>> {
    let pending = pending(store)?;
    let enforced = pending.policies().filter(|policy| policy.staged.is_none());
    Some(enforced.cloned().collect())
}

/// The store as if its staged policies were enforced, so that it can be compiled. `None` if nothing would change.
#[must_use]
pub fn pending(store: &Store) -> Option<Store> {
    let events = pending_events(store);
    if events.is_empty() {
        return None;
    }
    let mut pending = store.clone();
    for event in events {
        pending.apply(event);
    }
    Some(pending)
}

/// The changes that enforce a store's staged policies, in any order.
#[must_use]
pub fn pending_events(store: &Store) -> Vec<Event> {
    let known: HashSet<&Key> = store.policies().map(|policy| &policy.key).collect();
    let staged = store
        .policies()
        .filter_map(|policy| Some((policy, policy.staged?)));
    let changes = staged.flat_map(|(policy, action)| {
        let becomes = (action == StagedAction::Set).then(|| {
            Event::Upsert(Resource::Policy(Policy {
                staged: None,
                ..Policy::clone(policy)
            }))
        });
        let replaces = matches!(action, StagedAction::Set | StagedAction::Delete);
        let kind = policy.key.kind.enforced().filter(|_| replaces);
        let replaced = kind
            .map(|kind| Key {
                kind,
                ..policy.key.clone()
            })
            .filter(|key| known.contains(key));
        becomes.into_iter().chain(replaced.map(Event::Delete))
    });
    changes.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{HostRole, Kind};
    use crate::selector::Selector;

    fn policy(kind: Kind, name: &str, staged: Option<StagedAction>) -> Resource {
        Resource::Policy(Policy {
            key: Key {
                kind,
                namespace: Some("ns".into()),
                name: name.into(),
            },
            tier: "default".into(),
            order: None,
            selector: Selector::all(),
            ingress: Some(Vec::new()),
            egress: None,
            staged,
            host: HostRole::Normal,
        })
    }

    #[test]
    fn staged_policies_take_the_places_of_those_of_their_name_and_kind() {
        let (staged, enforced) = (Kind::StagedNetworkPolicy, Kind::NetworkPolicy);
        let store: Store = [
            policy(enforced, "replaced", None),
            policy(staged, "replaced", Some(StagedAction::Set)),
            policy(Kind::KubernetesNetworkPolicy, "replaced", None),
            policy(staged, "added", Some(StagedAction::Set)),
            policy(enforced, "deleted", None),
            policy(staged, "deleted", Some(StagedAction::Delete)),
            policy(staged, "missing", Some(StagedAction::Delete)),
            policy(enforced, "kept", None),
            policy(staged, "kept", Some(StagedAction::Learn)),
            policy(staged, "ignored", Some(StagedAction::Ignore)),
        ]
        .into_iter()
        .collect();
        let policies = pending_policies(&store).unwrap();
        let names: Vec<_> = policies
            .iter()
            .map(|policy| (policy.key.kind, policy.key.name.as_str()))
            .collect();
        assert_eq!(
            names,
            [
                (Kind::KubernetesNetworkPolicy, "replaced"),
                (enforced, "kept"),
                (staged, "added"),
                (staged, "replaced"),
            ]
        );
    }

    #[test]
    fn nothing_is_pending_if_what_is_staged_changes_nothing() {
        let store: Store = [
            policy(Kind::NetworkPolicy, "a", None),
            policy(Kind::StagedNetworkPolicy, "a", Some(StagedAction::Learn)),
            policy(Kind::StagedNetworkPolicy, "b", Some(StagedAction::Ignore)),
            policy(Kind::StagedNetworkPolicy, "c", Some(StagedAction::Delete)),
        ]
        .into_iter()
        .collect();
        assert!(pending(&store).is_none());
    }
}
