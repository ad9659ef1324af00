//! Namespaces and service accounts: there is none without the other, and each namespace has its name as a label.

use std::collections::BTreeSet;

use crate::analysis::notes::{Notes, some};
use crate::model::{Namespace, Resource, ServiceAccount};
use crate::policy::store::{Event, Store};

const NAME: &str = "kubernetes.io/metadata.name";

pub(super) fn add(store: &mut Store, notes: &mut Notes) {
    let of_pods = store.pods().map(|pod| pod.namespace.clone());
    let of_sets = store.network_sets().filter_map(|set| set.namespace.clone());
    let used: BTreeSet<String> = of_pods.chain(of_sets).collect();
    let missing: Vec<String> = used
        .into_iter()
        .filter(|name| store.namespace(name).is_none())
        .collect();
    if !missing.is_empty() {
        notes.note(format!(
            "no Namespace object for {}: taken to have no label but {NAME}",
            some(&missing)
        ));
    }
    let given = store.namespaces().cloned();
    let made = missing.into_iter().map(|name| Namespace {
        name,
        ..Namespace::default()
    });
    for mut namespace in given.chain(made).collect::<Vec<_>>() {
        namespace.labels.insert(NAME.to_owned(), namespace.name.clone());
        store.apply(Event::Upsert(Resource::Namespace(namespace)));
    }
    // The API server takes no pod whose account is not there.
    let accounts = store
        .pods()
        .map(|pod| (pod.namespace.clone(), pod.service_account.clone()));
    for (namespace, name) in accounts.collect::<BTreeSet<_>>() {
        if store.service_account(&namespace, &name).is_none() {
            store.apply(Event::Upsert(Resource::ServiceAccount(ServiceAccount {
                namespace,
                name,
                ..ServiceAccount::default()
            })));
        }
    }
}
