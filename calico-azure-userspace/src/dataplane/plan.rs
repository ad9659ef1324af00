//! What must be done, as data: from what the kernel holds to what it should hold.
//!
//! Every word that decides holds two slots (`abi::word`). `prepare` writes the slots that the *next* epoch will
//! read, and adds tables that nothing refers to yet; `flip` changes the epoch, one word, and with it every verdict
//! of the node at once; `settle`, after a grace period, makes both slots equal and removes what nothing refers to
//! any more. So before the flip every packet gets the old verdict and after it the new one: there is no state in
//! between that could be wider than both, and an apply that fails or dies half-way has changed no verdict.

use std::collections::{BTreeMap, BTreeSet};

use calico_azure_ebpf::abi::{
    CLASS_DEFAULT_V4, CLASS_DEFAULT_V6, CidrClass, Config, Configs, Endpoint, HOST_SETS, HostEndpoint, Pod,
    next_epoch, route, word,
};

use super::clock;
use super::image::Image;
use super::io::Table;
use super::op::Op;
use super::prefix_keys::{View, bare4, bare6, parents4, parents6, prefix4, prefix6};
pub use super::settings::{DEFAULT_RECORDS, Settings, per_window};
use crate::policy::{Change, Desired};

/// The operations of one apply, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Nothing here changes a verdict.
    pub prepare: Vec<Op>,
    /// Changes all verdicts at once. `None`: nothing to change.
    pub flip: Option<Op>,
    /// Nothing here changes a verdict; needs a grace period after the flip.
    pub settle: Vec<Op>,
}

/// The desired tables cannot be reached.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// An id was given to new content while the kernel still holds the old.
    #[error("{table} entry {key} would change under the packets that use it; this is a bug of the compiler")]
    Reused { table: &'static str, key: String },
}

/// Plans the way from `actual` to `desired`.
///
/// # Errors
/// [`PlanError::Reused`] if ids were not stable.
pub fn plan(actual: &Image, desired: &Desired, settings: Settings) -> Result<Plan, PlanError> {
    plan_change(actual, desired, &Change::everything(), settings)
}

/// As [`plan`], but looks at nothing that `change` does not name. Right if `actual` held what was desired before the
/// change, and nothing else; then both give the same operations.
///
/// # Errors
/// As [`plan`].
pub fn plan_change(
    actual: &Image,
    desired: &Desired,
    change: &Change,
    settings: Settings,
) -> Result<Plan, PlanError> {
    let next = next_epoch(actual.config.epoch);
    let mut planner = Planner {
        next,
        everything: change.everything,
        plan: Plan::default(),
        changed: actual.config.epoch == 0,
    };
    let same4 = |&(addr, len): &(u32, u8)| prefix4(addr, len);
    let same6 = |&(addr, len): &([u32; 4], u8)| prefix6(addr, len);
    planner.immutable(Table::Policy, &actual.policy, &desired.policy, &change.policy)?;
    planner.immutable(Table::Ports, &actual.ports, &desired.ports, &change.ports)?;
    let check = |addr: &u32| word::check24(*addr);
    planner.slots(
        Table::Class4,
        &actual.class4,
        &desired.class4,
        &change.class4,
        check,
    );
    let check = |addr: &[u32; 4]| word::check24_v6(*addr);
    planner.slots(
        Table::Class6,
        &actual.class6,
        &desired.class6,
        &change.class6,
        check,
    );
    planner.prefixes(
        Table::Cidr4,
        &actual.cidr4,
        &View(&desired.cidr4, same4, bare4),
        &change.cidr4,
        CLASS_DEFAULT_V4,
        parents4,
    );
    planner.prefixes(
        Table::Cidr6,
        &actual.cidr6,
        &View(&desired.cidr6, same6, bare6),
        &change.cidr6,
        CLASS_DEFAULT_V6,
        parents6,
    );
    planner.owners(Table::Owners4, &actual.owners4, &desired.owners4, &change.owners4);
    planner.owners(Table::Owners6, &actual.owners6, &desired.owners6, &change.owners6);
    planner.endpoints(actual, desired, &change.endpoints);
    planner.hosts(actual, desired, &change.hosts);
    planner.owners(
        Table::Services4,
        &actual.services4,
        &desired.services4,
        &change.services4,
    );
    planner.owners(
        Table::Services6,
        &actual.services6,
        &desired.services6,
        &change.services6,
    );
    planner.marks(actual, desired, &change.endpoints);
    planner.routes(
        Table::Routes4,
        &actual.routes4,
        &View(&desired.routes4, same4, bare4),
        &change.routes4,
    );
    planner.routes(
        Table::Routes6,
        &actual.routes6,
        &View(&desired.routes6, same6, bare6),
        &change.routes6,
    );

    let Planner {
        mut plan,
        mut changed,
        ..
    } = planner;
    let Settings {
        flags,
        timeouts,
        vxlan_port,
        tunnel_port,
        mark_mask,
        adopt_until,
        records,
    } = settings;
    // As at `routes`.
    changed |= (tunnel_port, desired.alike_from) != (actual.config.tunnel_port, actual.config.alike_from);
    let wanted = Config {
        epoch: if changed { next } else { actual.config.epoch },
        flags,
        timeouts,
        mark_mask,
        tick: clock::tick(),
        vxlan_port,
        tunnel_port,
        adopt_until,
        records,
        alike_from: desired.alike_from,
        reserved: 0,
    };
    if wanted != actual.config {
        let [beside, in_force] = Configs::change(actual.live, actual.config, wanted);
        plan.prepare.push(Op::put(Table::Config, &0_u32, &beside));
        plan.flip = Some(Op::put(Table::Config, &0_u32, &in_force));
    }
    Ok(plan)
}

