//! Objects, and what happened to them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::watch;

use super::protobuf;

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

    /// apiVersion and kind.
    pub(super) fn kind(&self) -> (&str, &str) {
        (&self.api_version, &self.kind)
    }

    fn answer(&self, message: &[u8]) -> Vec<u8> {
        protobuf::answer(self.kind(), message)
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
    /// Its message in Protobuf, of kinds that are served in it.
    pub(super) message: Option<Arc<[u8]>>,
    /// A pod that has run to its end.
    pub(super) is_finished: bool,
}

/// One thing that happened, ready to be sent.
#[derive(Clone)]
pub(super) struct Happened {
    pub(super) version: u64,
    pub(super) said: Said,
    /// To those who do not want to hear of finished pods; `None`: nothing.
    pub(super) unfinished: Option<Said>,
}

fn line(said: &str, object: &str) -> Arc<[u8]> {
    format!("{{\"type\":\"{said}\",\"object\":{object}}}\n")
        .into_bytes()
        .into()
}

/// That nothing happened up to a version, and, if it `ends` something, that everything that there was has been told.
pub(super) fn bookmark(resource: &Resource, version: u64, ends: bool) -> Said {
    let annotations = if ends {
        json!({"k8s.io/initial-events-end": "true"})
    } else {
        json!({})
    };
    let (api_version, kind) = resource.kind();
    let metadata = json!({"resourceVersion": version.to_string(), "annotations": annotations});
    let object = json!({"apiVersion": api_version, "kind": kind, "metadata": metadata});
    Said::new("BOOKMARK", resource, &Stored::new(&object))
}

/// An event of a watch.
#[derive(Clone)]
pub(super) struct Said {
    line: Arc<[u8]>,
    /// In Protobuf, of kinds that are served in it.
    frame: Option<Arc<[u8]>>,
}

impl Said {
    fn new(said: &str, resource: &Resource, stored: &Stored) -> Self {
        let Stored { text, message, .. } = stored;
        let frame = message.as_ref();
        Self {
            line: line(said, text),
            frame: frame.map(|message| protobuf::event(said, &resource.answer(message)).into()),
        }
    }

    /// That there will be no more, from a refusal's JSON.
    pub(super) fn error(status: &[u8]) -> Self {
        let text = String::from_utf8_lossy(status);
        let status = serde_json::from_slice(status).unwrap_or_default();
        Self {
            line: line("ERROR", &text),
            frame: Some(protobuf::event("ERROR", &protobuf::status(&status)).into()),
        }
    }

    /// As it goes over the wire.
    pub(super) fn bytes(&self, is_framed: bool) -> &[u8] {
        match &self.frame {
            Some(frame) if is_framed => frame,
            _ => &self.line,
        }
    }
}

impl Stored {
    /// Adds the news that it is there.
    pub(super) fn add_to(&self, bytes: &mut Vec<u8>, resource: &Resource, is_framed: bool) {
        match &self.message {
            Some(message) if is_framed => {
                bytes.append(&mut protobuf::event("ADDED", &resource.answer(message)));
            }
            _ => bytes.extend_from_slice(&line("ADDED", &self.text)),
        }
    }

    fn new(object: &Value) -> Self {
        Self {
            text: object.to_string().into(),
            message: protobuf::object(object).map(Arc::from),
            is_finished: matches!(text(object, "/status/phase"), "Succeeded" | "Failed"),
        }
    }
}

/// The objects of one resource.
pub(super) struct Shelf {
    pub(super) resource: Resource,
    /// By `namespace/name`.
    pub(super) objects: BTreeMap<String, Stored>,
    /// The same for those who ask for everything, until something happens.
    snapshot: Option<Arc<Vec<Stored>>>,
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
            snapshot: None,
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
        let stored = Stored::new(&object);
        let said = |said| Said::new(said, &shelf.resource, &stored);
        let before = shelf.objects.get(&id);
        let is_shown = before.is_some_and(|before| !before.is_finished);
        let happened = Happened {
            version,
            said: said(if before.is_some() { "MODIFIED" } else { "ADDED" }),
            unfinished: match (is_shown, !stored.is_finished) {
                (false, false) => None,
                (false, true) => Some(said("ADDED")),
                (true, false) => Some(said("DELETED")),
                (true, true) => Some(said("MODIFIED")),
            },
        };
        shelf.objects.insert(id, stored);
        shelf.happened(happened);
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
        let said = Said::new("DELETED", &shelf.resource, &Stored::new(&object));
        shelf.happened(Happened {
            version,
            unfinished: (!stored.is_finished).then(|| said.clone()),
            said,
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
    /// All that there is.
    pub(super) fn snapshot(&mut self) -> Arc<Vec<Stored>> {
        let objects = &self.objects;
        let all = || Arc::new(objects.values().cloned().collect());
        Arc::clone(self.snapshot.get_or_insert_with(all))
    }

    fn happened(&mut self, happened: Happened) {
        self.snapshot = None;
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
