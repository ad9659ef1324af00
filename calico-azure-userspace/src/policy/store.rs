//! What is known: the current resources by key, and the facts of this node's links. No history, no derived state.

mod access;
mod shared;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, LazyLock};

use ipnet::IpNet;

use self::shared::SharedLabels;
use crate::model::{
    Backends, FelixConfiguration, HostEndpoint, IpPool, Key, Kind, Namespace, NetworkSet, Node, Pod, Policy,
    Profile, Resource, Service, ServiceAccount, Tier, Workload, WorkloadEndpoint,
};

/// One change of what is known.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The object exists and looks like this.
    Upsert(Resource),
    /// The object does not exist.
    Delete(Key),
    /// The links and their host routes.
    Interfaces(Interfaces),
    /// The node and its configuration.
    Node(NodeFacts),
}

/// The node's links.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interfaces {
    /// By interface index.
    pub by_ifindex: BTreeMap<u32, Interface>,
}

/// One link.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Addresses of whoever is behind it: a host route points to it, or a CNI plug-in said so.
    pub behind: Vec<IpAddr>,
    /// The host's own addresses on it.
    pub addresses: Vec<IpAddr>,
    /// The pod that a CNI plug-in made it for.
    pub pod: Option<Name>,
    /// It is the host's own, like its NIC: no pod's, whatever routes, plug-ins or workload endpoints say.
    pub own: bool,
}

/// What the agent knows of its node without asking Kubernetes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeFacts {
    /// The node's name, as pods name it.
    pub node: String,
    /// Addresses of the node's own interfaces.
    pub host_ips: Vec<IpAddr>,
    /// Prefixes of computed pod interface names (`cali`, `azv`), the preferred first.
    pub interface_prefixes: Vec<String>,
    /// Sources that may be forwarded although nothing here owns them.
    pub allowed_sources: Vec<IpNet>,
    /// Nodes' podCIDRs say nothing about pods' addresses, which somebody else gives out.
    pub ignores_pod_cidrs: bool,
    /// What the agent was told itself, which wins over every FelixConfiguration.
    pub settings: FelixConfiguration,
}

/// Namespace and name.
pub type Name = (String, String);

/// A pod that a workload endpoint describes, and its interface.
#[derive(Clone, Debug, PartialEq)]
struct StandIn {
    pod: Arc<Pod>,
    interface: String,
}

/// Current resources and link facts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Store {
    namespaces: BTreeMap<String, Arc<Namespace>>,
    service_accounts: BTreeMap<Name, Arc<ServiceAccount>>,
    pods: BTreeMap<Name, Arc<Pod>>,
    shared_labels: SharedLabels,
    nodes: BTreeMap<String, Arc<Node>>,
    tiers: BTreeMap<String, Arc<Tier>>,
    policies: BTreeMap<Key, Arc<Policy>>,
    network_sets: BTreeMap<Key, Arc<NetworkSet>>,
    host_endpoints: BTreeMap<String, Arc<HostEndpoint>>,
    profiles: BTreeMap<String, Arc<Profile>>,
    workload_endpoints: BTreeMap<Name, Arc<WorkloadEndpoint>>,
    /// The pods of workload endpoints, by pod, then by the endpoint's name.
    stand_ins: BTreeMap<Name, BTreeMap<String, StandIn>>,
    felix_configurations: BTreeMap<String, Arc<FelixConfiguration>>,
    ip_pools: BTreeMap<String, Arc<IpPool>>,
    services: BTreeMap<Name, Arc<Service>>,
    backends: BTreeMap<Key, Arc<Backends>>,
    workloads: BTreeMap<Key, Arc<Workload>>,
    interfaces: Interfaces,
    facts: NodeFacts,
}

impl Store {
    /// Applies one event; whether anything is different now.
    pub fn apply(&mut self, event: Event) -> bool {
        match event {
            Event::Upsert(resource) => self.upsert(resource),
            Event::Delete(key) => self.delete(&key),
            Event::Interfaces(interfaces) => set(&mut self.interfaces, interfaces),
            Event::Node(facts) => set(&mut self.facts, facts),
        }
    }

