//! The routes to nodes: there, right, alone.

use ipnet::IpNet;

use super::{az, some_of};
use crate::azure::finding::{Check, Finding};
use crate::azure::owner::{Names, is_abandoned, is_nodes, is_removable, leftover};
use crate::azure::resource::{Route, RouteTable, SUCCEEDED, VIRTUAL_APPLIANCE};
use crate::azure::snapshot::{Snapshot, Wanted};

pub(super) fn check(snapshot: &Snapshot, findings: &mut Vec<Finding>) {
    effective(snapshot, findings);
    names(snapshot, findings);
    let Some(table) = &snapshot.table else { return };
    let wanted = snapshot.wanted();
    let mut names = Names::of(table);
    for one in &wanted {
        node(snapshot, table, &wanted, one, &mut names, findings);
    }
    stale(snapshot, table, findings);
}

fn node(
    snapshot: &Snapshot,
    table: &RouteTable,
    all: &[Wanted],
    wanted: &Wanted,
    names: &mut Names,
    findings: &mut Vec<Finding>,
) {
    let Wanted {
        node, prefix, hop, ..
    } = wanted;
    let object = format!("node/{node}");
    let same: Vec<&Route> = table
        .routes
        .iter()
        .filter(|route| route.net() == Some(*prefix))
        .collect();
    if same.is_empty() {
        let created = snapshot
            .nodes
            .iter()
            .any(|other| other.name == *node && other.route_created);
        let (check, seen) = if created {
            (
                Check::RouteLost,
                ", though the node's condition NetworkUnavailable is False, RouteCreated",
            )
        } else {
            (Check::RouteMissing, "")
        };
        let evidence = format!("route table {} has no route to {prefix}{seen}", table.name);
        let fix = hop.map(|hop| az::route_create(&snapshot.table_id, &names.take(wanted), prefix, hop));
        findings.push(Finding::new(check, &object, evidence).part(prefix).fix(fix));
    }
    // Of those who share a prefix one can have the route; that they do is another finding.
    let owners = all.iter().filter(|other| other.prefix == *prefix);
    let hops: Vec<_> = owners.map(|other| other.hop).collect();
    for route in same {
        let mut mend = || match hop {
            None => (Vec::new(), ""),
            Some(hop) if is_nodes(route, wanted) => {
                let update = az::route_update(&snapshot.table_id, &route.name, prefix, *hop);
                (vec![update], "")
            }
            Some(hop) if is_abandoned(snapshot, route) => {
                let delete = az::route_delete(&snapshot.table_id, &route.name);
                let create = az::route_create(&snapshot.table_id, &names.take(wanted), prefix, *hop);
                (vec![delete, create], "")
            }
            Some(_) => (Vec::new(), UNCERTAIN),
        };
        let seen = |what: String| format!("route {} to {prefix} {what}", route.name);
        if route.kind != VIRTUAL_APPLIANCE {
            let (fix, why) = mend();
            let evidence = seen(format!("is of kind {}, not {VIRTUAL_APPLIANCE}{why}", route.kind));
            findings.push(
                Finding::new(Check::RouteKind, &object, evidence)
                    .part(prefix)
                    .fix(fix),
            );
        } else if !hops.contains(&route.hop()) {
            let leads = route.next_hop.as_deref().unwrap_or("no address");
            let (fix, why) = mend();
            let evidence = match hop {
                Some(hop) => seen(format!("leads to {leads}, the node is {hop}{why}")),
                None => seen(format!("leads to {leads}, the node has no address of the family")),
            };
            findings.push(
                Finding::new(Check::RouteNextHop, &object, evidence)
                    .part(prefix)
                    .fix(fix),
            );
        }
        if !route.state.is_empty() && route.state != SUCCEEDED {
            let evidence = seen(format!("has provisioningState {}", route.state));
            findings.push(Finding::new(Check::RouteState, &object, evidence).part(prefix));
        }
    }
    for route in &table.routes {
        let Some(net) = route.net() else { continue };
        let inside = prefix.contains(&net) && net != *prefix;
        // Where nodes' own prefixes overlap, that is the finding.
        if inside && route.hop() != *hop && !all.iter().any(|other| other.prefix == net) {
            let leads = route.next_hop.as_deref().unwrap_or(&route.kind);
            let (fix, why) = remove(snapshot, route);
            let evidence = format!(
                "route {} to {net}, a part of {prefix}, leads to {leads}{why}",
                route.name
            );
            findings.push(
                Finding::new(Check::RouteOverlap, &object, evidence)
                    .part(net)
                    .fix(fix),
            );
        }
    }
}

/// Routes that were nodes'.
fn stale(snapshot: &Snapshot, table: &RouteTable, findings: &mut Vec<Finding>) {
    for route in &table.routes {
        let Some(why) = leftover(snapshot, route) else {
            continue;
        };
        let (fix, uncertain) = remove(snapshot, route);
        let evidence = format!(
            "it leads to {} by {}: {why}{uncertain}",
            route.prefix,
            route.next_hop.as_deref().unwrap_or(&route.kind)
        );
        findings.push(Finding::new(Check::RouteStale, format!("route/{}", route.name), evidence).fix(fix));
    }
}

/// A command that changes or takes away what is somebody's is worse than none.
const UNCERTAIN: &str =
    "; by its name it may be somebody's own, so ask who made it before it is changed: no command is given";

/// The command that removes it, or why there is none.
fn remove(snapshot: &Snapshot, route: &Route) -> (Option<String>, &'static str) {
    if is_removable(snapshot, route) {
        (Some(az::route_delete(&snapshot.table_id, &route.name)), "")
    } else {
        (None, UNCERTAIN)
    }
}

/// Cloud controllers with cloud-provider-azure's pull request 8427 remove a node's routes by the beginning of their names.
fn names(snapshot: &Snapshot, findings: &mut Vec<Finding>) {
    let routed: Vec<&str> = snapshot
        .nodes
        .iter()
        .filter(|node| node.managed && !node.pod_cidrs.is_empty())
        .map(|node| node.name.as_str())
        .collect();
    for short in &routed {
        let mut longer: Vec<&str> = routed
            .iter()
            .copied()
            .filter(|name| {
                let begin = name.get(..short.len());
                name.len() > short.len() && begin.is_some_and(|begin| begin.eq_ignore_ascii_case(short))
            })
            .collect();
        longer.sort_unstable();
        if !longer.is_empty() {
            let evidence = format!("names of other nodes begin with it: {}", some_of(&longer));
            findings.push(Finding::new(Check::RouteName, format!("node/{short}"), evidence));
        }
    }
}

/// What the fabric does at each interface that was asked.
fn effective(snapshot: &Snapshot, findings: &mut Vec<Finding>) {
    for (nic, routes) in &snapshot.effective {
        let active = |wanted: &Wanted| {
            routes.iter().any(|route| {
                let of_prefix = route.address_prefix.iter().any(|text| {
                    text.parse::<IpNet>()
                        .is_ok_and(|net| net.trunc() == wanted.prefix)
                });
                let to = |hop: &String| hop.parse().ok() == wanted.hop;
                of_prefix && route.state == "Active" && route.next_hop_ip_address.iter().any(to)
            })
        };
        let wanted = snapshot.wanted();
        let missing: Vec<_> = wanted
            .iter()
            .filter(|one| !active(one))
            .map(|one| one.prefix)
            .collect();
        if !missing.is_empty() {
            let evidence = format!("no active route there to {}", some_of(&missing));
            findings.push(Finding::new(
                Check::RouteEffective,
                format!("nic/{}", nic.name()),
                evidence,
            ));
        }
    }
}
