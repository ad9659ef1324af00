//! Which policy sets the local endpoints get, and the bodies of the policies in them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::intern::Handle;
use super::own::OwnSide;
use super::predicate::PerFamily;
use super::profiles::{self, Found, SetProfile};
use super::rules::{Body, BodyContext, rules_of};
use super::selectors::SelectorIndex;
use super::sets::{Own, SetContent, SetPolicy, SetTier};
use super::{Bodies, CompileError, Compiler};
use crate::model::{Labels, Policy, TierDefault};
use crate::policy::labels::EffectiveLabels;
use crate::policy::order::OrderedTier;
use crate::policy::store::Store;
use crate::policy::topology::{Endpoint, Topology, pod_name};
use crate::policy::{Direction, Problem};

/// A local endpoint with the sets that it gets.
pub(super) struct Placed<'a> {
    pub(super) endpoint: &'a Endpoint<'a>,
    pub(super) ifindex: u32,
    pub(super) ingress: u32,
    pub(super) egress: u32,
}

/// What placing finds.
#[derive(Default)]
pub(super) struct Placement<'a> {
    pub(super) placed: Vec<Placed<'a>>,
    /// Sets, by id.
    pub(super) contents: BTreeMap<u32, Handle<SetContent>>,
    pub(super) bodies: Bodies,
    /// The same bodies, by id.
    pub(super) by_id: BTreeMap<u64, Arc<Body>>,
    pub(super) problems: Vec<Problem>,
}

/// Finds the sets of all local endpoints, and the bodies of the policies that any of them uses.
pub(super) fn place<'a>(
    compiler: &mut Compiler,
    store: &'a Store,
    tiers: &[OrderedTier<'a>],
    topology: &'a Topology<'a>,
) -> Result<Placement<'a>, CompileError> {
    let mut placing = Placing {
        compiler,
        store,
        found: Placement::default(),
    };
    placing.place(tiers, topology)?;
    Ok(placing.found)
}

struct Placing<'c, 'a> {
    compiler: &'c mut Compiler,
    store: &'a Store,
    found: Placement<'a>,
}

impl<'a> Placing<'_, 'a> {
    fn place(&mut self, tiers: &[OrderedTier<'a>], topology: &'a Topology<'a>) -> Result<(), CompileError> {
        let policies = tiers.iter().flat_map(|tier| &tier.policies);
        let selectors = SelectorIndex::new(
            (0..)
                .zip(policies)
                .map(|(place, policy)| (place, &policy.selector)),
        );
        type Alike<'a> = (&'a str, &'a str, &'a Labels, &'a Option<Vec<String>>);
        let mut selected: HashMap<Alike<'_>, Vec<u32>> = HashMap::new();
        for endpoint in &topology.endpoints {
            let Some(ifindex) = endpoint.ifindex else { continue };
            let pod = endpoint.pod;
            if self.store.namespace(&pod.namespace).is_none() {
                let (pod, namespace) = (pod_name(pod), pod.namespace.clone());
                self.found
                    .problems
                    .push(Problem::NamespaceMissing { pod, namespace });
            }
            let selected = selected
                .entry((&pod.namespace, &pod.service_account, &pod.labels, &pod.profiles))
                .or_insert_with(|| selectors.matching(&EffectiveLabels::of_pod(self.store, pod)));
            let own = OwnSide::new(self.store, endpoint);
            let mut set = |direction| {
                let content = self.content(tiers, selected, endpoint, &own, direction)?;
                let handle = self.compiler.contents.intern(content)?;
                let id = handle.id();
                self.found.contents.insert(id, handle);
                Ok::<_, CompileError>(id)
            };
            let (ingress, egress) = (set(Direction::Ingress)?, set(Direction::Egress)?);
            self.found.placed.push(Placed {
                endpoint,
                ifindex,
                ingress,
                egress,
            });
        }
        Ok(())
    }

    /// `selected`: places of the policies that select the endpoint, counted through all tiers.
    fn content(
        &mut self,
        tiers: &[OrderedTier<'a>],
        selected: &[u32],
        endpoint: &Endpoint<'_>,
        own: &OwnSide<'_>,
        direction: Direction,
    ) -> Result<SetContent, CompileError> {
        let mut open = true;
        let mut selected_tiers = Vec::new();
        let mut places = selected.iter().copied().peekable();
        let mut first = 0;
        for tier in tiers {
            let mut policies = Vec::new();
            let mut closed = tier.default == TierDefault::Deny;
            for (place, policy) in (first..).zip(&tier.policies) {
                if places.next_if_eq(&place).is_some() && rules_of(policy, direction).is_some() {
                    let body = self.body(policy, direction)?;
                    let own = body.asks_own.then(|| self.own(&body, endpoint, own));
                    closed &= !body.passes;
                    policies.push(SetPolicy { body: body.id, own });
                }
            }
            first = first.saturating_add(u32::try_from(tier.policies.len()).unwrap_or(u32::MAX));
            if !policies.is_empty() {
                open &= !closed;
                selected_tiers.push(SetTier {
                    name: tier.name.to_owned(),
                    default: tier.default,
                    policies,
                });
            }
        }
        let profiles = open
            .then(|| self.profiles(endpoint, own, direction))
            .transpose()?;
        Ok(SetContent {
            tiers: selected_tiers,
            profiles,
        })
    }

    fn profiles(
        &mut self,
        endpoint: &Endpoint<'_>,
        own: &OwnSide<'_>,
        direction: Direction,
    ) -> Result<Box<[SetProfile]>, CompileError> {
        let found = profiles::of_pod(self.store, endpoint.pod).into_iter();
        let compiled = found.map(|found| match found {
            Found::All { name, allows } => Ok(SetProfile::All { name, allows }),
            Found::Object(profile) => {
                let body = self.body(&Arc::new(profiles::as_policy(profile)), direction)?;
                let own = body.asks_own.then(|| self.own(&body, endpoint, own));
                Ok(SetProfile::Rules {
                    name: profile.name.clone(),
                    rules: SetPolicy { body: body.id, own },
                })
            }
        });
        compiled.collect()
    }

    fn body(&mut self, policy: &Arc<Policy>, direction: Direction) -> Result<Arc<Body>, CompileError> {
        let key = (policy.key.clone(), direction);
        if let Some(body) = self.found.bodies.get(&key) {
            return Ok(Arc::clone(body));
        }
        let compiler = &mut *self.compiler;
        let body = match compiler.bodies.get(&key).filter(|body| body.is_of(policy)) {
            Some(body) => Arc::clone(body),
            None => {
                let mut context = BodyContext {
                    predicates: &mut compiler.predicates,
                    references: &mut compiler.references,
                };
                let body = Body::new(compiler.next_body, policy, direction, &mut context)?;
                compiler.next_body += 1;
                Arc::new(body)
            }
        };
        self.found.by_id.insert(body.id, Arc::clone(&body));
        self.found.bodies.insert(key, Arc::clone(&body));
        Ok(body)
    }

    fn own(&mut self, body: &Body, endpoint: &Endpoint<'_>, own: &OwnSide<'_>) -> Box<[PerFamily<Own>]> {
        let resolved = body.rules.iter().map(|rule| {
            let (resolved, ambiguous) = own.resolve(rule);
            if ambiguous {
                self.found.problems.push(Problem::OwnAddressAmbiguous {
                    policy: body.policy.key.clone(),
                    direction: body.direction,
                    index: rule.index,
                    pod: pod_name(endpoint.pod),
                });
            }
            resolved
        });
        resolved.collect()
    }
}