    fn upsert(&mut self, resource: Resource) -> bool {
        let key = resource.key();
        match resource {
            Resource::Namespace(x) => put(&mut self.namespaces, x.name.clone(), x),
            Resource::ServiceAccount(x) => put(
                &mut self.service_accounts,
                (x.namespace.clone(), x.name.clone()),
                x,
            ),
            Resource::Pod(mut x) => {
                x.labels = self.shared_labels.share(x.labels);
                put(&mut self.pods, (x.namespace.clone(), x.name.clone()), x)
            }
            Resource::Node(x) => put(&mut self.nodes, x.name.clone(), x),
            Resource::Tier(x) => put(&mut self.tiers, x.name.clone(), x),
            Resource::Policy(x) => put(&mut self.policies, key, x),
            Resource::NetworkSet(x) => put(&mut self.network_sets, key, x),
            Resource::HostEndpoint(x) => put(&mut self.host_endpoints, x.name.clone(), x),
            Resource::Profile(x) => put(&mut self.profiles, x.name.clone(), x),
            Resource::WorkloadEndpoint(x) => self.put_workload_endpoint(x),
            Resource::FelixConfiguration(x) => put(&mut self.felix_configurations, x.name.clone(), x),
            Resource::IpPool(x) => put(&mut self.ip_pools, x.name.clone(), x),
            Resource::Service(x) => put(&mut self.services, (x.namespace.clone(), x.name.clone()), x),
            Resource::Backends(x) => put(&mut self.backends, key, x),
            Resource::Workload(x) => put(&mut self.workloads, key, x),
        }
    }

    fn delete(&mut self, key: &Key) -> bool {
        let name = || (key.namespace.clone().unwrap_or_default(), key.name.clone());
        match key.kind {
            Kind::Namespace => self.namespaces.remove(&key.name).is_some(),
            Kind::ServiceAccount => self.service_accounts.remove(&name()).is_some(),
            Kind::Pod => self.pods.remove(&name()).is_some(),
            Kind::Node => self.nodes.remove(&key.name).is_some(),
            Kind::Tier => self.tiers.remove(&key.name).is_some(),
            kind if kind.is_policy() => self.policies.remove(key).is_some(),
            Kind::NetworkSet | Kind::GlobalNetworkSet => self.network_sets.remove(key).is_some(),
            Kind::HostEndpoint => self.host_endpoints.remove(&key.name).is_some(),
            Kind::Profile => self.profiles.remove(&key.name).is_some(),
            Kind::WorkloadEndpoint => self.remove_workload_endpoint(&name()),
            Kind::FelixConfiguration => self.felix_configurations.remove(&key.name).is_some(),
            Kind::IpPool => self.ip_pools.remove(&key.name).is_some(),
            Kind::Service => self.services.remove(&name()).is_some(),
            Kind::EndpointSlice | Kind::Endpoints => self.backends.remove(key).is_some(),
            _ => self.workloads.remove(key).is_some(),
        }
    }

    fn put_workload_endpoint(&mut self, endpoint: WorkloadEndpoint) -> bool {
        let name = (endpoint.pod.namespace.clone(), endpoint.name.clone());
        if self
            .workload_endpoints
            .get(&name)
            .is_some_and(|old| **old == endpoint)
        {
            return false;
        }
        // Under its old shape it may have stood for another pod.
        self.remove_workload_endpoint(&name);
        let stand_in = StandIn {
            pod: Arc::new(endpoint.pod.clone()),
            interface: endpoint.interface.clone(),
        };
        let pod = (endpoint.pod.namespace.clone(), endpoint.pod.name.clone());
        let of_pod = self.stand_ins.entry(pod).or_default();
        of_pod.insert(endpoint.name.clone(), stand_in);
        put(&mut self.workload_endpoints, name, endpoint)
    }

    fn remove_workload_endpoint(&mut self, name: &Name) -> bool {
        let Some(old) = self.workload_endpoints.remove(name) else {
            return false;
        };
        let pod = (old.pod.namespace.clone(), old.pod.name.clone());
        if let Some(of_pod) = self.stand_ins.get_mut(&pod) {
            of_pod.remove(&old.name);
            if of_pod.is_empty() {
                self.stand_ins.remove(&pod);
            }
        }
        true
    }

