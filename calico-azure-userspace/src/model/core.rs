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

pub(super) fn node<'t>(report: &mut Report<'t>, metadata: &Metas<'_, 't>, object: &yaml::Node<'t>) -> Node {
    let spec = Section::of(report, object, "spec");
    let status = Section::of(report, object, "status");
    let mut pod_cidrs = spec.each(report, "podCIDRs", scalars::net);
    if pod_cidrs.is_empty() {
        pod_cidrs.extend(spec.read(report, "podCIDR", scalars::net));
    }
    let internal = status.each(report, "addresses", |report, node| {
        match (node.get("type"), node.get("address")) {
            (Some(kind), Some(address)) if kind.text() == Some("InternalIP") => report
                .within("address", |report| scalars::address(report, address))
                .map(Some),
            _ => Ok(None),
        }
    });
    Node {
        name: metadata.name.clone(),
        labels: metadata.labels(report),
        pod_cidrs,
        internal_ips: internal.into_iter().flatten().collect(),
    }
}
