//! What is answered to a request that is no watch.

use serde_json::{Value, json};

use super::protobuf;
use super::store::Store;

pub(super) const JSON: &str = "application/json";
pub(super) const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

/// A request as far as anybody looks at it.
#[derive(Debug, Default)]
pub(super) struct Request {
    pub(super) path: String,
    query: Vec<(String, String)>,
    /// Protobuf will do.
    pub(super) takes_protobuf: bool,
}

impl Request {
    /// Of a request's head.
    pub(super) fn new(head: &str) -> Self {
        let target = head.split(' ').nth(1).unwrap_or_default();
        let mut lines = head.lines();
        let accepts = |line: &str| line.to_ascii_lowercase().starts_with("accept:");
        let accept = lines.find(|line| accepts(line)).unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let pair = |pair: &str| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decoded(key), decoded(value))
        };
        Self {
            path: path.to_owned(),
            query: query.split('&').filter(|p| !p.is_empty()).map(pair).collect(),
            takes_protobuf: accept.contains(PROTOBUF),
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

/// An answer that is no watch.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) code: u16,
    /// What the body is.
    pub(super) media: &'static str,
    pub(super) body: Vec<u8>,
}

impl Answer {
    fn json(code: u16, body: String) -> Self {
        Self {
            code,
            media: JSON,
            body: body.into_bytes(),
        }
    }

    /// A refusal as those want it who take Protobuf.
    pub(super) fn in_protobuf(self) -> Self {
        let status = serde_json::from_slice(&self.body).unwrap_or_default();
        Self {
            media: PROTOBUF,
            body: protobuf::status(&status),
            ..self
        }
    }
}

pub(super) fn refusal(code: u16, reason: &str, message: &str) -> Answer {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure",
        "message": message, "reason": reason, "code": code,
    });
    Answer::json(code, status.to_string())
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
        let list = json!({"kind": "APIGroupList", "groups": groups});
        return Some(Answer::json(200, list.to_string()));
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
    Some(Answer::json(200, list.to_string()))
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
    let shown: Vec<_> = objects.by_ref().take(limit).collect();
    let next = match (objects.peek(), shown.last()) {
        (Some(_), Some((last, _))) => format!("{version}:{last}"),
        _ => String::new(),
    };
    let messages: Option<Vec<&[u8]>> = shown
        .iter()
        .map(|(_, stored)| stored.message.as_deref())
        .collect();
    if let Some(messages) = messages.filter(|_| request.takes_protobuf) {
        return Answer {
            code: 200,
            media: PROTOBUF,
            body: protobuf::page(shelf.resource.kind(), version, &next, messages.into_iter()),
        };
    }
    let texts: Vec<&str> = shown.iter().map(|(_, stored)| &*stored.text).collect();
    let items = texts.join(",");
    let metadata = json!({"resourceVersion": version.to_string(), "continue": next});
    Answer::json(
        200,
        format!("{{\"kind\":\"List\",\"metadata\":{metadata},\"items\":[{items}]}}"),
    )
}
