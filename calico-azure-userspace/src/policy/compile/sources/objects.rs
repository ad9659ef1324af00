//! Sources that have prefixes of their own: network sets, host endpoints, backends of services.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use super::{Origin, Ports, SourceId, Sources};
use crate::model::{Kind, ServiceName};
use crate::policy::compile::prefixes::Prefixes;
use crate::policy::compile::touched::Touched;
use crate::policy::labels::EffectiveLabels;
use crate::policy::store::Store;

impl Sources {
    /// Follows objects other than pods.
    pub(in crate::policy::compile) fn update(
        &mut self,
        store: &Store,
        touched: &Touched,
        prefixes: &mut Prefixes,
    ) {
        for key in &touched.network_sets {
            let origin = Origin::NetworkSet(key.clone());
            self.drop_labels(&origin);
            match store.network_set(key) {
                Some(set) => {
                    let labels = EffectiveLabels::of_network_set(store, set);
                    let id = self.place(origin, set.nets.iter().copied(), prefixes);
                    self.labels.insert(id, labels.own(), &[], false);
                }
                None => self.remove(&origin, prefixes),
            }
        }
        for name in &touched.hosts {
            let origin = Origin::Host(name.clone());
            self.drop_labels(&origin);
            match store.host_endpoint(name) {
                Some(host) => {
                    let nets = host.expected_ips.iter().map(|ip| IpNet::from(*ip));
                    let id = self.place(origin, nets, prefixes);
                    let inherits = !host.profiles.is_empty();
                    self.labels.insert(id, &host.labels, &host.ports, inherits);
                }
                None => self.remove(&origin, prefixes),
            }
        }
        for key in &touched.backends {
            if let Some(service) = store.service_of(key) {
                self.backends.entry(service).or_default().insert(key.clone());
            }
        }
        for service in &touched.services {
            if let Some(keys) = self.backends.get_mut(service) {
                keys.retain(|key| store.service_of(key).as_ref() == Some(service));
                if keys.is_empty() {
                    self.backends.remove(service);
                }
            }
            self.dirty_services.insert(service.clone());
        }
        if touched.inheritance() {
            self.dirty.extend(self.labels.heirs(touched));
        }
    }

    /// Takes the old labels out of the index, while it is known what they were.
    fn drop_labels(&mut self, origin: &Origin) {
        if let Some(id) = self.ids.get(origin) {
            self.labels.remove(*id);
        }
    }

    /// The source with these prefixes.
    pub(super) fn place(
        &mut self,
        origin: Origin,
        nets: impl Iterator<Item = IpNet>,
        prefixes: &mut Prefixes,
    ) -> SourceId {
        let id = self.ids.get(&origin).copied().unwrap_or_else(|| self.add(origin));
        let mut nets: Vec<IpNet> = nets.map(|net| net.trunc()).collect();
        nets.sort_unstable();
        nets.dedup();
        self.dirty.insert(id);
        if let Some(source) = self.get_mut(id) {
            let old = std::mem::replace(&mut source.nets, nets);
            if !source.held.is_empty() {
                let gone = old.iter().filter(|net| source.nets.binary_search(net).is_err());
                gone.for_each(|net| prefixes.detach(*net, id));
                let new = source.nets.iter().filter(|net| old.binary_search(net).is_err());
                new.for_each(|net| prefixes.attach(*net, id));
            }
        }
        id
    }

    pub(super) fn remove(&mut self, origin: &Origin, prefixes: &mut Prefixes) {
        let Some(id) = self.ids.remove(origin) else { return };
        if let Some(source) = self.all.get_mut(id as usize).and_then(Option::take)
            && !source.held.is_empty()
        {
            source.nets.iter().for_each(|net| prefixes.detach(*net, id));
        }
        self.labels.remove(id);
        self.dirty.remove(&id);
        self.free.push(id);
    }

    /// Makes the sources of a service's backends what they should be: none if no rule asks about the service.
    pub(super) fn serve(&mut self, store: &Store, service: &ServiceName, prefixes: &mut Prefixes) {
        let mut by_ports: BTreeMap<Ports, BTreeSet<IpNet>> = BTreeMap::new();
        if self.members.asks_about(service) {
            let keys = self.backends.get(service);
            let sliced = keys
                .into_iter()
                .flatten()
                .any(|key| key.kind == Kind::EndpointSlice);
            let counting = keys
                .into_iter()
                .flatten()
                .filter(|key| !sliced || key.kind == Kind::EndpointSlice);
            let objects = counting.filter_map(|key| store.backends_object(key));
            for subset in objects.flat_map(|object| &object.subsets) {
                let mut ports = subset.ports.clone();
                ports.sort_unstable();
                ports.dedup();
                let nets = subset.addresses.iter().map(|ip| IpNet::from(*ip));
                by_ports.entry(ports).or_default().extend(nets);
            }
        }
        let old = self.served.remove(service).unwrap_or_default();
        let mut new = BTreeSet::new();
        for (ports, nets) in by_ports {
            let origin = Origin::Backends(service.clone(), ports);
            new.insert(self.place(origin, nets.into_iter(), prefixes));
        }
        for id in old.difference(&new) {
            if let Some(origin) = self.get(*id).map(|source| source.origin.clone()) {
                self.remove(&origin, prefixes);
            }
        }
        if !new.is_empty() {
            self.served.insert(service.clone(), new);
        }
    }
}
