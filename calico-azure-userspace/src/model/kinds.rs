//! Which kinds are read, and what is said about the others.

use super::calico;
use super::report::{Report, closest, quote};
use super::types::Kind;
use super::yaml::Node;

pub(super) const CALICO: &str = "projectcalico.org/v3";
pub(super) const CALICO_CRD: &str = "crd.projectcalico.org/v1";
const KUBERNETES_POLICY: &str = "networking.k8s.io/v1";

/// The kinds that are read, by the versions in which they are.
const READ: [(&[&str], &[Kind]); 9] = [
    (
        &["v1"],
        &[
            Kind::Namespace,
            Kind::ServiceAccount,
            Kind::Pod,
            Kind::Node,
            Kind::Service,
            Kind::Endpoints,
            Kind::ReplicationController,
        ],
    ),
    (
        &["discovery.k8s.io/v1", "discovery.k8s.io/v1beta1"],
        &[Kind::EndpointSlice],
    ),
    (
        &["apps/v1", "apps/v1beta2"],
        &[
            Kind::Deployment,
            Kind::StatefulSet,
            Kind::DaemonSet,
            Kind::ReplicaSet,
        ],
    ),
    (&["apps/v1beta1"], &[Kind::Deployment, Kind::StatefulSet]),
    (
        &["extensions/v1beta1"],
        &[Kind::Deployment, Kind::DaemonSet, Kind::ReplicaSet],
    ),
    (&["batch/v1", "batch/v1beta1"], &[Kind::Job, Kind::CronJob]),
    (&[KUBERNETES_POLICY], &[Kind::KubernetesNetworkPolicy]),
    (
        // The second has the schema of the first.
        &[
            "policy.networking.k8s.io/v1alpha2",
            "policy.networking.k8s.io/v1beta1",
        ],
        &[Kind::ClusterNetworkPolicy],
    ),
    (
        &["policy.networking.k8s.io/v1alpha1"],
        &[Kind::AdminNetworkPolicy, Kind::BaselineAdminNetworkPolicy],
    ),
];

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
    "Installation",
    "KubeControllersConfiguration",
    "LiveMigration",
];
const KUBERNETES_OTHER: [&str; 5] = [
    "ClusterCIDR",
    "IPAddress",
    "Ingress",
    "IngressClass",
    "ServiceCIDR",
];

/// The versions and kinds that are read.
pub(super) fn read() -> impl Iterator<Item = (&'static [&'static str], &'static [Kind])> {
    const OF_CALICO: (&[&str], &[Kind]) = (&[CALICO, CALICO_CRD], &calico::KINDS);
    READ.into_iter().chain([OF_CALICO])
}

/// The kind, if it is one that is read.
pub(super) fn known(version: &str, kind: &str) -> Option<Kind> {
    let mut kinds = read().filter(|(versions, _)| versions.contains(&version));
    kinds.find_map(|(_, kinds)| kinds.iter().copied().find(|known| known.written() == kind))
}

fn group(version: &str) -> &str {
    version.rsplit_once('/').map_or("", |(group, _)| group)
}

/// Says so if something that looks like policy is not read. In a group whose policies are read, a kind that nobody
/// knows is a policy that somebody meant.
pub(super) fn foreign(report: &mut Report<'_>, node: &Node<'_>, version: &str, kind: &str) {
    let ours = group(version);
    let is_policy = match ours {
        "projectcalico.org" | "crd.projectcalico.org" => !CALICO_OTHER.contains(&kind),
        "networking.k8s.io" => !KUBERNETES_OTHER.contains(&kind),
        "policy.networking.k8s.io" => true,
        // Where Kubernetes' own kinds are, or were once.
        "" | "apps" | "extensions" => kind == "NetworkPolicy",
        _ => {
            if kind.ends_with("NetworkPolicy") || kind.ends_with("NetworkSet") || kind == "Tier" {
                let place = node.get("kind").unwrap_or(node).place;
                let message = format!("{kind} of {} is not enforced", quote(version));
                report.warning(place, message, "");
            }
            false
        }
    };
    if !is_policy {
        return;
    }
    let place_of = |key| node.get(key).unwrap_or(node).place;
    let of_group = || read().filter(|(versions, _)| versions.iter().any(|known| group(known) == ours));
    // Right but for its version, or else its group.
    let is_there = |(_, kinds): &(&[&str], &[Kind])| kinds.iter().any(|known| known.written() == kind);
    if let Some((versions, _)) = of_group().chain(read()).find(is_there) {
        let message = format!(
            "{kind} of {} is not enforced: expected apiVersion {}",
            quote(version),
            versions.join(" or ")
        );
        let help = format!("set apiVersion: {}", versions.first().unwrap_or(&""));
        report.within("apiVersion", |report| {
            report.error_with_help(place_of("apiVersion"), message, help)
        });
        return;
    }
    let mut kinds: Vec<&str> = of_group()
        .flat_map(|(_, kinds)| kinds)
        .map(|kind| kind.written())
        .collect();
    kinds.dedup();
    let message = format!("{version} has no kind {}: it is not enforced", quote(kind));
    let help = match closest(kind, kinds.iter().copied()) {
        Some(name) => format!("did you mean {name}?"),
        None => format!("the kinds that are enforced are {}", kinds.join(", ")),
    };
    report.within("kind", |report| {
        report.error_with_help(place_of("kind"), message, help)
    });
}
