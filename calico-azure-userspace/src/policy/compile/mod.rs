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
mod members;
mod output;
mod own;
mod paint;
mod place;
mod predicate;
mod profiles;
pub mod ranges;
mod rules;
mod selectors;
mod sets;
mod source;
mod traffic;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use calico_azure_ebpf::abi::{CLASS_DEFAULT_V6, word};

use self::classes::{Class, Classes};
use self::encode::Table;
use self::intern::Interner;
use self::output::Paired;
use self::predicate::{Predicate, PredicateHandle};
use self::rules::{Body, BodyRule};
use self::sets::{Set, SetContent};
use super::order::{OrderedTier, ordered};
use super::store::Store;
use super::topology::Topology;
use super::{Desired, Direction, Problem, RuleRef};
use crate::model::{Key, TierDefault};

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
    /// The profiles that decide after them; `None` if a tier denies everything that gets to its end.
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

/// What is known of each policy that governs a local endpoint.
type Bodies = HashMap<(Key, Direction), Arc<Body>>;

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
    bodies: Bodies,
    sets: BTreeMap<u32, Paired>,
    classified: Classes,
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
        let found = place::place(self, store, &tiers, &topology)?;
        problems.extend(found.problems);
        problems.extend(missing_tiers(&tiers));

        let classified =
            classes::classify(store, &topology, &predicates_of(&found.bodies), &mut self.classes)?;
        let mut sets = BTreeMap::new();
        for (id, content) in found.contents {
            let old = self.sets.get(&id);
            let set = match old {
                Some(old) => Arc::clone(&old.set),
                None => Arc::new(Set::new(content, &found.by_id, &mut self.references)?),
            };
            sets.insert(id, Paired::new(set, old, &classified, &mut self.tables)?);
        }

        problems.sort_unstable();
        problems.dedup();
        let output = output::assemble(
            store,
            &topology,
            &found.placed,
            &classified,
            &sets,
            &found.by_id,
            problems,
        );
        self.sets = sets;
        self.bodies = found.bodies;
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
fn predicates_of(bodies: &Bodies) -> Vec<PredicateHandle> {
    let rules = bodies.values().flat_map(|body| &body.rules);
    let used: BTreeMap<u32, &PredicateHandle> = rules
        .flat_map(BodyRule::predicates)
        .map(|p| (p.id(), p))
        .collect();
    used.into_values().cloned().collect()
}
