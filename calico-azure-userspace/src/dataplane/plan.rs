//! What must be done, as data: from what the kernel holds to what it should hold.
//!
//! Every word that decides holds two slots (`abi::word`). `prepare` writes the slots that the *next* epoch will
//! read, and adds tables that nothing refers to yet; `flip` changes the epoch, one word, and with it every verdict
//! of the node at once; `settle`, after a grace period, makes both slots equal and removes what nothing refers to
//! any more. So before the flip every packet gets the old verdict and after it the new one: there is no state in
//! between that could be wider than both, and an apply that fails or dies half-way has changed no verdict.

use std::collections::BTreeMap;

use calico_azure_ebpf::abi::{
    CLASS_DEFAULT_V4, CLASS_DEFAULT_V6, CidrClass, Config, Endpoint, Pod, PrefixKey4, PrefixKey6, next_epoch,
    word,
};

use super::image::Image;
use super::io::Table;
use crate::policy::Desired;

/// One map operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Op {
    pub table: Table,
    pub key: Vec<u8>,
    /// `None` removes the entry.
    pub value: Option<Vec<u8>>,
}

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

/// Settings that live in the kernel's configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `abi::CONFIG_*` bits.
    pub flags: u32,
    /// `abi::TIMEOUT_*`, nanoseconds.
    pub timeouts: [u64; 8],
}

/// Plans the way from `actual` to `desired`.
///
/// # Errors
/// [`PlanError::Reused`] if ids were not stable.
pub fn plan(actual: &Image, desired: &Desired, settings: Settings) -> Result<Plan, PlanError> {
    let next = next_epoch(actual.config.epoch);
    let mut planner = Planner {
        next,
        plan: Plan::default(),
        changed: actual.config.epoch == 0,
    };
    planner.immutable(Table::Policy, &actual.policy, &desired.policy)?;
    planner.immutable(Table::Ports, &actual.ports, &desired.ports)?;
    planner.slots(Table::Class4, &actual.class4, &desired.class4, |addr| {
        word::check24(*addr)
    });
    planner.slots(Table::Class6, &actual.class6, &desired.class6, |addr| {
        word::check24_v6(*addr)
    });
    let cidr4 = desired
        .cidr4
        .iter()
        .map(|(&(addr, len), &class)| (prefix4(addr, len), class))
        .collect();
    planner.prefixes(Table::Cidr4, &actual.cidr4, &cidr4, CLASS_DEFAULT_V4, parents4);
    let cidr6 = desired
        .cidr6
        .iter()
        .map(|(&(addr, len), &class)| (prefix6(addr, len), class))
        .collect();
    planner.prefixes(Table::Cidr6, &actual.cidr6, &cidr6, CLASS_DEFAULT_V6, parents6);
    planner.owners(Table::Owners4, &actual.owners4, &desired.owners4);
    planner.owners(Table::Owners6, &actual.owners6, &desired.owners6);
    planner.endpoints(actual, desired);
    let routes4 = desired
        .routes4
        .iter()
        .map(|(&(addr, len), &bits)| (prefix4(addr, len), bits))
        .collect();
    planner.routes(Table::Routes4, &actual.routes4, &routes4);
    let routes6 = desired
        .routes6
        .iter()
        .map(|(&(addr, len), &bits)| (prefix6(addr, len), bits))
        .collect();
    planner.routes(Table::Routes6, &actual.routes6, &routes6);

    let Planner {
        mut plan, changed, ..
    } = planner;
    let Settings { flags, timeouts } = settings;
    let wanted = Config {
        epoch: if changed { next } else { actual.config.epoch },
        flags,
        timeouts,
    };
    if wanted != actual.config {
        plan.flip = Some(put(Table::Config, &0_u32, &wanted));
    }
    Ok(plan)
}

struct Planner {
    next: u32,
    plan: Plan,
    /// Whether any verdict changes, so that the epoch must.
    changed: bool,
}

fn put(table: Table, key: &impl Pod, value: &impl Pod) -> Op {
    Op {
        table,
        key: key.bytes().to_vec(),
        value: Some(value.bytes().to_vec()),
    }
}

