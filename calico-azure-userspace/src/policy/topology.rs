//! Which pods are endpoints, where, and with which addresses.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use sha1::{Digest as _, Sha1};

use super::problem::Problem;
use super::store::{Interfaces, Store};
use crate::model::Pod;

/// A pod that policy applies to: scheduled (or, in a manifest, with an address), not on the host's network, not
/// finished, and not asking for source prefixes that it may not have.
#[derive(Clone, Debug, PartialEq)]
pub struct Endpoint<'a> {
    /// The pod.
    pub pod: &'a Arc<Pod>,
    /// Addresses that are its own and nobody else's.
    pub addresses: Vec<IpAddr>,
    /// Whether it runs on this node.
    pub local: bool,
    /// Its host-side interface, if it is local and has one.
    pub ifindex: Option<u32>,
}

/// All endpoints of the cluster, by namespace and name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Topology<'a> {
    /// In the order of the pods' namespaces and names.
    pub endpoints: Vec<Endpoint<'a>>,
    /// Pods that would be endpoints, but ask for source prefixes (`allowedSourcePrefixes`) where
    /// `workloadSourceSpoofing` is not `Any`: like Calico, we give them no policy, so nothing reaches or leaves them.
    pub isolated: Vec<&'a Arc<Pod>>,
    /// Contested interfaces and addresses, isolated pods.
    pub problems: Vec<Problem>,
    owners: HashMap<IpAddr, usize>,
}

impl<'a> Topology<'a> {
    /// Resolves every pod's interface and addresses.
    ///
    /// Each interface and address goes to one pod. For an interface a name (computed, else told by a workload endpoint, else by the
    /// plug-in that made it) beats a host route; for an address a host route to the pod's interface, or the plug-in's word, beats a mere
    /// claim; then the first name wins.
    #[must_use]
    pub fn of(store: &'a Store) -> Self {
        let node = &store.facts().node;
        let mut topology = Self::default();
        for pod in store
            .pods()
            .filter(|pod| !pod.host_network && !pod.finished && (!pod.node.is_empty() || !pod.ips.is_empty()))
        {
            if !pod.allowed_sources.is_empty() && !source_spoofing(store, &pod.node) {
                let pod_name = pod_name(pod);
                topology
                    .problems
                    .push(Problem::SourcePrefixesRefused { pod: pod_name });
                topology.isolated.push(pod);
                continue;
            }
            topology.endpoints.push(Endpoint {
                pod,
                addresses: Vec::new(),
                local: pod.node == *node,
                ifindex: None,
            });
        }
        // Those that only workload endpoints describe come last in the store.
        topology
            .endpoints
            .sort_by(|a, b| (&a.pod.namespace, &a.pod.name).cmp(&(&b.pod.namespace, &b.pod.name)));
        topology.assign_interfaces(store);
        topology.assign_addresses(store.interfaces());
        topology
    }

