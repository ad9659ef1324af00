//! Whose a route is, by its name, its prefix and the nodes that there are. Pure. What is not certain is nobody's business here.

use std::collections::BTreeSet;

use ipnet::IpNet;

use super::resource::{Route, RouteTable, VIRTUAL_APPLIANCE};
use super::snapshot::{Snapshot, Wanted, named_node, route_name};

/// Whether the route has a name that says it is this node's.
#[must_use]
pub fn is_nodes(route: &Route, wanted: &Wanted) -> bool {
    let (node, _) = named_node(&route.name, Some(&wanted.prefix));
    node.eq_ignore_ascii_case(&wanted.node)
}

/// Whether it was made for a node that there is no more, for certain: its prefix is in its name.
#[must_use]
pub fn is_abandoned(snapshot: &Snapshot, route: &Route) -> bool {
    let Some(net) = route.net() else { return false };
    let (node, certain) = named_node(&route.name, Some(&net));
    certain && !is_node(snapshot, node)
}

/// Whether it was made for a node and is one's no more, for certain: its prefix is in its name, or its name is a node's and its
/// prefix could be one's.
#[must_use]
pub fn is_removable(snapshot: &Snapshot, route: &Route) -> bool {
    let Some(net) = route.net() else { return false };
    let (node, certain) = named_node(&route.name, Some(&net));
    let was_one = certain || is_node(snapshot, node) && could_be_nodes(snapshot, &net);
    route.kind == VIRTUAL_APPLIANCE && was_one && leftover(snapshot, route).is_some()
}

/// Why the route is a node's no more, if it ever was one's.
#[must_use]
pub fn leftover(snapshot: &Snapshot, route: &Route) -> Option<String> {
    let net = route.net()?;
    let of_node = snapshot.nodes.iter().any(|node| node.pod_cidrs.contains(&net));
    if of_node || is_aggregate(snapshot, &net) {
        return None;
    }
    let (name, certain) = named_node(&route.name, Some(&net));
    let node = snapshot
        .nodes
        .iter()
        .find(|node| node.name.eq_ignore_ascii_case(name));
    let could = route.kind == VIRTUAL_APPLIANCE && could_be_nodes(snapshot, &net);
    // Nobody has said what the cluster's range is.
    let unknown = snapshot.settings.cluster_cidrs.is_empty() && node.is_some();
    if !(certain || could || unknown) {
        return None;
    }
    Some(match node {
        None => format!("there is no node {name}"),
        Some(node) if node.pod_cidrs.is_empty() => format!("node {name} has none"),
        Some(node) => format!("node {name} has {}", super::audit::some_of(&node.pod_cidrs)),
    })
}

fn is_node(snapshot: &Snapshot, name: &str) -> bool {
    let mut nodes = snapshot.nodes.iter();
    nodes.any(|node| node.name.eq_ignore_ascii_case(name))
}

/// Whether it is the cluster's whole range, or holds a node's: somebody's way to all pods, or none.
fn is_aggregate(snapshot: &Snapshot, net: &IpNet) -> bool {
    let mut cidrs = snapshot.nodes.iter().flat_map(|node| &node.pod_cidrs);
    snapshot.settings.cluster_cidrs.contains(net) || cidrs.any(|cidr| net.contains(cidr) && net != cidr)
}

/// Whether a node could have it: a part of the cluster's range, no larger than nodes' are.
fn could_be_nodes(snapshot: &Snapshot, net: &IpNet) -> bool {
    let cidrs = snapshot.nodes.iter().flat_map(|node| &node.pod_cidrs);
    let largest = cidrs
        .filter(|cidr| cidr.addr().is_ipv4() == net.addr().is_ipv4())
        .map(IpNet::prefix_len)
        .min();
    let mut cluster = snapshot.settings.cluster_cidrs.iter();
    cluster.any(|cidr| cidr.contains(net))
        && !is_aggregate(snapshot, net)
        && largest.is_none_or(|largest| net.prefix_len() >= largest)
}

/// Names for new routes: none that a route has already or is about to get, for then one would overwrite the other.
pub struct Names(BTreeSet<String>);

impl Names {
    /// With the names of the table's routes taken.
    #[must_use]
    pub fn of(table: &RouteTable) -> Self {
        let names = table.routes.iter();
        Self(names.map(|route| route.name.to_ascii_lowercase()).collect())
    }

    /// A name for this route, taken from now on: the cloud provider's own if it is free, else with the prefix in it, else numbered.
    pub fn take(&mut self, wanted: &Wanted) -> String {
        let long = route_name(&wanted.node, Some(&wanted.prefix));
        let numbered = (2_usize..).map(|number| format!("{long}-{number}"));
        let mut candidates = [wanted.name.clone(), long.clone()].into_iter().chain(numbered);
        let free = candidates.find(|name| self.0.insert(name.to_ascii_lowercase()));
        free.unwrap_or(long)
    }
}