fn remove(table: Table, key: &impl Pod) -> Op {
    Op {
        table,
        key: key.bytes().to_vec(),
        value: None,
    }
}

impl Planner {
    /// Tables whose entries never change: new ones are added before the flip, unused ones go after it.
    fn immutable<K: Pod + Ord + std::fmt::Debug>(
        &mut self,
        table: Table,
        actual: &BTreeMap<K, u64>,
        desired: &BTreeMap<K, u64>,
    ) -> Result<(), PlanError> {
        for (key, value) in desired {
            match actual.get(key) {
                Some(held) if held == value => {}
                Some(_) => {
                    return Err(PlanError::Reused {
                        table: table.name(),
                        key: format!("{key:?}"),
                    });
                }
                None => self.plan.prepare.push(put(table, key, value)),
            }
        }
        let unused = actual.keys().filter(|key| !desired.contains_key(key));
        self.plan.settle.extend(unused.map(|key| remove(table, key)));
        Ok(())
    }

    /// Slot words: write the next epoch's slot, later the other.
    fn slots<K: Pod + Ord>(
        &mut self,
        table: Table,
        actual: &BTreeMap<K, u64>,
        desired: &BTreeMap<K, u32>,
        check: impl Fn(&K) -> u32,
    ) {
        for (key, &id) in desired {
            let fresh = word::slots(0, 0, check(key));
            let held = actual.get(key).copied();
            let prepared = word::with_slot(held.unwrap_or(fresh), self.next, id);
            if held != Some(prepared) {
                self.plan.prepare.push(put(table, key, &prepared));
            }
            let live = held.map_or(0, |held| word::slot(held, self.next + 1));
            self.changed |= live != id;
            let settled = word::slots(id, id, check(key));
            if prepared != settled {
                self.plan.settle.push(put(table, key, &settled));
            }
        }
        for (key, &held) in actual.iter().filter(|(key, _)| !desired.contains_key(key)) {
            let prepared = word::with_slot(held, self.next, 0);
            if held != prepared {
                self.plan.prepare.push(put(table, key, &prepared));
            }
            self.changed |= word::slot(held, self.next + 1) != 0;
            self.plan.settle.push(remove(table, key));
        }
    }

    /// Prefixes: as slots, but an entry hides the shorter prefixes that cover it, so the slot in which it should
    /// not be there repeats what they would have said.
    fn prefixes<K: Pod + Ord>(
        &mut self,
        table: Table,
        actual: &BTreeMap<K, CidrClass>,
        desired: &BTreeMap<K, u32>,
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
        for (key, &class) in desired {
            let before = live(key)
                .or_else(|| parents(key).iter().find_map(live))
                .unwrap_or(default);
            let mut prepared = CidrClass::default();
            prepared.slots[old] = before;
            prepared.slots[new] = class;
            if actual.get(key) != Some(&prepared) {
                self.plan.prepare.push(put(table, key, &prepared));
            }
            self.changed |= before != class;
            let settled = CidrClass {
                slots: [class, class],
            };
            if prepared != settled {
                self.plan.settle.push(put(table, key, &settled));
            }
        }
        for (key, held) in actual.iter().filter(|(key, _)| !desired.contains_key(key)) {
            let after = parents(key)
                .iter()
                .find_map(|parent| desired.get(parent))
                .copied()
                .unwrap_or(default);
            let mut prepared = *held;
            prepared.slots[new] = after;
            if *held != prepared {
                self.plan.prepare.push(put(table, key, &prepared));
            }
            self.changed |= held.slots[old] != after;
            self.plan.settle.push(remove(table, key));
        }
    }

    fn owners<K: Pod + Ord>(&mut self, table: Table, actual: &BTreeMap<K, u32>, desired: &BTreeMap<K, u32>) {
        let (new, old) = (1_u32 << (self.next & 1), 1_u32 << (self.next & 1 ^ 1));
        for key in desired.keys() {
            let held = actual.get(key).copied().unwrap_or(0);
            if held & new == 0 {
                self.plan.prepare.push(put(table, key, &(held & old | new)));
            }
            self.changed |= held & old == 0;
            if held != old | new {
                self.plan.settle.push(put(table, key, &(old | new)));
            }
        }
        for (key, &held) in actual.iter().filter(|(key, _)| !desired.contains_key(key)) {
            if held & new != 0 {
                self.plan.prepare.push(put(table, key, &(held & old)));
            }
            self.changed |= held & old != 0;
            self.plan.settle.push(remove(table, key));
        }
    }

