//! Which policy sets the local endpoints get.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::bodies::{Bodies, Source};
use super::change::Sheet;
use super::claims::{Claims, PodName};
use super::counted::Counted;
use super::intern::Handle;
use super::marks::Marks;
use super::own::OwnSide;
use super::predicate::PerFamily;
use super::problems::Problems;
use super::profiles::{self, Found, SetProfile};
use super::rules::{Body, BodyContext, rules_of};
use super::select::Selection;
use super::sets::{Own, SetContent, SetEnd, SetPolicy, SetTier};
use super::sources::{SourceId, Sources};
use super::touched::Touched;
use super::{CompileError, Interners};
use crate::model::{Pod, Policy, TierDefault};
use crate::policy::order::{tier_default, tier_place};
use crate::policy::store::Store;
use crate::policy::topology::{self, pod_name};
use crate::policy::{DesiredEndpoint, Direction, Problem, RuleRef};

/// A local endpoint with the sets that it gets.
#[derive(Debug)]
struct Placed {
    ifindex: u32,
    group: SourceId,
    addresses: Vec<IpAddr>,
    sets: [Handle<SetContent>; 2],
    problems: Vec<Problem>,
    asks: Asks,
}

/// What the rules of its sets ask about the endpoint itself.
#[derive(Clone, Copy, Debug, Default)]
struct Asks {
    address: bool,
    service: bool,
}

#[derive(Debug, Default)]
pub(super) struct Placement {
    endpoints: BTreeMap<PodName, Placed>,
    marks: Marks,
    /// Sets that are not what they were: to be counted.
    pub(super) taken: Vec<Handle<SetContent>>,
    pub(super) left: Vec<Handle<SetContent>>,
}

/// Where content comes from.
pub(super) struct Context<'a> {
    pub(super) store: &'a Store,
    pub(super) claims: &'a Claims,
    pub(super) sources: &'a Sources,
    pub(super) bodies: &'a mut Bodies,
    pub(super) names: &'a mut Counted<RuleRef>,
    pub(super) interners: &'a mut Interners,
    pub(super) problems: &'a mut Problems,
    pub(super) sheet: &'a mut Sheet,
}

impl Placement {
    /// Endpoints whose own side of some rule may come out differently.
    pub(super) fn asking(&self, touched: &Touched, into: &mut BTreeSet<PodName>) {
        let addresses =
            touched.inheritance() || !touched.hosts.is_empty() || !touched.network_sets.is_empty();
        let services = !touched.services.is_empty();
        if !addresses && !services {
            return;
        }
        let asking = self.endpoints.iter().filter(|(_, placed)| {
            let Asks { address, service } = placed.asks;
            addresses && address || services && service
        });
        into.extend(asking.map(|(name, _)| Arc::clone(name)));
    }

    /// Finds the sets of the endpoints anew.
    pub(super) fn place(
        &mut self,
        dirty: &BTreeSet<PodName>,
        selection: &mut Selection,
        context: &mut Context<'_>,
    ) -> Result<(), CompileError> {
        // All leave before any comes: interfaces change hands.
        let mut before = Vec::new();
        for name in dirty {
            let old = self.endpoints.remove(name);
            if let Some(old) = &old {
                for address in &old.addresses {
                    context.sheet.owner(old.ifindex, *address, false);
                }
                context.sheet.endpoint(old.ifindex, None);
                self.marks.free(old.ifindex);
            }
            before.push(old);
        }
        for (name, old) in dirty.iter().zip(before) {
            let (group, mut problems) = match old {
                Some(old) => {
                    self.left.extend(old.sets);
                    (Some(old.group), old.problems)
                }
                None => (None, Vec::new()),
            };
            let endpoint = context.claims.get(name);
            let local = context.claims.local(name);
            let Some((endpoint, (Some(ifindex), addresses))) = endpoint.zip(local) else {
                if let Some(group) = group {
                    selection.leave(group, name);
                }
                context.problems.replace(&mut problems, Vec::new());
                continue;
            };
            if group != Some(endpoint.group) {
                if let Some(group) = group {
                    selection.leave(group, name);
                }
                selection.join(context.store, context.sources, endpoint.group, name);
            }
            let topology = topology::Endpoint {
                pod: &endpoint.pod,
                addresses,
                local: true,
                ifindex: Some(ifindex),
            };
            let mut placing = Placing {
                own: OwnSide::new(context.store, &topology),
                endpoint: &topology,
                selection,
                group: endpoint.group,
                context,
                problems: Vec::new(),
                asks: Asks::default(),
            };
            let sets = [placing.set(Direction::Ingress)?, placing.set(Direction::Egress)?];
            let Placing {
                problems: mut found,
                asks,
                ..
            } = placing;
            found.extend(namespace_missing(context.store, &endpoint.pod));
            context.problems.replace(&mut problems, found);
            let [ingress, egress] = &sets;
            let desired = DesiredEndpoint {
                pod: pod_name(&endpoint.pod),
                egress: egress.id(),
                ingress: ingress.id(),
                mark: self.marks.of(ifindex),
                addresses: topology.addresses.clone(),
            };
            for address in &topology.addresses {
                context.sheet.owner(ifindex, *address, true);
            }
            context.sheet.endpoint(ifindex, Some(desired));
            self.taken.extend(sets.iter().cloned());
            let placed = Placed {
                ifindex,
                group: endpoint.group,
                addresses: topology.addresses,
                sets,
                problems,
                asks,
            };
            self.endpoints.insert(Arc::clone(name), placed);
        }
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn counts(&self) -> Vec<usize> {
        let [marks, used] = self.marks.counts();
        vec![
            self.endpoints.len(),
            self.taken.len(),
            self.left.len(),
            marks,
            used,
        ]
    }
}

fn namespace_missing(store: &Store, pod: &Pod) -> Option<Problem> {
    store
        .namespace(&pod.namespace)
        .is_none()
        .then(|| Problem::NamespaceMissing {
            pod: pod_name(pod),
            namespace: pod.namespace.clone(),
        })
}

struct Placing<'p, 'c> {
    endpoint: &'p topology::Endpoint<'p>,
    own: OwnSide<'p>,
    selection: &'p Selection,
    group: SourceId,
    context: &'p mut Context<'c>,
    problems: Vec<Problem>,
    asks: Asks,
}

impl Placing<'_, '_> {
    fn set(&mut self, direction: Direction) -> Result<Handle<SetContent>, CompileError> {
        let content = self.content(direction)?;
        self.context.interners.contents.intern(content)
    }