    /// The same resources as if all pods were on this node, each behind an interface of its own: what the compiled
    /// tables of every node together decide. Facts of the real links are replaced.
    #[must_use]
    pub fn on_one_node(&self) -> Self {
        let mut store = self.clone();
        let node = if self.facts.node.is_empty() {
            "node".to_owned()
        } else {
            self.facts.node.clone()
        };
        for pod in self.pods_of_endpoints() {
            let name = (pod.namespace.clone(), pod.name.clone());
            store.pods.insert(name, Arc::clone(pod));
        }
        store.workload_endpoints.clear();
        store.stand_ins.clear();
        let mut by_ifindex = BTreeMap::new();
        for (ifindex, pod) in (1..).zip(store.pods.values_mut()) {
            let interface = Interface {
                name: format!("pod{ifindex}"),
                behind: pod.ips.clone(),
                ..Interface::default()
            };
            by_ifindex.insert(ifindex, interface);
            if pod.node != node {
                Arc::make_mut(pod).node.clone_from(&node);
            }
        }
        store.interfaces = Interfaces { by_ifindex };
        store.facts.node = node;
        store
    }

    /// The namespace object.
    #[must_use]
    pub fn namespace(&self, name: &str) -> Option<&Namespace> {
        self.namespaces.get(name).map(AsRef::as_ref)
    }

    /// Every namespace, by name.
    pub fn namespaces(&self) -> impl Iterator<Item = &Namespace> {
        self.namespaces.values().map(AsRef::as_ref)
    }

    /// Every service account, by namespace and name.
    pub fn service_accounts(&self) -> impl Iterator<Item = &ServiceAccount> {
        self.service_accounts.values().map(AsRef::as_ref)
    }

    /// The service account object.
    #[must_use]
    pub fn service_account(&self, namespace: &str, name: &str) -> Option<&ServiceAccount> {
        self.service_accounts
            .get(&(namespace.to_owned(), name.to_owned()))
            .map(AsRef::as_ref)
    }

    /// Every pod object, by namespace and name; then the pods that only workload endpoints describe, likewise.
    pub fn pods(&self) -> impl Iterator<Item = &Arc<Pod>> {
        self.pods.values().chain(self.pods_of_endpoints())
    }

    fn pods_of_endpoints(&self) -> impl Iterator<Item = &Arc<Pod>> {
        let orphans = self
            .stand_ins
            .iter()
            .filter(|(name, _)| !self.pods.contains_key(*name));
        orphans.filter_map(|(_, of_pod)| of_pod.values().next().map(|stand_in| &stand_in.pod))
    }

    /// The pod: its object, else what the first of its workload endpoints says.
    #[must_use]
    pub fn pod(&self, namespace: &str, name: &str) -> Option<&Pod> {
        let name = (namespace.to_owned(), name.to_owned());
        let object = self.pods.get(&name).map(AsRef::as_ref);
        object.or_else(|| {
            let of_pod = self.stand_ins.get(&name)?;
            of_pod.values().next().map(|stand_in| stand_in.pod.as_ref())
        })
    }

    /// Interfaces that workload endpoints name for the pod.
    pub fn named_interfaces(&self, pod: &Pod) -> impl Iterator<Item = &str> {
        let of_pod = if self.stand_ins.is_empty() {
            None
        } else {
            self.stand_ins.get(&(pod.namespace.clone(), pod.name.clone()))
        };
        let names = of_pod.into_iter().flat_map(BTreeMap::values);
        names.map(|stand_in| stand_in.interface.as_str())
    }

