//! From interned content to the kernel's keys and values.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use calico_azure_ebpf::abi::{CLASS_DEFAULT_V4, CLASS_DEFAULT_V6, PolicyKey, PortKey, word};

use super::classes::{Class, Classes};
use super::encode::Table;
use super::intern::{Handle, Interner};
use super::paint::paint;
use super::place::Placed;
use super::predicate::{Family, Held};
use super::rules::Body;
use super::sets::Set;
use super::{CompileError, Output};
use crate::policy::store::Store;
use crate::policy::topology::{Topology, pod_name};
use crate::policy::{Desired, DesiredEndpoint, Problem, routes, wire};

/// A set with its tables.
#[derive(Debug)]
pub(super) struct Paired {
    pub(super) set: Arc<Set>,
    /// By class; the two defaults, and the classes whose table is not their family's default.
    tables: Vec<(u32, Handle<Table>)>,
    /// All of its tables, by the predicates of the set that hold.
    known: Tables,
}

type Tables = HashMap<(Family, Box<[Held]>), Handle<Table>>;

impl Paired {
    /// Finds the set's table for each class. Only the set's own predicates matter to it, so classes that differ in
    /// others have one table.
    pub(super) fn new(
        set: Arc<Set>,
        old: Option<&Self>,
        classes: &Classes,
        interner: &mut Interner<Table>,
    ) -> Result<Self, CompileError> {
        let mut known = Tables::new();
        let mut table = |family, holding: Box<[Held]>| {
            let key = (family, holding);
            if let Some(table) = known.get(&key) {
                return Ok::<_, CompileError>(table.clone());
            }
            let table = match old.and_then(|old| old.known.get(&key)) {
                Some(table) => table.clone(),
                None => Table::intern(&paint(&set, family, &key.1), interner)?,
            };
            known.insert(key, table.clone());
            Ok(table)
        };
        let v4 = table(Family::V4, Box::default())?;
        let v6 = table(Family::V6, Box::default())?;
        let mut tables = vec![(CLASS_DEFAULT_V4, v4.clone()), (CLASS_DEFAULT_V6, v6.clone())];
        for class in classes.touching(&set.predicates) {
            let Class { family, holding } = class.value();
            let table = table(*family, set.relevant(holding))?;
            let default = match family {
                Family::V4 => &v4,
                Family::V6 => &v6,
            };
            if table.id() != default.id() {
                tables.push((class.id(), table));
            }
        }
        Ok(Self { set, tables, known })
    }
}

pub(super) fn assemble(
    store: &Store,
    topology: &Topology<'_>,
    placed: &[Placed<'_>],
    classes: &Classes,
    sets: &BTreeMap<u32, Paired>,
    bodies: &BTreeMap<u64, Arc<Body>>,
    problems: Vec<Problem>,
) -> Output {
    let mut desired = Desired::default();
    routes::fill(&mut desired, store, topology);
    desired.endpoints = placed
        .iter()
        .map(
            |Placed {
                 endpoint,
                 ifindex,
                 ingress,
                 egress,
             }| {
                let endpoint = DesiredEndpoint {
                    pod: pod_name(endpoint.pod),
                    egress: *egress,
                    ingress: *ingress,
                    addresses: endpoint.addresses.clone(),
                };
                (*ifindex, endpoint)
            },
        )
        .collect();

    let v4 = classes
        .v4
        .iter()
        .map(|(ip, len, class)| ((wire::addr4((*ip).into()), *len), class.id()));
    let (exact, wider): (Vec<_>, Vec<_>) = v4.partition(|((_, len), _)| *len == 32);
    desired.class4 = exact.into_iter().map(|((ip, _), class)| (ip, class)).collect();
    desired.cidr4 = wider.into_iter().collect();
    let v6 = classes
        .v6
        .iter()
        .map(|(ip, len, class)| ((wire::addr6((*ip).into()), *len), class.id()));
    let (exact, wider): (Vec<_>, Vec<_>) = v6.partition(|((_, len), _)| *len == 128);
    desired.class6 = exact.into_iter().map(|((ip, _), class)| (ip, class)).collect();
    desired.cidr6 = wider.into_iter().collect();

    let mut used: BTreeMap<u32, &Table> = BTreeMap::new();
    for (id, paired) in sets {
        for (class, table) in &paired.tables {
            let key = PolicyKey {
                set: *id,
                class: *class,
            };
            let word = word::table(table.id(), table.value().hints, word::table_check(*id, *class));
            desired.policy.insert(key, word);
            used.insert(table.id(), table.value());
            used.extend(table.value().next.iter().map(|next| (next.id(), next.value())));
        }
    }
    let ports = used.iter().flat_map(|(id, table)| {
        table
            .entries
            .iter()
            .map(|(key, decision)| (PortKey { table: *id, ..*key }, word::of_table(*decision, *id)))
    });
    desired.ports = ports.collect();

    let rules = bodies
        .values()
        .flat_map(|body| &body.rules)
        .filter_map(|rule| rule.reference.as_ref());
    let references = rules.chain(sets.values().flat_map(|paired| paired.set.references()));
    Output {
        desired,
        rules: references
            .map(|reference| (reference.id(), reference.value().clone()))
            .collect(),
        problems,
        sets: sets
            .iter()
            .map(|(id, paired)| (*id, paired.set.info(bodies)))
            .collect(),
    }
}
