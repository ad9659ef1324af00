//! The order of tiers and policies in the compiler. (`reference` has its own.)

use std::cmp::Ordering;

use super::store::Store;
use crate::model::{HostRole, Policy, TierDefault};

/// A tier's place: those that do not exist come after all others, then by order, then by name.
pub(super) type TierPlace<'a> = (bool, Place, &'a str);

pub(super) fn tier_place<'a>(store: &Store, name: &'a str) -> TierPlace<'a> {
    let tier = store.tier(name);
    (tier.is_none(), Place(tier.and_then(|tier| tier.order)), name)
}

/// What the tier does with what it does not decide; one that does not exist denies.
pub(super) fn tier_default(store: &Store, name: &str) -> TierDefault {
    store
        .tier(name)
        .map_or(TierDefault::Deny, |tier| tier.default_action)
}

/// A policy's place in its tier: by order, then by name.
pub(super) type PolicyPlace = (Place, String);

pub(super) fn policy_place(policy: &Policy) -> PolicyPlace {
    let tie = format!(
        "{}/{}/{}",
        policy.key.name,
        policy.key.namespace.as_deref().unwrap_or(""),
        // One that is staged has the place that it would have.
        policy.key.kind.enforced().unwrap_or(policy.key.kind).as_str()
    );
    (Place(policy.order), tie)
}

/// Whether the policy is enforced, and on more than what a host does before connection tracking and translation.
pub(super) fn governs_pods(policy: &Policy) -> bool {
    policy.staged.is_none() && matches!(policy.host, HostRole::Normal | HostRole::Forward)
}

/// An `order` field: ascending, none last.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place(Option<f64>);

impl Ord for Place {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self.0, other.0) {
            // Adding zero makes -0.0 and 0.0 one order, as they are in the API.
            (Some(a), Some(b)) => (a + 0.0).total_cmp(&(b + 0.0)),
            (a, b) => a.is_none().cmp(&b.is_none()),
        }
    }
}

impl PartialOrd for Place {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Place {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Place {}
