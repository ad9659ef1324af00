//! What a generated packet at a pod's interface must come to, by the reference.

use calico_azure_ebpf::abi::{DEFAULT_VXLAN_PORT, Reason, route};
use calico_azure_userspace::model::Pod;
use calico_azure_userspace::policy::generate::Case;
use calico_azure_userspace::policy::lookup::route_of;
use calico_azure_userspace::policy::reference::Oracle;
use calico_azure_userspace::policy::{Desired, Direction};

/// The reason that the programs must give where the pod's own policy says `allow`: tunnels of a pod come before it, and
/// what the node does with pods' way to their host after it. Settings are those of [`super::settings`].
#[must_use]
pub fn at_pod(oracle: &Oracle<'_>, desired: &Desired, pod: &Pod, case: &Case, allow: bool) -> Reason {
    let probe = &case.probe;
    let egress = case.direction == Direction::Egress;
    let vxlan = probe.protocol == 17 && probe.dport == DEFAULT_VXLAN_PORT;
    let to_host = || route_of(desired, probe.peer) & route::LOCAL_HOST != 0;
    if egress && (probe.protocol == 4 || vxlan) {
        Reason::WorkloadTunnel
    } else if !allow {
        Reason::PolicyDeny
    } else if egress && to_host() && !oracle.reaches_own_host(&pod.node) {
        Reason::EndpointToHost
    } else {
        Reason::PolicyAllow
    }
}
