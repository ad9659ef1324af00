//! What may be different since the last update. Only names: what is true now is in the store.

use std::collections::BTreeSet;

use crate::model::{Key, Kind, Resource, ServiceName};
use crate::policy::store::{Event, Name, Store};

/// Objects and facts that changed.
#[derive(Debug, Default)]
pub(super) struct Touched {
    pub(super) pods: BTreeSet<Name>,
    pub(super) namespaces: BTreeSet<String>,
    pub(super) accounts: BTreeSet<Name>,
    pub(super) profiles: BTreeSet<String>,
    pub(super) policies: BTreeSet<Key>,
    pub(super) tiers: BTreeSet<String>,
    pub(super) network_sets: BTreeSet<Key>,
    pub(super) hosts: BTreeSet<String>,
    pub(super) nodes: BTreeSet<String>,
    pub(super) backends: BTreeSet<Key>,
    /// Services whose backends changed.
    pub(super) services: BTreeSet<ServiceName>,
    /// Services that changed themselves.
    pub(super) service_objects: BTreeSet<ServiceName>,
    pub(super) settings: bool,
    pub(super) interfaces: bool,
    pub(super) facts: bool,
}

impl Touched {
    /// Applies the event to the store and notes what it touches; whether anything is different now.
    pub(super) fn apply(&mut self, store: &mut Store, event: Event) -> bool {
        match event {
            Event::Upsert(resource) => {
                let key = resource.key();
                // What the object stood for before may be another thing.
                let before = Owned::of(store, &key);
                // Most events are about pods, which own nothing else.
                let after = match &resource {
                    Resource::WorkloadEndpoint(_) | Resource::Backends(_) => Some(key.clone()),
                    _ => None,
                };
                let changed = store.apply(Event::Upsert(resource));
                if changed {
                    self.owned(before);
                    self.owned(after.map_or(Owned::Nothing, |key| Owned::of(store, &key)));
                    self.object(key);
                }
                changed
            }
            Event::Delete(key) => {
                let before = Owned::of(store, &key);
                let changed = store.apply(Event::Delete(key.clone()));
                if changed {
                    self.owned(before);
                    self.object(key);
                }
                changed
            }
            Event::Interfaces(interfaces) => {
                let changed = store.apply(Event::Interfaces(interfaces));
                self.interfaces |= changed;
                changed
            }
            Event::Node(facts) => {
                let changed = store.apply(Event::Node(facts));
                self.facts |= changed;
                changed
            }
        }
    }

    /// Notes all that differs between two stores.
    pub(super) fn between(&mut self, old: &Store, new: &Store) {
        for key in old.differing(new) {
            self.owned(Owned::of(old, &key));
            self.owned(Owned::of(new, &key));
            self.object(key);
        }
        self.interfaces |= old.interfaces() != new.interfaces();
        self.facts |= old.facts() != new.facts();
    }

    fn owned(&mut self, owned: Owned) {
        match owned {
            Owned::Nothing => {}
            Owned::Pod(pod) => {
                self.pods.insert(pod);
            }
            Owned::Service(service) => {
                self.services.insert(service);
            }
        }
    }

    fn object(&mut self, key: Key) {
        let Key {
            kind,
            namespace,
            name,
        } = key;
        let full = |namespace: Option<String>, name| (namespace.unwrap_or_default(), name);
        match kind {
            Kind::Pod => self.pods.insert(full(namespace, name)),
            Kind::Namespace => self.namespaces.insert(name),
            Kind::ServiceAccount => self.accounts.insert(full(namespace, name)),
            Kind::Profile => self.profiles.insert(name),
            Kind::Tier => self.tiers.insert(name),
            Kind::HostEndpoint => self.hosts.insert(name),
            Kind::Node => self.nodes.insert(name),
            Kind::FelixConfiguration => {
                self.settings = true;
                true
            }
            Kind::NetworkSet | Kind::GlobalNetworkSet => self.network_sets.insert(Key {
                kind,
                namespace,
                name,
            }),
            Kind::EndpointSlice | Kind::Endpoints => self.backends.insert(Key {
                kind,
                namespace,
                name,
            }),
            kind if kind.is_policy() => self.policies.insert(Key {
                kind,
                namespace,
                name,
            }),
            Kind::Service => self.service_objects.insert(ServiceName {
                namespace: namespace.unwrap_or_default(),
                name,
            }),
            // Workloads, IP pools: no policy looks at them.
            _ => false,
        };
    }

    /// Whether labels that objects inherit may be others.
    pub(super) fn inheritance(&self) -> bool {
        !(self.namespaces.is_empty() && self.accounts.is_empty() && self.profiles.is_empty())
    }
}

/// What an object is about besides itself.
enum Owned {
    Nothing,
    Pod(Name),
    Service(ServiceName),
}

impl Owned {
    fn of(store: &Store, key: &Key) -> Self {
        match key.kind {
            Kind::WorkloadEndpoint => {
                let name = (key.namespace.clone().unwrap_or_default(), key.name.clone());
                store.pod_of_endpoint(&name).map_or(Self::Nothing, Self::Pod)
            }
            Kind::EndpointSlice | Kind::Endpoints => {
                store.service_of(key).map_or(Self::Nothing, Self::Service)
            }
            _ => Self::Nothing,
        }
    }
}
