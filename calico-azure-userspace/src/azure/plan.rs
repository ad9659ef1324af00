//! What has to be written to bring the route table in step with the nodes. Pure. Routes that are not certainly a node's, or were
//! one's, are nobody's business here.

use serde::Serialize;
use serde_json::{Value, json};

use super::audit::leftover;
use super::resource::{Id, Route, VIRTUAL_APPLIANCE};
use super::snapshot::{Snapshot, Wanted, named_node};

/// One change to the table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "change", rename_all = "lowercase")]
pub enum Change {
    Create {
        name: String,
        prefix: String,
        next_hop: String,
    },
    Update {
        name: String,
        prefix: String,
        next_hop: String,
    },
    Delete {
        name: String,
        prefix: String,
    },
}

/// What would be right and is not for us to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Left {
    /// A node or a route.
    pub object: String,
    pub why: String,
}

/// Changes, in the order of nodes; deletions last.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Plan {
    pub changes: Vec<Change>,
    pub left: Vec<Left>,
}

impl Plan {
    /// Without deletions: beside a cloud controller, which removes what it thinks is stale.
    #[must_use]
    pub fn without_deletions(self) -> Self {
        self.deleting_only(&[])
    }

    /// Without deletions of other routes than these: what is new in the table may be of a node that is new.
    #[must_use]
    pub fn deleting_only(mut self, names: &[String]) -> Self {
        let stays = |change: &Change| match change {
            Change::Delete { name, .. } => names.contains(name),
            Change::Create { .. } | Change::Update { .. } => true,
        };
        self.changes.retain(stays);
        self
    }
}

/// Nodes of which a cloud controller says that it made their routes, or could not.
#[must_use]
pub fn others_at_work(snapshot: &Snapshot) -> Vec<&str> {
    let minded = |node: &&super::nodes::NodeState| node.route_created || node.route_refused;
    let nodes = snapshot.nodes.iter().filter(minded);
    nodes.map(|node| node.name.as_str()).collect()
}

/// Finds what to change; nothing if there is no table.
#[must_use]
pub fn plan(snapshot: &Snapshot) -> Plan {
    let mut plan = Plan::default();
    let Some(table) = &snapshot.table else {
        return plan;
    };
    let all = snapshot.wanted();
    let mut room = snapshot.settings.route_limit.saturating_sub(table.routes.len());
    for wanted in &all {
        let of_node = |why: String| Left {
            object: format!("node/{}", wanted.node),
            why,
        };
        let Some(hop) = wanted.hop else {
            let why = format!("it has no address of the family of {}", wanted.prefix);
            plan.left.push(of_node(why));
            continue;
        };
        if let Some(rival) = all
            .iter()
            .find(|other| *other != wanted && other.prefix == wanted.prefix)
        {
            let why = format!("node {} has {}, too", rival.node, wanted.prefix);
            plan.left.push(of_node(why));
            continue;
        }
        let (prefix, next_hop) = (wanted.prefix.to_string(), hop.to_string());
        match table
            .routes
            .iter()
            .find(|route| route.net() == Some(wanted.prefix))
        {
            Some(route) if route.kind == VIRTUAL_APPLIANCE && route.hop() == Some(hop) => {}
            Some(route) if is_nodes(route, wanted) => {
                let name = route.name.clone();
                plan.changes.push(Change::Update {
                    name,
                    prefix,
                    next_hop,
                });
            }
            Some(route) => {
                let why = format!("route {} to {prefix} is none of ours by its name", route.name);
                plan.left.push(of_node(why));
            }
            None => {
                let same_name = |route: &&Route| route.name.eq_ignore_ascii_case(&wanted.name);
                match table.routes.iter().find(same_name) {
                    // What the node had before.
                    Some(old) if removable(snapshot, old) => {
                        let name = old.name.clone();
                        plan.changes.push(Change::Update {
                            name,
                            prefix,
                            next_hop,
                        });
                    }
                    _ if room == 0 => {
                        let why = format!("the table is full: {} routes", snapshot.settings.route_limit);
                        plan.left.push(of_node(why));
                    }
                    _ => {
                        room -= 1;
                        let name = wanted.free_name(table);
                        plan.changes.push(Change::Create {
                            name,
                            prefix,
                            next_hop,
                        });
                    }
                }
            }
        }
    }
    delete(snapshot, &all, &mut plan);
    plan
}

