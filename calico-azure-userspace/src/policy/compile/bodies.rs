//! The rules of the policies and profiles that are in some policy set, and the predicates that they ask about.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::CompileError;
use super::counted::{Counted, Turnover};
use super::intern::Interner;
use super::predicate::{Predicate, PredicateHandle};
use super::rules::{Body, BodyContext, BodyRule};
use super::select::PolicyId;
use crate::model::{Key, Policy};
use crate::policy::{Direction, RuleRef};

/// Where a body's rules come from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Source {
    Policy(PolicyId),
    Profile(String),
    /// A policy of host endpoints.
    OfHost(Key),
    Failsafes,
}

#[derive(Debug)]
struct InUse {
    body: Arc<Body>,
    place: (Source, Direction),
    /// Sets that it is in.
    sets: usize,
}

#[derive(Debug, Default)]
pub(super) struct Bodies {
    next: u64,
    current: HashMap<(Source, Direction), u64>,
    by_id: BTreeMap<u64, InUse>,
    predicates: Counted<Predicate>,
    /// Made, or taken out of a set, since the last turnover.
    unsure: Vec<u64>,
}

impl Bodies {
    /// None, but with ids that were not used before.
    pub(super) fn after(old: &Self) -> Self {
        Self {
            next: old.next,
            ..Self::default()
        }
    }

    pub(super) fn get(&self, id: u64) -> Option<&Arc<Body>> {
        self.by_id.get(&id).map(|in_use| &in_use.body)
    }

    /// The rules of the policy in one direction: those known already if they are still the same.
    pub(super) fn of(
        &mut self,
        source: Source,
        policy: &Arc<Policy>,
        direction: Direction,
        context: &mut BodyContext<'_>,
        names: &mut Counted<RuleRef>,
    ) -> Result<Arc<Body>, CompileError> {
        let place = (source, direction);
        let known = self.current.get(&place).and_then(|id| self.get(*id));
        if let Some(body) = known.filter(|body| body.policy.key == policy.key && body.is_of(policy)) {
            return Ok(Arc::clone(body));
        }
        let id = self.next;
        let body = Arc::new(Body::new(id, policy, direction, context)?);
        self.next += 1;
        self.current.insert(place.clone(), id);
        self.unsure.push(id);
        let in_use = InUse {
            body: Arc::clone(&body),
            place,
            sets: 0,
        };
        self.by_id.insert(id, in_use);
        for predicate in body.rules.iter().flat_map(BodyRule::predicates) {
            self.predicates.hold(predicate);
        }
        for reference in body.rules.iter().filter_map(|rule| rule.reference.as_ref()) {
            names.hold(reference);
        }
        Ok(body)
    }

    /// The body is in one more set.
    pub(super) fn hold(&mut self, id: u64) {
        if let Some(in_use) = self.by_id.get_mut(&id) {
            in_use.sets += 1;
        }
    }

    /// The body is in one set less.
    pub(super) fn release(&mut self, id: u64) {
        if let Some(in_use) = self.by_id.get_mut(&id) {
            in_use.sets = in_use.sets.saturating_sub(1);
            self.unsure.push(id);
        }
    }

    /// A predicate that somebody else asks about.
    pub(super) fn hold_predicate(&mut self, predicate: &PredicateHandle) {
        self.predicates.hold(predicate);
    }

    /// One less asks about it.
    pub(super) fn release_predicate(&mut self, predicate: &PredicateHandle) {
        self.predicates.release(predicate.id());
    }

    /// Forgets what is in no set any more; what the others ask about.
    pub(super) fn turnover(
        &mut self,
        predicates: &mut Interner<Predicate>,
        names: &mut Counted<RuleRef>,
    ) -> Turnover<Predicate> {
        for id in std::mem::take(&mut self.unsure) {
            if self.by_id.get(&id).is_none_or(|in_use| in_use.sets > 0) {
                continue;
            }
            let Some(InUse { body, place, .. }) = self.by_id.remove(&id) else {
                continue;
            };
            if self.current.get(&place) == Some(&id) {
                self.current.remove(&place);
            }
            for predicate in body.rules.iter().flat_map(BodyRule::predicates) {
                self.predicates.release(predicate.id());
            }
            for reference in body.rules.iter().filter_map(|rule| rule.reference.as_ref()) {
                names.release(reference.id());
            }
        }
        self.predicates.turnover(predicates)
    }

    #[cfg(test)]
    pub(super) fn counts(&self) -> Vec<usize> {
        vec![
            self.current.len(),
            self.by_id.len(),
            self.predicates.len(),
            self.unsure.len(),
        ]
    }
}
