//! Pod, and the pods that a template makes.

use std::net::IpAddr;

use ipnet::IpNet;

use super::metadata::{Metadata, without_forged};
use super::port;
use super::report::{Read, Report, quote};
use super::scalars;
use super::section::{Section, good_items};
use super::types::{NamedPort, Pod};
use super::yaml::{Node, Value};

const POD_IPS: &str = "cni.projectcalico.org/podIPs";
const POD_IP: &str = "cni.projectcalico.org/podIP";
const AWS_POD_IPS: &str = "vpc.amazonaws.com/pod-ips";
const ALLOWED_SOURCES: &str = "cni.projectcalico.org/allowedSourcePrefixes";

/// Reads a pod, or the template of one: then there is no status.
pub(super) fn pod<'t>(
    report: &mut Report<'t>,
    metadata: &Metadata<'_, 't>,
    object: &Node<'t>,
    namespace: String,
) -> Pod {
    let mut labels = metadata.labels(report);
    without_forged(report, metadata, &mut labels);
    let spec = Section::of(report, object, "spec");
    let status = Section::of(report, object, "status");
    let account = spec
        .text(report, "serviceAccountName")
        .or_else(|| spec.text(report, "serviceAccount"));
    let phase = status.text(report, "phase").unwrap_or_default();
    // Calico's CNI plug-in empties its annotation when it takes the address back.
    let released = metadata
        .annotation(POD_IP)
        .is_some_and(|node| node.text().is_none_or(str::is_empty));
    let mut ports = Vec::new();
    for key in ["containers", "initContainers"] {
        ports.extend(spec.each(report, key, container_ports).into_iter().flatten());
    }
    Pod {
        name: metadata.name.clone(),
        labels: labels.into(),
        service_account: account.unwrap_or("default").to_owned(),
        node: spec.text(report, "nodeName").unwrap_or_default().to_owned(),
        ips: ips(report, metadata, &status),
        host_network: spec
            .read(report, "hostNetwork", Report::boolean)
            .unwrap_or_default(),
        finished: matches!(phase, "Succeeded" | "Failed") || metadata.is_being_deleted() && released,
        namespace,
        ports,
        owner: owner(metadata),
        profiles: None,
        allowed_sources: allowed_sources(report, metadata),
    }
}

/// Of the first source that names any.
fn ips<'t>(report: &mut Report<'t>, metadata: &Metadata<'_, 't>, status: &Section<'_, 't>) -> Vec<IpAddr> {
    let listed = status.each(report, "podIPs", |report, node| match node.get("ip") {
        Some(ip) => report.within("ip", |report| scalars::address(report, ip)),
        None => Err(report.error(node.place, "ip is missing")),
    });
    if !listed.is_empty() {
        return listed;
    }
    if let Some(ip) = status.read(report, "podIP", scalars::address) {
        return vec![ip];
    }
    let annotation = [POD_IPS, POD_IP, AWS_POD_IPS].into_iter().find_map(|key| {
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
                let message = format!("annotation {key}: {} is not an IP address", quote(part));
                in_annotations(report, |report| report.error(node.place, message));
            }
        }
    }
    ips
}

/// Prefixes that cannot be read are not allowed.
fn allowed_sources(report: &mut Report<'_>, metadata: &Metadata<'_, '_>) -> Vec<IpNet> {
    let annotation = metadata.annotation(ALLOWED_SOURCES);
    let Some((node, text)) = annotation.and_then(|node| Some((node, node.text()?))) else {
        return Vec::new();
    };
    let help = "write a JSON list of networks: '[\"10.0.0.0/24\"]'";
    let Ok(prefixes) = serde_json::from_str::<Vec<String>>(text) else {
        let message = format!(
            "annotation {ALLOWED_SOURCES}: {} is no list of networks",
            quote(text)
        );
        in_annotations(report, |report| report.error_with_help(node.place, message, help));
        return Vec::new();
    };
    let mut nets = Vec::with_capacity(prefixes.len());
    for prefix in prefixes {
        let net = prefix.parse::<IpNet>().map(|net| net.trunc());
        match net.or_else(|_| prefix.parse::<IpAddr>().map(IpNet::from)) {
            Ok(net) => nets.push(net),
            Err(_) => {
                let message = format!(
                    "annotation {ALLOWED_SOURCES}: {} is not a network",
                    quote(&prefix)
                );
                in_annotations(report, |report| report.error_with_help(node.place, message, help));
            }
        }
    }
    nets
}

fn in_annotations<T>(report: &mut Report<'_>, problem: impl FnOnce(&mut Report<'_>) -> T) {
    report.within("metadata", |report| report.within("annotations", problem));
}

/// The one owner that controls it.
fn owner(metadata: &Metadata<'_, '_>) -> Option<(String, String)> {
    let Value::List(owners) = &metadata.get("ownerReferences")?.value else {
        return None;
    };
    let controls = |owner: &&Node<'_>| owner.get("controller").and_then(Node::text) == Some("true");
    let owner = owners.iter().find(controls)?;
    let text = |key| owner.get(key).and_then(Node::text).map(str::to_owned);
    Some((text("kind")?, text("name")?))
}

/// The ports of a container that have names.
fn container_ports<'t>(report: &mut Report<'t>, node: &Node<'t>) -> Read<Vec<NamedPort>> {
    let ports = report.lenient(node)?.read(report, "ports", |report, node| {
        good_items(report, node, container_port)
    });
    Ok(ports?.into_iter().flatten().flatten().collect())
}

fn container_port<'t>(report: &mut Report<'t>, node: &Node<'t>) -> Read<Option<NamedPort>> {
    let fields = report.lenient(node)?;
    let Some(name) = fields.read(report, "name", port::name)? else {
        return Ok(None);
    };
    let protocol = fields.read(report, "protocol", port::protocol)?;
    let Some(port) = fields.read(report, "containerPort", port::number)? else {
        return Err(report.error(fields.place, "containerPort is missing"));
    };
    Ok(Some(NamedPort {
        name: name.to_owned(),
        protocol: protocol.unwrap_or(port::TCP),
        port,
    }))
}
