//! ARM for those without an event loop: reads a snapshot, brings the table in step.

use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Runtime};
use tokio::time::sleep;

use super::{Arm, ArmError, Timing};
use crate::azure::config::CloudConfig;
use crate::azure::nodes::NodeState;
use crate::azure::plan::{Change, Plan, applied, plan};
use crate::azure::resource::Id;
use crate::azure::snapshot::{Settings, Snapshot};

/// Somebody else changed the table between our reading and writing it, so often in a row: they are at work, and we are in their way.
const CONTESTED: u32 = 8;

/// A client and the loop that it runs on.
pub struct Session {
    arm: Arm,
    runtime: Runtime,
    config: CloudConfig,
    timing: Timing,
}

/// What cannot be looked at, or written.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    #[error(transparent)]
    Arm(#[from] ArmError),
    #[error("routeTableName is missing: without it there are no routes to look at")]
    NoTable,
    #[error("there is no route table {0}")]
    TableGone(Id),
    #[error(
        "somebody else changed the route table {0} times in a row while it was about to be written: stepping back"
    )]
    Contested(u32),
    #[error("the route table is not in step after {} s; the last failure: {last}", .after.as_secs())]
    Late { after: Duration, last: String },
    #[error("cannot start an event loop: {0}")]
    Start(#[from] std::io::Error),
}

/// A snapshot, and what could not be looked at.
#[derive(Debug)]
pub struct Gathered {
    pub snapshot: Snapshot,
    /// In words: what, and why.
    pub unread: Vec<String>,
}

/// What writing came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// What was changed, as far as we did it, in order.
    pub changes: Vec<Change>,
    /// What was not ours to change.
    pub left: Plan,
    /// Writes that ARM took, and those that did not get through.
    pub writes: u32,
    pub failures: u32,
}

impl Session {
    /// A client of the cloud that the file names.
    ///
    /// # Errors
    /// [`SessionError`].
    pub fn new(
        config: CloudConfig,
        timing: Timing,
        env: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, SessionError> {
        Ok(Self {
            arm: Arm::new(&config, timing, env)?,
            runtime: Builder::new_current_thread().enable_all().build()?,
            config,
            timing,
        })
    }

    /// Reads all that an audit looks at. `effective`: nodes at whose interfaces the fabric is asked what it does.
    ///
    /// # Errors
    /// If the route table cannot be read. What else cannot be is named in the answer.
    pub fn gather(
        &self,
        nodes: Vec<NodeState>,
        settings: Settings,
        effective: &[String],
    ) -> Result<Gathered, SessionError> {
        self.runtime.block_on(async {
            let config = &self.config;
            let table_id = config.route_table_id().ok_or(SessionError::NoTable)?;
            let mut unread = Vec::new();
            let mut snapshot = Snapshot {
                nodes,
                table: self.arm.route_table(&table_id).await?,
                table_id,
                location: config.location.clone(),
                settings,
                ..Snapshot::default()
            };
            match config.vnet_id() {
                None => unread.push("the virtual network: vnetName is missing".to_owned()),
                Some(id) => match self.arm.network(&id).await {
                    Ok(Some(network)) => snapshot.networks.push(network),
                    Ok(None) => unread.push(format!("the virtual network: there is no {id}")),
                    Err(error) => unread.push(format!("the virtual network: {error}")),
                },
            }
            match self.arm.nics(&config.subscription, &config.resource_group).await {
                Ok(nics) => snapshot.nics = Some(nics),
                Err(error) => unread.push(format!("network interfaces: {error}")),
            }
            for name in effective {
                let node = snapshot.nodes.iter().find(|node| node.name == *name);
                let Some(nic) = node.and_then(|node| snapshot.nic(node)) else {
                    unread.push(format!(
                        "effective routes of node {name}: no such node, or no interface of it"
                    ));
                    continue;
                };
                let id = nic.id.clone();
                match self.arm.effective_routes(&id).await {
                    Ok(routes) => drop(snapshot.effective.insert(id, routes)),
                    Err(error) => unread.push(format!("effective routes of node {name}: {error}")),
                }
            }
            Ok(Gathered { snapshot, unread })
        })
    }

    /// Writes what the plan says, reads the table again, and so on until there is nothing to write. Each write is of the whole
    /// table and only if nobody else has changed it since it was read; one that was not answered is not repeated, but looked for.
    ///
    /// # Errors
    /// [`SessionError`]; what was written until then stays.
    pub fn reconcile(
        &self,
        mut snapshot: Snapshot,
        deletions: bool,
        patience: Duration,
    ) -> Result<Written, SessionError> {
        self.runtime.block_on(async {
            let begun = Instant::now();
            let id = snapshot.table_id.clone();
            // The nodes are those of the beginning; what others add for newer ones is not stale.
            let first = snapshot.table.iter().flat_map(|table| &table.routes);
            let first: Vec<String> = first
                .map(|route| route.name.clone())
                .filter(|_| deletions)
                .collect();
            let mut written = Written::default();
            let mut contested = 0;
            let mut last = "none".to_owned();
            loop {
                let failed = match self.arm.route_table(&id).await {
                    Ok(table) => {
                        let table = table.ok_or_else(|| SessionError::TableGone(id.clone()))?;
                        snapshot.table = Some(table.clone());
                        let now = plan(&snapshot).deleting_only(&first);
                        if now.changes.is_empty() {
                            written.left = now;
                            return Ok(written);
                        }
                        let body = applied(table.body, &now.changes);
                        match self.arm.put_route_table(&id, &body, &table.etag).await {
                            Ok(()) => {
                                written.writes += 1;
                                contested = 0;
                                written.changes.extend(now.changes);
                                None
                            }
                            Err(error) => Some(error),
                        }
                    }
                    Err(error) => Some(error),
                };
                if let Some(error) = failed {
                    written.failures += 1;
                    if !error.passes() {
                        return Err(error.into());
                    }
                    contested = match error {
                        ArmError::Changed { .. } => contested + 1,
                        _ => contested,
                    };
                    if contested == CONTESTED {
                        return Err(SessionError::Contested(CONTESTED));
                    }
                    last = error.to_string();
                    let wait = match error {
                        ArmError::Throttled { wait, .. } => wait,
                        ArmError::Changed { .. } => self.timing.pause / 4,
                        _ => self.timing.pause,
                    };
                    sleep(wait).await;
                }
                if begun.elapsed() > patience {
                    return Err(SessionError::Late {
                        after: begun.elapsed(),
                        last,
                    });
                }
            }
        })
    }
}
