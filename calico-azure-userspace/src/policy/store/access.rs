//! Single objects, and what two stores differ in, for the compiler.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Name, Store};
use crate::model::{Backends, HostEndpoint, Key, Kind, NetworkSet, Node, Pod, Policy, Service, ServiceName};

impl Store {
    /// As [`Self::pod`].
    pub(in crate::policy) fn shared_pod(&self, name: &Name) -> Option<&Arc<Pod>> {
        self.pods.get(name).or_else(|| {
            let of_pod = self.stand_ins.get(name)?;
            of_pod.values().next().map(|stand_in| &stand_in.pod)
        })
    }

    /// The pod that a workload endpoint stands for.
    pub(in crate::policy) fn pod_of_endpoint(&self, name: &Name) -> Option<Name> {
        let pod = &self.workload_endpoints.get(name)?.pod;
        Some((pod.namespace.clone(), pod.name.clone()))
    }

    /// The service whose backends these are.
    pub(in crate::policy) fn service_of(&self, backends: &Key) -> Option<ServiceName> {
        self.backends.get(backends).map(|backends| ServiceName {
            namespace: backends.key.namespace.clone().unwrap_or_default(),
            name: backends.service.clone(),
        })
    }

    pub(in crate::policy) fn policy(&self, key: &Key) -> Option<&Arc<Policy>> {
        self.policies.get(key)
    }

    pub(in crate::policy) fn network_set(&self, key: &Key) -> Option<&NetworkSet> {
        self.network_sets.get(key).map(AsRef::as_ref)
    }

    /// The host endpoint of that name.
    #[must_use]
    pub fn host_endpoint(&self, name: &str) -> Option<&HostEndpoint> {
        self.host_endpoints.get(name).map(AsRef::as_ref)
    }

    pub(in crate::policy) fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.get(name).map(AsRef::as_ref)
    }

    pub(in crate::policy) fn service(&self, name: &ServiceName) -> Option<&Service> {
        let key = (name.namespace.clone(), name.name.clone());
        self.services.get(&key).map(AsRef::as_ref)
    }

    pub(in crate::policy) fn backends_object(&self, key: &Key) -> Option<&Backends> {
        self.backends.get(key).map(AsRef::as_ref)
    }

    /// Keys of the objects that policy depends on and that are not the same in the other store.
    pub(in crate::policy) fn differing(&self, other: &Self) -> Vec<Key> {
        let named = |kind| {
            move |name: &String| Key {
                kind,
                namespace: None,
                name: name.clone(),
            }
        };
        let namespaced = |kind| {
            move |(namespace, name): &Name| Key {
                kind,
                namespace: Some(namespace.clone()),
                name: name.clone(),
            }
        };
        let mut keys = Vec::new();
        differ(
            &self.namespaces,
            &other.namespaces,
            named(Kind::Namespace),
            &mut keys,
        );
        let accounts = namespaced(Kind::ServiceAccount);
        differ(
            &self.service_accounts,
            &other.service_accounts,
            accounts,
            &mut keys,
        );
        differ(&self.pods, &other.pods, namespaced(Kind::Pod), &mut keys);
        differ(&self.nodes, &other.nodes, named(Kind::Node), &mut keys);
        differ(&self.tiers, &other.tiers, named(Kind::Tier), &mut keys);
        differ(&self.policies, &other.policies, Key::clone, &mut keys);
        differ(&self.network_sets, &other.network_sets, Key::clone, &mut keys);
        let hosts = named(Kind::HostEndpoint);
        differ(&self.host_endpoints, &other.host_endpoints, hosts, &mut keys);
        differ(&self.profiles, &other.profiles, named(Kind::Profile), &mut keys);
        let endpoints = namespaced(Kind::WorkloadEndpoint);
        differ(
            &self.workload_endpoints,
            &other.workload_endpoints,
            endpoints,
            &mut keys,
        );
        let felix = named(Kind::FelixConfiguration);
        differ(
            &self.felix_configurations,
            &other.felix_configurations,
            felix,
            &mut keys,
        );
        differ(&self.backends, &other.backends, Key::clone, &mut keys);
        let services = namespaced(Kind::Service);
        differ(&self.services, &other.services, services, &mut keys);
        keys
    }
}

fn differ<K: Ord, V: PartialEq>(
    old: &BTreeMap<K, Arc<V>>,
    new: &BTreeMap<K, Arc<V>>,
    key: impl Fn(&K) -> Key,
    into: &mut Vec<Key>,
) {
    let same = |a: &Arc<V>, b: &Arc<V>| Arc::ptr_eq(a, b) || a == b;
    let gone = old.keys().filter(|k| !new.contains_key(*k));
    let changed = new
        .iter()
        .filter(|(k, v)| !old.get(*k).is_some_and(|held| same(held, v)));
    into.extend(gone.chain(changed.map(|(k, _)| k)).map(key));
}