struct Planner {
    next: u32,
    everything: bool,
    plan: Plan,
    /// Whether any verdict changes, so that the epoch must.
    changed: bool,
}

impl Planner {
    /// The keys to look at: all of both tables, or those that changed.
    fn keys<K: Ord + Copy>(
        &self,
        actual: impl Iterator<Item = K>,
        desired: impl Iterator<Item = K>,
        changed: impl Iterator<Item = K>,
    ) -> Vec<K> {
        if self.everything {
            let all: BTreeSet<K> = actual.chain(desired).collect();
            return all.into_iter().collect();
        }
        changed.collect()
    }

    /// Tables whose entries never change: new ones are added before the flip, unused ones go after it.
    fn immutable<K: Pod + Ord + std::fmt::Debug>(
        &mut self,
        table: Table,
        actual: &BTreeMap<K, u64>,
        desired: &BTreeMap<K, u64>,
        changed: &[K],
    ) -> Result<(), PlanError> {
        let changed = changed.iter().copied();
        for key in self.keys(actual.keys().copied(), desired.keys().copied(), changed) {
            match (actual.get(&key), desired.get(&key)) {
                (Some(held), Some(value)) if held == value => {}
                (Some(_), Some(_)) => {
                    return Err(PlanError::Reused {
                        table: table.name(),
                        key: format!("{key:?}"),
                    });
                }
                (None, Some(value)) => self.plan.prepare.push(Op::put(table, &key, value)),
                (Some(_), None) => self.plan.settle.push(Op::remove(table, &key)),
                (None, None) => {}
            }
        }
        Ok(())
    }

    /// Slot words: write the next epoch's slot, later the other.
    fn slots<K: Pod + Ord>(
        &mut self,
        table: Table,
        actual: &BTreeMap<K, u64>,
        desired: &BTreeMap<K, u32>,
        changed: &[K],
        check: impl Fn(&K) -> u32,
    ) {
        let changed = changed.iter().copied();
        for key in self.keys(actual.keys().copied(), desired.keys().copied(), changed) {
            let held = actual.get(&key).copied();
            let Some(&id) = desired.get(&key) else {
                let Some(held) = held else { continue };
                let prepared = word::with_slot(held, self.next, 0);
                if held != prepared {
                    self.plan.prepare.push(Op::put(table, &key, &prepared));
                }
                self.changed |= word::slot(held, self.next + 1) != 0;
                self.plan.settle.push(Op::remove(table, &key));
                continue;
            };
            let fresh = word::slots(0, 0, check(&key));
            let prepared = word::with_slot(held.unwrap_or(fresh), self.next, id);
            if held != Some(prepared) {
                self.plan.prepare.push(Op::put(table, &key, &prepared));
            }
            let live = held.map_or(0, |held| word::slot(held, self.next + 1));
            self.changed |= live != id;
            let settled = word::slots(id, id, check(&key));
            if prepared != settled {
                self.plan.settle.push(Op::put(table, &key, &settled));
            }
        }
    }

