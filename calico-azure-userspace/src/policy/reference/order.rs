//! Which policies are in force, and their order and that of tiers, apart from the compiler's.

use std::cmp::Ordering;

use super::{Branch, Coverage, Point};
use crate::model::{Key, Kind, Policy, StagedAction};
use crate::policy::Store;

/// The policies that are enforced.
pub(super) fn enforced(store: &Store) -> Vec<&Policy> {
    let policies = store.policies().map(AsRef::as_ref);
    policies
        .filter(|policy: &&Policy| policy.staged.is_none())
        .collect()
}

/// The policies as if the staged ones were enforced.
pub(super) fn pending<'a>(store: &'a Store, coverage: &Coverage) -> Vec<&'a Policy> {
    let mut policies = enforced(store);
    for staged in store.policies() {
        let Some(action) = staged.staged else { continue };
        let target = in_force(&staged.key);
        let place = policies.iter().position(|policy| policy.key == target);
        let point = match (action, place) {
            (StagedAction::Set, Some(_)) => Point::PendingReplaces,
            (StagedAction::Set, None) => Point::PendingAdds,
            (StagedAction::Delete, Some(_)) => Point::PendingRemoves,
            (StagedAction::Delete, None) => Point::PendingRemovesNothing,
            (StagedAction::Learn | StagedAction::Ignore, _) => Point::PendingChangesNothing,
        };
        coverage.take(Branch::Point(point));
        if matches!(action, StagedAction::Set | StagedAction::Delete)
            && let Some(place) = place
        {
            policies.remove(place);
        }
        if action == StagedAction::Set {
            policies.push(staged);
        }
    }
    policies
}

/// The key under which a staged policy would be enforced.
fn in_force(key: &Key) -> Key {
    Key {
        kind: enforced_kind(key.kind),
        ..key.clone()
    }
}

fn enforced_kind(kind: Kind) -> Kind {
    kind.enforced().unwrap_or(kind)
}

/// Names of the policies' tiers: existing ones by order and name, then the missing ones by name.
pub(super) fn tiers<'a>(store: &Store, policies: &[&'a Policy]) -> Vec<&'a str> {
    let mut names: Vec<&str> = policies.iter().map(|policy| policy.tier.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    names.sort_by(|a, b| match (store.tier(a), store.tier(b)) {
        (Some(x), Some(y)) => compare_orders(x.order, y.order),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => Ordering::Equal,
    });
    names
}

/// Policies of one tier.
pub(super) fn compare_policies(a: &Policy, b: &Policy) -> Ordering {
    compare_orders(a.order, b.order).then_with(|| composite_name(a).cmp(&composite_name(b)))
}

/// The string that breaks ties; its slashes are why `a-b` comes before `a`. A staged policy counts as what it would be.
fn composite_name(policy: &Policy) -> String {
    let Key {
        kind,
        namespace,
        name,
    } = &policy.key;
    let kind = enforced_kind(*kind).as_str();
    [name.as_str(), namespace.as_deref().unwrap_or_default(), kind].join("/")
}

fn compare_orders(a: Option<f64>, b: Option<f64>) -> Ordering {
    match (a, b) {
        (None, None) => Ordering::Equal,
        (None, Some(_)) => Ordering::Greater,
        (Some(_), None) => Ordering::Less,
        // Not a number does not occur in a validated policy; anything fixed will do.
        (Some(a), Some(b)) => a.partial_cmp(&b).unwrap_or_else(|| a.total_cmp(&b)),
    }
}
