//! Kubernetes' own kinds, as far as policy needs them: Namespace, ServiceAccount, Pod, Node. Unknown fields are
//! everyday here, and what is wrong with one field does not concern the others.

use std::net::IpAddr;

use super::metadata::{Metadata, without_forged};
use super::report::{Fields, Read, Report, quote};
use super::scalars;
use super::types::{Labels, Namespace, Node, Pod, ServiceAccount};
use super::yaml;

const POD_IPS: &str = "cni.projectcalico.org/podIPs";
const POD_IP: &str = "cni.projectcalico.org/podIP";

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

/// A sub-mapping, empty if it is missing or wrong (which is then reported).
fn section<'n, 't>(report: &mut Report<'t>, object: &'n yaml::Node<'t>, key: &'static str) -> Fields<'n, 't> {
    let section = object
        .get(key)
        .and_then(|node| report.within(key, |report| report.lenient(node)).ok());
    section.unwrap_or(Fields {
        entries: &[],
        place: object.place,
        complete: true,
    })
}

/// A field that is as good as absent if it is wrong.
fn field<'n, 't, T>(
    report: &mut Report<'t>,
    (section, fields): (&'static str, Fields<'n, 't>),
    key: &'static str,
    read: impl FnOnce(&mut Report<'t>, &'n yaml::Node<'t>) -> Read<T>,
) -> Option<T> {
    report
        .within(section, |report| fields.read(report, key, read))
        .ok()
        .flatten()
}

pub(super) fn pod<'t>(
    report: &mut Report<'t>,
    metadata: &Metas<'_, 't>,
    object: &yaml::Node<'t>,
    namespace: String,
) -> Pod {
    let mut labels: Labels = metadata.labels(report);
    without_forged(report, metadata, &mut labels);
    let spec = ("spec", section(report, object, "spec"));
    let status = ("status", section(report, object, "status"));
    let account = field(report, spec, "serviceAccountName", Report::string)
        .or_else(|| field(report, spec, "serviceAccount", Report::string))
        .filter(|account| !account.is_empty());
    let phase = field(report, status, "phase", Report::string).unwrap_or_default();
    // Calico's CNI plug-in empties its annotation when it takes the address back.
    let released = metadata
        .annotation(POD_IP)
        .is_some_and(|node| node.text().is_none_or(str::is_empty));
    Pod {
        name: metadata.name.clone(),
        labels,
        service_account: account.unwrap_or("default").to_owned(),
        node: field(report, spec, "nodeName", Report::string)
            .unwrap_or_default()
            .to_owned(),
        ips: pod_ips(report, metadata, status),
        host_network: field(report, spec, "hostNetwork", Report::boolean).unwrap_or_default(),
        finished: matches!(phase, "Succeeded" | "Failed") || metadata.is_being_deleted() && released,
        namespace,
        ports: Vec::new(),
        owner: None,
        profiles: None,
        allowed_sources: Vec::new(),
    }
}

/// Of the first source that names any.
fn pod_ips<'t>(
    report: &mut Report<'t>,
    metadata: &Metas<'_, 't>,
    status: (&'static str, Fields<'_, 't>),
) -> Vec<IpAddr> {
    let ip = |report: &mut Report<'t>, node: &yaml::Node<'t>| match node.get("ip") {
        Some(ip) => report.within("ip", |report| scalars::address(report, ip)),
        None => Err(report.error(node.place, "ip is missing")),
    };
    let listed = field(report, status, "podIPs", |report, node| {
        let list = report.list(node)?;
        Ok(report.each(list, ip).0)
    });
    if let Some(ips) = listed.filter(|ips| !ips.is_empty()) {
        return ips;
    }
    if let Some(ip) = field(report, status, "podIP", scalars::address) {
        return vec![ip];
    }
    let annotation = [POD_IPS, POD_IP].into_iter().find_map(|key| {
        let node = metadata.annotation(key)?;
        node.text()
            .filter(|text| !text.is_empty())
            .map(|text| (key, node, text))
    });
    let Some((key, node, text)) = annotation else {
        return Vec::new();
    };
    let mut ips = Vec::new();
    for part in text.split(',').map(str::trim) {
        let host = part.split('/').next().unwrap_or_default();
        match host.parse() {
            Ok(ip) => ips.push(ip),
            Err(_) => {
                report.error(
                    node.place,
                    format!("annotation {key}: {} is not an IP address", quote(part)),
                );
            }
        }
    }
    ips
}

pub(super) fn node<'t>(report: &mut Report<'t>, metadata: &Metas<'_, 't>, object: &yaml::Node<'t>) -> Node {
    let spec = ("spec", section(report, object, "spec"));
    let status = ("status", section(report, object, "status"));
    let cidrs = field(report, spec, "podCIDRs", |report, node| {
        let list = report.list(node)?;
        Ok(report.each(list, scalars::net).0)
    });
    let cidrs = cidrs
        .filter(|cidrs| !cidrs.is_empty())
        .or_else(|| field(report, spec, "podCIDR", scalars::net).map(|cidr| vec![cidr]));
    let internal = field(report, status, "addresses", |report, node| {
        let list = report.list(node)?;
        let internal = report.each(list, |report, node| {
            match (node.get("type"), node.get("address")) {
                (Some(kind), Some(address)) if kind.text() == Some("InternalIP") => report
                    .within("address", |report| scalars::address(report, address))
                    .map(Some),
                _ => Ok(None),
            }
        });
        Ok(internal.0.into_iter().flatten().collect())
    });
    Node {
        name: metadata.name.clone(),
        labels: metadata.labels(report),
        pod_cidrs: cidrs.unwrap_or_default(),
        internal_ips: internal.unwrap_or_default(),
    }
}
