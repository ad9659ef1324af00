//! Service, and what stands behind it: EndpointSlice and the older Endpoints.

use std::net::IpAddr;

use super::metadata::Metadata;
use super::port::{self, PortMatch};
use super::report::{Read, Report, Reported};
use super::scalars;
use super::section::{Section, good_items};
use super::types::{Backends, Key, Kind, Labels, Resource, Service, ServicePort, Subset, TargetPort};
use super::yaml::Node;

/// Names the service whose slice this is.
const SERVICE_NAME: &str = "kubernetes.io/service-name";
const HEADLESS: &str = "None";

/// An ExternalName service is a name in DNS and nothing else.
pub(super) fn service<'t>(
    report: &mut Report<'t>,
    metadata: &Metadata<'_, 't>,
    object: &Node<'t>,
    namespace: String,
) -> Read<Option<Resource>> {
    let spec = Section::of(report, object, "spec");
    let status = Section::of(report, object, "status");
    if spec.text(report, "type") == Some("ExternalName") {
        return Ok(None);
    }
    let selector: Option<Labels> = spec.read(report, "selector", Report::strings);
    let mut cluster_ips: Vec<IpAddr> = spec
        .each(report, "clusterIPs", cluster_ip)
        .into_iter()
        .flatten()
        .collect();
    // Objects of clusters before 1.20, and most manifests, have only the one.
    if spec.get("clusterIPs").is_none() {
        cluster_ips.extend(spec.read(report, "clusterIP", cluster_ip).flatten());
    }
    let mut external_ips = spec.each(report, "externalIPs", scalars::address);
    external_ips.extend(
        status
            .read(report, "loadBalancer", load_balancer)
            .into_iter()
            .flatten(),
    );
    Ok(Some(Resource::Service(Service {
        namespace,
        name: metadata.name.clone(),
        selector: selector.filter(|selector| !selector.is_empty()),
        cluster_ips,
        external_ips,
        ports: spec.each(report, "ports", service_port),
    })))
}

/// None of a headless service, nor before one is assigned.
fn cluster_ip<'t>(report: &mut Report<'t>, node: &Node<'t>) -> Read<Option<IpAddr>> {
    match node.text() {
        Some(HEADLESS | "") => Ok(None),
        _ => scalars::address(report, node).map(Some),
    }
}

/// A load balancer may have a host name instead of an address.
fn load_balancer<'t>(report: &mut Report<'t>, node: &Node<'t>) -> Read<Vec<IpAddr>> {
    let ips = report.lenient(node)?.read(report, "ingress", |report, node| {
        good_items(report, node, |report, node| {
            report.lenient(node)?.read(report, "ip", scalars::address)
        })
    });
    Ok(ips?.into_iter().flatten().flatten().collect())
}

fn service_port<'t>(report: &mut Report<'t>, node: &Node<'t>) -> Read<ServicePort> {
    let fields = report.lenient(node)?;
    let name = fields.read(report, "name", Report::string);
    let protocol = fields.read(report, "protocol", port::protocol);
    let number = fields.read(report, "port", port::number);
    let target = fields.read(report, "targetPort", target);
    let node_port = fields.read(report, "nodePort", |report, node| {
        // 0 asks for any.
        if node.text() == Some("0") {
            return Ok(None);
        }
        port::number(report, node).map(Some)
    });
    let (name, protocol, number, target, node_port) = (name?, protocol?, number?, target?, node_port?);
    let Some(port) = number else {
        return Err(report.error(fields.place, "port is missing"));
    };
    Ok(ServicePort {
        name: name.filter(|name| !name.is_empty()).map(str::to_owned),
        protocol: protocol.unwrap_or(port::TCP),
        port,
        target: target.flatten().unwrap_or(TargetPort::Number(port)),
        node_port: node_port.flatten(),
    })
}

/// 0 and an empty name stand for the service's own port.
fn target<'t>(report: &mut Report<'t>, node: &Node<'t>) -> Read<Option<TargetPort>> {
    if matches!(node.text(), Some("" | "0")) {
        return Ok(None);
    }
    port::number_or_name(report, node).map(|target| {
        Some(match target {
            PortMatch::Range(range) => TargetPort::Number(range.first),
            PortMatch::Name(name) => TargetPort::Name(name),
        })
    })
}

/// Ready or not: readiness is no business of policy.
pub(super) fn endpoint_slice<'t>(
    report: &mut Report<'t>,
    metadata: &Metadata<'_, 't>,
    object: &Node<'t>,
    namespace: String,
) -> Read<Option<Resource>> {
    let top = report.fields(object)?;
    let service = metadata.label(SERVICE_NAME).and_then(Node::text);
    let is_names = top.get("addressType").and_then(Node::text) == Some("FQDN");
    let Some(service) = service.filter(|service| !service.is_empty() && !is_names) else {
        return Ok(None);
    };
    let endpoints = top.read(report, "endpoints", |report, node| {
        good_items(report, node, |report, node| {
            let addresses = report.lenient(node)?.read(report, "addresses", |report, node| {
                good_items(report, node, scalars::address)
            });
            Ok(addresses?.unwrap_or_default())
        })
    });
    let ports = top.read(report, "ports", |report, node| {
        good_items(report, node, backend_port)
    });
    Ok(Some(Resource::Backends(Backends {
        key: Key {
            kind: Kind::EndpointSlice,
            namespace: Some(namespace),
            name: metadata.name.clone(),
        },
        service: service.to_owned(),
        subsets: vec![Subset {
            addresses: or_empty(endpoints).into_iter().flatten().collect(),
            ports: or_empty(ports).into_iter().flatten().collect(),
        }],
    })))
}

/// The service has the same name.
pub(super) fn endpoints<'t>(
    report: &mut Report<'t>,
    metadata: &Metadata<'_, 't>,
    object: &Node<'t>,
    namespace: String,
) -> Backends {
    let subsets = report
        .fields(object)
        .and_then(|top| top.read(report, "subsets", |report, node| good_items(report, node, subset)));
    Backends {
        key: Key {
            kind: Kind::Endpoints,
            namespace: Some(namespace),
            name: metadata.name.clone(),
        },
        service: metadata.name.clone(),
        subsets: or_empty(subsets),
    }
}

fn subset<'t>(report: &mut Report<'t>, node: &Node<'t>) -> Read<Subset> {
    let fields = report.lenient(node)?;
    let mut subset = Subset::default();
    for key in ["addresses", "notReadyAddresses"] {
        let addresses = fields.read(report, key, |report, node| {
            good_items(report, node, |report, node| {
                report.lenient(node)?.read(report, "ip", scalars::address)
            })
        });
        subset.addresses.extend(or_empty(addresses).into_iter().flatten());
    }
    let ports = fields.read(report, "ports", |report, node| {
        good_items(report, node, backend_port)
    });
    subset.ports.extend(or_empty(ports).into_iter().flatten());
    Ok(subset)
}

/// Protocol and number; nothing without a number.
fn backend_port<'t>(report: &mut Report<'t>, node: &Node<'t>) -> Read<Option<(u8, u16)>> {
    let fields = report.lenient(node)?;
    let protocol = fields.read(report, "protocol", port::protocol);
    let number = fields.read(report, "port", port::number);
    let (protocol, number) = (protocol?.unwrap_or(port::TCP), number?);
    Ok(number.map(|number| (protocol, number)))
}

fn or_empty<T>(list: Read<Option<Vec<T>>>) -> Vec<T> {
    match list {
        Ok(list) => list.unwrap_or_default(),
        Err(Reported) => Vec::new(),
    }
}
