//! The compiler: from what is known to [`Desired`]. A change recomputes only what it touches.
//!
//! | content | module | id |
//! |---|---|---|
//! | who has which interface and address | `claims` | – |
//! | pods with the same labels, network sets, …: what holds for each | `sources`, `members` | internal |
//! | address predicates that active policies use | `predicate`, `rules`, `traffic`, `bodies` | internal |
//! | peer classes: which predicates, at which ports, hold together for some address | `prefixes`, `classes` | slot |
//! | policy sets: what decides one direction of an endpoint | `select`, `place`, `sets`, `own`, `profiles` | slot |
//! | what governs the host's own interfaces | `hosts` | slot |
//! | port tables: the first match of every port for (set, class) | `output`, `paint`, `source`, `encode` | table |
//! | what decided: rules, tier defaults, profiles | `sets` | rule |
//!
//! `engine` runs them in this order over names of what was `touched`; each hands on what came into use and what went
//! out of it (`counted`). The state never depends on the way to it: an engine that starts with the same store finds the
//! same tables, up to ids.
//!
//! An id is bound to its content (`intern`), so a table that changes is a table with another id: while an update is
//! under way, old and new exist side by side in the kernel and neither is ever half of the other.

mod bodies;
mod change;
mod claims;
mod classes;
mod counted;
mod encode;
mod engine;
mod hosts;
mod intern;
mod label_index;
mod marks;
mod members;
mod output;
mod own;
mod paint;
mod place;
mod predicate;
mod prefixes;
mod problems;
mod profiles;
pub mod ranges;
mod rules;
mod select;
mod selectors;
mod sets;
mod side;
mod source;
mod sources;
mod touched;
mod traffic;

use std::collections::{BTreeMap, BTreeSet};

use calico_azure_ebpf::abi::{CLASS_DEFAULT_V6, word};

pub use self::change::Change;
use self::classes::Class;
use self::encode::Table;
use self::engine::Engine;
use self::hosts::Template;
use self::intern::Interner;
use self::predicate::Predicate;
use self::sets::SetContent;
use self::touched::Touched;
use super::store::{Event, Store};
use super::{Desired, Problem, RuleRef};
use crate::model::{Key, TierDefault};

/// The lowest id of a template; policy sets have lower ones.
const FIRST_TEMPLATE: u32 = word::SLOT_MAX - 0xffff;

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

/// Which content has which id.
#[derive(Debug)]
struct Interners {
    predicates: Interner<Predicate>,
    classes: Interner<Class>,
    contents: Interner<SetContent>,
    /// Of host endpoints: they share the ids of policy sets.
    templates: Interner<Template>,
    tables: Interner<Table>,
    references: Interner<RuleRef>,
}

/// What is known, and what follows from it.
#[derive(Debug)]
pub struct Compiler {
    store: Store,
    touched: Touched,
    engine: Engine,
    interners: Interners,
    /// The last update stopped half-way.
    broken: bool,
}

impl Default for Compiler {
    fn default() -> Self {
        Self::new(Reserved::default())
    }
}

impl Compiler {
    /// A compiler that knows nothing and gives out none of the reserved ids until [`Self::applied`].
    #[must_use]
    pub fn new(reserved: Reserved) -> Self {
        let Reserved {
            sets,
            classes,
            tables,
            rules,
        } = reserved;
        let (templates, sets) = sets.into_iter().partition(|id| *id >= FIRST_TEMPLATE);
        Self {
            store: Store::default(),
            touched: Touched::default(),
            engine: Engine::default(),
            interners: Interners {
                predicates: Interner::new("address predicates", 1, u32::MAX, BTreeSet::new()),
                classes: Interner::new("peer classes", CLASS_DEFAULT_V6 + 1, word::SLOT_MAX, classes),
                contents: Interner::new("policy sets", 1, FIRST_TEMPLATE - 1, sets),
                templates: Interner::new(
                    "stages of host endpoints",
                    FIRST_TEMPLATE,
                    word::SLOT_MAX,
                    templates,
                ),
                tables: Interner::new("port tables", 1, word::TABLE_MAX, tables),
                references: Interner::new("rules", 1, u32::MAX, rules),
            },
            broken: false,
        }
    }

    /// Takes in an event; whether anything is different now. The tables follow at the next [`Self::update`].
    pub fn apply(&mut self, event: Event) -> bool {
        self.touched.apply(&mut self.store, event)
    }

