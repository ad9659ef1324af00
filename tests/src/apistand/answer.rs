//! What is answered to a request that is no watch.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::store::Store;

/// A request as far as anybody looks at it.
#[derive(Debug, Default)]
pub(super) struct Request {
    pub(super) path: String,
    query: Vec<(String, String)>,
}

impl Request {
    pub(super) fn new(target: &str) -> Self {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let pair = |pair: &str| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decoded(key), decoded(value))
        };
        Self {
            path: path.to_owned(),
            query: query.split('&').filter(|p| !p.is_empty()).map(pair).collect(),
        }
    }

    pub(super) fn get(&self, key: &str) -> &str {
        let found = self.query.iter().find(|(known, _)| known == key);
        found.map_or("", |(_, value)| value)
    }

    pub(super) fn is(&self, key: &str) -> bool {
        matches!(self.get(key), "1" | "true")
    }

    /// The only selector that anybody sends.
    pub(super) fn unfinished(&self) -> bool {
        self.get("fieldSelector") == "status.phase!=Succeeded,status.phase!=Failed"
    }
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let hex = after
            .get(..2)
            .filter(|_| *first == b'%')
            .and_then(|hex| std::str::from_utf8(hex).ok())
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        bytes.push(hex.unwrap_or(*first));
        rest = if hex.is_some() {
            after.get(2..).unwrap_or_default()
        } else {
            after
        };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Status code and body.
pub(super) type Answer = (u16, String);

pub(super) fn refusal(code: u16, reason: &str, message: &str) -> Answer {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure",
        "message": message, "reason": reason, "code": code,
    });
    (code, status.to_string())
}

pub(super) fn forbidden(path: &str, verb: &str) -> Answer {
    let mut parts = path.rsplit('/');
    let resource = parts.next().unwrap_or_default();
    let group = parts
        .nth(1)
        .filter(|group| !matches!(*group, "" | "api"))
        .unwrap_or_default();
    let message = format!(
        "{resource} is forbidden: User \"system:serviceaccount:kube-system:calico-azure\" cannot {verb} resource \"{resource}\" \
         in API group \"{group}\" at the cluster scope"
    );
    refusal(403, "Forbidden", &message)
}

pub(super) fn not_found() -> Answer {
    refusal(
        404,
        "NotFound",
        "the server could not find the requested resource",
    )
}

pub(super) fn gone() -> Answer {
    refusal(410, "Expired", "too old resource version")
}

/// Discovery, if that is what is asked for.
pub(super) fn discovery(store: &Store, path: &str) -> Option<Answer> {
    if path == "/apis" {
        let group = |version: &String| {
            let (group, _) = version.split_once('/')?;
            Some(json!({"name": group, "versions": [{"groupVersion": version}]}))
        };
        let groups: Vec<Value> = store.versions().iter().filter_map(group).collect();
        return Some((200, json!({"kind": "APIGroupList", "groups": groups}).to_string()));
    }
    let version = path
        .strip_prefix("/apis/")
        .or_else(|| path.strip_prefix("/api/"))?;
    if !store.versions().iter().any(|known| known == version) {
        return None;
    }
    let resource = |(name, kind): (String, String)| json!({"name": name, "kind": kind, "verbs": ["get", "list", "watch"]});
    let resources: Vec<Value> = store.resources(version).into_iter().map(resource).collect();
    let list = json!({"kind": "APIResourceList", "groupVersion": version, "resources": resources});
    Some((200, list.to_string()))
}

/// One page. A token names the list's version and the object after which it goes on.
pub(super) fn page(store: &Store, request: &Request) -> Answer {
    let Some(shelf) = store.shelves.get(&request.path) else {
        return not_found();
    };
    let limit = request.get("limit").parse().unwrap_or(usize::MAX);
    let (version, after) = match request.get("continue").split_once(':') {
        Some((version, after)) => (version.parse().unwrap_or_default(), after),
        None => (store.version, ""),
    };
    if version < shelf.forgotten {
        return gone();
    }
    let mut objects = shelf
        .objects
        .range::<str, _>((std::ops::Bound::Excluded(after), std::ops::Bound::Unbounded))
        .filter(|(_, stored)| !(request.unfinished() && stored.is_finished))
        .peekable();
    let mut items = String::new();
    let mut last = "";
    for (id, stored) in objects.by_ref().take(limit) {
        let comma = if items.is_empty() { "" } else { "," };
        // Writing to a string does not fail.
        let _ok = write!(items, "{comma}{}", stored.text);
        last = id;
    }
    let next = match objects.peek() {
        Some(_) => format!("{version}:{last}"),
        None => String::new(),
    };
    let metadata = json!({"resourceVersion": version.to_string(), "continue": next});
    (
        200,
        format!("{{\"kind\":\"List\",\"metadata\":{metadata},\"items\":[{items}]}}"),
    )
}
