//! Whether what flannel's daemon tells its plug-in (`subnet.env`) is what the node's object and its device say. Pure.

use ipnet::IpNet;

use super::files::SubnetEnv;
use super::{Check, Finding, Options, Seen, finding};
use crate::agent::networking::flannel::restart;
use crate::agent::networking::is_flannel;
use crate::azure::finding::Severity;

pub(super) fn check(seen: &Seen, options: &Options, findings: &mut Vec<Finding>) {
    let Some(SubnetEnv { path, said }) = &seen.subnet_env else {
        return;
    };
    let node = options.node.as_ref();
    let again = restart(node.map_or("NODE", |node| node.name.as_str()));
    let mut tell = |severity, evidence: String, consequence, fix: &str| {
        findings.push(finding(Check::SubnetEnv, severity, evidence, consequence, &[fix]));
    };
    let Some(said) = said else {
        return tell(
            Severity::Error,
            format!("{path} is missing, and flannel's device is there"),
            "kube-flannel's plug-in makes no pod's interface until flannel's daemon has written it",
            &again,
        );
    };
    let cidrs = node.map_or(&[][..], |node| &node.pod_cidrs);
    for v6 in [false, true] {
        let (subnet, network) = if v6 {
            ("FLANNEL_IPV6_SUBNET", "FLANNEL_IPV6_NETWORK")
        } else {
            ("FLANNEL_SUBNET", "FLANNEL_NETWORK")
        };
        let of_family = |net: &&IpNet| matches!(net, IpNet::V6(_)) == v6;
        let Some(cidr) = cidrs.iter().find(of_family) else {
            continue;
        };
        match said.get(subnet).map(|text| (text, text.parse::<IpNet>())) {
            Some((_, Ok(found))) if cidrs.contains(&found.trunc()) => {}
            Some((text, _)) => tell(
                Severity::Error,
                format!("{path}: {subnet}={text}; expected the node's podCIDR {cidr}"),
                "pods get addresses that other nodes send elsewhere",
                &again,
            ),
            None => tell(
                Severity::Error,
                format!("{path}: {subnet} is missing; expected the node's podCIDR {cidr}"),
                "pods get no address of this family",
                &again,
            ),
        }
        if let Some(text) = said.get(network) {
            let holds = text.parse::<IpNet>().is_ok_and(|net| net.contains(cidr));
            if !holds {
                tell(
                    Severity::Error,
                    format!("{path}: {network}={text}, and the node's podCIDR {cidr} is not in it"),
                    "flannel's daemon takes pods of other nodes for the world, and gives what is for them the node's address",
                    "kubectl -n kube-flannel edit configmap kube-flannel-cfg",
                );
            }
        }
    }
    let tunnels = seen.links.links.values().filter(|link| is_flannel(link));
    let Some(least) = tunnels.min_by_key(|link| link.mtu) else {
        return;
    };
    let mtu = said.get("FLANNEL_MTU");
    match mtu.map(|text| (text, text.parse::<u32>())) {
        Some((_, Ok(mtu))) if mtu <= least.mtu => {}
        Some((text, Ok(_))) => tell(
            Severity::Error,
            format!(
                "{path}: FLANNEL_MTU={text}, and {} carries {}",
                least.name, least.mtu
            ),
            "pods that are made from now on send packets that are lost between nodes where path MTU discovery does not get through",
            &again,
        ),
        _ => tell(
            Severity::Warning,
            format!(
                "{path}: FLANNEL_MTU is {}; expected at most {}, which {} carries",
                mtu.map_or("missing", |text| text.as_str()),
                least.mtu,
                least.name
            ),
            "pods' interfaces get an MTU that may be more than the tunnel carries",
            &again,
        ),
    }
}