    fn endpoints(&mut self, actual: &Image, desired: &Desired) {
        let table = Table::Endpoints;
        for (ifindex, endpoint) in &desired.endpoints {
            let check = word::check24(*ifindex);
            let fresh = Endpoint {
                egress: word::slots(0, 0, check),
                ingress: word::slots(0, 0, check),
            };
            let held = actual.endpoints.get(ifindex).copied();
            let base = held.unwrap_or(fresh);
            let prepared = Endpoint {
                egress: word::with_slot(base.egress, self.next, endpoint.egress),
                ingress: word::with_slot(base.ingress, self.next, endpoint.ingress),
            };
            if held != Some(prepared) {
                self.plan.prepare.push(put(table, ifindex, &prepared));
            }
            let live = |word| word::slot(word, self.next + 1);
            self.changed |= live(base.egress) != endpoint.egress || live(base.ingress) != endpoint.ingress;
            let settled = Endpoint {
                egress: word::slots(endpoint.egress, endpoint.egress, check),
                ingress: word::slots(endpoint.ingress, endpoint.ingress, check),
            };
            if prepared != settled {
                self.plan.settle.push(put(table, ifindex, &settled));
            }
        }
        for (ifindex, held) in actual
            .endpoints
            .iter()
            .filter(|(key, _)| !desired.endpoints.contains_key(key))
        {
            let prepared = Endpoint {
                egress: word::with_slot(held.egress, self.next, 0),
                ingress: word::with_slot(held.ingress, self.next, 0),
            };
            if *held != prepared {
                self.plan.prepare.push(put(table, ifindex, &prepared));
                self.changed = true;
            }
            self.plan.settle.push(remove(table, ifindex));
        }
    }

    /// Source validation: what becomes known is added before the flip, what is no longer known goes after it.
    fn routes<K: Pod + Ord>(&mut self, table: Table, actual: &BTreeMap<K, u32>, desired: &BTreeMap<K, u32>) {
        for (key, bits) in desired {
            if actual.get(key) != Some(bits) {
                self.plan.prepare.push(put(table, key, bits));
            }
        }
        let unused = actual.keys().filter(|key| !desired.contains_key(key));
        self.plan.settle.extend(unused.map(|key| remove(table, key)));
    }
}

fn prefix4(addr: u32, len: u8) -> PrefixKey4 {
    PrefixKey4 {
        len: u32::from(len),
        addr,
    }
}

fn prefix6(addr: [u32; 4], len: u8) -> PrefixKey6 {
    PrefixKey6 {
        len: u32::from(len),
        addr,
    }
}

/// The prefixes that cover a prefix, longest first.
fn parents4(key: &PrefixKey4) -> Vec<PrefixKey4> {
    let addr = u32::from_be(key.addr);
    (0..key.len)
        .rev()
        .map(|len| {
            let mask = u32::MAX.checked_shl(32 - len).unwrap_or(0);
            PrefixKey4 {
                len,
                addr: (addr & mask).to_be(),
            }
        })
        .collect()
}

fn parents6(key: &PrefixKey6) -> Vec<PrefixKey6> {
    let bits = key
        .addr
        .iter()
        .fold(0_u128, |bits, word| bits << 32 | u128::from(u32::from_be(*word)));
    (0..key.len)
        .rev()
        .map(|len| {
            let masked = bits & u128::MAX.checked_shl(128 - len).unwrap_or(0);
            PrefixKey6 {
                len,
                addr: wire6(masked),
            }
        })
        .collect()
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "takes a number apart into its words"
)]
fn wire6(bits: u128) -> [u32; 4] {
    [96, 64, 32, 0].map(|shift| ((bits >> shift) as u32).to_be())
}
