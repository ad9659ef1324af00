//! What a change opens and closes.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::Connectivity;
use super::connections::{Connections, NONE, Number, Pool};
use super::place::Place;
use super::spans::{Family, Span, joined, nets};
use crate::policy::Direction;

/// How a pair changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// There was no connection before.
    Added,
    /// There is none any more.
    Removed,
    Changed,
}

/// A pair that is different.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Changed {
    pub src: Place,
    pub dst: Place,
    pub change: Change,
    pub old: Connections,
    pub new: Connections,
    /// What is in `new` only.
    pub opened: Connections,
    /// What is in `old` only.
    pub closed: Connections,
}

/// Everything that is different.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// Sorted by source and destination.
    pub pairs: Vec<Changed>,
    /// Places with an address of their own that only the new state has.
    pub appeared: Vec<Place>,
    /// Those that only the old state had.
    pub gone: Vec<Place>,
}

/// Compares two states. Ranges of addresses are cut where either state cuts them, and joined where the change is the same.
#[must_use]
pub fn diff(old: &Connectivity, new: &Connectivity) -> Difference {
    let mut comparing = Comparing {
        pools: [&old.pool, &new.pool],
        same: HashMap::new(),
        pairs: Vec::new(),
    };
    let between = [old, new].map(|state| {
        let own = state.own();
        let pairs = state.pairs.iter().filter_map(|(src, dst, number)| {
            let at = |place: u32| {
                state
                    .places
                    .get(usize::try_from(place).ok().filter(|place| *place < own)?)
            };
            Some(((at(*src)?, at(*dst)?), *number))
        });
        pairs.collect::<BTreeMap<_, _>>()
    });
    let [before, after] = &between;
    let keys: BTreeSet<_> = before.keys().chain(after.keys()).collect();
    for (src, dst) in keys {
        let of = |pairs: &BTreeMap<_, Number>| pairs.get(&(*src, *dst)).copied().unwrap_or(NONE);
        comparing.compare(src, dst, [of(before), of(after)]);
    }

    let places = [old, new].map(|state| {
        let own = state.places.iter().zip(&state.outside);
        own.collect::<BTreeMap<_, _>>()
    });
    let [before, after] = &places;
    let all: BTreeSet<&Place> = before.keys().chain(after.keys()).copied().collect();
    for place in &all {
        for family in Family::ALL {
            for direction in Direction::ALL {
                let spans = places.each_ref().map(|state| {
                    let spans = state.get(place).and_then(|spans| spans.get(&(family, direction)));
                    spans.map_or(&[][..], |spans| spans)
                });
                for Span { first, last, value } in refined(family, spans) {
                    if comparing.is_same(value) {
                        continue;
                    }
                    for net in nets(family, first, last) {
                        let range = Place::Cidr(net);
                        match direction {
                            Direction::Egress => comparing.compare(place, &range, value),
                            Direction::Ingress => comparing.compare(&range, place, value),
                        }
                    }
                }
            }
        }
    }
    let mut pairs = comparing.pairs;
    pairs.sort_by(|a, b| (&a.src, &a.dst).cmp(&(&b.src, &b.dst)));
    let only = |here: &BTreeMap<&Place, _>, there: &BTreeMap<&Place, _>| {
        let only = here.keys().filter(|place| !there.contains_key(*place));
        only.map(|place| (*place).clone()).collect()
    };
    Difference {
        pairs,
        appeared: only(after, before),
        gone: only(before, after),
    }
}

struct Comparing<'d> {
    pools: [&'d Pool; 2],
    /// Numbers of the old and the new pool that stand for the same set.
    same: HashMap<[Number; 2], bool>,
    pairs: Vec<Changed>,
}

impl Comparing<'_> {
    fn is_same(&mut self, numbers: [Number; 2]) -> bool {
        let ([old_pool, new_pool], [old, new]) = (self.pools, numbers);
        let same = self.same.entry(numbers);
        *same.or_insert_with(|| old_pool.get(old) == new_pool.get(new))
    }

    fn compare(&mut self, src: &Place, dst: &Place, numbers: [Number; 2]) {
        if self.is_same(numbers) {
            return;
        }
        let ([old_pool, new_pool], [old, new]) = (self.pools, numbers);
        let (old, new) = (old_pool.get(old), new_pool.get(new));
        let change = match (old.is_none(), new.is_none()) {
            (true, _) => Change::Added,
            (_, true) => Change::Removed,
            _ => Change::Changed,
        };
        self.pairs.push(Changed {
            src: src.clone(),
            dst: dst.clone(),
            change,
            opened: new.minus(old),
            closed: old.minus(new),
            old: old.clone(),
            new: new.clone(),
        });
    }
}

/// Both states of each address, cut where either changes. A state without spans has nothing.
fn refined(family: Family, [old, new]: [&[Span<Number>]; 2]) -> Vec<Span<[Number; 2]>> {
    let ends = old.iter().chain(new).map(|span| span.last);
    let ends: BTreeSet<u128> = ends.chain([family.max()]).collect();
    let at = |spans: &[Span<Number>], address: u128| {
        let place = spans.partition_point(|span| span.last < address);
        spans.get(place).map_or(NONE, |span| span.value)
    };
    let mut next = Some(0);
    let spans = ends.into_iter().filter_map(|last| {
        let first = next?;
        next = last.checked_add(1);
        let value = [at(old, first), at(new, first)];
        Some(Span { first, last, value })
    });
    joined(spans)
}
