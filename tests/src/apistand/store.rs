//! Objects, and what happened to them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::watch;

/// A kind that is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    api_version: String,
    kind: String,
}

impl Resource {
    #[must_use]
    pub fn new(api_version: &str, kind: &str) -> Self {
        Self {
            api_version: api_version.to_owned(),
            kind: kind.to_owned(),
        }
    }

    /// As in URLs.
    #[must_use]
    pub fn plural(&self) -> String {
        let name = self.kind.to_ascii_lowercase();
        match name.strip_suffix('y') {
            Some(stem) => format!("{stem}ies"),
            None if name.ends_with('s') => name,
            None => format!("{name}s"),
        }
    }

    #[must_use]
    pub fn path(&self) -> String {
        let root = if self.api_version.contains('/') {
            "apis"
        } else {
            "api"
        };
        format!("/{root}/{}/{}", self.api_version, self.plural())
    }
}

/// One object.
#[derive(Clone)]
pub(super) struct Stored {
    pub(super) text: Arc<str>,
    /// A pod that has run to its end.
    pub(super) is_finished: bool,
}

/// One thing that happened, ready to be sent.
#[derive(Clone)]
pub(super) struct Happened {
    pub(super) version: u64,
    pub(super) line: Arc<str>,
    /// To those who do not want to hear of finished pods; `None`: nothing.
    pub(super) unfinished: Option<Arc<str>>,
}

/// The objects of one resource.
pub(super) struct Shelf {
    pub(super) resource: Resource,
    /// By `namespace/name`.
    pub(super) objects: BTreeMap<String, Stored>,
    pub(super) log: VecDeque<Happened>,
    /// Nobody knows what happened up to here.
    pub(super) forgotten: u64,
    pub(super) changed: watch::Sender<u64>,
}

#[derive(Default)]
pub(super) struct Store {
    pub(super) version: u64,
    pub(super) shelves: BTreeMap<String, Shelf>,
}

fn line(kind: &str, text: &str) -> Arc<str> {
    format!("{{\"type\":\"{kind}\",\"object\":{text}}}\n").into()
}

fn text<'v>(object: &'v Value, pointer: &str) -> &'v str {
    object
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

fn path_and_id(object: &Value) -> (String, String) {
    let resource = Resource::new(text(object, "/apiVersion"), text(object, "/kind"));
    let (namespace, name) = (
        text(object, "/metadata/namespace"),
        text(object, "/metadata/name"),
    );
    (resource.path(), format!("{namespace}/{name}"))
}

impl Store {
    pub(super) fn serve(&mut self, resource: Resource) {
        let version = self.version;
        self.shelves.entry(resource.path()).or_insert_with(|| Shelf {
            resource,
            objects: BTreeMap::new(),
            log: VecDeque::new(),
            forgotten: version,
            changed: watch::channel(0).0,
        });
    }

    pub(super) fn withdraw(&mut self, path: &str) {
        self.shelves.remove(path);
    }

    pub(super) fn put(&mut self, object: &Value) {
        let (path, id) = path_and_id(object);
        self.version += 1;
        let version = self.version;
        let Some(shelf) = self.shelves.get_mut(&path) else {
            return;
        };
        let mut object = object.clone();
        object["metadata"]["resourceVersion"] = json!(version.to_string());
        let is_finished = matches!(text(&object, "/status/phase"), "Succeeded" | "Failed");
        let stored = Stored {
            text: object.to_string().into(),
            is_finished,
        };
        let text = Arc::clone(&stored.text);
        let before = shelf.objects.insert(id, stored);
        let kind = if before.is_some() { "MODIFIED" } else { "ADDED" };
        let was_shown = before.is_some_and(|before| !before.is_finished);
        shelf.happened(Happened {
            version,
            line: line(kind, &text),
            unfinished: match (was_shown, !is_finished) {
                (false, false) => None,
                (false, true) => Some(line("ADDED", &text)),
                (true, false) => Some(line("DELETED", &text)),
                (true, true) => Some(line("MODIFIED", &text)),
            },
        });
    }

    pub(super) fn delete(&mut self, object: &Value) {
        let (path, id) = path_and_id(object);
        self.remove(&path, &id);
    }

    fn remove(&mut self, path: &str, id: &str) {
        self.version += 1;
        let version = self.version;
        let Some(shelf) = self.shelves.get_mut(path) else {
            return;
        };
        let Some(stored) = shelf.objects.remove(id) else {
            return;
        };
        let mut object: Value = serde_json::from_str(&stored.text).unwrap_or_default();
        object["metadata"]["resourceVersion"] = json!(version.to_string());
        let line = line("DELETED", &object.to_string());
        shelf.happened(Happened {
            version,
            unfinished: (!stored.is_finished).then(|| Arc::clone(&line)),
            line,
        });
    }

    /// Deletes all objects of a resource.
    pub(super) fn clear(&mut self, path: &str) {
        let ids: Vec<String> = self
            .shelves
            .get(path)
            .map(|shelf| shelf.objects.keys().cloned().collect())
            .unwrap_or_default();
        for id in ids {
            self.remove(path, &id);
        }
    }

    pub(super) fn compact(&mut self) {
        self.version += 1;
        for shelf in self.shelves.values_mut() {
            shelf.log.clear();
            shelf.forgotten = self.version;
        }
    }

    pub(super) fn objects(&self) -> Vec<Arc<str>> {
        let shelves = self.shelves.values();
        shelves
            .flat_map(|shelf| shelf.objects.values())
            .map(|stored| Arc::clone(&stored.text))
            .collect()
    }

    /// `groupVersion` of everything that is served.
    pub(super) fn versions(&self) -> Vec<String> {
        let mut versions: Vec<String> = self
            .shelves
            .values()
            .map(|shelf| shelf.resource.api_version.clone())
            .collect();
        versions.dedup();
        versions
    }

    /// Plurals of a version.
    pub(super) fn resources(&self, api_version: &str) -> Vec<(String, String)> {
        let shelves = self.shelves.values();
        shelves
            .filter(|shelf| shelf.resource.api_version == api_version)
            .map(|shelf| (shelf.resource.plural(), shelf.resource.kind.clone()))
            .collect()
    }
}

impl Shelf {
    fn happened(&mut self, happened: Happened) {
        let version = happened.version;
        self.log.push_back(happened);
        self.changed.send_replace(version);
    }

    /// What happened after a version.
    pub(super) fn since(&self, version: u64) -> impl Iterator<Item = &Happened> {
        let known = self.log.partition_point(|happened| happened.version <= version);
        self.log.range(known..)
    }
}
