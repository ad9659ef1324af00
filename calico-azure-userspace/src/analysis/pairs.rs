//! Who may talk to whom, from the tables; from the reference where host endpoints have a say.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::rc::Rc;

use super::cluster::{Subject, default_class};
use super::connections::{Connections, NONE, Number, Pool};
use super::named::nets_of_policy;
use super::points::Points;
use super::relevant::{is_owned, nets_of, rules_of};
use super::spans::{Family, Span, cut_at, joined, number};
use super::tables::{CLOSED, Tables};
use crate::model::{EndpointToHost, Pod, Rule};
use crate::policy::reference::Oracle;
use crate::policy::store::Store;
use crate::policy::topology::pod_name;
use crate::policy::{Desired, Direction};

/// A family's addresses outside, in order, by what they may do.
pub(super) type Outside = Rc<[Span<Number>]>;

pub(super) struct Pairing<'a> {
    store: &'a Store,
    subjects: &'a [Subject],
    tables: Tables<'a>,
    oracle: &'a Oracle<'a>,
    owned: HashSet<IpAddr>,
    pub(super) pool: Pool,
    /// By family; see [`super::cluster::outside`].
    classes: HashMap<Family, Vec<Span<u32>>>,
    of_set: HashMap<(u32, Family), Outside>,
    /// Subjects that neither tables nor reference can tell apart, by place.
    alike: Vec<u32>,
    /// By `alike`.
    rules: HashMap<(u32, Direction), Rc<[&'a Rule]>>,
    asked: HashMap<(u32, u32), Number>,
    asked_outside: HashMap<(u32, Family, Direction), Outside>,
}

impl<'a> Pairing<'a> {
    pub(super) fn new(
        store: &'a Store,
        desired: &'a Desired,
        subjects: &'a [Subject],
        oracle: &'a Oracle<'a>,
    ) -> Self {
        let owned: HashSet<IpAddr> = subjects
            .iter()
            .flat_map(|subject| subject.addresses.clone())
            .collect();
        let classes = Family::ALL.map(|family| (family, super::cluster::outside(desired, family, &owned)));
        let any_bound = subjects.iter().any(|subject| subject.bound);
        Self {
            store,
            subjects,
            tables: Tables::new(desired),
            oracle,
            owned,
            pool: Pool::default(),
            classes: classes.into(),
            of_set: HashMap::new(),
            rules: HashMap::new(),
            alike: if any_bound {
                alike(store, subjects)
            } else {
                Vec::new()
            },
            asked: HashMap::new(),
            asked_outside: HashMap::new(),
        }
    }

