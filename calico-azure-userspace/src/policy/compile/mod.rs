//! The compiler: a full recompute of [`Desired`] from the store. Ids of content that did not change stay.
//!
//! | content | module | id |
//! |---|---|---|
//! | address predicates that active policies use | `predicate`, `rules` | internal |
//! | peer classes: which predicates hold together for some address | `classes` | slot |
//! | policy sets: what decides one direction of an endpoint | `sets`, `own` | slot |
//! | port tables: the first match of every port for (set, class) | `paint`, `encode` | table |
//! | what decided: rules, tier defaults, profiles | `sets` | rule |
//!
//! An id is bound to its content (`intern`), so a table that changes is a table with another id: while an update is
//! under way, old and new exist side by side in the kernel and neither is ever half of the other.

mod classes;
mod encode;
mod intern;
mod output;
mod own;
mod paint;
mod predicate;
mod rules;
mod selectors;
mod sets;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use calico_azure_ebpf::abi::{CLASS_DEFAULT_V6, word};

use self::classes::{Class, Classes};
use self::encode::Table;
use self::intern::{Handle, Interner};
use self::output::Paired;
use self::own::OwnSide;
use self::predicate::{Predicate, PredicateHandle};
use self::rules::{Body, BodyContext, rules_of};
use self::selectors::SelectorIndex;
use self::sets::{Profile, Set, SetContent, SetPolicy, SetTier};
use super::labels::EffectiveLabels;
use super::order::{OrderedTier, ordered};
use super::store::Store;
use super::topology::{Endpoint, Topology, pod_name};
use super::{Desired, Direction, Problem, RuleRef};
use crate::model::{Key, Labels, Policy, TierDefault};

/// Why there is no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// The ABI has no more ids of a kind.
    #[error(
        "out of ids for {what}: the kernel's tables can tell {limit} of them apart, and all are in use or not yet \
         forgotten by the kernel: use fewer distinct selectors, CIDRs or policies on this node"
    )]
    OutOfIds { what: &'static str, limit: u32 },
}

/// Ids that an earlier agent left in the kernel; content of this one gets others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reserved {
    pub sets: BTreeSet<u32>,
    pub classes: BTreeSet<u32>,
    pub tables: BTreeSet<u32>,
    pub rules: BTreeSet<u32>,
}

/// The result.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// What the kernel should hold.
    pub desired: Desired,
    /// What rule ids in decisions and events stand for.
    pub rules: BTreeMap<u32, RuleRef>,
    /// Contradictions between resources, each once.
    pub problems: Vec<Problem>,
    /// What policy sets are made of.
    pub sets: BTreeMap<u32, SetInfo>,
}

/// What a policy set is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetInfo {
    /// Tiers with a policy for the endpoint, in order.
    pub tiers: Vec<TierInfo>,
    /// What decides after them; `None` if a tier denies everything that gets to its end.
    pub profile: Option<String>,
    /// Number of rules in all.
    pub rules: usize,
}

/// A tier of a policy set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TierInfo {
    pub tier: String,
    pub default: TierDefault,
    /// In order.
    pub policies: Vec<Key>,
}

/// Remembers which content has which id, and tables that are still good.
#[derive(Debug)]
pub struct Compiler {
    predicates: Interner<Predicate>,
    classes: Interner<Class>,
    contents: Interner<SetContent>,
    tables: Interner<Table>,
    references: Interner<RuleRef>,
    next_body: u64,
    // What the last output was made of. Holding it keeps its ids.
    bodies: HashMap<(Key, Direction), Arc<Body>>,
    sets: BTreeMap<u32, Paired>,
    classified: Classes,
}

/// A local endpoint with the sets that it gets.
struct Placed<'a> {
    endpoint: &'a Endpoint<'a>,
    ifindex: u32,
    ingress: u32,
    egress: u32,
}

impl Default for Compiler {
    fn default() -> Self {
        Self::new(Reserved::default())
    }
}

impl Compiler {
    /// A compiler that gives out none of the reserved ids until [`Self::applied`].
    #[must_use]
    pub fn new(reserved: Reserved) -> Self {
        let Reserved {
            sets,
            classes,
            tables,
            rules,
        } = reserved;
        Self {
            predicates: Interner::new("address predicates", 1, u32::MAX, BTreeSet::new()),
            classes: Interner::new("peer classes", CLASS_DEFAULT_V6 + 1, word::SLOT_MAX, classes),
            contents: Interner::new("policy sets", 1, word::SLOT_MAX, sets),
            tables: Interner::new("port tables", 1, word::TABLE_MAX, tables),
            references: Interner::new("rules", 1, u32::MAX, rules),
            next_body: 0,
            bodies: HashMap::new(),
            sets: BTreeMap::new(),
            classified: Classes::default(),
        }
    }

    /// The kernel holds the last output and nothing else: ids that it no longer uses may be given out again.
    pub fn applied(&mut self) {
        self.predicates.release();
        self.classes.release();
        self.contents.release();
        self.tables.release();
        self.references.release();
    }

    /// Compiles everything that is known. On an error the ids of the last output stay as they are.
    ///
    /// # Errors
    /// If the ABI has no ids left for something.
    pub fn compile(&mut self, store: &Store) -> Result<Output, CompileError> {
        let result = self.recompute(store);
        // Sets first: they hold what the others count.
        self.contents.sweep();
        self.tables.sweep();
        self.classes.sweep();
        self.references.sweep();
        self.predicates.sweep();
        result
    }

