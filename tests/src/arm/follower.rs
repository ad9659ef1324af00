//! Azure's fabric, which does what Resource Manager holds, a while after it holds it: a thread that follows a stand-in's store.

#![expect(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ipnet::IpNet;

use super::store::Store;
use super::{GROUP, NETWORK, Shared, TABLE};
use crate::lab::Cluster;

/// How often it looks.
const TICK: Duration = Duration::from_millis(10);

/// What the fabric is to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Which node a prefix is sent to.
    pub(super) routes: BTreeMap<IpNet, String>,
    /// Nodes whose interface forwards.
    forwarding: BTreeMap<String, bool>,
}

/// A thread that ends when it is dropped.
pub(super) struct Follower {
    stop: Arc<AtomicBool>,
    /// The version of the store that is in force, or why there is none.
    done: Arc<Mutex<Result<u64, String>>>,
    thread: Option<JoinHandle<()>>,
}

impl Follower {
    /// `known`: what the fabric does now. `settles`: how long a change takes to be in force.
    pub(super) fn start(
        cluster: Arc<Cluster>,
        store: Shared,
        nodes: &'static [&'static str],
        known: BTreeMap<IpNet, String>,
        settles: Duration,
    ) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let done = Arc::new(Mutex::new(Ok(0)));
        let (stopped, told) = (Arc::clone(&stop), Arc::clone(&done));
        let run = move || {
            let mut now = Wanted {
                routes: known,
                forwarding: BTreeMap::new(),
            };
            let mut next: Option<(Wanted, Instant)> = None;
            while !stopped.load(Ordering::Relaxed) {
                let (wanted, version) = {
                    let mut store = store.lock();
                    store.settle();
                    (wanted(&cluster, &store, nodes), store.version())
                };
                // From when on it is to be so.
                let since = match next.take() {
                    Some((same, since)) if same == wanted => since,
                    _ => Instant::now(),
                };
                if wanted == now || since.elapsed() >= settles {
                    let applied = apply(&cluster, &now, &wanted);
                    let failed = applied.is_err();
                    *told.lock().unwrap_or_else(PoisonError::into_inner) = applied.map(|()| version);
                    if failed {
                        return;
                    }
                    now = wanted;
                } else {
                    next = Some((wanted, since));
                }
                std::thread::sleep(TICK);
            }
        };
        let thread = std::thread::Builder::new().name("follower".into()).spawn(run);
        Self {
            stop,
            done,
            thread: Some(thread.unwrap()),
        }
    }

    /// Whether what the store held at this version is in force.
    ///
    /// # Panics
    /// If the fabric could not be changed.
    pub(super) fn has(&self, version: u64) -> bool {
        let done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        match &*done {
            Ok(done) => *done >= version,
            Err(why) => panic!("the fabric does not follow: {why}"),
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

/// The fabric does what the table says, where the subnet uses it.
fn wanted(cluster: &Cluster, store: &Store, nodes: &[&str]) -> Wanted {
    let mut wanted = Wanted::default();
    let network = store.get(NETWORK);
    let used = network.is_some_and(|network| {
        network["properties"]["subnets"][0]["properties"]["routeTable"]["id"].is_string()
    });
    let table = store.get(TABLE).filter(|_| used);
    let routes = table.and_then(|table| table["properties"]["routes"].as_array());
    for route in routes.into_iter().flatten() {
        let properties = &route["properties"];
        let Some(prefix) = properties["addressPrefix"]
            .as_str()
            .and_then(|text| text.parse().ok())
        else {
            continue;
        };
        let hop = properties["nextHopIpAddress"].as_str().unwrap_or_default();
        let owner = nodes.iter().find(|name| {
            let ips = cluster.node(name).unwrap().ips();
            ips.iter().any(|ip| ip.to_string() == hop)
        });
        if let Some(owner) = owner.filter(|_| properties["nextHopType"] == "VirtualAppliance") {
            wanted.routes.insert(prefix, (*owner).to_owned());
        }
    }
    for name in nodes {
        let nic = store.get(&format!("{GROUP}/Microsoft.Network/networkInterfaces/nic-{name}"));
        let of_set = store.get(&super::world::set_nic(name));
        let on = [nic, of_set]
            .into_iter()
            .flatten()
            .any(|nic| nic["properties"]["enableIPForwarding"] == true);
        wanted.forwarding.insert((*name).to_owned(), on);
    }
    wanted
}

fn apply(cluster: &Cluster, now: &Wanted, wanted: &Wanted) -> Result<(), String> {
    let text = |error: crate::lab::LabError| error.to_string();
    for (prefix, name) in &now.routes {
        if wanted.routes.get(prefix) != Some(name) {
            let node = cluster.node(name).map_err(text)?;
            cluster.fabric.remove_route(*prefix, node).map_err(text)?;
        }
    }
    for (prefix, name) in &wanted.routes {
        if now.routes.get(prefix) != Some(name) {
            let node = cluster.node(name).map_err(text)?;
            cluster.fabric.add_route(*prefix, node).map_err(text)?;
        }
    }
    for (name, on) in &wanted.forwarding {
        if now.forwarding.get(name) != Some(on) {
            let node = cluster.node(name).map_err(text)?;
            cluster.fabric.set_ip_forwarding(node, *on).map_err(text)?;
        }
    }
    Ok(())
}