    /// All pairs of subjects that may talk, in order.
    pub(super) fn between(&mut self) -> Vec<(usize, usize, Number)> {
        // By what the tables know of a subject; most are like many others.
        let subjects = self.subjects;
        type Alike<'s> = (u32, u32, &'s [(Family, u32)]);
        let mut groups: HashMap<Alike<'_>, usize> = HashMap::new();
        let group_of: Vec<usize> = subjects
            .iter()
            .map(|subject| {
                let next = groups.len();
                *groups
                    .entry((subject.egress, subject.ingress, &subject.classes))
                    .or_insert(next)
            })
            .collect();
        let mut known: Vec<Option<Number>> = vec![None; groups.len() * groups.len()];
        let mut pairs = Vec::new();
        for (from, src) in subjects.iter().enumerate() {
            for (to, dst) in subjects.iter().enumerate() {
                if from == to {
                    continue;
                }
                let number = match self.special(from, to) {
                    Some(number) => number,
                    None => {
                        let [a, b] = [from, to].map(|place| group_of.get(place).copied().unwrap_or_default());
                        let slot = a * groups.len() + b;
                        match known.get(slot).copied().flatten() {
                            Some(number) => number,
                            None => {
                                let number = self.by_tables(src, dst);
                                if let Some(slot) = known.get_mut(slot) {
                                    *slot = Some(number);
                                }
                                number
                            }
                        }
                    }
                };
                if number != NONE {
                    pairs.push((from, to, number));
                }
            }
        }
        pairs
    }

    /// What the tables do not tell.
    fn special(&mut self, from: usize, to: usize) -> Option<Number> {
        let (src, dst) = (self.subjects.get(from)?, self.subjects.get(to)?);
        if (src.is_host || dst.is_host) && src.node == dst.node {
            if src.is_host {
                // A host reaches its own pods, unless they are cut off altogether.
                let meet = Family::ALL
                    .iter()
                    .any(|family| src.has(*family) && dst.has(*family));
                let meet = meet && dst.ingress != CLOSED;
                return Some(if meet {
                    self.pool.number(Connections::all())
                } else {
                    NONE
                });
            }
            let mut settings = self.store.felix_configurations(&src.node);
            let action = settings
                .find_map(|x| x.endpoint_to_host)
                .unwrap_or(EndpointToHost::Drop);
            if action == EndpointToHost::Drop {
                return Some(NONE);
            }
        }
        if !src.bound && !dst.bound {
            return None;
        }
        let key = (*self.alike.get(from)?, *self.alike.get(to)?);
        if let Some(number) = self.asked.get(&key) {
            return Some(*number);
        }
        let rules = [
            self.rules(from, Direction::Egress),
            self.rules(to, Direction::Ingress),
        ]
        .concat();
        let points = Points::new(self.store, &rules);
        let mut connections = Connections::none();
        for (a, b) in meetings(&src.addresses, &dst.addresses) {
            connections = connections.union(&points.connections(self.oracle, a, b));
        }
        let number = self.pool.number(connections);
        self.asked.insert(key, number);
        Some(number)
    }

    fn by_tables(&mut self, src: &Subject, dst: &Subject) -> Number {
        let mut sum = NONE;
        for (family, src_class) in &src.classes {
            for (_, dst_class) in dst.classes.iter().filter(|(other, _)| other == family) {
                let default = default_class(*family);
                let sent = self.tables.table(src.egress, *dst_class, default);
                let got = self.tables.table(dst.ingress, *src_class, default);
                let number = self.tables.pair(sent, got, &mut self.pool);
                sum = self.pool.union(sum, number);
            }
        }
        sum
    }

    /// What a subject may send to, or get from, addresses of the family that are nobody's.
    pub(super) fn outside(&mut self, place: usize, family: Family, direction: Direction) -> Option<Outside> {
        let subject = self.subjects.get(place).filter(|subject| subject.has(family))?;
        if subject.bound {
            return self.ask_outside(place, family, direction);
        }
        let set = match direction {
            Direction::Egress => subject.egress,
            Direction::Ingress => subject.ingress,
        };
        if let Some(known) = self.of_set.get(&(set, family)) {
            return Some(Rc::clone(known));
        }
        let classes = self.classes.get(&family).map_or(&[][..], |classes| classes);
        let mut spans = Vec::with_capacity(classes.len());
        for Span { first, last, value } in classes {
            let table = self.tables.table(set, *value, default_class(family));
            let value = self.tables.alone(table, &mut self.pool);
            let (first, last) = (*first, *last);
            spans.push(Span { first, last, value });
        }
        let spans: Outside = joined(spans).into();
        self.of_set.insert((set, family), Rc::clone(&spans));
        Some(spans)
    }

    fn ask_outside(&mut self, place: usize, family: Family, direction: Direction) -> Option<Outside> {
        let key = (*self.alike.get(place)?, family, direction);
        if let Some(known) = self.asked_outside.get(&key) {
            return Some(Rc::clone(known));
        }
        let own = &self.subjects.get(place)?.addresses;
        let rules = self.rules(place, direction);
        let points = Points::new(self.store, &rules);
        let mut nets = nets_of(self.store, &rules);
        nets.retain(|net| !is_owned(net, &self.owned));
        let mut spans: Vec<Span<Number>> = Vec::new();
        // Addresses in the same CIDRs are the same to every rule.
        let mut known: HashMap<Vec<bool>, Number> = HashMap::new();
        for Span { first, last, .. } in cut_at(family, nets.iter()) {
            let address = family.address(first);
            let signature: Vec<bool> = nets.iter().map(|net| net.contains(&address)).collect();
            let number = match (known.get(&signature), self.stranger(family, first, last)) {
                (Some(known), _) => *known,
                // Where every address is somebody's, what is before it goes on.
                (None, None) => spans.last().map_or(NONE, |span| span.value),
                (None, Some(peer)) => {
                    let mut connections = Connections::none();
                    for own in own.iter().filter(|own| Family::of(**own) == family) {
                        let (src, dst) = match direction {
                            Direction::Egress => (*own, peer),
                            Direction::Ingress => (peer, *own),
                        };
                        connections = connections.union(&points.connections(self.oracle, src, dst));
                    }
                    let number = self.pool.number(connections);
                    known.insert(signature, number);
                    number
                }
            };
            spans.push(Span {
                first,
                last,
                value: number,
            });
        }
        let spans: Outside = joined(spans).into();
        self.asked_outside.insert(key, Rc::clone(&spans));
        Some(spans)
    }

    /// An address of the span that is nobody's; a node's only if there is no other.
    fn stranger(&self, family: Family, first: u128, last: u128) -> Option<IpAddr> {
        let enough = self.owned.len() + self.store.nodes().count() + 1;
        let free = || {
            let all = (first..=last).take(enough).map(|number| family.address(number));
            all.filter(|address| !self.owned.contains(address))
        };
        free()
            .find(|address| self.oracle.host_of(*address).is_none())
            .or_else(|| free().next())
    }

    fn rules(&mut self, place: usize, direction: Direction) -> Rc<[&'a Rule]> {
        let (Some(subject), Some(alike)) = (self.subjects.get(place), self.alike.get(place)) else {
            return Rc::default();
        };
        let store = self.store;
        let rules = self.rules.entry((*alike, direction));
        Rc::clone(rules.or_insert_with(|| rules_of(store, subject, direction).into()))
    }
}

