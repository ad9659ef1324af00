//! The objects of one kind as they were told last: enough to know what a list leaves out and what it repeats.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::RandomState;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use super::hub::{Hub, problem};
use super::status::KubeStatus;
use crate::model::api::{ApiObject, Said};
use crate::model::{Key, Kind, Problem, Resource};

pub(super) struct Table {
    kind: Kind,
    api_version: String,
    entries: HashMap<Box<str>, Entry>,
    /// Objects that are known by another's name: Calico writes some policies with their tier before the name, so `default.a` and `a`
    /// may be one. Of each key the objects that claim it; the first of them has it.
    claims: BTreeMap<Key, BTreeSet<Box<str>>>,
    /// Counts lists. What has an older number at the end of one is gone.
    list: u32,
    /// Something has to be read again, because its rival is gone.
    must_list: bool,
    hashing: RandomState,
    hub: Rc<RefCell<Hub>>,
    status: Arc<KubeStatus>,
}

struct Entry {
    /// `None`: nobody knows any more what it said.
    fingerprint: Option<u64>,
    list: u32,
    told: Told,
}

/// What has been said of an object.
enum Told {
    /// Policy does not concern it, or a rival has its key.
    Nothing,
    /// Its key is the obvious one.
    Plainly,
    As(Box<Key>),
}

impl Table {
    pub(super) fn new(kind: Kind, hub: Rc<RefCell<Hub>>, status: Arc<KubeStatus>) -> Self {
        Self {
            kind,
            api_version: String::new(),
            entries: HashMap::new(),
            claims: BTreeMap::new(),
            list: 0,
            must_list: false,
            hashing: RandomState::new(),
            hub,
            status,
        }
    }

    /// The objects come from here from now on. They stay until a list without them is complete.
    pub(super) fn set_api_version(&mut self, api_version: &str) {
        if self.api_version != api_version {
            api_version.clone_into(&mut self.api_version);
            // The same words may mean something else there.
            for entry in self.entries.values_mut() {
                entry.fingerprint = None;
            }
        }
        self.status
            .edit(self.kind, |status| api_version.clone_into(&mut status.api));
    }

    pub(super) fn begin(&mut self) {
        self.list = self.list.wrapping_add(1);
        self.must_list = false;
    }

    /// The list is complete.
    pub(super) fn end(&mut self) {
        let gone: Vec<Box<str>> = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.list != self.list)
            .map(|(id, _)| id.clone())
            .collect();
        for id in gone {
            self.remove(&id);
        }
        let objects = self.entries.len();
        self.status.edit(self.kind, |status| {
            status.synced = true;
            status.objects = objects;
        });
        self.hub.borrow_mut().synced(self.kind);
    }

    pub(super) fn must_list(&self) -> bool {
        self.must_list
    }

    pub(super) fn upsert(&mut self, object: ApiObject<'_>) {
        let id = id(object.namespace(), object.name());
        let fingerprint = Some(object.fingerprint(&self.hashing));
        if let Some(entry) = self.entries.get_mut(&*id)
            && entry.fingerprint == fingerprint
        {
            entry.list = self.list;
            return;
        }
        let Said { resource, problems } = object.read(&self.api_version, self.kind);
        self.hub.borrow_mut().wrong(self.kind, &id, problems);
        let before = self.key_told(&id);
        let key = resource.as_ref().map(|resource| resource.key());
        if let Some(before) = before.filter(|before| Some(before) != key.as_ref()) {
            self.yield_key(&id, before);
        }
        let told = match (key, resource) {
            (Some(key), Some(resource)) => self.tell(&id, key, resource),
            _ => Told::Nothing,
        };
        let entry = Entry {
            fingerprint,
            list: self.list,
            told,
        };
        self.entries.insert(id, entry);
    }

    fn tell(&mut self, id: &str, key: Key, resource: Resource) -> Told {
        if self.kind.is_policy() {
            let claims = self.claims.entry(key.clone()).or_default();
            claims.insert(Box::from(id));
            let mut hub = self.hub.borrow_mut();
            for rival in claims.iter().skip(1) {
                if let Some(rival) = self.entries.get_mut(rival) {
                    rival.told = Told::Nothing;
                }
                hub.wrong(self.kind, rival, vec![rivals(&key, claims)]);
            }
            if claims.first().is_some_and(|first| **first != *id) {
                return Told::Nothing;
            }
        }
        let told = if key == plain_key(self.kind, id) {
            Told::Plainly
        } else {
            Told::As(Box::new(key.clone()))
        };
        self.hub.borrow_mut().upsert(key, resource);
        told
    }

    fn key_told(&self, id: &str) -> Option<Key> {
        match &self.entries.get(id)?.told {
            Told::Nothing => None,
            Told::Plainly => Some(plain_key(self.kind, id)),
            Told::As(key) => Some(Key::clone(key)),
        }
    }

    /// The object has this key no longer: it is gone, or a rival's.
    fn yield_key(&mut self, id: &str, key: Key) {
        if let Some(claims) = self.claims.get_mut(&key) {
            claims.remove(id);
            if let Some(heir) = claims.first() {
                let heir = heir.clone();
                self.hub.borrow_mut().wrong(self.kind, &heir, Vec::new());
                if let Some(heir) = self.entries.get_mut(&heir) {
                    // Under this key it is still the other's words that are known.
                    heir.told = Told::As(Box::new(key));
                    heir.fingerprint = None;
                    self.must_list = true;
                }
                return;
            }
            self.claims.remove(&key);
        }
        self.hub.borrow_mut().delete(key);
    }

    pub(super) fn delete(&mut self, object: &ApiObject<'_>) {
        self.remove(&id(object.namespace(), object.name()));
    }

    fn remove(&mut self, id: &str) {
        let key = self.key_told(id);
        if self.entries.remove(id).is_none() {
            return;
        }
        match key {
            Some(key) => self.yield_key(id, key),
            None => self.claims.values_mut().for_each(|claims| {
                claims.remove(id);
            }),
        }
        self.hub.borrow_mut().wrong(self.kind, id, Vec::new());
    }

    /// Something was heard.
    pub(super) fn heard(&self) {
        let objects = self.entries.len();
        self.status.edit(self.kind, |status| {
            status.heard = Some(Instant::now());
            status.objects = objects;
        });
    }

    /// The kind is served no longer: so are its objects.
    pub(super) fn clear(&mut self) {
        self.begin();
        let ids: Vec<Box<str>> = self.entries.keys().cloned().collect();
        for id in ids {
            self.remove(&id);
        }
        self.status.forget(self.kind);
    }
}

fn rivals(key: &Key, claims: &BTreeSet<Box<str>>) -> Problem {
    let names: Vec<&str> = claims.iter().map(|id| &**id).collect();
    let message = format!(
        "{} are all {key}: only the first is enforced",
        names.join(" and ")
    );
    problem(&key.to_string(), message, "remove all but one".to_owned())
}

fn id(namespace: &str, name: &str) -> Box<str> {
    if namespace.is_empty() {
        return Box::from(name);
    }
    let mut id = String::with_capacity(namespace.len() + 1 + name.len());
    id.push_str(namespace);
    id.push('/');
    id.push_str(name);
    id.into_boxed_str()
}

fn plain_key(kind: Kind, id: &str) -> Key {
    let (namespace, name) = match id.split_once('/') {
        Some((namespace, name)) => (Some(namespace.to_owned()), name),
        None => (None, id),
    };
    Key {
        kind,
        namespace,
        name: name.to_owned(),
    }
}
