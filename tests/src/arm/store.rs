//! Resources, operations, tokens, and what goes wrong.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// What happens to the next write instead of what was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Somebody else was quicker.
    Changed,
    /// 429, with so many seconds to wait.
    Throttled(u64),
    /// It is done, and nobody says so.
    DoneWithoutAnswer,
    /// It is not done, and nobody says so.
    NotDone,
    /// An answer with this status and nothing done.
    Status(u16),
    /// It is accepted, its operation succeeds, and nothing is done.
    Lost,
}

/// One write that was taken, or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub method: String,
    pub path: String,
    pub status: u16,
}

/// Something that takes a while.
struct Operation {
    ends: Instant,
    /// What it will have written, until it has.
    write: Option<(String, Value)>,
    result: Value,
}

/// What an answer to a question that takes a while says, and what its result is.
#[derive(Clone, Copy, Debug)]
pub struct Results {
    /// It has `Azure-AsyncOperation`, and `Location`. ARM's own has both.
    pub operation: bool,
    pub location: bool,
    /// The result is what was asked for.
    pub whole: bool,
}

/// Everything that the stand-in knows.
pub struct Store {
    pub(super) base: String,
    /// By lower-case id.
    resources: BTreeMap<String, Value>,
    version: u64,
    operations: BTreeMap<String, Operation>,
    /// How long an operation takes until it is in force.
    pub settles: Duration,
    /// Faults for writes, first come first served.
    pub write_faults: VecDeque<Fault>,
    /// Statuses for the next reads.
    pub read_faults: VecDeque<u16>,
    /// Paths that may not be read, by a part of them.
    pub forbidden: Vec<String>,
    /// Resources of a page of a list.
    pub page: usize,
    pub route_limit: usize,
    pub seen: Vec<Seen>,
    pub(super) tokens: Vec<String>,
    /// Tokens that were given out.
    pub granted: usize,
    /// What the fabric says, by network interface.
    pub effective: BTreeMap<String, Value>,
    /// What the cluster's token says, that is exchanged.
    pub assertion: String,
    pub results: Results,
    /// What the metadata service was asked, each time.
    pub identities: Vec<String>,
    /// Requests that it will still take, as its answers say.
    pub remaining: Option<u64>,
}

impl Store {
    pub(super) fn new(base: String) -> Self {
        Self {
            base,
            resources: BTreeMap::new(),
            version: 0,
            operations: BTreeMap::new(),
            settles: Duration::ZERO,
            write_faults: VecDeque::new(),
            read_faults: VecDeque::new(),
            forbidden: Vec::new(),
            page: usize::MAX,
            route_limit: 1000,
            seen: Vec::new(),
            tokens: Vec::new(),
            granted: 0,
            effective: BTreeMap::new(),
            assertion: "assertion".into(),
            results: Results {
                operation: true,
                location: true,
                whole: true,
            },
            identities: Vec::new(),
            remaining: None,
        }
    }

    /// Writes a resource, as somebody with a portal would.
    pub fn put(&mut self, id: &str, mut body: Value) {
        self.version += 1;
        let etag = format!("W/\"00000000-0000-0000-0000-{:012}\"", self.version);
        let mut parts = id.rsplit('/');
        body["name"] = json!(parts.next().unwrap_or_default());
        body["id"] = json!(id);
        body["etag"] = json!(etag);
        body["properties"]["provisioningState"] = json!("Succeeded");
        if let Some(routes) = body["properties"]["routes"].as_array_mut() {
            for route in routes {
                let name = route["name"].as_str().unwrap_or_default().to_owned();
                route["id"] = json!(format!("{id}/routes/{name}"));
                route["etag"] = json!(etag);
                route["properties"]["provisioningState"] = json!("Succeeded");
            }
        }
        self.resources.insert(id.to_ascii_lowercase(), body);
    }

