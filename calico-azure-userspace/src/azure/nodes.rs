//! Nodes as far as routes are concerned, from Kubernetes' JSON.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::Deserialize;
use serde_json::Value;

use super::resource::Id;

/// A node of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeState {
    pub name: String,
    pub pod_cidrs: Vec<IpNet>,
    pub internal_ips: Vec<IpAddr>,
    /// The cloud controller minds it (label `kubernetes.azure.com/managed` is not `false`).
    pub managed: bool,
    /// Condition `NetworkUnavailable` is false for the reason `RouteCreated`: the cloud controller says that it made the route.
    pub route_created: bool,
    /// The same condition is true for the reason `NoRouteCreated`: it says that it could not.
    pub route_refused: bool,
    /// Why the same condition is true, and since when, if it is.
    pub unavailable: Option<String>,
    /// Its provider ID is Azure's.
    pub in_azure: bool,
    /// The machine that its provider ID names.
    pub machine: Option<Id>,
    /// When its object was made, as Kubernetes writes it: of two, the later one is greater.
    pub created: String,
    /// It has flannel's annotations.
    pub flannel: bool,
    /// It has the label that Azure's plug-in for pods' networks goes by.
    pub azure_pods: bool,
}

impl NodeState {
    /// Its first address of the family.
    #[must_use]
    pub fn address(&self, like: &IpNet) -> Option<IpAddr> {
        let v4 = matches!(like, IpNet::V4(_));
        self.internal_ips.iter().copied().find(|ip| ip.is_ipv4() == v4)
    }
}

#[derive(Deserialize)]
struct Raw {
    metadata: Metadata,
    #[serde(default)]
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Deserialize)]
struct Metadata {
    name: String,
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
    #[serde(default, rename = "creationTimestamp")]
    created: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Spec {
    #[serde(rename = "podCIDR")]
    pod_cidr: Option<String>,
    #[serde(rename = "podCIDRs")]
    pod_cidrs: Option<Vec<String>>,
    #[serde(rename = "providerID")]
    provider_id: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Status {
    addresses: Option<Vec<Address>>,
    conditions: Option<Vec<Condition>>,
}

#[derive(Deserialize)]
struct Address {
    #[serde(rename = "type")]
    kind: String,
    address: String,
}

#[derive(Deserialize)]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    message: String,
}

/// What flannel writes on each node.
const FLANNEL: &str = "/backend-type";

/// A list of nodes cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum NodesError {
    #[error("{0}; expected a Node, or a List of them, as `kubectl get nodes -o json` prints")]
    Shape(String),
    #[error("node {node}: spec.podCIDRs: {text:?} is no prefix")]
    Prefix { node: String, text: String },
}

/// Reads a Node, a List, or a NodeList.
///
/// # Errors
/// [`NodesError`].
pub fn read(value: &Value) -> Result<Vec<NodeState>, NodesError> {
    match value.get("kind").and_then(Value::as_str) {
        Some("Node") => Ok(vec![node(value)?]),
        Some("List" | "NodeList") => {
            let items = value.get("items").and_then(Value::as_array);
            let items = items.ok_or_else(|| NodesError::Shape("the list has no items".into()))?;
            let nodes = items
                .iter()
                .filter(|item| item.get("kind").is_none_or(|kind| kind == "Node"));
            nodes.map(node).collect()
        }
        Some(other) => Err(NodesError::Shape(format!("kind is {other}"))),
        None => Err(NodesError::Shape("kind is missing".into())),
    }
}

