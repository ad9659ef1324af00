//! From interned content to the kernel's keys and values: which table answers for a policy set and a class.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use calico_azure_ebpf::abi::{CLASS_DEFAULT_V4, CLASS_DEFAULT_V6, PolicyKey, PortKey, word};

use super::bodies::Bodies;
use super::change::Sheet;
use super::classes::{Class, Classes};
use super::counted::{Counted, Turnover};
use super::encode::Table;
use super::intern::{Handle, Interner};
use super::paint::paint;
use super::predicate::{Family, Held};
use super::sets::{Set, SetContent};
use super::{CompileError, Interners, SetInfo};
use crate::policy::RuleRef;

/// What a set looks at of a class.
type Relevant = (Family, Box<[Held]>);

/// A set with its tables.
#[derive(Debug)]
struct Paired {
    set: Arc<Set>,
    /// Directions of endpoints that have it.
    users: usize,
    v4: Handle<Table>,
    v6: Handle<Table>,
    /// Tables of classes, by the predicates of the set that hold, with the number of such classes. Only the set's own
    /// predicates matter to it, so classes that differ in others have one table.
    known: HashMap<Relevant, (Handle<Table>, usize)>,
}

/// All sets in use, and the tables that they lead to.
#[derive(Debug, Default)]
pub(super) struct Sets {
    all: BTreeMap<u32, Paired>,
    /// Sets that ask about a predicate.
    by_predicate: HashMap<u32, BTreeSet<u32>>,
    tables: Counted<Table>,
}

/// What sets are made with.
pub(super) struct Making<'a> {
    pub(super) bodies: &'a mut Bodies,
    pub(super) names: &'a mut Counted<RuleRef>,
    pub(super) interners: &'a mut Interners,
    pub(super) sheet: &'a mut Sheet,
}

impl Sets {
    /// Counts who uses which set; makes those that are new, without classes, and unmakes those that nobody uses.
    pub(super) fn recount(
        &mut self,
        taken: &mut Vec<Handle<SetContent>>,
        left: &mut Vec<Handle<SetContent>>,
        classes: &Classes,
        making: &mut Making<'_>,
    ) -> Result<Vec<u32>, CompileError> {
        let mut new = Vec::new();
        for handle in taken.drain(..) {
            if let Some(paired) = self.all.get_mut(&handle.id()) {
                paired.users += 1;
                continue;
            }
            new.push(handle.id());
            self.make(handle, making)?;
        }
        for handle in left.drain(..) {
            let Some(paired) = self.all.get_mut(&handle.id()) else {
                continue;
            };
            paired.users = paired.users.saturating_sub(1);
            if paired.users == 0 {
                self.unmake(handle, classes, making);
            }
        }
        Ok(new)
    }

    fn make(&mut self, handle: Handle<SetContent>, making: &mut Making<'_>) -> Result<(), CompileError> {
        let Making {
            bodies,
            names,
            interners,
            sheet,
        } = making;
        let id = handle.id();
        handle.value().bodies().for_each(|body| bodies.hold(body));
        let set = Set::new(handle, bodies, &mut interners.references)?;
        set.references()
            .iter()
            .for_each(|reference| names.hold(reference));
        for predicate in &set.predicates {
            self.by_predicate.entry(*predicate).or_default().insert(id);
        }
        let mut default = |family, class| {
            let table = Table::intern(&paint(&set, family, &[]), &mut interners.tables)?;
            show(&mut self.tables, sheet, id, class, &table);
            Ok::<_, CompileError>(table)
        };
        let (v4, v6) = (
            default(Family::V4, CLASS_DEFAULT_V4)?,
            default(Family::V6, CLASS_DEFAULT_V6)?,
        );
        let paired = Paired {
            set: Arc::new(set),
            users: 1,
            v4,
            v6,
            known: HashMap::new(),
        };
        self.all.insert(id, paired);
        Ok(())
    }

    fn unmake(&mut self, handle: Handle<SetContent>, classes: &Classes, making: &mut Making<'_>) {
        let id = handle.id();
        let Some(paired) = self.all.remove(&id) else {
            return;
        };
        for predicate in &paired.set.predicates {
            if let Some(sets) = self.by_predicate.get_mut(predicate) {
                sets.remove(&id);
                if sets.is_empty() {
                    self.by_predicate.remove(predicate);
                }
            }
        }
        let shown = classes.touching(&paired.set.predicates).map(Handle::id);
        for class in shown.chain([CLASS_DEFAULT_V4, CLASS_DEFAULT_V6]) {
            hide(&mut self.tables, making.sheet, id, class);
        }
        let references = paired.set.references();
        references
            .iter()
            .for_each(|reference| making.names.release(reference.id()));
        handle
            .value()
            .bodies()
            .for_each(|body| making.bodies.release(body));
        making.interners.contents.retire(handle);
    }