    /// Every node, by name.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values().map(AsRef::as_ref)
    }

    /// The tier: its object, else the one that every cluster has under that name.
    #[must_use]
    pub fn tier(&self, name: &str) -> Option<&Tier> {
        static BUILTIN: LazyLock<Vec<Tier>> = LazyLock::new(|| {
            Tier::BUILTIN
                .iter()
                .filter_map(|name| Tier::builtin(name))
                .collect()
        });
        let object = self.tiers.get(name).map(AsRef::as_ref);
        object.or_else(|| BUILTIN.iter().find(|tier| tier.name == name))
    }

    /// Every tier, by name (not in the order of evaluation).
    pub fn tiers(&self) -> impl Iterator<Item = &Tier> {
        self.tiers.values().map(AsRef::as_ref)
    }

    /// Every policy, by key (not in the order of evaluation).
    pub fn policies(&self) -> impl Iterator<Item = &Arc<Policy>> {
        self.policies.values()
    }

    /// Every network set, namespaced ones first.
    pub fn network_sets(&self) -> impl Iterator<Item = &NetworkSet> {
        self.network_sets.values().map(AsRef::as_ref)
    }

    /// Every host endpoint, by name.
    pub fn host_endpoints(&self) -> impl Iterator<Item = &Arc<HostEndpoint>> {
        self.host_endpoints.values()
    }

    /// The profile object; profiles of namespaces and service accounts need none.
    #[must_use]
    pub fn profile(&self, name: &str) -> Option<&Arc<Profile>> {
        self.profiles.get(name)
    }

    /// Every profile object, by name.
    pub fn profiles(&self) -> impl Iterator<Item = &Arc<Profile>> {
        self.profiles.values()
    }

    /// Whether there is any profile object.
    #[must_use]
    pub fn has_profiles(&self) -> bool {
        !self.profiles.is_empty()
    }

    /// Every workload endpoint object, by namespace and name.
    pub fn workload_endpoints(&self) -> impl Iterator<Item = &Arc<WorkloadEndpoint>> {
        self.workload_endpoints.values()
    }

    /// How many there are of some kinds: nodes, pods, host endpoints, policies, profiles, tiers. Those that Calico makes itself
    /// are not counted.
    #[must_use]
    pub fn sizes(&self) -> [usize; 6] {
        [
            self.nodes.len(),
            self.pods.len(),
            self.host_endpoints.len(),
            self.policies.len(),
            self.profiles.len(),
            self.tiers.len(),
        ]
    }

    /// Felix's settings for a node, then those for all nodes; either may be missing.
    pub fn felix_configurations(&self, node: &str) -> impl Iterator<Item = &FelixConfiguration> {
        let told = (node == self.facts.node).then_some(&self.facts.settings);
        let names = [format!("node.{node}"), "default".to_owned()];
        let objects = names
            .into_iter()
            .filter_map(|name| self.felix_configurations.get(&name).map(AsRef::as_ref));
        told.into_iter().chain(objects)
    }

    /// Felix's settings for all nodes and for single ones, by name.
    pub fn all_felix_configurations(&self) -> impl Iterator<Item = &FelixConfiguration> {
        self.felix_configurations.values().map(AsRef::as_ref)
    }

    /// Every IP pool, by name.
    pub fn ip_pools(&self) -> impl Iterator<Item = &IpPool> {
        self.ip_pools.values().map(AsRef::as_ref)
    }

    /// Every service, by namespace and name.
    pub fn services(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.services.values()
    }

    /// Every service's backends, Endpoints after EndpointSlices.
    pub fn backends(&self) -> impl Iterator<Item = &Arc<Backends>> {
        self.backends.values()
    }

    /// Everything that makes pods.
    pub fn workloads(&self) -> impl Iterator<Item = &Arc<Workload>> {
        self.workloads.values()
    }

    /// The links.
    #[must_use]
    pub fn interfaces(&self) -> &Interfaces {
        &self.interfaces
    }

    /// The node's facts.
    #[must_use]
    pub fn facts(&self) -> &NodeFacts {
        &self.facts
    }
}

/// Collects upserts; for manifests that are read once.
impl FromIterator<Resource> for Store {
    fn from_iter<I: IntoIterator<Item = Resource>>(resources: I) -> Self {
        let mut store = Self::default();
        for resource in resources {
            store.apply(Event::Upsert(resource));
        }
        store
    }
}

fn set<T: PartialEq>(place: &mut T, value: T) -> bool {
    let changed = *place != value;
    *place = value;
    changed
}

fn put<K: Ord, V: PartialEq>(map: &mut BTreeMap<K, Arc<V>>, key: K, value: V) -> bool {
    if map.get(&key).is_some_and(|old| **old == value) {
        return false;
    }
    map.insert(key, Arc::new(value));
    true
}
