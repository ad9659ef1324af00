//! What a generated packet at a pod's interface must come to, by the reference.

use std::net::IpAddr;

use calico_azure_ebpf::abi::{DEFAULT_VXLAN_PORT, Reason, route};
use calico_azure_userspace::model::Pod;
use calico_azure_userspace::policy::generate::Case;
use calico_azure_userspace::policy::lookup::route_of;
use calico_azure_userspace::policy::reference::{HostVerdict, Oracle, Traffic};
use calico_azure_userspace::policy::{Desired, Direction, Probe, RuleRef};

/// What the programs must say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    pub reason: Reason,
    /// The rule that decides, if one does.
    pub rule: Option<RuleRef>,
    /// A `Log` rule matched.
    pub log: bool,
    /// The endpoint for all interfaces decides, and not the pod's own policy.
    pub by_host: bool,
}

/// What becomes of the first packet of a flow where the pod's own policy says (allow, log, rule): tunnels of a pod come before it, and beside it
/// are whether a pod of the same node is known, what the endpoint for all interfaces says and what the node does with pods' way to their host. Settings are those of [`super::settings`].
#[must_use]
pub fn at_pod(
    oracle: &Oracle<'_>,
    desired: &Desired,
    pod: &Pod,
    case: &Case,
    (allow, log, rule): (bool, bool, RuleRef),
) -> Expected {
    let probe = &case.probe;
    let egress = case.direction == Direction::Egress;
    let without_policy = |reason| Expected {
        reason,
        rule: None,
        log: false,
        by_host: false,
    };
    let vxlan = probe.protocol == 17 && probe.dport == DEFAULT_VXLAN_PORT;
    if egress && (probe.protocol == 4 || vxlan) {
        return without_policy(Reason::WorkloadTunnel);
    }
    let known = route_of(desired, probe.peer);
    let on_link = egress && stays_on_link(probe.peer);
    let nobodys =
        known & route::LOCAL_POD_CIDR != 0 && known & (route::LOCAL_WORKLOAD | route::LOCAL_HOST) == 0;
    if allow && nobodys && !on_link {
        return without_policy(if egress {
            Reason::NoSuchWorkload
        } else {
            Reason::UnknownSource
        });
    }
    let to_host = known & route::LOCAL_HOST != 0 || on_link;
    if egress && to_host && allow && !oracle.may_reach_own_host(&pod.node) {
        return without_policy(Reason::EndpointToHost);
    }
    // Of what a pod exchanges with its host, it sees what the pod may send.
    let asked = !to_host || egress && allow;
    let host = if asked {
        beside(oracle, &pod.node, case, to_host)
    } else {
        None
    };
    let (allow, rule, by_host, log) = match host {
        Some(host) if !host.verdict.allow => (false, host.verdict.rule, true, log | host.verdict.log),
        Some(host) => (allow, rule, false, log | host.verdict.log),
        None => (allow, rule, false, log),
    };
    Expected {
        reason: if allow {
            Reason::PolicyAllow
        } else {
            Reason::PolicyDeny
        },
        rule: Some(rule),
        log,
        by_host,
    }
}

/// No router forwards it, or nobody to whom a node would send it is there.
fn stays_on_link(to: IpAddr) -> bool {
    match to {
        IpAddr::V4(ip) => ip.is_multicast() || ip.octets()[0] >= 240,
        IpAddr::V6(ip) => ip.is_multicast() || ip.segments()[0] & 0xffc0 == 0xfe80,
    }
}

/// What the endpoint for all interfaces says: what a pod sends comes in, for the host.
fn beside(oracle: &Oracle<'_>, node: &str, case: &Case, to_host: bool) -> Option<HostVerdict> {
    let host = oracle.host_for_all_interfaces(node)?;
    let direction = match case.direction {
        Direction::Ingress => Direction::Egress,
        Direction::Egress => Direction::Ingress,
    };
    let traffic = if to_host {
        Traffic::PodToHost
    } else {
        Traffic::PodForwarded
    };
    let packet = Probe {
        own: case.probe.peer,
        peer: case.probe.own,
        ..case.probe
    };
    Some(oracle.host(host, direction, traffic, &packet, &packet))
}
