//! What has to be written to bring the route table in step with the nodes. Pure. Routes that are not certainly a node's, or were
//! one's, are nobody's business here.

use serde::Serialize;
use serde_json::{Value, json};

use super::owner::{Names, is_abandoned, is_nodes, is_removable, leftover};
use super::resource::{Id, RouteTable, VIRTUAL_APPLIANCE};
use super::snapshot::{Snapshot, Wanted};

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
    /// Another node's route to the prefix goes, and this one comes.
    Replace {
        old: String,
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
    /// Without removing anything: beside a cloud controller, which removes what it thinks is stale, or where not all nodes may be known.
    #[must_use]
    pub fn without_deletions(mut self) -> Self {
        let (changes, taken): (Vec<_>, Vec<_>) = self.changes.into_iter().partition(|change| match change {
            Change::Create { .. } | Change::Update { .. } => true,
            Change::Replace { .. } | Change::Delete { .. } => false,
        });
        self.changes = changes;
        for change in taken {
            let (Change::Replace { old: name, .. } | Change::Delete { name, .. }) = change else {
                continue;
            };
            self.left.push(Left {
                object: format!("route/{name}"),
                why: "it was a node's that there is no more, and nothing is deleted here".to_owned(),
            });
        }
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
    let network = snapshot.networking.network;
    if !network.needs_routes() {
        plan.left.push(Left {
            object: "cluster".to_owned(),
            why: format!(
                "networking is {}, which needs no routes of Azure's",
                network.name()
            ),
        });
        return plan;
    }
    let Some(table) = &snapshot.table else {
        return plan;
    };
    let all = snapshot.wanted();
    let mut planning = Planning {
        snapshot,
        table,
        names: Names::of(table),
        room: snapshot.settings.route_limit.saturating_sub(table.routes.len()),
        used: Vec::new(),
    };
    for wanted in &all {
        match planning.of_node(wanted, &all) {
            Ok(change) => plan.changes.extend(change),
            Err(why) => plan.left.push(Left {
                object: format!("node/{}", wanted.node),
                why,
            }),
        }
    }
    let used = planning.used;
    delete(snapshot, &all, &used, &mut plan);
    plan
}

struct Planning<'a> {
    snapshot: &'a Snapshot,
    table: &'a RouteTable,
    names: Names,
    /// Routes that may be added.
    room: usize,
    /// Routes that are nodes' no more and have become another's.
    used: Vec<&'a str>,
}

impl Planning<'_> {
    /// What to change for a node's route, or why it is not for us to do.
    fn of_node(&mut self, wanted: &Wanted, all: &[Wanted]) -> Result<Option<Change>, String> {
        let Some(hop) = wanted.hop else {
            return Err(format!("it has no address of the family of {}", wanted.prefix));
        };
        let rival = all
            .iter()
            .find(|other| *other != wanted && other.prefix == wanted.prefix);
        if let Some(rival) = rival {
            return Err(format!("node {} has {}, too", rival.node, wanted.prefix));
        }
        let (prefix, next_hop) = (wanted.prefix.to_string(), hop.to_string());
        let mut routes = self.table.routes.iter();
        match routes.find(|route| route.net() == Some(wanted.prefix)) {
            Some(route) if route.kind == VIRTUAL_APPLIANCE && route.hop() == Some(hop) => Ok(None),
            Some(route) if is_nodes(route, wanted) => Ok(Some(Change::Update {
                name: route.name.clone(),
                prefix,
                next_hop,
            })),
            // The prefix was given to another node after the one that had it was gone.
            Some(route) if is_abandoned(self.snapshot, route) => {
                self.used.push(&route.name);
                Ok(Some(Change::Replace {
                    old: route.name.clone(),
                    name: self.names.take(wanted),
                    prefix,
                    next_hop,
                }))
            }
            Some(route) => Err(format!(
                "route {} to {prefix} is none of ours by its name",
                route.name
            )),
            None => {
                let old = self.table.routes.iter().find(|route| {
                    route.name.eq_ignore_ascii_case(&wanted.name)
                        && !self.used.contains(&route.name.as_str())
                        && is_removable(self.snapshot, route)
                });
                // What the node had before.
                if let Some(old) = old {
                    self.used.push(&old.name);
                    return Ok(Some(Change::Update {
                        name: old.name.clone(),
                        prefix,
                        next_hop,
                    }));
                }
                if self.room == 0 {
                    let limit = self.snapshot.settings.route_limit;
                    return Err(format!("the table is full: {limit} routes"));
                }
                self.room -= 1;
                Ok(Some(Change::Create {
                    name: self.names.take(wanted),
                    prefix,
                    next_hop,
                }))
            }
        }
    }
}

/// Routes that nodes left. A list of nodes that is empty or short of many would take the cluster's network away.
fn delete(snapshot: &Snapshot, all: &[Wanted], used: &[&str], plan: &mut Plan) {
    let routes = snapshot.table.iter().flat_map(|table| &table.routes);
    let (mut gone, mut doubtful) = (Vec::new(), Vec::new());
    for route in routes.filter(|route| !used.contains(&route.name.as_str())) {
        if is_removable(snapshot, route) {
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

fn made(name: &str, prefix: &str, next_hop: &str) -> Value {
    json!({"name": name, "properties": {
        "addressPrefix": prefix, "nextHopType": VIRTUAL_APPLIANCE, "nextHopIpAddress": next_hop}})
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
            } => routes.push(made(name, prefix, next_hop)),
            Change::Replace {
                old,
                name,
                prefix,
                next_hop,
            } => {
                routes.retain(|route| !of(route, old));
                routes.push(made(name, prefix, next_hop));
            }
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
    let to = |prefix: &str, hop: &str| Some((prefix.parse().ok()?, hop.parse().ok()?));
    let command = |change: &Change| {
        Some(match change {
            Change::Create {
                name,
                prefix,
                next_hop,
            } => {
                let (prefix, hop) = to(prefix, next_hop)?;
                vec![route_create(table, name, &prefix, hop)]
            }
            Change::Update {
                name,
                prefix,
                next_hop,
            } => {
                let (prefix, hop) = to(prefix, next_hop)?;
                vec![route_update(table, name, &prefix, hop)]
            }
            // Azure has room for one route to a prefix: first the one goes, then the other comes.
            Change::Replace {
                old,
                name,
                prefix,
                next_hop,
            } => {
                let (prefix, hop) = to(prefix, next_hop)?;
                vec![route_delete(table, old), route_create(table, name, &prefix, hop)]
            }
            Change::Delete { name, .. } => vec![route_delete(table, name)],
        })
    };
    changes.iter().filter_map(command).flatten().collect()
}
