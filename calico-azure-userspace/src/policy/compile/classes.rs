//! Peer classes: which predicates hold for which addresses. One sweep over the sorted prefixes of a family; a stack
//! holds the prefixes that cover the current one.

use std::collections::HashMap;
use std::net::IpAddr;

use ipnet::IpNet;

use super::CompileError;
use super::intern::{Handle, Interner};
use super::members::{Members, backends};
use super::predicate::{Family, Held, PerFamily, Predicate, PredicateHandle};
use crate::model::{Labels, NamedPort};
use crate::policy::labels::EffectiveLabels;
use crate::policy::store::Store;
use crate::policy::topology::Topology;

/// What a class is: the predicates (ascending, at least one) that hold for its addresses.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Class {
    pub(super) family: Family,
    pub(super) holding: Box<[Held]>,
}

/// Prefixes whose class is not that of the prefix around them.
#[derive(Debug, Default)]
pub(super) struct Classes {
    pub(super) v4: Vec<(u32, u8, Handle<Class>)>,
    pub(super) v6: Vec<(u128, u8, Handle<Class>)>,
    /// Every class once.
    distinct: Vec<Handle<Class>>,
    /// Places in `distinct`, ascending.
    by_predicate: HashMap<u32, Vec<usize>>,
}

impl Classes {
    /// Classes for which at least one of the predicates holds, each once, in a fixed order.
    pub(super) fn touching(&self, predicates: &[u32]) -> impl Iterator<Item = &Handle<Class>> {
        let places = predicates
            .iter()
            .filter_map(|predicate| self.by_predicate.get(predicate))
            .flatten();
        let mut places: Vec<usize> = places.copied().collect();
        places.sort_unstable();
        places.dedup();
        places.into_iter().filter_map(|place| self.distinct.get(place))
    }

    fn add(&mut self, class: &Handle<Class>) {
        let predicates = class.value().holding.iter().filter(|held| held.port().is_none());
        for held in predicates {
            self.by_predicate
                .entry(held.predicate())
                .or_default()
                .push(self.distinct.len());
        }
        self.distinct.push(class.clone());
    }
}

/// An index into [`Unions::sets`].
type SetId = u32;
const EMPTY: SetId = 0;

/// A prefix, its address shifted to the top of the word.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Prefix {
    address: u128,
    len: u8,
}

pub(super) fn classify(
    store: &Store,
    topology: &Topology<'_>,
    predicates: &[PredicateHandle],
    interner: &mut Interner<Class>,
) -> Result<Classes, CompileError> {
    let mut unions = Unions::default();
    let mut members: PerFamily<Vec<(Prefix, SetId)>> = PerFamily::default();
    let mut add = |net: IpNet, set| match net {
        IpNet::V4(net) => {
            let address = u128::from(u32::from(net.network())) << 96;
            members.v4.push((
                Prefix {
                    address,
                    len: net.prefix_len(),
                },
                set,
            ));
        }
        IpNet::V6(net) => {
            let address = u128::from(net.network());
            members.v6.push((
                Prefix {
                    address,
                    len: net.prefix_len(),
                },
                set,
            ));
        }
    };

    let asked = Members::new(predicates);
    // Replicas have the same labels and ports, so selectors are tried once for each distinct set of them.
    type Alike<'a> = (
        &'a str,
        &'a str,
        &'a Labels,
        &'a [NamedPort],
        &'a Option<Vec<String>>,
    );
    let mut known: HashMap<Alike<'_>, SetId> = HashMap::new();
    for endpoint in topology
        .endpoints
        .iter()
        .filter(|endpoint| !endpoint.addresses.is_empty())
    {
        let pod = endpoint.pod;
        let set = *known
            .entry((
                &pod.namespace,
                &pod.service_account,
                &pod.labels,
                &pod.ports,
                &pod.profiles,
            ))
            .or_insert_with(|| {
                unions.intern(asked.of_endpoint(&EffectiveLabels::of_pod(store, pod), &pod.ports))
            });
        if set != EMPTY {
            endpoint
                .addresses
                .iter()
                .for_each(|address: &IpAddr| add(IpNet::from(*address), set));
        }
    }
    for host in store.host_endpoints() {
        let set =
            unions.intern(asked.of_endpoint(&EffectiveLabels::of_host_endpoint(store, host), &host.ports));
        if set != EMPTY {
            host.expected_ips
                .iter()
                .for_each(|address| add(IpNet::from(*address), set));
        }
    }
    for network_set in store.network_sets() {
        let labels = EffectiveLabels::of_network_set(store, network_set);
        let set = unions.intern(asked.of_network_set(&labels));
        if set != EMPTY {
            network_set.nets.iter().for_each(|net| add(*net, set));
        }
    }
    for (service, subset) in backends(store) {
        let set = unions.intern(asked.of_backends(&service, &subset.ports));
        if set != EMPTY {
            subset
                .addresses
                .iter()
                .for_each(|address| add(IpNet::from(*address), set));
        }
    }
    for predicate in predicates {
        if let Predicate::Nets(nets) = predicate.value() {
            let set = unions.intern(vec![Held::of(predicate.id())]);
            nets.iter().for_each(|net| add(*net, set));
        }
    }

    let mut classes = Classes::default();
    for family in Family::ALL {
        let members = match family {
            Family::V4 => std::mem::take(&mut members.v4),
            Family::V6 => std::mem::take(&mut members.v6),
        };
        let mut handles: HashMap<SetId, Handle<Class>> = HashMap::new();
        for (prefix, set) in sweep(members, &mut unions) {
            let handle = match handles.get(&set) {
                Some(handle) => handle.clone(),
                None => {
                    let handle = interner.intern(Class {
                        family,
                        holding: unions.get(set).into(),
                    })?;
                    classes.add(&handle);
                    handles.insert(set, handle.clone());
                    handle
                }
            };
            match family {
                Family::V4 => {
                    let address = u32::try_from(prefix.address >> 96).unwrap_or_default();
                    classes.v4.push((address, prefix.len, handle));
                }
                Family::V6 => classes.v6.push((prefix.address, prefix.len, handle)),
            }
        }
    }
    Ok(classes)
}

