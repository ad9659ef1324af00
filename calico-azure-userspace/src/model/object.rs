//! From an object of any kind to a validated resource, or to a word about why there is none.

use super::calico::{self, Group};
use super::kinds::{self, CALICO_CRD};
use super::load::{Origin, TierRef};
use super::metadata::Metadata;
use super::report::{Read, Report, quote};
use super::types::{Kind, Resource};
use super::yaml::{Node, Value};
use super::{core, kubernetes, pod, services, workloads};

/// What one file holds.
#[derive(Default)]
pub(super) struct Objects {
    pub(super) resources: Vec<(Resource, Origin)>,
    pub(super) ignored: Vec<String>,
    pub(super) tier_refs: Vec<TierRef>,
    /// A document is no object at all, so the text may be only part of a manifest.
    pub(super) unreadable: bool,
}

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
    match kind.strip_suffix("List") {
        Some(of) => list(report, node, (version, of), lists_left, objects),
        None => single(report, node, version, kind, objects),
    }
}

/// `of` is empty for a list of objects of any kind.
fn list<'t>(
    report: &mut Report<'t>,
    node: &Node<'t>,
    (version, of): (&str, &str),
    lists_left: usize,
    objects: &mut Objects,
) {
    let Ok(fields) = report.strict(node, &["apiVersion", "kind", "metadata", "items"]) else {
        return;
    };
    if !fields.entries.iter().any(|entry| entry.key == "items") {
        report.error(fields.place, "items is missing: expected a list of objects");
        return;
    }
    let Some(lists_left) = lists_left.checked_sub(1) else {
        report.error(node.place, format!("lists are nested more than {MAX_LISTS} deep"));
        return;
    };
    // None at all is null where Go writes it.
    let Ok(Some(items)) = fields.read(report, "items", Report::list) else {
        return;
    };
    let inherited = (!of.is_empty()).then_some((version, of));
    for item in items {
        if matches!(item.value, Value::Map(_)) {
            object(report, item, inherited, lists_left, objects);
        } else {
            report.set_object(None);
            let message = format!("expected a Kubernetes object, found {}", item.describe());
            report.error(item.place, message);
        }
    }
}

fn single<'t>(report: &mut Report<'t>, node: &Node<'t>, version: &str, kind: &str, objects: &mut Objects) {
    let mut name = describe(node, kind);
    report.set_object(Some(name.clone()));
    let read = match kinds::known(version, kind) {
        Some(kind) => read(report, node, version, kind, &mut name, objects),
        None => {
            kinds::foreign(report, node, version, kind);
            Ok(None)
        }
    };
    match read {
        Ok(Some(resource)) => {
            let origin = Origin {
                file: report.file(),
                line: node.place.line,
            };
            objects.resources.push((resource, origin));
        }
        Ok(None) => objects.ignored.push(format!("{name} ({version})")),
        Err(_reported) => {}
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

/// `None` if the object is of no concern to policy, or a copy of something that counts itself.
fn read<'t>(
    report: &mut Report<'t>,
    node: &Node<'t>,
    version: &str,
    kind: Kind,
    shown: &mut String,
    objects: &mut Objects,
) -> Read<Option<Resource>> {
    let metadata = Metadata::read(report, node)?;
    // As kubectl would.
    let namespace = metadata.namespace.clone().unwrap_or_else(|| "default".to_owned());
    if kind.is_namespaced() {
        *shown = format!("{} {namespace}/{}", kind.written(), metadata.name);
    } else {
        *shown = format!("{} {}", kind.written(), metadata.name);
        useless_namespace(report, node, &metadata, kind);
    }
    report.set_object(Some(shown.clone()));
    if !kind.is_policy() && !calico::KINDS.contains(&kind) {
        // Where unknown fields are errors, repeated ones are, too.
        let _mapping = report.lenient(node);
    }
    Ok(Some(match kind {
        Kind::Namespace => Resource::Namespace(core::namespace(report, &metadata)),
        Kind::ServiceAccount => Resource::ServiceAccount(core::service_account(report, &metadata, namespace)),
        Kind::Pod => Resource::Pod(pod::pod(report, &metadata, node, namespace)),
        Kind::Node => Resource::Node(core::node(report, &metadata, node)),
        Kind::KubernetesNetworkPolicy => {
            Resource::Policy(kubernetes::policy(report, &metadata, node, namespace))
        }
        Kind::ClusterNetworkPolicy | Kind::AdminNetworkPolicy | Kind::BaselineAdminNetworkPolicy => {
            Resource::Policy(kubernetes::cluster_policy(report, &metadata, node, kind))
        }
        Kind::Service => return services::service(report, &metadata, node, namespace),
        Kind::Endpoints => Resource::Backends(services::endpoints(report, &metadata, node, namespace)),
        Kind::EndpointSlice => return services::endpoint_slice(report, &metadata, node, namespace),
        Kind::Deployment
        | Kind::StatefulSet
        | Kind::DaemonSet
        | Kind::ReplicaSet
        | Kind::ReplicationController
        | Kind::Job
        | Kind::CronJob => Resource::Workload(workloads::workload(report, &metadata, node, kind, namespace)?),
        Kind::Tier
        | Kind::NetworkPolicy
        | Kind::GlobalNetworkPolicy
        | Kind::NetworkSet
        | Kind::GlobalNetworkSet
        | Kind::StagedNetworkPolicy
        | Kind::StagedGlobalNetworkPolicy
        | Kind::StagedKubernetesNetworkPolicy
        | Kind::HostEndpoint
        | Kind::Profile
        | Kind::WorkloadEndpoint
        | Kind::FelixConfiguration
        | Kind::IpPool => {
            let group = if version == CALICO_CRD {
                Group::Crd
            } else {
                Group::Api
            };
            match calico::read(report, &metadata, node, kind, namespace, group)? {
                calico::Object::Resource(resource) => resource,
                calico::Object::Policy(policy, tier_missing) => {
                    objects.tier_refs.push(TierRef {
                        tier: policy.tier.clone(),
                        problem: tier_missing,
                    });
                    Resource::Policy(policy)
                }
                calico::Object::Copy => return Ok(None),
            }
        }
    }))
}

/// Says so if a cluster-scoped object names a namespace.
fn useless_namespace(report: &mut Report<'_>, node: &Node<'_>, metadata: &Metadata<'_, '_>, kind: Kind) {
    let Some(namespace) = &metadata.namespace else {
        return;
    };
    let place = node
        .get("metadata")
        .and_then(|metadata| metadata.get("namespace"))
        .unwrap_or(node)
        .place;
    let message = format!(
        "{} belongs to no namespace; {} is ignored",
        kind.written(),
        quote(namespace)
    );
    report.within("metadata", |report| {
        report.within("namespace", |report| report.warning(place, message, "remove it"));
    });
}
