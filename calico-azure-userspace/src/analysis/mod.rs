//! Who may talk to whom: what a set of manifests opens between pods, hosts and the world outside, and what a change of
//! them opens and closes.
//!
//! ```text
//! prepare ── Compiler ── tables ─┐
//!    └────── Oracle ──── points ─┴─ pairs ── Connectivity ── diff
//! ```
//!
//! The answer is read from the compiled tables of all pods ([`mod@self`] asks nothing rule by rule), so it is what the
//! kernel would decide. Where host endpoints have a say, the reference is asked at one point of every range that rules
//! could tell from the next.
//!
//! A connection is there if its first packet passes the policy of both ends. Of a pod with several addresses, and of
//! source ports that rules tell apart, it is enough that some pass. What a pod sends to itself is not listed. A range
//! of addresses stands for those in it that belong to nobody else listed, and not to a node.

mod cluster;
mod connections;
mod diff;
pub mod example;
mod named;
mod notes;
mod pairs;
mod place;
mod points;
mod prepare;
mod relevant;
mod shown;
mod spans;
mod tables;
#[cfg(test)]
mod tests;
mod unused;

use std::collections::{BTreeSet, HashMap};

pub use connections::{Connections, domain, has_ports, has_types};
pub use diff::{Change, Changed, Difference, diff};
pub use notes::Note;
pub use place::Place;
pub use shown::{Part, protocol_name};

pub use cluster::on_one_node;
use cluster::subjects;
use connections::{NONE, Number, Pool};
use notes::Notes;
use pairs::{Outside, Pairing};
pub use prepare::{Inhabited, completed};
use prepare::{Prepared, names_v6};
use spans::{Family, nets};

use crate::model::Resource;
use crate::policy::reference::Oracle;
use crate::policy::store::Store;
use crate::policy::topology::Topology;
use crate::policy::{CompileError, Compiler, Direction, Problem};

/// What to look at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// As if staged policies were enforced.
    pub pending: bool,
    /// Also IPv6, if nothing in the inputs has to do with it.
    pub v6: bool,
}

/// Who may talk to whom.
#[derive(Debug)]
pub struct Connectivity {
    /// Sorted; those with an address of their own first, ranges after them.
    places: Vec<Place>,
    /// Places of source and destination, sorted.
    pairs: Vec<(u32, u32, Number)>,
    /// Of each place with an address of its own, by family and direction.
    outside: Vec<HashMap<(Family, Direction), Outside>>,
    pool: Pool,
    /// Assumptions, and what is probably not meant.
    pub notes: Vec<Note>,
}

/// What may go from one place to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Pair<'c> {
    pub src: &'c Place,
    pub dst: &'c Place,
    pub connections: &'c Connections,
}

/// Analyses what manifests say.
///
/// # Errors
/// If there are more distinct policies, selectors or CIDRs than the kernel's tables can tell apart.
pub fn connectivity(
    resources: impl IntoIterator<Item = Resource>,
    options: Options,
) -> Result<Connectivity, CompileError> {
    let store: Store = resources.into_iter().collect();
    of_store(store, options)
}

/// Whether anything in the manifests has to do with IPv6.
#[must_use]
pub fn has_v6(resources: impl IntoIterator<Item = Resource>) -> bool {
    names_v6(&resources.into_iter().collect())
}

fn of_store(store: Store, options: Options) -> Result<Connectivity, CompileError> {
    let mut notes = Notes::default();
    let v6 = options.v6 || names_v6(&store);
    let prepared = Prepared::new(store, options.pending, v6, &mut notes);
    let oracle = Oracle::new(&prepared.store);
    let topology = oracle.topology();
    let output = Compiler::default().compile(&on_one_node(&prepared.store, topology))?;
    report(&prepared.store, topology, &output.problems, &mut notes);

    let subjects = subjects(&prepared, topology, &output.desired);
    let mut pairing = Pairing::new(&prepared.store, &output.desired, &subjects, &oracle);
    let between = pairing.between();
    let mut outside = Vec::with_capacity(subjects.len());
    for place in 0..subjects.len() {
        let mut spans = HashMap::new();
        for family in Family::ALL {
            for direction in Direction::ALL {
                let found = pairing.outside(place, family, direction);
                spans.extend(found.map(|found| ((family, direction), found)));
            }
        }
        outside.push(spans);
    }
    let pool = pairing.pool;
    let places = subjects.into_iter().map(|subject| subject.place).collect();
    Ok(Connectivity::new(places, between, outside, pool, notes.0))
}

