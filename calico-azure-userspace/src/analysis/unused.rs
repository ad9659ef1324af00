//! Policies that govern nobody: as a rule a label is misspelt.

use std::collections::HashSet;

use super::notes::{Notes, some};
use crate::model::HostRole;
use crate::policy::labels::EffectiveLabels;
use crate::policy::store::Store;
use crate::policy::topology::Topology;

pub(super) fn report(store: &Store, topology: &Topology<'_>, notes: &mut Notes) {
    let mut seen = HashSet::new();
    let pods = topology
        .endpoints
        .iter()
        .map(|endpoint| endpoint.pod)
        .chain(topology.isolated.iter().copied());
    let pods =
        pods.filter(|pod| seen.insert((&pod.namespace, &pod.service_account, &pod.labels, &pod.profiles)));
    let pods: Vec<_> = pods.map(|pod| EffectiveLabels::of_pod(store, pod)).collect();
    let hosts = store.host_endpoints();
    let hosts: Vec<_> = hosts
        .map(|host| EffectiveLabels::of_host_endpoint(store, host))
        .collect();
    let idle = store.policies().filter(|policy| {
        let of_pods = matches!(policy.host, HostRole::Normal | HostRole::Forward);
        policy.staged.is_none()
            && !(of_pods && pods.iter().any(|labels| policy.selector.matches(labels)))
            && !hosts.iter().any(|labels| policy.selector.matches(labels))
    });
    let names: Vec<String> = idle.map(|policy| policy.key.to_string()).collect();
    if !names.is_empty() {
        notes.warning(format!(
            "policies that select nothing among the inputs: {}",
            some(&names)
        ));
    }
}
