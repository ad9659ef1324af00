//! Which policies select the groups that have an endpoint on this node.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::claims::PodName;
use super::problems::Problems;
use super::selectors::SelectorIndex;
use super::sources::{SourceId, Sources};
use super::touched::Touched;
use crate::model::{Key, Policy};
use crate::policy::Problem;
use crate::policy::order::{PolicyPlace, governs_pods, policy_place};
use crate::policy::store::Store;

/// For as long as the policy exists.
pub(super) type PolicyId = u32;

/// A policy that governs pods.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) policy: Arc<Policy>,
    pub(super) place: PolicyPlace,
}

#[derive(Debug, Default)]
pub(super) struct Selection {
    ids: HashMap<Key, PolicyId>,
    known: Vec<Option<Known>>,
    free: Vec<PolicyId>,
    selectors: SelectorIndex,
    by_tier: BTreeMap<String, BTreeSet<Key>>,
    tiers_missing: BTreeMap<String, Vec<Problem>>,
    groups: HashMap<SourceId, Group>,
}

/// Pods of this node that every selector treats alike.
#[derive(Debug, Default)]
struct Group {
    endpoints: BTreeSet<PodName>,
    selected: BTreeSet<PolicyId>,
}

impl Selection {
    pub(super) fn get(&self, id: PolicyId) -> Option<&Known> {
        self.known.get(id as usize)?.as_ref()
    }

    /// Policies that select the group's pods.
    pub(super) fn selecting(&self, group: SourceId) -> impl Iterator<Item = PolicyId> {
        self.groups
            .get(&group)
            .into_iter()
            .flat_map(|group| &group.selected)
            .copied()
    }

    /// An endpoint that needs policy.
    pub(super) fn join(&mut self, store: &Store, sources: &Sources, group: SourceId, name: &PodName) {
        let selectors = &self.selectors;
        let new = || Group {
            endpoints: BTreeSet::new(),
            selected: selected(store, sources, selectors, group),
        };
        let group = self.groups.entry(group).or_insert_with(new);
        group.endpoints.insert(Arc::clone(name));
    }

    pub(super) fn leave(&mut self, group: SourceId, name: &PodName) {
        if let Some(local) = self.groups.get_mut(&group) {
            local.endpoints.remove(name);
            if local.endpoints.is_empty() {
                self.groups.remove(&group);
            }
        }
    }

    /// Follows policies, tiers and labels; every endpoint for which something may be different goes into `dirty`.
    pub(super) fn update(
        &mut self,
        store: &Store,
        touched: &Touched,
        sources: &Sources,
        problems: &mut Problems,
        dirty: &mut BTreeSet<PodName>,
    ) {
        let mut tiers = touched.tiers.clone();
        for key in &touched.policies {
            let policy = store.policy(key).filter(|policy| governs_pods(policy));
            self.replace(store, sources, key, policy, &mut tiers, dirty);
        }
        for tier in tiers {
            let missing = store.tier(&tier).is_none();
            let policies = self.by_tier.get(&tier).into_iter().flatten();
            let policies = policies.filter(|_| missing).map(|policy| Problem::TierMissing {
                policy: policy.clone(),
                tier: tier.clone(),
            });
            let mut reported = self.tiers_missing.remove(&tier).unwrap_or_default();
            problems.replace(&mut reported, policies.collect());
            if !reported.is_empty() {
                self.tiers_missing.insert(tier, reported);
            }
        }
        if !touched.tiers.is_empty() {
            let known = &self.known;
            let of_tier = |id: &PolicyId| {
                let known = known.get(*id as usize).and_then(Option::as_ref);
                known.is_some_and(|known| touched.tiers.contains(&known.policy.tier))
            };
            let groups = self
                .groups
                .values()
                .filter(|group| group.selected.iter().any(of_tier));
            dirty.extend(groups.flat_map(|group| &group.endpoints).cloned());
        }
        for id in sources.dirty_groups() {
            if let Some(group) = self.groups.get_mut(&id) {
                group.selected = selected(store, sources, &self.selectors, id);
                dirty.extend(group.endpoints.iter().cloned());
            }
        }
    }

    fn replace(
        &mut self,
        store: &Store,
        sources: &Sources,
        key: &Key,
        policy: Option<&Arc<Policy>>,
        tiers: &mut BTreeSet<String>,
        dirty: &mut BTreeSet<PodName>,
    ) {
        let old = self.ids.get(key).copied();
        if let Some(id) = old
            && let Some(old) = self.known.get_mut(id as usize).and_then(Option::take)
        {
            self.selectors.remove(id, &old.policy.selector);
            let tier = &old.policy.tier;
            if let Some(policies) = self.by_tier.get_mut(tier) {
                policies.remove(key);
                if policies.is_empty() {
                    self.by_tier.remove(tier);
                }
            }
            tiers.insert(tier.clone());
        }
        let Some(policy) = policy else {
            let Some(id) = self.ids.remove(key) else { return };
            for group in self.groups.values_mut() {
                if group.selected.remove(&id) {
                    dirty.extend(group.endpoints.iter().cloned());
                }
            }
            self.free.push(id);
            return;
        };
        let id = old.unwrap_or_else(|| {
            let id = self.free.pop().unwrap_or_else(|| {
                self.known.push(None);
                // More do not fit into memory.
                PolicyId::try_from(self.known.len() - 1).unwrap_or(PolicyId::MAX)
            });
            self.ids.insert(key.clone(), id);
            id
        });
        self.selectors.insert(id, &policy.selector);
        let policies = self.by_tier.entry(policy.tier.clone()).or_default();
        policies.insert(key.clone());
        tiers.insert(policy.tier.clone());
        for (group, local) in &mut self.groups {
            let selects = sources.labels_of(store, *group, |labels| policy.selector.matches(labels));
            let selected = if selects {
                !local.selected.insert(id)
            } else {
                local.selected.remove(&id)
            };
            if selects || selected {
                dirty.extend(local.endpoints.iter().cloned());
            }
        }
        let known = Known {
            policy: Arc::clone(policy),
            place: policy_place(policy),
        };
        if let Some(place) = self.known.get_mut(id as usize) {
            *place = Some(known);
        }
    }

    #[cfg(test)]
    pub(super) fn counts(&self) -> Vec<usize> {
        vec![
            self.ids.len(),
            self.known.iter().flatten().count(),
            self.by_tier.len(),
            self.tiers_missing.len(),
            self.groups.len(),
            usize::from(!self.selectors.is_empty()),
        ]
    }
}

fn selected(
    store: &Store,
    sources: &Sources,
    selectors: &SelectorIndex,
    group: SourceId,
) -> BTreeSet<PolicyId> {
    sources.labels_of(store, group, |labels| {
        selectors.matching(labels).into_iter().collect()
    })
}
