//! Where kube-proxy takes packets from: every address and port that it translates on this node.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use calico_azure_ebpf::abi::{ANY_PORT, ANY_PROTOCOL};

use super::store::Store;
use crate::model::{Service, ServiceName};

/// A place that packets can be sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct ServiceAt {
    pub(super) address: IpAddr,
    /// `ANY_PORT` of `ANY_PROTOCOL` for an address that answers to the outside come from.
    pub(super) port: u16,
    /// IP protocol number.
    pub(super) protocol: u8,
}

/// Everything that is served, by service.
#[derive(Debug, Default)]
pub(super) struct Services {
    places: HashMap<ServiceName, Vec<ServiceAt>>,
    /// How many services say so.
    counts: HashMap<ServiceAt, usize>,
    dirty: BTreeSet<ServiceAt>,
    /// Addresses of this node, at which node ports are.
    hosts: BTreeSet<IpAddr>,
}

impl Services {
    /// Follows the node's addresses: those that its links have, and those of its object.
    pub(super) fn hosts(&mut self, store: &Store) {
        let facts = store.facts();
        let node = store.node(&facts.node);
        let listed = node.iter().flat_map(|node| &node.internal_ips);
        let hosts: BTreeSet<IpAddr> = facts.host_ips.iter().chain(listed).copied().collect();
        if self.hosts != hosts {
            self.hosts = hosts;
            for service in store.services() {
                let name = ServiceName {
                    namespace: service.namespace.clone(),
                    name: service.name.clone(),
                };
                self.service(name, Some(service));
            }
        }
    }

    /// Follows a service.
    pub(super) fn service(&mut self, name: ServiceName, service: Option<&Service>) {
        let mut new: Vec<ServiceAt> = service.map(|service| self.of(service)).unwrap_or_default();
        new.sort_unstable();
        new.dedup();
        for at in &new {
            *self.counts.entry(*at).or_default() += 1;
        }
        self.dirty.extend(&new);
        let old = if new.is_empty() {
            self.places.remove(&name)
        } else {
            self.places.insert(name, new)
        };
        for at in old.into_iter().flatten() {
            if let Some(count) = self.counts.get_mut(&at) {
                *count -= 1;
                if *count == 0 {
                    self.counts.remove(&at);
                }
            }
            self.dirty.insert(at);
        }
    }

    fn of(&self, service: &Service) -> Vec<ServiceAt> {
        let own = service.cluster_ips.iter().chain(&service.external_ips);
        let ports = own.flat_map(|address| {
            service
                .ports
                .iter()
                .map(|port| (*address, port.port, port.protocol))
        });
        let node_ports = self.hosts.iter().flat_map(|address| {
            let ports = service.ports.iter();
            ports.filter_map(|port| Some((*address, port.node_port?, port.protocol)))
        });
        // Answers leave with these as their source, fragments and ICMP errors among them.
        let sources = service.external_ips.iter();
        let sources = sources.map(|address| (*address, ANY_PORT, ANY_PROTOCOL));
        let places = ports.chain(node_ports).chain(sources);
        let place = |(address, port, protocol)| ServiceAt {
            address,
            port,
            protocol,
        };
        places.map(place).collect()
    }

    /// Places that may be others than at the last call, and whether they are served.
    pub(super) fn turnover(&mut self) -> Vec<(ServiceAt, bool)> {
        let dirty = std::mem::take(&mut self.dirty).into_iter();
        dirty.map(|at| (at, self.counts.contains_key(&at))).collect()
    }

    #[cfg(test)]
    pub(super) fn counts(&self) -> Vec<usize> {
        vec![
            self.places.len(),
            self.counts.len(),
            self.dirty.len(),
            self.hosts.len(),
        ]
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::model::load::parse_text;
    use crate::policy::{Compiler, Event, NodeFacts};

    fn places(store: &Store) -> Vec<String> {
        let mut services = Services::default();
        services.hosts(store);
        let known = services.turnover();
        let shown = |(at, is_one): &(ServiceAt, bool)| {
            assert!(is_one);
            format!("{} {} {}", at.address, at.port, at.protocol)
        };
        known.iter().map(shown).collect()
    }

    fn store(text: &str) -> Store {
        let loaded = parse_text(Path::new("services.yaml"), text);
        assert!(loaded.problems.is_empty(), "{:?}", loaded.problems);
        let mut store: Store = loaded.resources.into_iter().collect();
        store.apply(Event::Node(NodeFacts {
            node: "node-1".into(),
            host_ips: ["192.0.2.1".parse().unwrap()].into(),
            ..NodeFacts::default()
        }));
        store
    }

    const SERVICES: &str = "
apiVersion: v1
kind: Service
metadata: {name: web, namespace: a}
spec:
  type: LoadBalancer
  clusterIPs: [10.0.0.10, 'fd00::10']
  externalIPs: [203.0.113.9]
  ports:
  - {port: 80, targetPort: 8080, nodePort: 30080}
  - {port: 53, protocol: UDP, name: dns}
status: {loadBalancer: {ingress: [{ip: 203.0.113.1}]}}
---
apiVersion: v1
kind: Service
metadata: {name: headless, namespace: a}
spec: {clusterIP: None, ports: [{port: 80}]}
---
apiVersion: v1
kind: Node
metadata: {name: node-1}
status: {addresses: [{type: InternalIP, address: 'fd00:1::1'}]}
";

    #[test]
    fn what_kube_proxy_translates() {
        let expected = [
            "10.0.0.10 53 17",
            "10.0.0.10 80 6",
            "192.0.2.1 30080 6",
            "203.0.113.1 0 0",
            "203.0.113.1 53 17",
            "203.0.113.1 80 6",
            "203.0.113.9 0 0",
            "203.0.113.9 53 17",
            "203.0.113.9 80 6",
            "fd00::10 53 17",
            "fd00::10 80 6",
            "fd00:1::1 30080 6",
        ];
        assert_eq!(places(&store(SERVICES)), expected);
    }

    #[test]
    fn a_place_is_served_as_long_as_one_service_has_it() {
        let mut compiler = Compiler::default();
        let store = store(SERVICES);
        compiler.follow(&store).unwrap();
        let all = compiler.desired().services4.len();
        let mut twin = Service::clone(store.services().find(|service| service.name == "web").unwrap());
        twin.name = "twin".into();
        let key = crate::model::Resource::Service(twin.clone()).key();
        compiler.apply(Event::Upsert(crate::model::Resource::Service(twin)));
        compiler.update().unwrap();
        assert_eq!(compiler.desired().services4.len(), all);
        compiler.apply(Event::Delete(key));
        let change = compiler.update().unwrap();
        assert_eq!(
            (compiler.desired().services4.len(), change),
            (all, Default::default())
        );
        // Node ports move with the node's addresses.
        let mut facts = store.facts().clone();
        facts.host_ips = ["192.0.2.7".parse().unwrap()].into();
        compiler.apply(Event::Node(facts));
        assert_eq!(compiler.update().unwrap().services4.len(), 2);
        assert_eq!(compiler.desired().services4.len(), all);
    }
}