/// Addresses of one family.
fn meetings<'m>(src: &'m [IpAddr], dst: &'m [IpAddr]) -> impl Iterator<Item = (IpAddr, IpAddr)> + 'm {
    let of_family = |a: IpAddr| {
        dst.iter()
            .filter(move |b| b.is_ipv4() == a.is_ipv4())
            .map(move |b| (a, *b))
    };
    src.iter().flat_map(move |a| of_family(*a))
}

/// The same number for subjects that no policy can tell apart.
fn alike(store: &Store, subjects: &[Subject]) -> Vec<u32> {
    let nets = nets_of_policy(store);
    let cuts = Family::ALL.map(|family| cut_at(family, nets.iter()));
    let span_of = |address: &IpAddr| {
        let [v4, v6] = &cuts;
        let (spans, at) = (if address.is_ipv4() { v4 } else { v6 }, number(*address));
        (address.is_ipv4(), spans.partition_point(|span| span.last < at))
    };
    let mut behind: HashMap<IpAddr, Vec<String>> = HashMap::new();
    for (place, backends) in store.backends().enumerate() {
        for (subset, x) in backends.subsets.iter().enumerate() {
            for address in &x.addresses {
                let ports = format!("{place}/{subset}/{:?}", x.ports);
                // Derived backends have a subset for each pod, so ports tell and the place does not.
                let derived = format!("{place}/{:?}", x.ports);
                let is_derived = backends.key.name.contains('(');
                behind
                    .entry(*address)
                    .or_default()
                    .push(if is_derived { derived } else { ports });
            }
        }
    }
    let pods: HashMap<String, &Pod> = store.pods().map(|pod| (pod_name(pod), pod.as_ref())).collect();
    let hosts: HashSet<&str> = store.host_endpoints().map(|host| host.node.as_str()).collect();
    let mut numbers: HashMap<String, u32> = HashMap::new();
    let number = |(place, subject): (usize, &Subject)| {
        let pod = pods.get(&subject.pod);
        let key = match pod {
            Some(pod) => format!(
                "{:?}",
                (
                    (
                        &pod.namespace,
                        &pod.service_account,
                        &pod.labels,
                        &pod.profiles,
                        &pod.ports
                    ),
                    hosts.get(subject.node.as_str()),
                    (subject.egress, subject.ingress),
                    subject.addresses.iter().map(span_of).collect::<Vec<_>>(),
                    subject
                        .addresses
                        .iter()
                        .map(|address| behind.get(address))
                        .collect::<Vec<_>>(),
                )
            ),
            None => place.to_string(),
        };
        let next = u32::try_from(numbers.len()).unwrap_or(u32::MAX);
        *numbers.entry(key).or_insert(next)
    };
    subjects.iter().enumerate().map(number).collect()
}
