//! The order of tiers and policies in the compiler. (`reference` has its own.)

use std::cmp::Ordering;
use std::sync::Arc;

use super::store::Store;
use crate::model::{HostRole, Policy, TierDefault};

/// A tier in its place, with all its policies in theirs.
pub(super) struct OrderedTier<'a> {
    pub(super) name: &'a str,
    pub(super) default: TierDefault,
    /// False if no such object exists.
    pub(super) exists: bool,
    pub(super) policies: Vec<&'a Arc<Policy>>,
}

/// Tiers of enforced policies that govern pods, by order, then name; those that do not exist after all others, denying
/// by default.
pub(super) fn ordered(store: &Store) -> Vec<OrderedTier<'_>> {
    let mut policies: Vec<_> = store.policies().filter(|policy| governs_pods(policy)).collect();
    policies.sort_by_cached_key(|p| {
        let tier = store.tier(&p.tier);
        let place = (tier.is_none(), Place(tier.and_then(|t| t.order)), p.tier.as_str());
        let tie = format!(
            "{}/{}/{}",
            p.key.name,
            p.key.namespace.as_deref().unwrap_or(""),
            // One that is staged has the place that it would have.
            p.key.kind.enforced().unwrap_or(p.key.kind).as_str()
        );
        (place, Place(p.order), tie)
    });
    let mut tiers: Vec<OrderedTier<'_>> = Vec::new();
    for policy in policies {
        match tiers.last_mut() {
            Some(last) if last.name == policy.tier => last.policies.push(policy),
            _ => {
                let tier = store.tier(&policy.tier);
                tiers.push(OrderedTier {
                    name: &policy.tier,
                    default: tier.map_or(TierDefault::Deny, |t| t.default_action),
                    exists: tier.is_some(),
                    policies: vec![policy],
                });
            }
        }
    }
    tiers
}

/// Whether the policy is enforced, and on more than what a host does before connection tracking and translation.
pub(super) fn governs_pods(policy: &Policy) -> bool {
    policy.staged.is_none() && matches!(policy.host, HostRole::Normal | HostRole::Forward)
}

/// An `order` field: ascending, none last.
struct Place(Option<f64>);

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
