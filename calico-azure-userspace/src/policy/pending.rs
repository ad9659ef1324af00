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

/// What an event means to who knows `pending(store)`; the store has taken it in already.
#[must_use]
pub fn follow(store: &Store, event: &Event) -> Vec<Event> {
    match event {
        Event::Upsert(Resource::Policy(policy)) => pair(store, &policy.key),
        Event::Delete(key) if key.kind.is_policy() => pair(store, key),
        other => vec![other.clone()],
    }
}

/// An enforced policy and the staged one of its name: whether there is the one, and what is staged decide about both.
fn pair(store: &Store, key: &Key) -> Vec<Event> {
    let with = |kind| Key { kind, ..key.clone() };
    let (enforced, staged) = match key.kind.enforced() {
        Some(kind) => (with(kind), Some(key.clone())),
        None => (key.clone(), key.kind.staged().map(with)),
    };
    let find = |key: &Key| store.policy(key);
    let staged_policy = staged.as_ref().and_then(find);
    let action = staged_policy.and_then(|policy| policy.staged);
    let is_replaced = matches!(action, Some(StagedAction::Set | StagedAction::Delete));
    let state = |key: Key, policy: Option<&Arc<Policy>>| match policy {
        Some(policy) => Event::Upsert(Resource::Policy(Policy {
            staged: None,
            ..Policy::clone(policy)
        })),
        None => Event::Delete(key),
    };
    let would_be = staged_policy.filter(|_| action == Some(StagedAction::Set));
    let stays = find(&enforced).filter(|_| !is_replaced);
    let mut events = vec![state(enforced, stays)];
    events.extend(staged.map(|key| state(key, would_be)));
    events
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

    /// Enforced policies of a store, with their keys.
    fn in_force(store: &Store) -> Vec<Policy> {
        let policies = store.policies().filter(|policy| policy.staged.is_none());
        policies.map(|policy| Policy::clone(policy)).collect()
    }

    #[test]
    fn followed_event_by_event_it_is_what_it_is_at_once() {
        use crate::policy::generate::Rng;
        use StagedAction::{Delete, Ignore, Learn, Set};
        let kinds = [
            (Kind::NetworkPolicy, Kind::StagedNetworkPolicy),
            (Kind::KubernetesNetworkPolicy, Kind::StagedKubernetesNetworkPolicy),
        ];
        let mut rng = Rng::new(1);
        let (mut store, mut followed) = (Store::default(), Store::default());
        let mut differed = 0;
        for _ in 0..2_000 {
            let (enforced, staged) = kinds[rng.below(2)];
            let name = ["a", "b"][rng.below(2)];
            let resource = match rng.below(6) {
                0 | 1 => policy(enforced, name, None),
                what => policy(staged, name, Some([Set, Delete, Learn, Ignore][what - 2])),
            };
            let event = if rng.chance(30) {
                Event::Delete(resource.key())
            } else {
                Event::Upsert(resource)
            };
            store.apply(event.clone());
            for event in follow(&store, &event) {
                followed.apply(event);
            }
            let expected = pending(&store);
            differed += usize::from(expected.is_some());
            assert_eq!(in_force(&followed), in_force(expected.as_ref().unwrap_or(&store)));
        }
        assert!(differed > 500, "{differed}");
    }
}