/// Reads one Node.
///
/// # Errors
/// [`NodesError`].
pub fn node(value: &Value) -> Result<NodeState, NodesError> {
    let raw = Raw::deserialize(value).map_err(|error| NodesError::Shape(error.to_string()))?;
    let name = raw.metadata.name;
    let mut texts = raw.spec.pod_cidrs.unwrap_or_default();
    if texts.is_empty() {
        texts.extend(raw.spec.pod_cidr.filter(|text| !text.is_empty()));
    }
    let prefix = |text: String| match text.parse::<IpNet>() {
        Ok(net) => Ok(net.trunc()),
        Err(_) => Err(NodesError::Prefix {
            node: name.clone(),
            text,
        }),
    };
    let mut pod_cidrs: Vec<IpNet> = Vec::new();
    for text in texts {
        let net = prefix(text)?;
        if !pod_cidrs.contains(&net) {
            pod_cidrs.push(net);
        }
    }
    let addresses = raw.status.addresses.unwrap_or_default().into_iter();
    let internal = addresses.filter(|address| address.kind == "InternalIP");
    let conditions = raw.status.conditions.unwrap_or_default();
    let has = |status: &str, reason: &str| {
        let mut conditions = conditions.iter();
        conditions.any(|one| one.kind == "NetworkUnavailable" && one.status == status && one.reason == reason)
    };
    let unavailable = conditions
        .iter()
        .find(|one| one.kind == "NetworkUnavailable" && one.status == "True")
        .map(|one| format!("{} {}", one.reason, one.message).trim().to_owned());
    let labels = raw.metadata.labels.unwrap_or_default();
    let annotations = raw.metadata.annotations.unwrap_or_default();
    let provider = raw.spec.provider_id.unwrap_or_default();
    Ok(NodeState {
        pod_cidrs,
        internal_ips: internal
            .filter_map(|address| address.address.parse().ok())
            .collect(),
        managed: labels
            .get("kubernetes.azure.com/managed")
            .is_none_or(|managed| !managed.eq_ignore_ascii_case("false")),
        route_created: has("False", "RouteCreated"),
        route_refused: has("True", "NoRouteCreated"),
        unavailable,
        in_azure: provider.starts_with("azure://"),
        machine: provider.strip_prefix("azure://").map(Id::new),
        created: raw.metadata.created.unwrap_or_default(),
        // Flannel's prefix is a setting; what comes after it is not.
        flannel: annotations
            .keys()
            .any(|key| key.contains("flannel") && key.ends_with(FLANNEL)),
        azure_pods: labels.contains_key("kubernetes.azure.com/podnetwork-type"),
        name,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn as_kubectl_prints_them() {
        let node = json!({"kind": "Node", "metadata": {"name": "vm1", "creationTimestamp": "2026-11-30T07:22:37Z", "labels": {"kubernetes.azure.com/managed": "false"},
                "annotations": {"flannel.alpha.coreos.com/backend-type": "vxlan"}},
            "spec": {"providerID": "azure:///subscriptions/s", "podCIDR": "10.244.1.0/24", "podCIDRs": ["10.244.1.0/24", "fd00::/64", "10.244.1.7/24"]},
            "status": {"addresses": [{"type": "Hostname", "address": "vm1"}, {"type": "InternalIP", "address": "10.240.0.4"}],
                "conditions": [{"type": "NetworkUnavailable", "status": "False", "reason": "RouteCreated"}]}});
        let read = read(&json!({"kind": "List", "items": [node]})).unwrap();
        let expected = NodeState {
            name: "vm1".into(),
            pod_cidrs: vec!["10.244.1.0/24".parse().unwrap(), "fd00::/64".parse().unwrap()],
            internal_ips: vec!["10.240.0.4".parse().unwrap()],
            managed: false,
            route_created: true,
            in_azure: true,
            machine: Some(Id::new("/subscriptions/s")),
            created: "2026-11-30T07:22:37Z".into(),
            flannel: true,
            ..NodeState::default()
        };
        assert_eq!(read, [expected]);
        assert_eq!(read[0].address(&"::/0".parse().unwrap()), None);
    }

    #[test]
    fn what_is_no_node() {
        for (value, said) in [
            (json!({"kind": "Pod"}), "kind is Pod"),
            (json!([]), "kind is missing"),
            (json!({"kind": "Node"}), "metadata"),
            (
                json!({"kind": "Node", "metadata": {"name": "a"}, "spec": {"podCIDR": "x"}}),
                "node a: spec.podCIDRs: \"x\" is no prefix",
            ),
        ] {
            let error = read(&value).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }
}