/// Routes that nodes left. A list of nodes that is empty or short of many would take the cluster's network away.
fn delete(snapshot: &Snapshot, all: &[Wanted], plan: &mut Plan) {
    let routes = snapshot.table.iter().flat_map(|table| &table.routes);
    let reused: Vec<String> = plan
        .changes
        .iter()
        .filter_map(|change| match change {
            Change::Update { name, .. } => Some(name.clone()),
            Change::Create { .. } | Change::Delete { .. } => None,
        })
        .collect();
    let (mut gone, mut doubtful) = (Vec::new(), Vec::new());
    for route in routes.filter(|route| !reused.contains(&route.name)) {
        if removable(snapshot, route) {
            gone.push(route);
        } else if let Some(why) = leftover(snapshot, route) {
            doubtful.push((
                route,
                format!("{why}, but its name does not say for certain that it was one's"),
            ));
        }
    }
    if gone.len() > all.len() {
        let why = format!(
            "{} routes were nodes' and there are {} now: is the list of nodes whole?",
            gone.len(),
            all.len()
        );
        doubtful.extend(gone.drain(..).map(|route| (route, why.clone())));
    }
    plan.changes.extend(gone.into_iter().map(|route| Change::Delete {
        name: route.name.clone(),
        prefix: route.prefix.clone(),
    }));
    plan.left.extend(doubtful.into_iter().map(|(route, why)| Left {
        object: format!("route/{}", route.name),
        why,
    }));
}

/// Whether the route has a name that says it is this node's.
fn is_nodes(route: &Route, wanted: &Wanted) -> bool {
    let (node, _) = named_node(&route.name, Some(&wanted.prefix));
    node.eq_ignore_ascii_case(&wanted.node)
}

/// Whether it was made for a node and is one's no more, for certain: its prefix is in its name, or its name is a node's and its
/// prefix the cluster's.
fn removable(snapshot: &Snapshot, route: &Route) -> bool {
    let Some(net) = route.net() else { return false };
    let (node, certain) = named_node(&route.name, Some(&net));
    let mut nodes = snapshot.nodes.iter();
    let known = nodes.any(|other| other.name.eq_ignore_ascii_case(node));
    let mut cluster = snapshot.settings.cluster_cidrs.iter();
    let was_one = certain || known && cluster.any(|cidr| cidr.contains(&net));
    route.kind == VIRTUAL_APPLIANCE && was_one && leftover(snapshot, route).is_some()
}

/// The table's body with the changes in it, all else as it was.
#[must_use]
pub fn applied(mut body: Value, changes: &[Change]) -> Value {
    let properties = &mut body["properties"];
    if !properties["routes"].is_array() {
        properties["routes"] = json!([]);
    }
    let Some(routes) = properties["routes"].as_array_mut() else {
        return body;
    };
    let of = |route: &Value, name: &str| {
        let own = route.get("name").and_then(Value::as_str);
        own.is_some_and(|own| own.eq_ignore_ascii_case(name))
    };
    for change in changes {
        match change {
            Change::Create {
                name,
                prefix,
                next_hop,
            } => routes.push(json!({"name": name, "properties": {
                "addressPrefix": prefix, "nextHopType": VIRTUAL_APPLIANCE, "nextHopIpAddress": next_hop}})),
            Change::Update {
                name,
                prefix,
                next_hop,
            } => {
                for route in routes.iter_mut().filter(|route| of(route, name)) {
                    route["properties"]["addressPrefix"] = json!(prefix);
                    route["properties"]["nextHopType"] = json!(VIRTUAL_APPLIANCE);
                    route["properties"]["nextHopIpAddress"] = json!(next_hop);
                }
            }
            Change::Delete { name, .. } => routes.retain(|route| !of(route, name)),
        }
    }
    body
}

/// The same as commands.
#[must_use]
pub fn commands(table: &Id, changes: &[Change]) -> Vec<String> {
    use super::audit::{route_create, route_delete, route_update};
    let command = |change: &Change| {
        let to = |prefix: &str, hop: &str| Some((prefix.parse().ok()?, hop.parse().ok()?));
        Some(match change {
            Change::Create {
                name,
                prefix,
                next_hop,
            } => {
                let (prefix, hop) = to(prefix, next_hop)?;
                route_create(table, name, &prefix, hop)
            }
            Change::Update {
                name,
                prefix,
                next_hop,
            } => {
                let (prefix, hop) = to(prefix, next_hop)?;
                route_update(table, name, &prefix, hop)
            }
            Change::Delete { name, .. } => route_delete(table, name),
        })
    };
    changes.iter().filter_map(command).collect()
}
