//! Which predicates hold for the addresses of an endpoint, a network set or a service's backend.

use std::collections::{BTreeSet, HashMap};

use super::predicate::{Held, Predicate, PredicateHandle};
use super::selectors::SelectorIndex;
use crate::model::{Kind, NamedPort, ServiceName, Subset};
use crate::policy::store::Store;
use crate::selector::{LabelSource, Selector};

/// The predicates about who has an address that are in use, so that those that hold are found without trying each.
#[derive(Debug, Default)]
pub(super) struct Members {
    selectors: SelectorIndex,
    /// By the name of the port.
    named: HashMap<String, Vec<Named>>,
    services: HashMap<ServiceName, u32>,
}

#[derive(Debug)]
struct Named {
    id: u32,
    selector: Option<Selector>,
    protocol: Option<u8>,
}

impl Members {
    /// Holds no handle: who inserts a predicate keeps it alive, and removes it before letting go.
    pub(super) fn insert(&mut self, predicate: &PredicateHandle) {
        let id = predicate.id();
        match predicate.value() {
            Predicate::Nets(_) => {}
            Predicate::Selector(selector) => self.selectors.insert(id, selector),
            Predicate::NamedPort {
                selector,
                name,
                protocol,
            } => self.named.entry(name.clone()).or_default().push(Named {
                id,
                selector: selector.clone(),
                protocol: *protocol,
            }),
            Predicate::Service(name) => {
                self.services.insert(name.clone(), id);
            }
        }
    }

    pub(super) fn remove(&mut self, predicate: &PredicateHandle) {
        match predicate.value() {
            Predicate::Nets(_) => {}
            Predicate::Selector(selector) => self.selectors.remove(predicate.id(), selector),
            Predicate::NamedPort { name, .. } => {
                if let Some(list) = self.named.get_mut(name) {
                    list.retain(|named| named.id != predicate.id());
                    if list.is_empty() {
                        self.named.remove(name);
                    }
                }
            }
            Predicate::Service(name) => {
                self.services.remove(name);
            }
        }
    }

    pub(super) fn asks_about(&self, service: &ServiceName) -> bool {
        self.services.contains_key(service)
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.selectors.is_empty() && self.named.is_empty() && self.services.is_empty()
    }

    /// What holds for the addresses of a pod or host endpoint; ascending, each once.
    pub(super) fn of_endpoint(&self, labels: &impl LabelSource, ports: &[NamedPort]) -> Vec<Held> {
        let mut held: Vec<Held> = self.of_network_set(labels);
        for NamedPort { name, protocol, port } in ports {
            let named = self.named.get(name).into_iter().flatten();
            let matching = named.filter(|named| {
                named.protocol.is_none_or(|wanted| wanted == *protocol)
                    && named
                        .selector
                        .as_ref()
                        .is_none_or(|selector| selector.matches(labels))
            });
            held.extend(
                matching.flat_map(|named| [Held::of(named.id), Held::at(named.id, (*protocol, *port))]),
            );
        }
        sorted(held)
    }

    /// What holds for the addresses of a network set; ascending, each once.
    pub(super) fn of_network_set(&self, labels: &impl LabelSource) -> Vec<Held> {
        self.selectors
            .matching(labels)
            .into_iter()
            .map(Held::of)
            .collect()
    }

    /// What holds for the addresses of some backends of a service, which have these ports; ascending, each once.
    pub(super) fn of_backends(&self, service: &ServiceName, ports: &[(u8, u16)]) -> Vec<Held> {
        let Some(id) = self.services.get(service).copied() else {
            return Vec::new();
        };
        let at = ports.iter().map(|port| Held::at(id, *port));
        sorted([Held::of(id)].into_iter().chain(at).collect())
    }
}

fn sorted(mut held: Vec<Held>) -> Vec<Held> {
    held.sort_unstable();
    held.dedup();
    held
}

/// Every service's backends: those of its EndpointSlices, or of its Endpoints object if it has no slice.
pub(super) fn backends(store: &Store) -> impl Iterator<Item = (ServiceName, &Subset)> {
    let name = |namespace: &Option<String>, service: &str| ServiceName {
        namespace: namespace.clone().unwrap_or_default(),
        name: service.to_owned(),
    };
    let sliced: BTreeSet<ServiceName> = store
        .backends()
        .filter(|backends| backends.key.kind == Kind::EndpointSlice)
        .map(|backends| name(&backends.key.namespace, &backends.service))
        .collect();
    store.backends().flat_map(move |backends| {
        let service = name(&backends.key.namespace, &backends.service);
        let counts = backends.key.kind == Kind::EndpointSlice || !sliced.contains(&service);
        let subsets = if counts { backends.subsets.as_slice() } else { &[] };
        subsets.iter().map(move |subset| (service.clone(), subset))
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::intern::Interner;
    use super::*;
    use crate::model::Labels;

    #[test]
    fn what_holds_for_endpoints_sets_and_backends_until_it_is_taken_out() {
        let mut interner = Interner::new("tests", 1, 99, BTreeSet::new());
        let web = Selector::parse("app == 'web'").unwrap();
        let named = |selector: Option<&Selector>, name: &str, protocol| Predicate::NamedPort {
            selector: selector.cloned(),
            name: name.into(),
            protocol,
        };
        let api = ServiceName {
            namespace: "ns".into(),
            name: "api".into(),
        };
        let other = Selector::parse("app == 'db'").unwrap();
        let predicates: Vec<PredicateHandle> = [
            Predicate::Selector(web.clone()),
            named(Some(&web), "http", None),
            named(None, "http", Some(17)),
            named(Some(&other), "http", None),
            Predicate::Service(api.clone()),
        ]
        .map(|predicate| interner.intern(predicate).unwrap())
        .into();
        let mut members = Members::default();
        predicates.iter().for_each(|predicate| members.insert(predicate));
        let labels = Labels::from([("app".into(), "web".into())]);
        let ports = [(6, 80), (17, 53)].map(|(protocol, port)| NamedPort {
            name: "http".into(),
            protocol,
            port,
        });
        let expected = [
            Held::of(1),
            Held::of(2),
            Held::at(2, (6, 80)),
            Held::at(2, (17, 53)),
            Held::of(3),
            Held::at(3, (17, 53)),
        ];
        assert_eq!(members.of_endpoint(&labels, &ports), expected);
        assert_eq!(members.of_endpoint(&Labels::new(), &[]), []);
        assert_eq!(members.of_network_set(&labels), [Held::of(1)]);
        let served = [Held::of(5), Held::at(5, (6, 443))];
        assert_eq!(members.of_backends(&api, &[(6, 443), (6, 443)]), served);
        let unknown = ServiceName {
            namespace: "other".into(),
            ..api.clone()
        };
        assert_eq!(members.of_backends(&unknown, &[(6, 443)]), []);

        members.remove(&predicates[1]);
        assert_eq!(
            members.of_endpoint(&labels, &ports),
            [expected[0], expected[4], expected[5]]
        );
        predicates.iter().for_each(|predicate| members.remove(predicate));
        assert!(members.is_empty());
    }
}