    fn content(&mut self, direction: Direction) -> Result<SetContent, CompileError> {
        let store = self.context.store;
        let selection = self.selection;
        let selecting = selection.selecting(self.group);
        let known = selecting.filter_map(|id| Some((id, selection.get(id)?)));
        let mut selected: Vec<_> = known
            .filter(|(_, known)| rules_of(&known.policy, direction).is_some())
            .map(|(id, known)| (tier_place(store, &known.policy.tier), &known.place, id, known))
            .collect();
        selected.sort_unstable_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1)));

        let mut open = true;
        let mut tiers = Vec::new();
        for tier in selected.chunk_by(|a, b| a.0 == b.0) {
            let Some(((_, _, name), ..)) = tier.first() else {
                continue;
            };
            let default = tier_default(store, name);
            let mut closed = default == TierDefault::Deny;
            let mut policies = Vec::with_capacity(tier.len());
            for (_, _, id, known) in tier {
                let body = self.body(Source::Policy(*id), &known.policy, direction)?;
                closed &= !body.passes;
                policies.push(self.policy(&body));
            }
            open &= !closed;
            tiers.push(SetTier {
                name: (*name).to_owned(),
                default,
                policies,
            });
        }
        let profiles = open.then(|| self.profiles(direction)).transpose()?;
        Ok(SetContent {
            tiers,
            profiles,
            end: SetEnd::Deny,
        })
    }

    fn profiles(&mut self, direction: Direction) -> Result<Box<[SetProfile]>, CompileError> {
        let found = profiles::of_pod(self.context.store, self.endpoint.pod).into_iter();
        let compiled = found.map(|found| match found {
            Found::All { name, allows } => Ok(SetProfile::All { name, allows }),
            Found::Object(profile) => {
                let policy = Arc::new(profiles::as_policy(profile));
                let name = profile.name.clone();
                let body = self.body(Source::Profile(name.clone()), &policy, direction)?;
                let rules = self.policy(&body);
                Ok(SetProfile::Rules { name, rules })
            }
        });
        compiled.collect()
    }

    fn body(
        &mut self,
        source: Source,
        policy: &Arc<Policy>,
        direction: Direction,
    ) -> Result<Arc<Body>, CompileError> {
        let Context {
            bodies,
            names,
            interners,
            ..
        } = &mut *self.context;
        let mut context = BodyContext {
            predicates: &mut interners.predicates,
            references: &mut interners.references,
        };
        bodies.of(source, policy, direction, &mut context, names)
    }

    /// The body, with what it asks about the endpoint itself resolved.
    fn policy(&mut self, body: &Body) -> SetPolicy {
        let own = body.asks_own.then(|| self.own(body));
        SetPolicy { body: body.id, own }
    }

    fn own(&mut self, body: &Body) -> Box<[PerFamily<Own>]> {
        self.asks.address = true;
        let resolved = body.rules.iter().map(|rule| {
            let service = rule.own.as_ref().is_some_and(|own| own.side.service.is_some());
            self.asks.service |= service;
            let (resolved, ambiguous) = self.own.resolve(rule);
            if ambiguous {
                self.problems.push(Problem::OwnAddressAmbiguous {
                    policy: body.policy.key.clone(),
                    direction: body.direction,
                    index: rule.index,
                    pod: pod_name(self.endpoint.pod),
                });
            }
            resolved
        });
        resolved.collect()
    }
}