    /// Prefixes: as slots, but an entry hides the shorter prefixes that cover it, so the slot in which it should
    /// not be there repeats what they would have said.
    fn prefixes<D: Ord, K: Pod + Ord>(
        &mut self,
        table: Table,
        actual: &BTreeMap<K, CidrClass>,
        desired: &View<'_, D, K, u32>,
        changed: &[D],
        default: u32,
        parents: fn(&K) -> Vec<K>,
    ) {
        let (new, old) = ((self.next & 1) as usize, (self.next & 1 ^ 1) as usize);
        let live = |key: &K| {
            actual
                .get(key)
                .map(|held| held.slots[old])
                .filter(|&class| class != 0)
        };
        let changed = changed.iter().map(desired.1);
        for key in self.keys(actual.keys().copied(), desired.0.keys().map(desired.1), changed) {
            let held = actual.get(&key);
            let Some(class) = desired.get(&key) else {
                let Some(held) = held else { continue };
                let after = parents(&key)
                    .iter()
                    .find_map(|parent| desired.get(parent))
                    .unwrap_or(default);
                let mut prepared = *held;
                prepared.slots[new] = after;
                if *held != prepared {
                    self.plan.prepare.push(Op::put(table, &key, &prepared));
                }
                self.changed |= held.slots[old] != after;
                self.plan.settle.push(Op::remove(table, &key));
                continue;
            };
            let before = live(&key)
                .or_else(|| parents(&key).iter().find_map(live))
                .unwrap_or(default);
            let mut prepared = CidrClass::default();
            prepared.slots[old] = before;
            prepared.slots[new] = class;
            if held != Some(&prepared) {
                self.plan.prepare.push(Op::put(table, &key, &prepared));
            }
            self.changed |= before != class;
            let settled = CidrClass {
                slots: [class, class],
            };
            if prepared != settled {
                self.plan.settle.push(Op::put(table, &key, &settled));
            }
        }
    }

    fn owners<K: Pod + Ord>(
        &mut self,
        table: Table,
        actual: &BTreeMap<K, u32>,
        desired: &BTreeMap<K, u32>,
        changed: &[K],
    ) {
        let (new, old) = (1_u32 << (self.next & 1), 1_u32 << (self.next & 1 ^ 1));
        let changed = changed.iter().copied();
        for key in self.keys(actual.keys().copied(), desired.keys().copied(), changed) {
            let held = actual.get(&key).copied();
            if !desired.contains_key(&key) {
                let Some(held) = held else { continue };
                if held & new != 0 {
                    self.plan.prepare.push(Op::put(table, &key, &(held & old)));
                }
                self.changed |= held & old != 0;
                self.plan.settle.push(Op::remove(table, &key));
                continue;
            }
            let held = held.unwrap_or(0);
            if held & new == 0 {
                self.plan.prepare.push(Op::put(table, &key, &(held & old | new)));
            }
            self.changed |= held & old == 0;
            if held != old | new {
                self.plan.settle.push(Op::put(table, &key, &(old | new)));
            }
        }
    }

    fn endpoints(&mut self, actual: &Image, desired: &Desired, changed: &[u32]) {
        let table = Table::Endpoints;
        let (held, wanted) = (actual.endpoints.keys(), desired.endpoints.keys());
        for ifindex in self.keys(held.copied(), wanted.copied(), changed.iter().copied()) {
            let held = actual.endpoints.get(&ifindex).copied();
            let Some(endpoint) = desired.endpoints.get(&ifindex) else {
                let Some(held) = held else { continue };
                let prepared = Endpoint {
                    egress: word::with_slot(held.egress, self.next, 0),
                    ingress: word::with_slot(held.ingress, self.next, 0),
                    mark: held.mark,
                };
                if held != prepared {
                    self.plan.prepare.push(Op::put(table, &ifindex, &prepared));
                    self.changed = true;
                }
                self.plan.settle.push(Op::remove(table, &ifindex));
                continue;
            };
            let check = word::check24(ifindex);
            let mark = word::mark(ifindex, endpoint.mark);
            let fresh = Endpoint {
                egress: word::slots(0, 0, check),
                ingress: word::slots(0, 0, check),
                mark,
            };
            let base = held.unwrap_or(fresh);
            let prepared = Endpoint {
                egress: word::with_slot(base.egress, self.next, endpoint.egress),
                ingress: word::with_slot(base.ingress, self.next, endpoint.ingress),
                mark,
            };
            if held != Some(prepared) {
                self.plan.prepare.push(Op::put(table, &ifindex, &prepared));
            }
            let live = |word| word::slot(word, self.next + 1);
            self.changed |= live(base.egress) != endpoint.egress || live(base.ingress) != endpoint.ingress;
            let settled = Endpoint {
                egress: word::slots(endpoint.egress, endpoint.egress, check),
                ingress: word::slots(endpoint.ingress, endpoint.ingress, check),
                mark,
            };
            if prepared != settled {
                self.plan.settle.push(Op::put(table, &ifindex, &settled));
            }
        }
    }