    fn recompute(&mut self, store: &Store) -> Result<Output, CompileError> {
        let topology = Topology::of(store);
        let tiers = ordered(store);
        let mut problems = topology.problems.clone();
        let mut recompute = Recompute {
            compiler: self,
            store,
            problems: Vec::new(),
            bodies: HashMap::new(),
            by_id: BTreeMap::new(),
        };
        let (placed, contents) = recompute.place(&tiers, &topology)?;
        let Recompute {
            problems: found,
            bodies,
            by_id,
            ..
        } = recompute;
        problems.extend(found);
        problems.extend(missing_tiers(&tiers));

        let classified = classes::classify(store, &topology, &predicates_of(&bodies), &mut self.classes)?;
        let mut sets = BTreeMap::new();
        for (id, content) in contents {
            let old = self.sets.get(&id);
            let set = match old {
                Some(old) => Arc::clone(&old.set),
                None => Arc::new(Set::new(content, &by_id, &mut self.references)?),
            };
            sets.insert(id, Paired::new(set, old, &classified, &mut self.tables)?);
        }

        problems.sort_unstable();
        problems.dedup();
        let output = output::assemble(store, &topology, &placed, &classified, &sets, &by_id, problems);
        self.sets = sets;
        self.bodies = bodies;
        self.classified = classified;
        Ok(output)
    }
}

fn missing_tiers<'a>(tiers: &'a [OrderedTier<'_>]) -> impl Iterator<Item = Problem> + 'a {
    tiers.iter().filter(|tier| !tier.exists).flat_map(|tier| {
        let problem = |policy: &Key| Problem::TierMissing {
            policy: policy.clone(),
            tier: tier.name.to_owned(),
        };
        tier.policies.iter().map(move |policy| problem(&policy.key))
    })
}

/// Every predicate that the bodies use, by id.
fn predicates_of(bodies: &HashMap<(Key, Direction), Arc<Body>>) -> Vec<PredicateHandle> {
    let rules = bodies.values().flat_map(|body| &body.rules);
    let used: BTreeMap<u32, &PredicateHandle> = rules
        .flat_map(|rule| rule.wanted.iter().chain(&rule.unwanted))
        .map(|p| (p.id(), p))
        .collect();
    used.into_values().cloned().collect()
}

type Contents = BTreeMap<u32, Handle<SetContent>>;

/// One recompute: finds the sets of all local endpoints, and the bodies of policies that any of them uses.
struct Recompute<'c, 'a> {
    compiler: &'c mut Compiler,
    store: &'a Store,
    problems: Vec<Problem>,
    bodies: HashMap<(Key, Direction), Arc<Body>>,
    by_id: BTreeMap<u64, Arc<Body>>,
}

impl<'a> Recompute<'_, 'a> {
    fn place(
        &mut self,
        tiers: &[OrderedTier<'a>],
        topology: &'a Topology<'a>,
    ) -> Result<(Vec<Placed<'a>>, Contents), CompileError> {
        let policies = tiers.iter().flat_map(|tier| &tier.policies);
        let selectors = SelectorIndex::new(
            (0..)
                .zip(policies)
                .map(|(place, policy)| (place, &policy.selector)),
        );
        let mut selected: HashMap<(&str, &str, &Labels), Vec<u32>> = HashMap::new();
        let mut contents = Contents::new();
        let mut placed = Vec::new();
        for endpoint in &topology.endpoints {
            let Some(ifindex) = endpoint.ifindex else { continue };
            let pod = endpoint.pod;
            if self.store.namespace(&pod.namespace).is_none() {
                let (pod, namespace) = (pod_name(pod), pod.namespace.clone());
                self.problems.push(Problem::NamespaceMissing { pod, namespace });
            }
            let selected = selected
                .entry((&pod.namespace, &pod.service_account, &pod.labels))
                .or_insert_with(|| selectors.matching(&EffectiveLabels::of_pod(self.store, pod)));
            let own = OwnSide::new(self.store, endpoint);
            let mut set = |direction| {
                let content = self.content(tiers, selected, endpoint, &own, direction)?;
                let handle = self.compiler.contents.intern(content)?;
                let id = handle.id();
                contents.insert(id, handle);
                Ok::<_, CompileError>(id)
            };
            let (ingress, egress) = (set(Direction::Ingress)?, set(Direction::Egress)?);
            placed.push(Placed {
                endpoint,
                ifindex,
                ingress,
                egress,
            });
        }
        Ok((placed, contents))
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
        let namespace = &endpoint.pod.namespace;
        let allows = self.store.namespace(namespace).is_some();
        let mut profile = Some(Profile {
            name: format!("kns.{namespace}"),
            allows,
        });
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
                if closed {
                    profile = None;
                }
                selected_tiers.push(SetTier {
                    name: tier.name.to_owned(),
                    default: tier.default,
                    policies,
                });
            }
        }
        Ok(SetContent {
            tiers: selected_tiers,
            profile,
        })
    }

    fn body(&mut self, policy: &Arc<Policy>, direction: Direction) -> Result<Arc<Body>, CompileError> {
        let key = (policy.key.clone(), direction);
        if let Some(body) = self.bodies.get(&key) {
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
        self.by_id.insert(body.id, Arc::clone(&body));
        self.bodies.insert(key, Arc::clone(&body));
        Ok(body)
    }

    fn own(
        &mut self,
        body: &Body,
        endpoint: &Endpoint<'_>,
        own: &OwnSide<'_>,
    ) -> Box<[predicate::PerFamily<sets::Own>]> {
        let resolved = body.rules.iter().map(|rule| {
            let (resolved, ambiguous) = own.resolve(rule);
            if ambiguous {
                self.problems.push(Problem::OwnAddressAmbiguous {
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