/// What is known only when everything is read.
fn report(store: &Store, topology: &Topology<'_>, compiling: &[Problem], notes: &mut Notes) {
    let problems: BTreeSet<&Problem> = topology.problems.iter().chain(compiling).collect();
    // Who read the manifests knows of missing tiers, and where they are named.
    for problem in problems
        .into_iter()
        .filter(|problem| !matches!(problem, Problem::TierMissing { .. }))
    {
        notes.warning(problem.to_string());
    }
    unused::report(store, topology, notes);
}

impl Connectivity {
    fn new(
        mut places: Vec<Place>,
        between: Vec<(usize, usize, Number)>,
        outside: Vec<HashMap<(Family, Direction), Outside>>,
        pool: Pool,
        notes: Vec<Note>,
    ) -> Self {
        // Many subjects share what they may do outside.
        let mut cut: HashMap<(*const (), Family), Vec<(Place, Number)>> = HashMap::new();
        let mut ranges = BTreeSet::new();
        let address = |spans: &Outside| std::rc::Rc::as_ptr(spans).cast::<()>();
        for ((family, _), spans) in outside.iter().flatten() {
            cut.entry((address(spans), *family)).or_insert_with(|| {
                let open = spans.iter().filter(|span| span.value != NONE);
                let cidrs = open.flat_map(|span| {
                    nets(*family, span.first, span.last).map(|net| (Place::Cidr(net), span.value))
                });
                let cidrs: Vec<(Place, Number)> = cidrs.collect();
                ranges.extend(cidrs.iter().map(|(place, _)| place.clone()));
                cidrs
            });
        }
        let own = places.len();
        places.extend(ranges);
        let of_place = |place: usize| u32::try_from(place).unwrap_or(u32::MAX);
        let numbers: HashMap<&Place, u32> = places.iter().skip(own).zip(of_place(own)..).collect();
        let mut pairs: Vec<(u32, u32, Number)> = between
            .into_iter()
            .map(|(a, b, number)| (of_place(a), of_place(b), number))
            .collect();
        for (place, spans) in outside.iter().enumerate() {
            for ((family, direction), spans) in spans {
                for (cidr, number) in cut.get(&(address(spans), *family)).into_iter().flatten() {
                    let Some(range) = numbers.get(cidr) else { continue };
                    pairs.push(match direction {
                        Direction::Egress => (of_place(place), *range, *number),
                        Direction::Ingress => (*range, of_place(place), *number),
                    });
                }
            }
        }
        pairs.sort_unstable();
        Self {
            places,
            pairs,
            outside,
            pool,
            notes,
        }
    }

    /// Everybody, sorted: pods, workloads, hosts, ranges.
    #[must_use]
    pub fn places(&self) -> &[Place] {
        &self.places
    }

    /// Pairs with at least one connection, sorted by source and destination.
    pub fn pairs(&self) -> impl Iterator<Item = Pair<'_>> {
        self.pairs.iter().filter_map(|(src, dst, number)| {
            Some(Pair {
                src: self.places.get(usize::try_from(*src).ok()?)?,
                dst: self.places.get(usize::try_from(*dst).ok()?)?,
                connections: self.pool.get(*number),
            })
        })
    }

    /// Leaves only the pairs for which `keep` holds.
    pub fn retain(&mut self, keep: impl Fn(&Place, &Place) -> bool) {
        let places = &self.places;
        let place = |number: u32| places.get(usize::try_from(number).ok()?);
        self.pairs
            .retain(|(src, dst, _)| match (place(*src), place(*dst)) {
                (Some(src), Some(dst)) => keep(src, dst),
                _ => false,
            });
    }

    /// How many places have an address of their own.
    fn own(&self) -> usize {
        self.outside.len()
    }
}