    /// Brings the tables in step with what is known; what changed in them. On an error they stay, for those who hold a
    /// copy, as they were: the ids in it are not given out again.
    ///
    /// # Errors
    /// If the ABI has no ids left for something. The next update starts anew.
    pub fn update(&mut self) -> Result<Change, CompileError> {
        if self.broken {
            self.engine = Engine::after(&self.engine);
            self.interners.sweep_all();
            self.touched = Touched::default();
            self.touched.between(&Store::default(), &self.store);
        }
        let touched = std::mem::take(&mut self.touched);
        let anew = std::mem::replace(&mut self.broken, true);
        self.engine.update(&self.store, &touched, &mut self.interners)?;
        self.broken = false;
        self.interners.sweep();
        let mut change = self.engine.sheet.take_change();
        if anew {
            change.merge(Change::everything());
        }
        Ok(change)
    }

    /// What is known.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// What the kernel should hold, as of the last update.
    #[must_use]
    pub fn desired(&self) -> &Desired {
        self.engine.sheet.desired()
    }

    /// What rule ids in decisions and events stand for.
    #[must_use]
    pub fn rules(&self) -> &BTreeMap<u32, RuleRef> {
        &self.engine.rules
    }

    /// Contradictions between resources, each once, in order.
    pub fn problems(&self) -> impl Iterator<Item = &Problem> {
        self.engine.problems.iter()
    }

    /// A copy of everything, as of the last update.
    #[must_use]
    pub fn output(&self) -> Output {
        let engine = &self.engine;
        Output {
            desired: self.desired().clone(),
            rules: engine.rules.clone(),
            problems: engine.problems.iter().cloned().collect(),
            sets: engine.sets.info(&engine.bodies),
        }
    }

    /// The kernel holds the last output and nothing else: ids that it no longer uses may be given out again.
    pub fn applied(&mut self) {
        self.interners.release();
    }

    /// Knows exactly what `store` knows from now on; what changed in the tables.
    ///
    /// # Errors
    /// As [`Self::update`].
    pub fn follow(&mut self, store: &Store) -> Result<Change, CompileError> {
        self.touched.between(&self.store, store);
        self.store = store.clone();
        self.update()
    }

    /// As [`Self::follow`]; a copy of everything. A compiler that knew nothing before recomputes everything.
    ///
    /// # Errors
    /// As [`Self::update`].
    pub fn compile(&mut self, store: &Store) -> Result<Output, CompileError> {
        self.follow(store)?;
        Ok(self.output())
    }

    /// The pod that has the address, as `namespace/name`.
    #[cfg(test)]
    pub(crate) fn owner(&self, address: std::net::IpAddr) -> Option<String> {
        let owner = self.engine.claims.owner(address)?;
        Some(super::topology::pod_name(&owner.pod))
    }

    /// How much of each thing there is, to see that nothing is left behind.
    #[cfg(test)]
    pub(crate) fn counts(&self) -> Vec<(&'static str, Vec<usize>)> {
        let Interners {
            predicates,
            classes,
            contents,
            templates,
            tables,
            references,
        } = &self.interners;
        let interned = [
            predicates.counts(),
            classes.counts(),
            contents.counts(),
            templates.counts(),
            tables.counts(),
            references.counts(),
        ];
        let mut counts = self.engine.counts();
        counts.push(("interned", interned.concat()));
        counts
    }
}

impl Interners {
    /// Forgets what is no longer used; what is used is known outside from now on.
    fn sweep(&mut self) {
        let Self {
            predicates,
            classes,
            contents,
            templates,
            tables,
            references,
        } = self;
        predicates.sweep(|_| &[]);
        classes.sweep(|_| &[]);
        contents.sweep(|_| &[]);
        templates.sweep(|_| &[]);
        tables.sweep(|table| &table.next);
        references.sweep(|_| &[]);
        predicates.publish();
        classes.publish();
        contents.publish();
        templates.publish();
        tables.publish();
        references.publish();
    }

    /// As [`Self::sweep`] after an update that stopped half-way.
    fn sweep_all(&mut self) {
        self.predicates.sweep_all();
        self.classes.sweep_all();
        self.contents.sweep_all();
        self.templates.sweep_all();
        self.tables.sweep_all();
        self.references.sweep_all();
    }

    fn release(&mut self) {
        self.predicates.release();
        self.classes.release();
        self.contents.release();
        self.templates.release();
        self.tables.release();
        self.references.release();
    }
}
