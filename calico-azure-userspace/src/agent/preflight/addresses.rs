//! Whether pods have addresses of the node's podCIDRs, and whether host-local gives out, and takes back, what it should. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use super::files::Reservation;
use super::{Check, Finding, Options, Seen, finding};
use crate::azure::finding::Severity;

/// A plug-in that is at work has reserved an address before there is an interface.
const FRESH: Duration = Duration::from_secs(60);
/// As many are named.
const SOME: usize = 8;

/// The pods' addresses that can be seen from here, with the pod where that is known.
fn pods(seen: &Seen, options: &Options) -> BTreeMap<IpAddr, Option<String>> {
    let links = &seen.links.links;
    let bridges = options.names.bridges(&seen.links);
    let there = links
        .values()
        .filter(|link| options.names.is_pods(link, &bridges));
    let routes = there.flat_map(|link| link.host_routes.iter().map(|ip| (*ip, None)));
    let mut pods: BTreeMap<IpAddr, Option<String>> = routes.collect();
    let names: BTreeSet<&str> = links.values().map(|link| link.name.as_str()).collect();
    for attachment in &seen.attachments {
        let (namespace, name) = &attachment.pod;
        if attachment
            .interfaces
            .iter()
            .any(|(name, _)| names.contains(name.as_str()))
        {
            let pod = Some(format!("{namespace}/{name}"));
            pods.extend(attachment.addresses.iter().map(|ip| (*ip, pod.clone())));
        }
    }
    pods
}

/// What makes a runtime make this pod's network anew.
pub(super) fn anew(pod: &str) -> String {
    let (namespace, name) = pod.split_once('/').unwrap_or(("default", pod));
    format!("kubectl delete pod -n {namespace} {name}")
}

pub(super) fn check(seen: &Seen, options: &Options, findings: &mut Vec<Finding>) {
    let pods = pods(seen, options);
    let cidrs = options.node.as_ref().map_or(&[][..], |node| &node.pod_cidrs);
    let own = texts(cidrs.iter());
    let outside = |address: &IpAddr| !cidrs.is_empty() && !cidrs.iter().any(|cidr| cidr.contains(address));
    let strays: Vec<_> = pods.iter().filter(|(address, _)| outside(address)).collect();
    if let Some((first, pod)) = strays.first() {
        let who = pod
            .as_ref()
            .map_or_else(String::new, |pod| format!(" (pod {pod})"));
        let known: BTreeSet<&String> = strays.iter().filter_map(|(_, pod)| pod.as_ref()).collect();
        let fix: Vec<String> = known.into_iter().take(SOME).map(|pod| anew(pod)).collect();
        findings.push(Finding {
            fix,
            ..finding(
                Check::PodAddresses,
                Severity::Error,
                format!(
                    "{} of pods' addresses, {first}{who} among them, are outside the node's podCIDRs {own}",
                    strays.len()
                ),
                "nobody routes to them what is for them, and what they send is dropped as from a source that nobody knows",
                &[],
            )
        });
    }
    for range in &seen.ranges {
        let within = cidrs.iter().any(|cidr| cidr.contains(&range.net));
        if !cidrs.is_empty() && !within {
            findings.push(finding(
                Check::PodAddresses,
                Severity::Error,
                format!(
                    "{}: host-local of network {} gives out {}; expected a part of the node's podCIDRs {own}, or usePodCidr",
                    range.file, range.network, range.net
                ),
                "pods get addresses that other nodes' packets do not find",
                &[],
            ));
        }
    }
    for pool in &seen.pools {
        let is_pods = |reservation: &&Reservation| pods.contains_key(&reservation.address);
        let ours = pool.reserved.iter().any(|reservation| {
            is_pods(&reservation) || cidrs.iter().any(|cidr| cidr.contains(&reservation.address))
        });
        if !ours && seen.ranges.iter().all(|range| range.network != pool.name) {
            continue;
        }
        let strays: Vec<&Reservation> = pool.reserved.iter().filter(|r| outside(&r.address)).collect();
        if let Some(first) = strays.first() {
            findings.push(finding(
                Check::PodAddresses,
                Severity::Error,
                format!(
                    "host-local of network {} gave out {} addresses, {} among them, outside the node's podCIDRs {own}: its range is another \
                     node's, or of before the node was made anew",
                    pool.name,
                    strays.len(),
                    first.address
                ),
                "pods get addresses that other nodes' packets do not find",
                &[],
            ));
        }
        if seen.sees_pods {
            leaks(
                pool.reserved
                    .iter()
                    .filter(|r| !is_pods(r) && r.age > FRESH)
                    .collect(),
                pool,
                findings,
            );
        }
    }
}

fn leaks(leaked: Vec<&Reservation>, pool: &super::files::Pool, findings: &mut Vec<Finding>) {
    if leaked.is_empty() {
        return;
    }
    let shown = leaked.iter().take(SOME).map(|leak| {
        let container = leak.container.get(..13).unwrap_or(&leak.container);
        format!("{} (container {container})", leak.address)
    });
    let shown: Vec<String> = shown.collect();
    let files: Vec<String> = leaked
        .iter()
        .map(|leak| format!("{}/{}", pool.dir, leak.address))
        .collect();
    findings.push(Finding {
        fix: files
            .chunks(50)
            .map(|files| format!("rm -f {}", files.join(" ")))
            .collect(),
        ..finding(
            Check::AddressLeaks,
            Severity::Warning,
            format!(
                "host-local of network {} keeps {} of {} addresses for containers that are gone: {}{}",
                pool.name,
                leaked.len(),
                pool.reserved.len(),
                shown.join(", "),
                if leaked.len() > SOME { ", …" } else { "" }
            ),
            "nobody gets them again, and once all are taken no pod starts on this node",
            &[],
        )
    });
}

fn texts<'n>(nets: impl Iterator<Item = &'n IpNet>) -> String {
    let texts: Vec<String> = nets.map(ToString::to_string).collect();
    texts.join(", ")
}