    /// The endpoint that an address belongs to.
    #[must_use]
    pub fn owner(&self, address: IpAddr) -> Option<&Endpoint<'a>> {
        self.endpoints.get(*self.owners.get(&address)?)
    }

    /// The isolated pod that claims an address which is nobody's otherwise.
    #[must_use]
    pub fn isolated_at(&self, address: IpAddr) -> Option<&'a Arc<Pod>> {
        let mut isolated = self.isolated.iter().copied();
        isolated.find(|pod| pod.ips.contains(&address) && !self.owners.contains_key(&address))
    }

    fn assign_interfaces(&mut self, store: &Store) {
        let interfaces = &store.interfaces().by_ifindex;
        let mut by_name: HashMap<&str, u32> = HashMap::new();
        let mut by_route: HashMap<IpAddr, u32> = HashMap::new();
        let mut by_pod: HashMap<(&str, &str), u32> = HashMap::new();
        for (ifindex, interface) in interfaces.iter().filter(|(_, interface)| !interface.own) {
            by_name.insert(&interface.name, *ifindex);
            if let Some((namespace, name)) = &interface.pod {
                by_pod.entry((namespace, name)).or_insert(*ifindex);
            }
            for address in &interface.behind {
                by_route.entry(*address).or_insert(*ifindex);
            }
        }
        let named = |pod: &Pod| {
            let prefixes = &store.facts().interface_prefixes;
            let computed = prefixes
                .iter()
                .find_map(|prefix| by_name.get(interface_name(prefix, pod).as_str()));
            let told = || store.named_interfaces(pod).find_map(|name| by_name.get(name));
            let made = || by_pod.get(&(pod.namespace.as_str(), pod.name.as_str()));
            computed.or_else(told).or_else(made).copied()
        };
        let routed = |pod: &Pod| pod.ips.iter().find_map(|ip| by_route.get(ip).copied());

        let mut claims: Vec<(bool, usize, u32)> = Vec::new();
        for (place, endpoint) in self.endpoints.iter().enumerate().filter(|(_, e)| e.local) {
            if let Some(ifindex) = named(endpoint.pod) {
                claims.push((false, place, ifindex));
            } else if let Some(ifindex) = routed(endpoint.pod) {
                claims.push((true, place, ifindex));
            }
        }
        claims.sort_unstable();
        let mut taken: BTreeMap<u32, usize> = BTreeMap::new();
        for (_, place, ifindex) in claims {
            if let Some(winner) = taken.get(&ifindex) {
                self.problems.push(Problem::InterfaceContested {
                    ifindex,
                    interface: interfaces
                        .get(&ifindex)
                        .map(|x| x.name.clone())
                        .unwrap_or_default(),
                    winner: self.name(*winner),
                    loser: self.name(place),
                });
                continue;
            }
            taken.insert(ifindex, place);
            if let Some(endpoint) = self.endpoints.get_mut(place) {
                endpoint.ifindex = Some(ifindex);
            }
        }
    }

    fn assign_addresses(&mut self, interfaces: &Interfaces) {
        let routes = |endpoint: &Endpoint<'_>| {
            let interface = endpoint.ifindex.and_then(|i| interfaces.by_ifindex.get(&i));
            interface.map_or(&[][..], |interface| &interface.behind)
        };
        // Claims backed by a host route first; the others must not take an address from a pod that is really there.
        let mut claims: Vec<(bool, usize, IpAddr)> = Vec::with_capacity(self.endpoints.len());
        for (place, endpoint) in self.endpoints.iter().enumerate() {
            let routes = routes(endpoint);
            let wanted = if endpoint.pod.ips.is_empty() {
                routes
            } else {
                &endpoint.pod.ips
            };
            claims.extend(wanted.iter().map(|ip| (!routes.contains(ip), place, *ip)));
        }
        claims.sort_by_key(|(weak, place, _)| (*weak, *place));
        self.owners.reserve(claims.len());
        let mut reported = HashSet::new();
        for (_, place, address) in claims {
            let winner = *self.owners.entry(address).or_insert(place);
            if winner != place {
                if reported.insert((address, place)) {
                    self.problems.push(Problem::AddressContested {
                        address,
                        winner: self.name(winner),
                        loser: self.name(place),
                    });
                }
            } else if let Some(endpoint) = self.endpoints.get_mut(place)
                && !endpoint.addresses.contains(&address)
            {
                endpoint.addresses.push(address);
            }
        }
    }

    fn name(&self, place: usize) -> String {
        self.endpoints
            .get(place)
            .map(|endpoint| pod_name(endpoint.pod))
            .unwrap_or_default()
    }
}

/// Whether pods of the node may have `allowedSourcePrefixes` (`workloadSourceSpoofing: Any`).
#[must_use]
pub fn source_spoofing(store: &Store, node: &str) -> bool {
    let mut configurations = store.felix_configurations(node);
    configurations.find_map(|x| x.source_spoofing).unwrap_or(false)
}

/// `namespace/name`.
#[must_use]
pub fn pod_name(pod: &Pod) -> String {
    format!("{}/{}", pod.namespace, pod.name)
}

/// The name that Calico's CNI plugin and Azure's (in transparent mode) give to a pod's host-side interface.
#[must_use]
pub fn interface_name(prefix: &str, pod: &Pod) -> String {
    let digest = Sha1::digest(format!("{}.{}", pod.namespace, pod.name));
    let mut name = prefix.to_owned();
    for byte in digest.iter().take(5) {
        name.push_str(&format!("{byte:02x}"));
    }
    // Eleven digits: five bytes and a half.
    name.push_str(&format!("{:x}", digest.get(5).map_or(0, |byte| byte >> 4)));
    name
}
