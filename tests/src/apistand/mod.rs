//! A stand-in for a Kubernetes API server, in memory, on loopback.
//!
//! It serves discovery, lists with pages, and watches with bookmarks, as clients see them; and it misbehaves on demand: versions
//! that are too old, connections that go silent, refusals, and no answer at all. Objects and events are kept as they are sent, and shared,
//! so that it can serve a large cluster's objects to thousands of watchers.

mod answer;
mod connection;
mod protobuf;
mod store;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::watch;

pub use store::Resource;
use store::Store;

/// What goes wrong.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// No connection is taken, and those there are end.
    pub away: bool,
    /// Paths of resources that may not be listed or watched.
    pub forbidden: Vec<String>,
    /// Status that every request for these paths gets.
    pub status: Option<(u16, Vec<String>)>,
    /// Lists, and watches that begin with one, take so long.
    pub slow: Duration,
    /// What watches begin with is not told by watch: clients have to list.
    pub no_streams: bool,
    /// It answers in JSON, whatever is asked for.
    pub no_protobuf: bool,
}

struct Shared {
    store: Mutex<Store>,
    faults: Mutex<Faults>,
    /// Changes when connections have to look up.
    disturbance: watch::Sender<Disturbance>,
    lists: AtomicU64,
    watches: AtomicU64,
    binary: AtomicU64,
}

/// How often connections were ended, and how often they went silent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Disturbance {
    closed: u64,
    silent: u64,
}

/// A server that ends when it is dropped.
pub struct ApiStand {
    address: SocketAddr,
    shared: Arc<Shared>,
    /// Dropped last.
    runtime: Option<Runtime>,
}

/// How often watches send a bookmark.
const BOOKMARKS: Duration = Duration::from_millis(200);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ApiStand {
    /// Starts one that serves Kubernetes' own kinds.
    ///
    /// # Errors
    /// If there is no port or no thread for it.
    pub fn start() -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("apistand")
            .enable_all()
            .build()?;
        let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            store: Mutex::default(),
            faults: Mutex::default(),
            disturbance: watch::channel(Disturbance::default()).0,
            lists: AtomicU64::new(0),
            watches: AtomicU64::new(0),
            binary: AtomicU64::new(0),
        });
        runtime.spawn(connection::accept(listener, Arc::clone(&shared)));
        let stand = Self {
            address,
            shared,
            runtime: Some(runtime),
        };
        for (version, kind) in [
            ("v1", "Namespace"),
            ("v1", "ServiceAccount"),
            ("v1", "Pod"),
            ("v1", "Node"),
            ("v1", "Service"),
            ("v1", "Endpoints"),
            ("discovery.k8s.io/v1", "EndpointSlice"),
            ("networking.k8s.io/v1", "NetworkPolicy"),
            ("apiextensions.k8s.io/v1", "CustomResourceDefinition"),
        ] {
            stand.serve(version, kind);
        }
        Ok(stand)
    }

    /// Serves a kind from now on.
    pub fn serve(&self, api_version: &str, kind: &str) {
        lock(&self.shared.store).serve(Resource::new(api_version, kind));
    }

    /// Serves a kind no longer; what there was of it is forgotten.
    pub fn withdraw(&self, api_version: &str, kind: &str) {
        lock(&self.shared.store).withdraw(&Resource::new(api_version, kind).path());
    }

    /// Installs a CustomResourceDefinition.
    pub fn define(&self, api_version: &str, kind: &str) {
        self.serve(api_version, kind);
        self.put(&definition(api_version, kind));
    }

    /// Removes a CustomResourceDefinition, and the objects of its kind before it.
    pub fn undefine(&self, api_version: &str, kind: &str) {
        lock(&self.shared.store).clear(&Resource::new(api_version, kind).path());
        self.withdraw(api_version, kind);
        self.delete(&definition(api_version, kind));
    }

    /// Creates or replaces an object.
    pub fn put(&self, object: &Value) {
        lock(&self.shared.store).put(object);
    }

    /// Deletes an object; of it only the names are looked at.
    pub fn delete(&self, object: &Value) {
        lock(&self.shared.store).delete(object);
    }

    /// Forgets what happened: who does not know it by now has to list.
    pub fn compact(&self) {
        lock(&self.shared.store).compact();
    }

    /// Every object that is served, as text.
    #[must_use]
    pub fn objects(&self) -> Vec<Arc<str>> {
        lock(&self.shared.store).objects()
    }

    /// Gets everything ready to be told. To do so afterwards costs a process that has started another a copy of each page that it touches.
    pub fn warm(&self) {
        for shelf in lock(&self.shared.store).shelves.values_mut() {
            drop(shelf.snapshot());
        }
    }

    pub fn faults(&self, edit: impl FnOnce(&mut Faults)) {
        edit(&mut lock(&self.shared.faults));
    }

    /// Goes away, or comes back.
    pub fn set_away(&self, away: bool) {
        self.faults(|faults| faults.away = away);
        self.close();
    }

    /// Ends every connection.
    pub fn close(&self) {
        self.shared.disturbance.send_modify(|now| now.closed += 1);
    }

    /// Every connection that there is stays open, and nothing comes over it any more.
    pub fn silence(&self) {
        self.shared.disturbance.send_modify(|now| now.silent += 1);
    }

    /// Lists begun so far, be it as the beginning of a watch.
    #[must_use]
    pub fn lists(&self) -> u64 {
        self.shared.lists.load(Ordering::Relaxed)
    }

    /// Watches begun so far.
    #[must_use]
    pub fn watches(&self) -> u64 {
        self.shared.watches.load(Ordering::Relaxed)
    }

    /// Lists and watches that were answered in Protobuf so far.
    #[must_use]
    pub fn binary_answers(&self) -> u64 {
        self.shared.binary.load(Ordering::Relaxed)
    }

    /// What a client needs to know, in kubectl's form.
    #[must_use]
    pub fn kubeconfig(&self) -> String {
        json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "stand",
            "clusters": [{"name": "stand", "cluster": {"server": format!("http://{}", self.address)}}],
            "users": [{"name": "stand", "user": {"token": "a token"}}],
            "contexts": [{"name": "stand", "context": {"cluster": "stand", "user": "stand"}}],
        })
        .to_string()
    }
}

impl Drop for ApiStand {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn definition(api_version: &str, kind: &str) -> Value {
    let resource = Resource::new(api_version, kind);
    let group = api_version.split_once('/').map_or("", |(group, _)| group);
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{}.{group}", resource.plural())},
        "spec": {"group": group, "names": {"kind": kind, "plural": resource.plural()}},
    })
}
