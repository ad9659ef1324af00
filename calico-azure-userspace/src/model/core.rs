//! Kubernetes' own kinds without a file of their own: Namespace, ServiceAccount, Node.

use super::metadata::Metadata;
use super::report::Report;
use super::scalars;
use super::section::Section;
use super::types::{Namespace, Node, ServiceAccount};
use super::yaml;

type Metas<'n, 't> = Metadata<'n, 't>;

pub(super) fn namespace<'t>(report: &mut Report<'t>, metadata: &Metas<'_, 't>) -> Namespace {
    Namespace {
        name: metadata.name.clone(),
        labels: metadata.labels(report),
    }
}

pub(super) fn service_account<'t>(
    report: &mut Report<'t>,
    metadata: &Metas<'_, 't>,
    namespace: String,
) -> ServiceAccount {
    ServiceAccount {
        namespace,
        name: metadata.name.clone(),
        labels: metadata.labels(report),
    }
}

/// Annotations of flannel's with its usual prefix (flannel `pkg/subnet/kube/annotations.go`).
const FLANNEL_BACKEND: &str = "flannel.alpha.coreos.com/backend-type";
const FLANNEL_IPS: [&str; 2] = [
    "flannel.alpha.coreos.com/public-ip",
    "flannel.alpha.coreos.com/public-ipv6",
];

const FLANNEL_DATA: [&str; 2] = [
    "flannel.alpha.coreos.com/backend-data",
    "flannel.alpha.coreos.com/backend-v6-data",
];

/// Of `{"VNI":1,"VtepMAC":"…"}`.
fn mac(data: &str) -> Option<String> {
    let data: serde_json::Value = serde_json::from_str(data).ok()?;
    Some(data.get("VtepMAC")?.as_str()?.to_ascii_lowercase())
}

pub(super) fn node<'t>(report: &mut Report<'t>, metadata: &Metas<'_, 't>, object: &yaml::Node<'t>) -> Node {
    let spec = Section::of(report, object, "spec");
    let status = Section::of(report, object, "status");
    let mut pod_cidrs = spec.each(report, "podCIDRs", scalars::net);
    if pod_cidrs.is_empty() {
        pod_cidrs.extend(spec.read(report, "podCIDR", scalars::net));
    }
    let provider_id = spec.get("providerID").and_then(yaml::Node::text);
    let internal = status.each(report, "addresses", |report, node| {
        match (node.get("type"), node.get("address")) {
            (Some(kind), Some(address)) if kind.text() == Some("InternalIP") => report
                .within("address", |report| scalars::address(report, address))
                .map(Some),
            _ => Ok(None),
        }
    });
    let text = |key| {
        let annotation = metadata.annotation(key).and_then(yaml::Node::text);
        annotation.unwrap_or_default().to_owned()
    };
    Node {
        name: metadata.name.clone(),
        labels: metadata.labels(report),
        pod_cidrs,
        internal_ips: internal.into_iter().flatten().collect(),
        provider_id: provider_id.unwrap_or_default().to_owned(),
        flannel_backend: text(FLANNEL_BACKEND),
        // Flannel writes them, and a user may overwrite them with nothing.
        tunnel_ips: FLANNEL_IPS
            .into_iter()
            .filter_map(|key| text(key).parse().ok())
            .collect(),
        tunnel_macs: FLANNEL_DATA
            .into_iter()
            .filter_map(|key| mac(&text(key)))
            .collect(),
    }
}
