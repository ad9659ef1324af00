//! WorkloadEndpoint, as Calico's tools print what its CNI plug-in made.

use ipnet::IpNet;

use super::{Group, fields, labels};
use crate::model::metadata::{Metadata, without_forged};
use crate::model::port;
use crate::model::report::Report;
use crate::model::scalars;
use crate::model::types::{Pod, WorkloadEndpoint, label};
use crate::model::yaml::Node;

const FIELDS: [&str; 17] = [
    "orchestrator",
    "workload",
    "node",
    "pod",
    "endpoint",
    "containerID",
    "interfaceName",
    "ipNetworks",
    "profiles",
    "ports",
    "mac",
    "serviceAccountName",
    "allowSpoofedSourcePrefixes",
    "ipNATs",
    "ipv4Gateway",
    "ipv6Gateway",
    "qosControls",
];
const KUBERNETES: &str = "k8s";

/// One without profiles has none of its namespace's either: what no policy decides is denied.
pub(super) fn workload_endpoint<'t>(
    report: &mut Report<'t>,
    metadata: &Metadata<'_, 't>,
    object: &Node<'t>,
    namespace: String,
    group: Group,
) -> WorkloadEndpoint {
    let mut labels = labels::labels(report, metadata, group);
    without_forged(report, metadata, &mut labels);
    let account = labels.get(label::SERVICE_ACCOUNT).cloned();
    let mut endpoint = WorkloadEndpoint {
        name: metadata.name.clone(),
        interface: String::new(),
        pod: Pod {
            namespace,
            name: metadata.name.clone(),
            labels: labels.into(),
            service_account: account.unwrap_or_else(|| "default".to_owned()),
            profiles: Some(Vec::new()),
            ..Pod::default()
        },
    };
    let read = fields::of_spec(report, object, &FIELDS, |report, spec| {
        let pod = &mut endpoint.pod;
        if let Some(orchestrator) = fields::text(report, spec, "orchestrator")
            && orchestrator != KUBERNETES
            && let Some(node) = spec.get("orchestrator")
        {
            let message = format!("the endpoint is treated as one of a pod: expected {KUBERNETES}");
            let help = "selectors see the label projectcalico.org/orchestrator: k8s on it";
            report.within("orchestrator", |report| report.warning(node.place, message, help));
        }
        if let Some(name) = fields::text(report, spec, "pod") {
            pod.name = name.to_owned();
        }
        pod.node = fields::text(report, spec, "node").unwrap_or_default().to_owned();
        if let Some(account) = fields::text(report, spec, "serviceAccountName") {
            pod.service_account = account.to_owned();
        }
        let interface = fields::text(report, spec, "interfaceName");
        endpoint.interface = interface.unwrap_or_default().to_owned();
        pod.ips = fields::each(report, spec, "ipNetworks", scalars::address).unwrap_or_default();
        let profiles = fields::each(report, spec, "profiles", scalars::name).unwrap_or_default();
        pod.profiles = Some(profiles.into_iter().map(str::to_owned).collect());
        let ports = fields::each(report, spec, "ports", port::named).unwrap_or_default();
        pod.ports = ports.into_iter().flatten().collect();
        let allowed: Option<Vec<IpNet>> =
            fields::each(report, spec, "allowSpoofedSourcePrefixes", scalars::net);
        pod.allowed_sources = allowed.unwrap_or_default();
        if spec.get("interfaceName").is_none() {
            report.error(
                spec.place,
                "interfaceName is missing: nothing can be enforced there",
            );
        }
    });
    if read.is_none() && object.get("spec").is_none() {
        report.error(object.place, "spec is missing: the endpoint is nowhere");
    }
    endpoint
}
