//! Who addresses belong to, as far as predicates can tell: groups of pods with the same labels and ports, host
//! endpoints, network sets, backends of services, and the prefixes that rules name themselves. What holds for each is
//! found once, however many addresses it has.

mod objects;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use ipnet::IpNet;

use super::claims::PodName;
use super::label_index::LabelIndex;
use super::members::Members;
use super::predicate::{Held, Predicate, PredicateHandle};
use super::prefixes::Prefixes;
use crate::model::{Key, Pod, ServiceName};
use crate::policy::labels::EffectiveLabels;
use crate::policy::store::Store;

pub(super) type SourceId = u32;

/// Ports of some backends of a service: protocol and port.
type Ports = Vec<(u8, u16)>;

/// What a source is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Origin {
    Pods(Alike),
    Host(String),
    NetworkSet(Key),
    Backends(ServiceName, Ports),
    Nets(u32),
}

/// A pod that stands for all with the same labels, ports and profiles.
#[derive(Clone, Debug)]
struct Alike(Arc<Pod>);

impl PartialEq for Alike {
    fn eq(&self, other: &Self) -> bool {
        let (a, b) = (&self.0, &other.0);
        a.namespace == b.namespace
            && a.service_account == b.service_account
            && a.labels == b.labels
            && a.ports == b.ports
            && a.profiles == b.profiles
    }
}

impl Eq for Alike {}

impl Hash for Alike {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let pod = &self.0;
        (
            &pod.namespace,
            &pod.service_account,
            &pod.labels,
            &pod.ports,
            &pod.profiles,
        )
            .hash(state);
    }
}

#[derive(Debug)]
struct Source {
    origin: Origin,
    /// What holds for its addresses.
    held: Arc<[Held]>,
    /// Of a group.
    pods: HashSet<PodName>,
    /// Of anything else: its prefixes, sorted, without host bits, each once.
    nets: Vec<IpNet>,
}

#[derive(Debug, Default)]
pub(super) struct Sources {
    all: Vec<Option<Source>>,
    free: Vec<SourceId>,
    ids: HashMap<Origin, SourceId>,
    labels: LabelIndex,
    members: Members,
    /// Objects with backends, by service.
    backends: HashMap<ServiceName, BTreeSet<Key>>,
    /// Sources of the backends of services that a rule asks about.
    served: HashMap<ServiceName, BTreeSet<SourceId>>,
    /// To be looked at again.
    dirty: BTreeSet<SourceId>,
    dirty_services: BTreeSet<ServiceName>,
    /// Groups that lost a pod, and may have lost all.
    left: Vec<SourceId>,
}

impl Sources {
    /// What holds for the source.
    pub(super) fn held(&self, id: SourceId) -> &[Held] {
        self.get(id).map_or(&[], |source| &source.held)
    }

    /// The pods of a group.
    pub(super) fn pods(&self, id: SourceId) -> impl Iterator<Item = &PodName> {
        self.get(id).into_iter().flat_map(|source| &source.pods)
    }

    /// Whether it is a group of pods.
    pub(super) fn is_group(&self, id: SourceId) -> bool {
        self.get(id)
            .is_some_and(|source| matches!(source.origin, Origin::Pods(_)))
    }

    fn get(&self, id: SourceId) -> Option<&Source> {
        self.all.get(id as usize)?.as_ref()
    }

    fn get_mut(&mut self, id: SourceId) -> Option<&mut Source> {
        self.all.get_mut(id as usize)?.as_mut()
    }

    fn add(&mut self, origin: Origin) -> SourceId {
        let id = self.free.pop().unwrap_or_else(|| {
            self.all.push(None);
            // More do not fit into memory.
            SourceId::try_from(self.all.len() - 1).unwrap_or(SourceId::MAX)
        });
        self.ids.insert(origin.clone(), id);
        self.dirty.insert(id);
        if let Some(place) = self.all.get_mut(id as usize) {
            *place = Some(Source {
                origin,
                held: Arc::default(),
                pods: HashSet::new(),
                nets: Vec::new(),
            });
        }
        id
    }

    /// The group that the pod belongs to from now on.
    pub(super) fn join(&mut self, pod: &Arc<Pod>, name: &PodName) -> SourceId {
        let origin = Origin::Pods(Alike(Arc::clone(pod)));
        let id = self.ids.get(&origin).copied().unwrap_or_else(|| {
            let id = self.add(origin);
            self.labels
                .insert(id, &pod.own_labels(), &pod.ports, pod.profiles.is_some());
            id
        });
        if let Some(source) = self.get_mut(id) {
            source.pods.insert(Arc::clone(name));
        }
        id
    }

    pub(super) fn leave(&mut self, id: SourceId, name: &PodName) {
        if let Some(source) = self.get_mut(id) {
            source.pods.remove(name);
            if source.pods.is_empty() {
                self.left.push(id);
            }
        }
    }

    /// Groups that are to be looked at again; valid between [`Self::update`] and [`Self::settle`].
    pub(super) fn dirty_groups(&self) -> impl Iterator<Item = SourceId> {
        self.dirty.iter().copied().filter(|id| self.is_group(*id))
    }