/// In ascending order, the prefixes for which more holds than for the prefix around them, with all that holds.
fn sweep(mut members: Vec<(Prefix, SetId)>, unions: &mut Unions) -> Vec<(Prefix, SetId)> {
    members.sort_unstable();
    members.dedup();
    let mut classified = Vec::new();
    let mut around: Vec<(Prefix, SetId)> = Vec::new();
    for group in members.chunk_by(|a, b| a.0 == b.0) {
        let Some((prefix, _)) = group.first().copied() else {
            continue;
        };
        while around.last().is_some_and(|(outer, _)| !outer.covers(prefix)) {
            around.pop();
        }
        let outer = around.last().map_or(EMPTY, |(_, set)| *set);
        let set = group
            .iter()
            .fold(outer, |set, (_, more)| unions.union(set, *more));
        if set != outer {
            classified.push((prefix, set));
            around.push((prefix, set));
        }
    }
    classified
}

impl Prefix {
    fn covers(self, other: Self) -> bool {
        let mask = u128::MAX.checked_shl(128 - u32::from(self.len)).unwrap_or(0);
        self.len <= other.len && (self.address ^ other.address) & mask == 0
    }
}

/// Interned sets of predicates, and their unions.
struct Unions {
    sets: Vec<Box<[Held]>>,
    ids: HashMap<Box<[Held]>, SetId>,
    known: HashMap<(SetId, SetId), SetId>,
}

impl Default for Unions {
    fn default() -> Self {
        Self {
            sets: vec![Box::default()],
            ids: HashMap::from([(Box::default(), EMPTY)]),
            known: HashMap::new(),
        }
    }
}

impl Unions {
    /// `members` ascending.
    fn intern(&mut self, members: Vec<Held>) -> SetId {
        let members = members.into_boxed_slice();
        if let Some(id) = self.ids.get(&members) {
            return *id;
        }
        // More sets than that do not fit into memory.
        let id = SetId::try_from(self.sets.len()).unwrap_or(SetId::MAX);
        self.sets.push(members.clone());
        self.ids.insert(members, id);
        id
    }

    fn get(&self, id: SetId) -> &[Held] {
        self.sets.get(id as usize).map(AsRef::as_ref).unwrap_or_default()
    }

    fn union(&mut self, a: SetId, b: SetId) -> SetId {
        if a == b || b == EMPTY {
            return a;
        }
        if a == EMPTY {
            return b;
        }
        if let Some(id) = self.known.get(&(a, b)) {
            return *id;
        }
        let mut members = [self.get(a), self.get(b)].concat();
        members.sort_unstable();
        members.dedup();
        let id = self.intern(members);
        self.known.insert((a, b), id);
        id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn swept(members: &[(&str, &[u32])]) -> Vec<(String, Vec<u32>)> {
        let mut unions = Unions::default();
        let members: Vec<_> = members
            .iter()
            .map(|(net, set)| {
                let net: ipnet::Ipv4Net = net.parse().unwrap();
                let address = u128::from(u32::from(net.network())) << 96;
                (
                    Prefix {
                        address,
                        len: net.prefix_len(),
                    },
                    unions.intern(set.iter().copied().map(Held::of).collect()),
                )
            })
            .collect();
        let name = |prefix: Prefix| {
            let address = std::net::Ipv4Addr::from(u32::try_from(prefix.address >> 96).unwrap());
            format!("{address}/{}", prefix.len)
        };
        let swept = sweep(members, &mut unions);
        swept
            .into_iter()
            .map(|(prefix, set)| {
                (
                    name(prefix),
                    unions.get(set).iter().map(|held| held.predicate()).collect(),
                )
            })
            .collect()
    }

    #[test]
    fn a_prefix_has_what_all_prefixes_around_it_have() {
        let swept = swept(&[
            ("10.0.0.1/32", &[9]),
            ("10.0.0.0/8", &[1]),
            ("0.0.0.0/0", &[7]),
            ("10.0.0.0/24", &[2, 3]),
            ("11.0.0.0/32", &[4]),
        ]);
        let expected: [(&str, &[u32]); 5] = [
            ("0.0.0.0/0", &[7]),
            ("10.0.0.0/8", &[1, 7]),
            ("10.0.0.0/24", &[1, 2, 3, 7]),
            ("10.0.0.1/32", &[1, 2, 3, 7, 9]),
            ("11.0.0.0/32", &[4, 7]),
        ];
        assert_eq!(swept, expected.map(|(net, set)| (net.to_owned(), set.to_vec())));
    }

    #[test]
    fn what_changes_nothing_is_left_out() {
        let swept = swept(&[
            ("10.0.0.0/8", &[1, 2]),
            ("10.1.0.0/16", &[2]),
            ("10.1.1.1/32", &[1]),
            ("10.1.0.0/16", &[1]),
        ]);
        assert_eq!(swept, [("10.0.0.0/8".to_owned(), vec![1, 2])]);
    }
}
