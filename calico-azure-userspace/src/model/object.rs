//! From an object of any kind to a validated resource, or to a word about why there is none.

use super::calico::{self, Group};
use super::core;
use super::kubernetes;
use super::load::{Origin, TierRef};
use super::metadata::Metadata;
use super::report::{Read, Report, Reported, closest, quote};
use super::types::{Kind, Resource};
use super::yaml::{Node, Value};

/// What one file holds.
#[derive(Default)]
pub(super) struct Objects {
    pub(super) resources: Vec<(Resource, Origin)>,
    pub(super) ignored: Vec<String>,
    pub(super) tier_refs: Vec<TierRef>,
    /// A document is no object at all, so the text may be only part of a manifest.
    pub(super) unreadable: bool,
}

const CORE: &str = "v1";
const KUBERNETES_POLICY: &str = "networking.k8s.io/v1";
const CALICO: &str = "projectcalico.org/v3";
const CALICO_CRD: &str = "crd.projectcalico.org/v1";

/// Calico's kinds that have nothing to do with policy.
const CALICO_OTHER: [&str; 14] = [
    "BGPConfiguration",
    "BGPFilter",
    "BGPPeer",
    "BlockAffinity",
    "CalicoNodeStatus",
    "ClusterInformation",
    "IPAMBlock",
    "IPAMConfig",
    "IPAMConfiguration",
    "IPAMHandle",
    "IPReservation",
    "KubeControllersConfiguration",
    "LiveMigration",
    "Installation",
];
const KUBERNETES_OTHER: [&str; 4] = ["Ingress", "IngressClass", "IPAddress", "ServiceCIDR"];
/// Deepest lists in lists.
const MAX_LISTS: usize = 8;

/// Reads one document.
pub(super) fn document<'t>(report: &mut Report<'t>, node: &Node<'t>, objects: &mut Objects) {
    if !matches!(node.value, Value::Map(_)) {
        let message = format!("expected a Kubernetes object, found {}", node.describe());
        report.error_with_help(node.place, message, "a manifest begins with apiVersion and kind");
        objects.unreadable = true;
        return;
    }
    object(report, node, None, MAX_LISTS, objects);
}

/// `inherited` is what a typed list says about its items.
fn object<'t>(
    report: &mut Report<'t>,
    node: &Node<'t>,
    inherited: Option<(&str, &str)>,
    lists_left: usize,
    objects: &mut Objects,
) {
    report.set_object(None);
    let mut text = |key: &'static str| match node.get(key) {
        Some(value) => report.within(key, |report| report.string(value)).ok(),
        None => {
            let from_list = inherited.map(|(version, kind)| if key == "kind" { kind } else { version });
            if from_list.is_none() {
                let message = format!("this is no Kubernetes object: {key} is missing");
                report.error(node.place, message);
            }
            from_list
        }
    };
    let (version, kind) = (text("apiVersion"), text("kind"));
    let (Some(version), Some(kind)) = (version, kind) else {
        return;
    };
    match (kind.strip_suffix("List"), node.get("items")) {
        (Some(of), items) if items.is_some() || of.is_empty() => {
            let Some(items) = items else { return };
            let Some(lists_left) = lists_left.checked_sub(1) else {
                report.error(node.place, format!("lists are nested more than {MAX_LISTS} deep"));
                return;
            };
            let Ok(items) = report.within("items", |report| report.list(items)) else {
                return;
            };
            let inherited = (!of.is_empty()).then_some((version, of));
            for item in items {
                if matches!(item.value, Value::Map(_)) {
                    object(report, item, inherited, lists_left, objects);
                } else {
                    report.set_object(None);
                    report.error(
                        item.place,
                        format!("expected a Kubernetes object, found {}", item.describe()),
                    );
                }
            }
        }
        _ => single(report, node, version, kind, objects),
    }
}

fn single<'t>(report: &mut Report<'t>, node: &Node<'t>, version: &str, kind: &str, objects: &mut Objects) {
    let name = describe(node, kind);
    report.set_object(Some(name.clone()));
    let known = match (version, kind) {
        (CORE, "Namespace" | "ServiceAccount" | "Pod" | "Node") => true,
        (KUBERNETES_POLICY, "NetworkPolicy") => true,
        (CALICO | CALICO_CRD, kind) => calico::kind(kind).is_some(),
        _ => false,
    };
    if !known {
        foreign(report, node, version, kind);
        objects.ignored.push(format!("{name} ({version})"));
        return;
    }
    if let Ok(resource) = read(report, node, version, kind, objects) {
        let origin = Origin {
            file: report.file(),
            line: node.place.line,
        };
        objects.resources.push((resource, origin));
    }
}

