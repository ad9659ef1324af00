//! Backends of services whose EndpointSlices are not among the inputs, as the endpoint controller would find them.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use crate::analysis::notes::{Notes, some};
use crate::model::{
    Backends, Key, Kind, Pod, Policy, Resource, Service, ServiceName, ServicePort, Subset, TargetPort,
};
use crate::policy::store::{Event, Store};

pub(super) fn add_backends(store: &mut Store, notes: &mut Notes) {
    let known = store
        .backends()
        .map(|x| (x.key.namespace.clone().unwrap_or_default(), x.service.clone()));
    let known: BTreeSet<(String, String)> = known.collect();
    let without = store
        .services()
        .filter(|service| !known.contains(&(service.namespace.clone(), service.name.clone())));
    let made: Vec<Backends> = without.filter_map(|service| backends(store, service)).collect();
    for backends in made {
        store.apply(Event::Upsert(Resource::Backends(backends)));
    }
    let unknown: BTreeSet<String> = store
        .policies()
        .filter(|policy| policy.staged.is_none())
        .flat_map(services_of)
        .filter(|service| !known.contains(&(service.namespace.clone(), service.name.clone())))
        .filter(|service| {
            !store
                .services()
                .any(|x| x.namespace == service.namespace && x.name == service.name)
        })
        .map(|service| format!("{}/{}", service.namespace, service.name))
        .collect();
    if !unknown.is_empty() {
        let names: Vec<String> = unknown.into_iter().collect();
        notes.warning(format!(
            "rules name services that are not among the inputs, and so match nothing: {}",
            some(&names)
        ));
    }
}

fn services_of(policy: &Arc<Policy>) -> impl Iterator<Item = &ServiceName> {
    let rules = [&policy.ingress, &policy.egress].into_iter().flatten().flatten();
    rules.flat_map(|rule| {
        [&rule.source.service, &rule.destination.service]
            .into_iter()
            .flatten()
    })
}

/// `None` for one whose backends are not pods that it selects.
fn backends(store: &Store, service: &Service) -> Option<Backends> {
    let selector = service
        .selector
        .as_ref()
        .filter(|selector| !selector.is_empty())?;
    let pods = store.pods().filter(|pod| {
        let selected = || {
            selector
                .iter()
                .all(|(key, value)| pod.labels.get(key) == Some(value))
        };
        pod.namespace == service.namespace && !pod.finished && selected()
    });
    // A service has addresses of the families that it is for; one without any may be for both.
    let family = |ip: &IpAddr| {
        let own = &service.cluster_ips;
        own.is_empty() || own.iter().any(|own| own.is_ipv4() == ip.is_ipv4())
    };
    let subsets = pods.map(|pod| Subset {
        addresses: pod.ips.iter().copied().filter(family).collect(),
        ports: service
            .ports
            .iter()
            .filter_map(|port| target(pod, port))
            .collect(),
    });
    Some(Backends {
        key: Key {
            kind: Kind::EndpointSlice,
            namespace: Some(service.namespace.clone()),
            // No object has such a name.
            name: format!("{} (derived)", service.name),
        },
        service: service.name.clone(),
        subsets: subsets.filter(|subset| !subset.addresses.is_empty()).collect(),
    })
}

fn target(pod: &Pod, port: &ServicePort) -> Option<(u8, u16)> {
    let number = match &port.target {
        TargetPort::Number(number) => *number,
        TargetPort::Name(name) => {
            let mut ports = pod.ports.iter();
            ports
                .find(|x| x.name == *name && x.protocol == port.protocol)?
                .port
        }
    };
    Some((port.protocol, number))
}
