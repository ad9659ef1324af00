//! ARM for those without an event loop: reads a snapshot.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};

use super::{Arm, ArmError, Remaining, Timing};
use crate::azure::config::CloudConfig;
use crate::azure::network::{Found, Network, find};
use crate::azure::nodes::NodeState;
use crate::azure::resource::Id;
use crate::azure::security::SecurityGroup;
use crate::azure::snapshot::{Settings, Snapshot};

/// A client and the loop that it runs on.
pub struct Session {
    pub(super) arm: Arm,
    pub(super) runtime: Runtime,
    pub(super) timing: Timing,
    config: CloudConfig,
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
    #[error("nodes: {0}")]
    Nodes(String),
    #[error(
        "a cloud controller makes this cluster's routes: node {0} has the condition NetworkUnavailable for the reason RouteCreated or \
         NoRouteCreated. Two writers would undo each other's work; with --beside-cloud-controller only what is missing or wrong is written"
    )]
    Others(String),
    #[error("stopped: {0}")]
    Stopped(String),
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

    /// Reads all that an audit looks at: the route table first, then the nodes. So a node that a route of the table was made for is among
    /// them, or gone. `effective`: nodes at whose interfaces the fabric is asked what it does.
    ///
    /// # Errors
    /// If the route table, where there has to be one, or the nodes cannot be read. What else cannot be is named in the answer.
    pub fn gather(
        &self,
        nodes: impl FnOnce() -> Result<Vec<NodeState>, String>,
        settings: Settings,
        effective: &[String],
    ) -> Result<Gathered, SessionError> {
        let named = settings.network.map(Found::named);
        let table_id = self.config.route_table_id();
        let may_need = named.as_ref().is_none_or(|found| found.network.needs_routes());
        // Whether it matters that it cannot be read, the nodes say.
        let table = table_id.as_ref().filter(|_| may_need);
        let table = table.map(|id| self.runtime.block_on(self.arm.route_table(id)));
        let nodes = nodes().map_err(SessionError::Nodes)?;
        let networking = named.unwrap_or_else(|| find(&nodes, table_id.as_ref().map(Id::name)));
        let mut snapshot = Snapshot {
            nodes,
            networking,
            location: self.config.location.clone(),
            settings,
            ..Snapshot::default()
        };
        if snapshot.networking.network.needs_routes() {
            snapshot.table_id = table_id.ok_or(SessionError::NoTable)?;
            snapshot.table = table.transpose()?.flatten();
        }
        let mut unread = Vec::new();
        self.runtime
            .block_on(self.interfaces(&mut snapshot, effective, &mut unread));
        Ok(Gathered { snapshot, unread })
    }

    /// Requests that ARM will still take, by its last answers.
    #[must_use]
    pub fn remaining(&self) -> Remaining {
        self.arm.remaining()
    }

    async fn interfaces(&self, snapshot: &mut Snapshot, effective: &[String], unread: &mut Vec<String>) {
        let config = &self.config;
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
        if snapshot.networking.network == Network::Flannel {
            self.security(snapshot, unread).await;
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
    }

    /// Only tunnels are judged by them.
    async fn security(&self, snapshot: &mut Snapshot, unread: &mut Vec<String>) {
        let of_nodes = snapshot.nodes.iter().flat_map(|node| snapshot.security_of(node));
        let ids: BTreeSet<Id> = of_nodes.cloned().collect();
        for id in ids {
            match self.arm.security_group(&id).await {
                // Others may write its id in another case.
                Ok(Some(group)) => drop(
                    snapshot
                        .security
                        .insert(id.clone(), SecurityGroup { id, ..group }),
                ),
                Ok(None) => unread.push(format!("security group {}: there is none", id.name())),
                Err(error) => unread.push(format!("security group {}: {error}", id.name())),
            }
        }
    }
}