fn describe(node: &Node<'_>, kind: &str) -> String {
    let of_metadata = |key| {
        node.get("metadata")
            .and_then(|metadata| metadata.get(key))
            .and_then(Node::text)
    };
    let name = of_metadata("name").unwrap_or("(unnamed)");
    match of_metadata("namespace") {
        Some(namespace) => format!("{kind} {namespace}/{name}"),
        None => format!("{kind} {name}"),
    }
}

/// Says so if something that looks like policy is not enforced.
fn foreign(report: &mut Report<'_>, node: &Node<'_>, version: &str, kind: &str) {
    let (group, _) = version.rsplit_once('/').unwrap_or(("", version));
    let is_calico = matches!(group, "projectcalico.org" | "crd.projectcalico.org");
    let of_policy = match group {
        _ if is_calico => !CALICO_OTHER.contains(&kind),
        "networking.k8s.io" => !KUBERNETES_OTHER.contains(&kind),
        "policy.networking.k8s.io" => true,
        _ => kind.ends_with("NetworkPolicy") || kind.ends_with("NetworkSet") || kind == "Tier",
    };
    if !of_policy {
        return;
    }
    let place = node.get("kind").unwrap_or(node).place;
    if is_calico && calico::kind(kind).is_some() {
        let message = format!("{version} is not enforced: expected {CALICO} or {CALICO_CRD}");
        report.warning(place, message, format!("set apiVersion: {CALICO}"));
        return;
    }
    if kind == "NetworkPolicy" {
        let message = format!("{kind} of {version} is not enforced");
        report.warning(
            place,
            message,
            format!("set apiVersion: {KUBERNETES_POLICY} or {CALICO}"),
        );
        return;
    }
    let message = format!("{kind} of {} is not enforced", quote(version));
    let help = match closest(kind, calico::KINDS.map(Kind::as_str)).filter(|_| is_calico) {
        Some(name) => format!("did you mean {name}?"),
        None => String::new(),
    };
    report.warning(place, message, help);
}

fn read<'t>(
    report: &mut Report<'t>,
    node: &Node<'t>,
    version: &str,
    kind: &str,
    objects: &mut Objects,
) -> Read<Resource> {
    let metadata = Metadata::read(report, node)?;
    let of_calico = calico::kind(kind).filter(|_| matches!(version, CALICO | CALICO_CRD));
    let is_global =
        matches!(kind, "Namespace" | "Node") || of_calico.is_some_and(|kind| !calico::is_namespaced(kind));
    if is_global && let Some(namespace) = &metadata.namespace {
        let place = node
            .get("metadata")
            .and_then(|metadata| metadata.get("namespace"))
            .unwrap_or(node)
            .place;
        let message = format!("{kind} belongs to no namespace; {} is ignored", quote(namespace));
        report.within("metadata", |report| {
            report.within("namespace", |report| report.warning(place, message, "remove it"));
        });
    }
    // As kubectl would.
    let namespace = metadata.namespace.clone().unwrap_or_else(|| "default".to_owned());
    let namespaced = (!is_global).then(|| namespace.clone());
    let shown = match &namespaced {
        Some(namespace) => format!("{kind} {namespace}/{}", metadata.name),
        None => format!("{kind} {}", metadata.name),
    };
    report.set_object(Some(shown.clone()));
    let group = if version == CALICO_CRD {
        Group::Crd
    } else {
        Group::Api
    };
    if let Some(kind) = of_calico {
        return match calico::read(report, &metadata, node, kind, namespace, group)? {
            calico::Object::Resource(resource) => Ok(resource),
            calico::Object::Policy(policy, tier_missing) => {
                objects.tier_refs.push(TierRef {
                    tier: policy.tier.clone(),
                    problem: tier_missing,
                });
                Ok(Resource::Policy(policy))
            }
            calico::Object::Copy => {
                objects.ignored.push(format!("{shown} ({version})"));
                Err(Reported)
            }
        };
    }
    Ok(match kind {
        "Namespace" => Resource::Namespace(core::namespace(report, &metadata)),
        "ServiceAccount" => Resource::ServiceAccount(core::service_account(report, &metadata, namespace)),
        "Pod" => Resource::Pod(core::pod(report, &metadata, node, namespace)),
        "Node" => Resource::Node(core::node(report, &metadata, node)),
        _ => Resource::Policy(kubernetes::policy(report, &metadata, node, namespace)),
    })
}
