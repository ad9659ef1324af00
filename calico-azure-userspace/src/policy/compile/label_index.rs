//! Finds the sources that a selector could match, or that inherit from an object, without trying each.

use std::collections::{BTreeSet, HashMap};

use super::sources::SourceId;
use super::touched::Touched;
use crate::model::{Labels, NamedPort, label};
use crate::policy::store::Store;
use crate::selector::Selector;

/// Sources by their own labels and ports. What they inherit changes with other objects, and is not here.
#[derive(Debug, Default)]
pub(super) struct LabelIndex {
    by_label: HashMap<String, HashMap<String, BTreeSet<SourceId>>>,
    by_port: HashMap<String, BTreeSet<SourceId>>,
    /// Sources that name their profiles, so that they may inherit from anything.
    explicit: BTreeSet<SourceId>,
    entries: HashMap<SourceId, Entry>,
}

/// What a source is in the index under.
#[derive(Debug)]
struct Entry {
    labels: Vec<(String, String)>,
    ports: Vec<String>,
}

impl LabelIndex {
    pub(super) fn insert(&mut self, id: SourceId, labels: &Labels, ports: &[NamedPort], explicit: bool) {
        for (key, value) in labels {
            let values = entry(&mut self.by_label, key);
            entry(values, value).insert(id);
        }
        for port in ports {
            entry(&mut self.by_port, &port.name).insert(id);
        }
        if explicit {
            self.explicit.insert(id);
        }
        let labels = labels.iter().map(|(key, value)| (key.clone(), value.clone()));
        let entry = Entry {
            labels: labels.collect(),
            ports: ports.iter().map(|port| port.name.clone()).collect(),
        };
        self.entries.insert(id, entry);
    }

    pub(super) fn remove(&mut self, id: SourceId) {
        let Some(Entry { labels, ports }) = self.entries.remove(&id) else {
            return;
        };
        for (key, value) in labels {
            if let Some(values) = self.by_label.get_mut(&key) {
                take(values, &value, id);
                if values.is_empty() {
                    self.by_label.remove(&key);
                }
            }
        }
        for port in ports {
            take(&mut self.by_port, &port, id);
        }
        self.explicit.remove(&id);
    }

    /// All that the selector could match.
    pub(super) fn candidates(&self, store: &Store, selector: &Selector) -> BTreeSet<SourceId> {
        let Some((key, value)) = selector.required_equals().filter(|_| !store.has_profiles()) else {
            return self.entries.keys().copied().collect();
        };
        let mut found: BTreeSet<SourceId> = self.with(key, value).collect();
        let inherited = key.strip_prefix(label::NAMESPACE_PREFIX).is_some()
            || key.strip_prefix(label::SERVICE_ACCOUNT_PREFIX).is_some();
        if !inherited {
            return found;
        }
        found.extend(&self.explicit);
        let mut extend = |key, values: &mut dyn Iterator<Item = &str>| {
            values.for_each(|value| found.extend(self.with(key, value)));
        };
        // Objects that do not have the label now may have had it when the selector was last asked; then all that
        // inherit from them are looked at anyway.
        let has = |labels: &Labels, name: &str, key: &str| {
            labels.get(key).is_some_and(|held| held == value) || (key == NAME && name == value)
        };
        if let Some(key) = key.strip_prefix(label::NAMESPACE_PREFIX) {
            let namespaces = store.namespaces().filter(|x| has(&x.labels, &x.name, key));
            extend(label::NAMESPACE, &mut namespaces.map(|x| x.name.as_str()));
        }
        if let Some(key) = key.strip_prefix(label::SERVICE_ACCOUNT_PREFIX) {
            let accounts = store.service_accounts().filter(|x| has(&x.labels, &x.name, key));
            extend(label::SERVICE_ACCOUNT, &mut accounts.map(|x| x.name.as_str()));
        }
        found
    }

    /// All that give a port this name.
    pub(super) fn with_port(&self, name: &str) -> impl Iterator<Item = SourceId> {
        self.by_port.get(name).into_iter().flatten().copied()
    }

    /// All that may inherit from the objects.
    pub(super) fn heirs(&self, touched: &Touched) -> BTreeSet<SourceId> {
        let mut found = self.explicit.clone();
        let namespaces = touched.namespaces.iter().map(String::as_str);
        let accounts = touched
            .accounts
            .iter()
            .map(|(namespace, name)| (namespace.as_str(), name.as_str()));
        let profile = |prefix| {
            touched
                .profiles
                .iter()
                .filter_map(move |name| name.strip_prefix(prefix))
        };
        for namespace in namespaces.chain(profile("kns.")) {
            found.extend(self.with(label::NAMESPACE, namespace));
        }
        for (namespace, name) in accounts.chain(profile("ksa.").filter_map(|rest| rest.split_once('.'))) {
            let of_namespace = self
                .by_label
                .get(label::NAMESPACE)
                .and_then(|values| values.get(namespace));
            let of_namespace = |id: &SourceId| of_namespace.is_some_and(|sources| sources.contains(id));
            found.extend(self.with(label::SERVICE_ACCOUNT, name).filter(of_namespace));
        }
        found
    }

    fn with(&self, key: &str, value: &str) -> impl Iterator<Item = SourceId> {
        let sources = self.by_label.get(key).and_then(|values| values.get(value));
        sources.into_iter().flatten().copied()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.by_label.len() + self.by_port.len() + self.explicit.len() + self.entries.len()
    }
}

/// As in effective labels: the name of a namespace or service account itself.
const NAME: &str = "projectcalico.org/name";

fn entry<'a, V: Default>(map: &'a mut HashMap<String, V>, key: &str) -> &'a mut V {
    if !map.contains_key(key) {
        map.insert(key.to_owned(), V::default());
    }
    map.entry(key.to_owned()).or_default()
}

fn take(map: &mut HashMap<String, BTreeSet<SourceId>>, key: &str, id: SourceId) {
    if let Some(sources) = map.get_mut(key) {
        sources.remove(&id);
        if sources.is_empty() {
            map.remove(key);
        }
    }
}