    fn hosts(&mut self, actual: &Image, desired: &Desired, changed: &[u32]) {
        let (held, wanted) = (actual.hosts.keys(), desired.hosts.keys());
        for ifindex in self.keys(held.copied(), wanted.copied(), changed.iter().copied()) {
            let held = actual.hosts.get(&ifindex).copied();
            let wanted = desired.hosts.get(&ifindex).map(|host| host.sets);
            if held.is_none() && wanted.is_none() {
                continue;
            }
            let check = word::check24(ifindex);
            let fresh = HostEndpoint {
                sets: [word::slots(0, 0, check); HOST_SETS],
            };
            let base = held.unwrap_or(fresh);
            let (mut prepared, mut settled) = (base, fresh);
            let ids = wanted.unwrap_or_default();
            for ((prepared, settled), id) in prepared.sets.iter_mut().zip(&mut settled.sets).zip(ids) {
                self.changed |= word::slot(*prepared, self.next + 1) != id;
                *prepared = word::with_slot(*prepared, self.next, id);
                *settled = word::slots(id, id, check);
            }
            let table = Table::Hosts;
            if held != Some(prepared) {
                self.plan.prepare.push(Op::put(table, &ifindex, &prepared));
            }
            if wanted.is_none() {
                self.plan.settle.push(Op::remove(table, &ifindex));
            } else if prepared != settled {
                self.plan.settle.push(Op::put(table, &ifindex, &settled));
            }
        }
    }

    /// Marks lead to endpoints, which decide: they are added before the flip, and go after it.
    fn marks(&mut self, actual: &Image, desired: &Desired, changed: &[u32]) {
        let (held, wanted) = (actual.endpoints.keys(), desired.endpoints.keys());
        let looked_at = self.keys(held.copied(), wanted.copied(), changed.iter().copied());
        let mut taken = BTreeSet::new();
        for ifindex in &looked_at {
            let Some(endpoint) = desired.endpoints.get(ifindex) else {
                continue;
            };
            let word = word::mark(*ifindex, endpoint.mark);
            taken.insert(endpoint.mark);
            if actual.marks.get(&endpoint.mark) != Some(&word) {
                self.plan
                    .prepare
                    .push(Op::put(Table::Marks, &endpoint.mark, &word));
            }
        }
        let left = |(mark, word): &(&u32, &u64)| {
            let of = word::marked(**word, **mark);
            let stays = of.is_some_and(|ifindex| desired.endpoints.contains_key(&ifindex));
            !stays && !taken.contains(*mark)
        };
        let gone: Vec<u32> = if self.everything {
            actual.marks.iter().filter(left).map(|(mark, _)| *mark).collect()
        } else {
            let held = looked_at
                .iter()
                .filter_map(|ifindex| Some((ifindex, actual.endpoints.get(ifindex)?)));
            let marks = held.filter_map(|(ifindex, held)| word::mark_of(held.mark, *ifindex));
            let known = marks.filter_map(|mark| actual.marks.get_key_value(&mark));
            known.filter(left).map(|(mark, _)| *mark).collect()
        };
        for mark in gone {
            self.plan.settle.push(Op::remove(Table::Marks, &mark));
        }
    }

    /// Source validation: what becomes known is added before the flip, what is no longer known goes after it.
    fn routes<D: Ord, K: Pod + Ord>(
        &mut self,
        table: Table,
        actual: &BTreeMap<K, u32>,
        desired: &View<'_, D, K, u32>,
        changed: &[D],
    ) {
        let changed = changed.iter().map(desired.1);
        for key in self.keys(actual.keys().copied(), desired.0.keys().map(desired.1), changed) {
            match (actual.get(&key), desired.get(&key)) {
                (None, None) => {}
                (Some(_), None) => self.plan.settle.push(Op::remove(table, &key)),
                (held, Some(bits)) if held != Some(&bits) => {
                    // What was denied before must not be denied because it was (`verdict::untracked`). Addresses are whole
                    // prefixes, so that none comes to light where a longer one goes.
                    let new = bits & !held.copied().unwrap_or(0);
                    self.changed |= new & (route::LOCAL_HOST | route::REMOTE_HOST) != 0;
                    self.plan.prepare.push(Op::put(table, &key, &bits));
                }
                _ => {}
            }
        }
    }
}