    /// A resource.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<&Value> {
        self.resources.get(&id.to_ascii_lowercase())
    }

    /// Whether there is a resource in the group that the path is in.
    pub(super) fn has_group(&self, path: &str) -> bool {
        let path = path.to_ascii_lowercase();
        let Some((group, _)) = path.split_once("/providers/") else {
            return false;
        };
        let group = format!("{group}/");
        self.resources.keys().any(|id| id.starts_with(&group))
    }

    /// Changes with everything that is written.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Whether an operation is going on that will have written it.
    pub(super) fn is_busy(&self, id: &str) -> bool {
        let mut writes = self
            .operations
            .values()
            .filter_map(|operation| operation.write.as_ref());
        writes.any(|(other, _)| other.eq_ignore_ascii_case(id))
    }

    /// Changes a resource in place, and so its ETag, after what is going on.
    ///
    /// # Errors
    /// If there is none.
    pub fn change(&mut self, id: &str, change: impl FnOnce(&mut Value)) -> Result<(), String> {
        let writes = self.operations.values_mut().filter_map(|operation| {
            let own = operation
                .write
                .as_ref()
                .is_some_and(|(other, _)| other.eq_ignore_ascii_case(id));
            if own { operation.write.take() } else { None }
        });
        let writes: Vec<_> = writes.collect();
        for (id, body) in writes {
            self.put(&id, body);
        }
        let mut body = self.get(id).cloned().ok_or_else(|| format!("there is no {id}"))?;
        change(&mut body);
        let id = body["id"].as_str().unwrap_or(id).to_owned();
        self.put(&id, body);
        Ok(())
    }

    /// Removes a resource.
    pub fn remove(&mut self, id: &str) {
        self.resources.remove(&id.to_ascii_lowercase());
    }

    /// Tokens that were given out are no good any more.
    pub fn remove_tokens(&mut self) {
        self.tokens.clear();
    }

    /// Name, prefix and next hop of a table's routes, by name.
    #[must_use]
    pub fn routes(&self, table: &str) -> Vec<(String, String, String)> {
        let routes = self
            .get(table)
            .and_then(|table| table["properties"]["routes"].as_array());
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let mut routes: Vec<_> = routes
            .into_iter()
            .flatten()
            .map(|route| {
                let properties = &route["properties"];
                let hop = text(&properties["nextHopIpAddress"]);
                (text(&route["name"]), text(&properties["addressPrefix"]), hop)
            })
            .collect();
        routes.sort();
        routes
    }

    pub(super) fn children(&self, collection: &str) -> Vec<&Value> {
        let collection = collection.to_ascii_lowercase();
        // A scale set lists its machines' interfaces as its own.
        if let Some(set) = collection.strip_suffix("/networkinterfaces")
            && set.contains("/virtualmachinescalesets/")
        {
            let of = self
                .resources
                .iter()
                .filter(|(id, _)| id.starts_with(&format!("{set}/")));
            return of
                .filter(|(id, _)| id.contains("/networkinterfaces/"))
                .map(|(_, body)| body)
                .collect();
        }
        let prefix = format!("{collection}/");
        let of = self.resources.range(prefix.clone()..);
        of.take_while(|(id, _)| id.starts_with(&prefix))
            .filter(|(id, _)| !id.trim_start_matches(&prefix).contains('/'))
            .map(|(_, body)| body)
            .collect()
    }

    /// Begins an operation that will have written `write` when it is over, and ends with `result`.
    pub(super) fn begin(&mut self, write: Option<(String, Value)>, result: Value) -> String {
        self.version += 1;
        let name = format!("op-{}", self.version);
        let ends = Instant::now() + self.settles;
        self.operations
            .insert(name.clone(), Operation { ends, write, result });
        name
    }

    /// An operation's result, once it is over.
    pub(super) fn operation(&mut self, name: &str) -> Option<Option<Value>> {
        self.settle();
        let Operation { ends, result, .. } = self.operations.get(name)?;
        Some((Instant::now() >= *ends).then(|| result.clone()))
    }

    /// What is over is in force.
    pub fn settle(&mut self) {
        let now = Instant::now();
        let over = self
            .operations
            .values_mut()
            .filter(|operation| operation.ends <= now);
        let writes: Vec<_> = over.filter_map(|operation| operation.write.take()).collect();
        for (id, body) in writes {
            self.put(&id, body);
        }
    }
}

/// Why ARM would not take such a table.
pub(super) fn conflict(body: &Value, limit: usize) -> Option<(&'static str, String)> {
    let routes = body["properties"]["routes"].as_array()?;
    let mut prefixes: Vec<&str> = routes
        .iter()
        .filter_map(|route| route["properties"]["addressPrefix"].as_str())
        .collect();
    if prefixes.len() != routes.len() {
        return Some(("InvalidRequestFormat", "a route has no addressPrefix".into()));
    }
    prefixes.sort_unstable();
    if let Some(twice) = prefixes.windows(2).find(|two| two[0] == two[1]) {
        let message = format!("Routes cannot have the same AddressPrefix {}", twice[0]);
        return Some(("RouteConflict", message));
    }
    let mut names: Vec<String> = routes
        .iter()
        .filter_map(|route| Some(route["name"].as_str()?.to_ascii_lowercase()))
        .collect();
    names.sort_unstable();
    if names.windows(2).any(|two| two[0] == two[1]) {
        return Some(("InvalidRequestFormat", "two routes have one name".into()));
    }
    (routes.len() > limit).then(|| ("ResourceCountExceedsLimit", format!("more than {limit} routes")))
}