    /// A predicate that rules ask about from now on.
    pub(super) fn ask(&mut self, store: &Store, predicate: &PredicateHandle, prefixes: &mut Prefixes) {
        self.members.insert(predicate);
        let id = predicate.id();
        match predicate.value() {
            Predicate::Nets(nets) => {
                self.place(Origin::Nets(id), nets.iter().copied(), prefixes);
            }
            Predicate::Service(service) => {
                self.dirty_services.insert(service.clone());
            }
            Predicate::Selector(selector) => {
                let candidates = self.labels.candidates(store, selector);
                let matching = candidates.into_iter().filter(|source| {
                    !self.dirty.contains(source)
                        && self.with_labels(store, *source, |labels| selector.matches(labels))
                });
                let matching: Vec<SourceId> = matching.collect();
                self.dirty.extend(matching);
            }
            Predicate::NamedPort { name, .. } => self.dirty.extend(self.labels.with_port(name)),
        }
    }

    /// A predicate that no rule asks about any more.
    pub(super) fn forget(&mut self, store: &Store, predicate: &PredicateHandle, prefixes: &mut Prefixes) {
        self.members.remove(predicate);
        let id = predicate.id();
        match predicate.value() {
            Predicate::Nets(_) => self.remove(&Origin::Nets(id), prefixes),
            Predicate::Service(service) => {
                self.dirty_services.insert(service.clone());
            }
            Predicate::Selector(selector) => {
                let candidates = self.labels.candidates(store, selector).into_iter();
                let holders =
                    candidates.filter(|source| self.held(*source).binary_search(&Held::of(id)).is_ok());
                let holders: Vec<SourceId> = holders.collect();
                self.dirty.extend(holders);
            }
            Predicate::NamedPort { name, .. } => self.dirty.extend(self.labels.with_port(name)),
        }
    }

    fn with_labels<T: Default>(
        &self,
        store: &Store,
        id: SourceId,
        ask: impl FnOnce(&EffectiveLabels<'_>) -> T,
    ) -> T {
        match self.get(id).map(|source| &source.origin) {
            Some(Origin::Pods(Alike(pod))) => ask(&EffectiveLabels::of_pod(store, pod)),
            Some(Origin::Host(name)) => store
                .host_endpoint(name)
                .map(|host| ask(&EffectiveLabels::of_host_endpoint(store, host)))
                .unwrap_or_default(),
            Some(Origin::NetworkSet(key)) => store
                .network_set(key)
                .map(|set| ask(&EffectiveLabels::of_network_set(store, set)))
                .unwrap_or_default(),
            Some(Origin::Backends(..) | Origin::Nets(_)) | None => T::default(),
        }
    }

    /// Effective labels of a group.
    pub(super) fn labels_of<T: Default>(
        &self,
        store: &Store,
        group: SourceId,
        ask: impl FnOnce(&EffectiveLabels<'_>) -> T,
    ) -> T {
        self.with_labels(store, group, ask)
    }

    /// Finds what holds for all that are to be looked at; the groups for which it is something else now, and whether
    /// anything held for them before.
    pub(super) fn settle(&mut self, store: &Store, prefixes: &mut Prefixes) -> Vec<(SourceId, bool)> {
        for service in std::mem::take(&mut self.dirty_services) {
            self.serve(store, &service, prefixes);
        }
        let mut moved = Vec::new();
        for id in std::mem::take(&mut self.dirty) {
            let held: Arc<[Held]> = self.find(store, id).into();
            let Some(source) = self.get_mut(id) else { continue };
            if source.held == held {
                continue;
            }
            let before = !source.held.is_empty();
            let after = !held.is_empty();
            source.held = held;
            if matches!(source.origin, Origin::Pods(_)) {
                moved.push((id, before));
                continue;
            }
            for net in &source.nets {
                match (before, after) {
                    (false, _) => prefixes.attach(*net, id),
                    (true, false) => prefixes.detach(*net, id),
                    (true, true) => prefixes.touch(*net),
                }
            }
        }
        moved
    }

    fn find(&self, store: &Store, id: SourceId) -> Vec<Held> {
        let members = &self.members;
        match self.get(id).map(|source| &source.origin) {
            Some(Origin::Pods(Alike(pod))) => {
                members.of_endpoint(&EffectiveLabels::of_pod(store, pod), &pod.ports)
            }
            Some(Origin::Host(name)) => store.host_endpoint(name).map_or_else(Vec::new, |host| {
                members.of_endpoint(&EffectiveLabels::of_host_endpoint(store, host), &host.ports)
            }),
            Some(Origin::NetworkSet(key)) => store.network_set(key).map_or_else(Vec::new, |set| {
                members.of_network_set(&EffectiveLabels::of_network_set(store, set))
            }),
            Some(Origin::Backends(service, ports)) => members.of_backends(service, ports),
            Some(Origin::Nets(predicate)) => vec![Held::of(*predicate)],
            None => Vec::new(),
        }
    }

    /// Forgets groups without pods. Nothing may refer to them any more.
    pub(super) fn bury(&mut self, prefixes: &mut Prefixes) {
        for id in std::mem::take(&mut self.left) {
            let empty = self
                .get(id)
                .filter(|source| source.pods.is_empty() && matches!(source.origin, Origin::Pods(_)));
            if let Some(origin) = empty.map(|source| source.origin.clone()) {
                self.remove(&origin, prefixes);
            }
        }
    }

    #[cfg(test)]
    pub(super) fn counts(&self) -> Vec<usize> {
        let live = self.all.iter().flatten().count();
        let rest = usize::from(!self.members.is_empty()) + self.labels.len();
        let services = self.backends.len() + self.served.len();
        vec![
            live,
            self.ids.len(),
            services,
            self.dirty.len(),
            self.left.len(),
            rest,
        ]
    }
}
