//! Kubeconfigs, and what tests ask of a server.

use std::fs;
use std::path::{Path, PathBuf};

use http::Request;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::discovery::{Scope, pinned_kind};
use kube::{Client, Config};
use serde_json::{Value, json};

use super::{ApiError, Result};

/// A kubeconfig with one user, as JSON, which is YAML, too.
pub(super) fn kubeconfig(url: &str, authority: &str, user: &str, token: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "test", "cluster": {
            "server": url,
            "certificate-authority-data": base64(authority.as_bytes()),
        }}],
        "users": [{"name": user, "user": {"token": token}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": user}}],
        "current-context": "test",
    })
}

pub(super) fn write(dir: &Path, name: &str, config: &Value) -> Result<PathBuf> {
    let path = dir.join(format!("{name}.kubeconfig"));
    fs::write(&path, format!("{config:#}\n")).map_err(ApiError::io(path.display().to_string()))?;
    Ok(path)
}

pub(super) async fn connect(config: Value) -> Result<Client> {
    let config: Kubeconfig =
        serde_json::from_value(config).map_err(|error| ApiError::Manifest(error.to_string()))?;
    let config = Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await?;
    Client::try_from(config).map_err(ApiError::api("a client"))
}

/// Whether the server has done all that it does at its start; why not, else.
pub(super) async fn ready(client: &Client) -> Result<(), String> {
    let request = Request::get("/readyz")
        .body(Vec::new())
        .map_err(|error| error.to_string())?;
    let answer = tokio::time::timeout(std::time::Duration::from_secs(5), client.request_text(request)).await;
    match answer {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("no answer within 5 s".to_owned()),
    }
}

pub(super) async fn token(client: &Client, namespace: &str, name: &str) -> Result<String> {
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
    let what = format!("service account {namespace}/{name}");
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}});
    accounts
        .patch(name, &PatchParams::apply("tests"), &Patch::Apply(account))
        .await
        .map_err(ApiError::api(&what))?;
    let request = TokenRequest {
        spec: TokenRequestSpec {
            expiration_seconds: Some(3600),
            ..TokenRequestSpec::default()
        },
        ..TokenRequest::default()
    };
    let answer = accounts
        .create_token_request(name, &PostParams::default(), &request)
        .await
        .map_err(ApiError::api(format!("a token of {what}")))?;
    Ok(answer.status.map(|status| status.token).unwrap_or_default())
}

pub(super) async fn apply(client: &Client, yaml: &str, dry_run: bool) -> Result<Vec<String>> {
    let documents: Vec<Value> =
        serde_saphyr::from_multiple(yaml).map_err(|error| ApiError::Manifest(error.to_string()))?;
    let mut names = Vec::new();
    let params = PatchParams {
        dry_run,
        ..PatchParams::apply("tests").force()
    };
    for document in documents {
        let object: DynamicObject =
            serde_json::from_value(document).map_err(|error| ApiError::Manifest(error.to_string()))?;
        let (kind, name) = kind_and_name(&object)?;
        let shown = format!("{}/{name}", kind.kind);
        let (resource, capabilities) = pinned_kind(client, &kind)
            .await
            .map_err(ApiError::api(format!("the kind of {shown}")))?;
        let api = api(client, &object, &resource, &capabilities.scope);
        api.patch(&name, &params, &Patch::Apply(&object))
            .await
            .map_err(ApiError::api(&shown))?;
        names.push(shown);
    }
    Ok(names)
}

fn kind_and_name(object: &DynamicObject) -> Result<(GroupVersionKind, String)> {
    let kind = object
        .types
        .as_ref()
        .and_then(|types| GroupVersionKind::try_from(types).ok());
    kind.zip(object.metadata.name.clone())
        .ok_or_else(|| ApiError::Manifest("an object lacks apiVersion, kind or name".to_owned()))
}

fn api(client: &Client, object: &DynamicObject, resource: &ApiResource, scope: &Scope) -> Api<DynamicObject> {
    match (scope, &object.metadata.namespace) {
        (Scope::Namespaced, Some(namespace)) => Api::namespaced_with(client.clone(), namespace, resource),
        (Scope::Namespaced, None) => Api::default_namespaced_with(client.clone(), resource),
        (Scope::Cluster, _) => Api::all_with(client.clone(), resource),
    }
}

/// Standard base64, as kubeconfigs have it.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let mut group = [0u8; 4];
        for (at, byte) in chunk.iter().enumerate() {
            group[at + 1] = *byte;
        }
        let bits = u32::from_be_bytes(group);
        for at in 0..4 {
            let index = usize::try_from(bits >> (18 - 6 * at) & 63).unwrap_or(0);
            text.push(if at <= chunk.len() {
                char::from(ALPHABET[index])
            } else {
                '='
            });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_the_standard_one() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("fooba", "Zm9vYmE="),
        ] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }
}