    /// Follows classes that came into use and that went out of it, for sets that are not new.
    pub(super) fn follow(
        &mut self,
        turnover: &Turnover<Class>,
        new: &BTreeSet<u32>,
        tables: &mut Interner<Table>,
        sheet: &mut Sheet,
    ) -> Result<(), CompileError> {
        for class in &turnover.gone {
            for id in self.asking(class.value()) {
                if let Some(paired) = self.all.get_mut(&id).filter(|_| !new.contains(&id)) {
                    paired.forget(class);
                    hide(&mut self.tables, sheet, id, class.id());
                }
            }
        }
        for class in &turnover.new {
            for id in self.asking(class.value()) {
                if let Some(paired) = self.all.get_mut(&id).filter(|_| !new.contains(&id)) {
                    paired.pair(id, class, &mut self.tables, tables, sheet)?;
                }
            }
        }
        Ok(())
    }

    /// Pairs a new set with all classes that matter to it.
    pub(super) fn pair(
        &mut self,
        id: u32,
        classes: &Classes,
        tables: &mut Interner<Table>,
        sheet: &mut Sheet,
    ) -> Result<(), CompileError> {
        if let Some(paired) = self.all.get_mut(&id) {
            let set = Arc::clone(&paired.set);
            for class in classes.touching(&set.predicates) {
                paired.pair(id, class, &mut self.tables, tables, sheet)?;
            }
        }
        Ok(())
    }

    /// Sets that ask about something that holds for the class.
    fn asking(&self, class: &Class) -> BTreeSet<u32> {
        let sets = class
            .predicates()
            .filter_map(|predicate| self.by_predicate.get(&predicate));
        sets.flatten().copied().collect()
    }

    /// Writes the entries of tables that came into use, and removes those of the others.
    pub(super) fn write(&mut self, interner: &mut Interner<Table>, sheet: &mut Sheet) {
        // A table about source ports leads to others, which nothing else may refer to.
        let Turnover { new, gone } = self.tables.turnover(interner);
        for (table, new) in new
            .iter()
            .map(|t| (t, true))
            .chain(gone.iter().map(|t| (t, false)))
        {
            for next in &table.value().next {
                if new {
                    self.tables.hold(next);
                } else {
                    self.tables.release(next.id());
                }
            }
        }
        let inner = self.tables.turnover(interner);
        for table in gone.iter().chain(&inner.gone) {
            for (key, _) in &table.value().entries {
                let table = table.id();
                sheet.port(PortKey { table, ..*key }, None);
            }
        }
        for table in new.iter().chain(&inner.new) {
            for (key, decision) in &table.value().entries {
                let table = table.id();
                let decision = word::of_table(*decision, table);
                sheet.port(PortKey { table, ..*key }, Some(decision));
            }
        }
    }

    /// What the sets are made of, for people.
    pub(super) fn info(&self, bodies: &Bodies) -> BTreeMap<u32, SetInfo> {
        let infos = self.all.iter().map(|(id, paired)| (*id, paired.set.info(bodies)));
        infos.collect()
    }

    #[cfg(test)]
    pub(super) fn counts(&self) -> Vec<usize> {
        vec![self.all.len(), self.by_predicate.len(), self.tables.len()]
    }
}

impl Paired {
    fn pair(
        &mut self,
        id: u32,
        class: &Handle<Class>,
        used: &mut Counted<Table>,
        tables: &mut Interner<Table>,
        sheet: &mut Sheet,
    ) -> Result<(), CompileError> {
        let Class { family, holding } = class.value();
        let key = (*family, self.set.relevant(holding));
        let table = match self.known.get_mut(&key) {
            Some((table, classes)) => {
                *classes += 1;
                table.clone()
            }
            None => {
                let table = Table::intern(&paint(&self.set, *family, &key.1), tables)?;
                self.known.insert(key, (table.clone(), 1));
                table
            }
        };
        let default = match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        };
        if table.id() != default.id() {
            show(used, sheet, id, class.id(), &table);
        }
        Ok(())
    }

    fn forget(&mut self, class: &Handle<Class>) {
        let Class { family, holding } = class.value();
        let key = (*family, self.set.relevant(holding));
        if let Some((_, classes)) = self.known.get_mut(&key) {
            *classes = classes.saturating_sub(1);
            if *classes == 0 {
                self.known.remove(&key);
            }
        }
    }
}

fn show(used: &mut Counted<Table>, sheet: &mut Sheet, set: u32, class: u32, table: &Handle<Table>) {
    used.hold(table);
    let word = word::table(table.id(), table.value().hints, word::table_check(set, class));
    sheet.policy(PolicyKey { set, class }, Some(word));
}

fn hide(used: &mut Counted<Table>, sheet: &mut Sheet, set: u32, class: u32) {
    let key = PolicyKey { set, class };
    if let Some(word) = sheet.desired().policy.get(&key) {
        used.release(word::table_id(*word));
        sheet.policy(key, None);
    }
}
