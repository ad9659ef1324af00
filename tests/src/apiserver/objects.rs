//! Objects as plain JSON, written and read by path: one request each, so that a test knows when it was made.

use std::path::Path;
use std::time::{Duration, Instant};

use http::{Method, Request, StatusCode};
use kube::Client;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::{ApiError, Result, client};

/// Who applies.
const MANAGER: &str = "tests";

/// A client with an event loop of its own, for a thread of its own.
pub struct Objects {
    client: Client,
    runtime: Runtime,
}

/// When a write was sent and when the server said that it was done.
#[derive(Clone, Copy, Debug)]
pub struct Written {
    pub sent: Instant,
    pub took: Duration,
}

impl Objects {
    /// Connects as the user of a kubeconfig.
    pub fn connect(kubeconfig: &Path) -> Result<Self> {
        let text =
            std::fs::read_to_string(kubeconfig).map_err(ApiError::io(kubeconfig.display().to_string()))?;
        let config = serde_json::from_str(&text).map_err(|error| ApiError::Manifest(error.to_string()))?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .map_err(ApiError::io("a runtime for a client"))?;
        let client = runtime.block_on(client::connect(config))?;
        Ok(Self { client, runtime })
    }

    /// Makes the object what it says, but for its status, and leaves alone what others said.
    pub fn put(&self, object: &Value) -> Result<Written> {
        let path = format!("{}?fieldManager={MANAGER}&force=true", path(object)?);
        let mut object = object.clone();
        if let Some(fields) = object.as_object_mut() {
            fields.remove("status");
        }
        self.write(Method::PATCH, &path, "application/apply-patch+yaml", &object)
    }

    /// Replaces what the object's status says.
    pub fn put_status(&self, object: &Value) -> Result<Written> {
        let patch = json!({"status": object["status"]});
        self.merge(object, "/status", &patch)
    }

    /// Changes labels; null removes one.
    pub fn label(&self, object: &Value, labels: &Value) -> Result<Written> {
        self.merge(object, "", &json!({"metadata": {"labels": labels}}))
    }

    /// Deletes the object at once.
    pub fn delete(&self, object: &Value) -> Result<Written> {
        let now = json!({"gracePeriodSeconds": 0, "propagationPolicy": "Background"});
        self.write(Method::DELETE, &path(object)?, "application/json", &now)
    }

    /// What the server holds at a path, with the kind and version that lists leave out of their items; nothing, if it serves no such kind.
    pub fn list(&self, path: &str) -> Result<Option<Vec<Value>>> {
        let request = Request::get(path).body(Vec::new());
        let request = request.map_err(|error| ApiError::Manifest(error.to_string()))?;
        let mut list: Value = match self.runtime.block_on(self.client.request(request)) {
            Err(kube::Error::Api(status)) if status.code == StatusCode::NOT_FOUND.as_u16() => {
                return Ok(None);
            }
            answer => answer.map_err(ApiError::api(path))?,
        };
        let kind = list["kind"].as_str().unwrap_or_default();
        let kind = kind.strip_suffix("List").unwrap_or(kind).to_owned();
        let api_version = list["apiVersion"].take();
        let Value::Array(mut items) = list["items"].take() else {
            return Ok(Some(Vec::new()));
        };
        for item in &mut items {
            item["kind"] = json!(kind);
            item["apiVersion"] = api_version.clone();
        }
        Ok(Some(items))
    }

    /// Sends JSON to a path.
    pub fn post(&self, path: &str, body: &Value) -> Result<Value> {
        self.send(Method::POST, path, "application/json", body)
    }

    fn merge(&self, object: &Value, below: &str, patch: &Value) -> Result<Written> {
        let path = format!("{}{below}", path(object)?);
        self.write(Method::PATCH, &path, "application/merge-patch+json", patch)
    }

    fn write(&self, method: Method, path: &str, content: &str, body: &Value) -> Result<Written> {
        let sent = Instant::now();
        self.send(method, path, content, body)?;
        Ok(Written {
            sent,
            took: sent.elapsed(),
        })
    }

    fn send(&self, method: Method, path: &str, content: &str, body: &Value) -> Result<Value> {
        let what = format!("{method} {path}");
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("Content-Type", content)
            .body(body.to_string().into_bytes())
            .map_err(|error| ApiError::Manifest(error.to_string()))?;
        let answer = self.runtime.block_on(self.client.request(request));
        answer.map_err(ApiError::api(what))
    }
}

/// Where an object is.
fn path(object: &Value) -> Result<String> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let parts = [
        &object["apiVersion"],
        &object["kind"],
        &object["metadata"]["name"],
    ];
    let [Some(version), Some(kind), Some(name)] = parts.map(text) else {
        let message = format!("expected apiVersion, kind and name in {object}");
        return Err(ApiError::Manifest(message));
    };
    let namespace = object["metadata"]["namespace"].as_str();
    Ok(format!("{}/{name}", collection(&version, &kind, namespace)))
}

/// Where the objects of a kind are.
#[must_use]
pub fn collection(api_version: &str, kind: &str, namespace: Option<&str>) -> String {
    let root = if api_version.contains('/') { "apis" } else { "api" };
    let within = namespace.map_or_else(String::new, |namespace| format!("/namespaces/{namespace}"));
    format!("/{root}/{api_version}{within}/{}", plural(kind))
}

/// The resource's name in paths.
pub(super) fn plural(kind: &str) -> String {
    let name = kind.to_ascii_lowercase();
    match name.strip_suffix('y') {
        Some(stem) => format!("{stem}ies"),
        None if name.ends_with('s') => name,
        None => format!("{name}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_where_the_server_has_them() {
        let at = |object: Value| path(&object).unwrap();
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "a"}});
        assert_eq!(at(pod), "/api/v1/namespaces/a/pods/p");
        let tier =
            json!({"apiVersion": "crd.projectcalico.org/v1", "kind": "Tier", "metadata": {"name": "t"}});
        assert_eq!(at(tier), "/apis/crd.projectcalico.org/v1/tiers/t");
        assert_eq!(plural("GlobalNetworkPolicy"), "globalnetworkpolicies");
        assert!(path(&json!({"kind": "Pod"})).is_err());
    }
}
