//! A live Kubernetes API.
//!
//! ```text
//! catalog ── served          which kinds there are, and from which API each is read
//!    └─ follow ─┬ wire       list and watch of one resource; what the server sends, in JSON
//!         │     ├ protobuf   … and in Protobuf
//!         │     └ client     requests over one connection
//!         └─ table ── hub    objects of one kind; what changed in all, and what is wrong
//! ```
//!
//! Never forgets on a whim: objects go when the server says so, or when a list without them is complete. A server that does
//! not answer, answers nonsense, or refuses, changes nothing. All of this is one thread, with the only event loop there is.

mod backoff;
mod catalog;
mod client;
mod definitions;
mod follow;
mod help;
mod hub;
mod lease;
mod nodes;
mod protobuf;
mod served;
mod session;
mod starting;
mod status;
mod table;
mod wire;

use std::cell::RefCell;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::thread;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::Notify;
use tokio::task::LocalSet;
use tokio::time::{Instant, timeout, timeout_at};

use self::catalog::Catalog;
use self::client::Api;
use self::hub::Hub;
use super::Event;

pub use lease::LeaseName;
pub use nodes::{NodesError, nodes};
pub use session::{Leading, Notice, Session, elect};
pub use status::{KindStatus, KubeStatus};

/// Where the API server is, and how patient to be with it.
#[derive(Clone, Debug, Default)]
pub struct KubeConfig {
    /// A kubeconfig file, or several with colons between; `None`: what pods are given.
    pub kubeconfig: Option<PathBuf>,
    /// A context other than the current one.
    pub context: Option<String>,
    pub timing: Timing,
}

/// How long things may take.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Bounds of what a watch asks the server to last. Below the 240 s after which Azure's load balancer forgets a silent connection.
    pub watch_least: Duration,
    pub watch_most: Duration,
    /// A connection on which nothing was heard for so long is dead. Servers send a bookmark each minute or so.
    pub idle: Duration,
    /// An answer must have begun by then; API servers give up a request of their own accord after a minute.
    pub answer: Duration,
    /// Waits after the first failure, and after many.
    pub first_retry: Duration,
    pub last_retry: Duration,
    /// Between a word about a CustomResourceDefinition and a look at what is served.
    pub settle: Duration,
    /// Between two such looks where definitions may not be watched, and where they are.
    pub poll: Duration,
    pub seldom: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            watch_least: Duration::from_secs(150),
            watch_most: Duration::from_secs(220),
            idle: Duration::from_secs(120),
            answer: Duration::from_secs(70),
            first_retry: Duration::from_millis(250),
            last_retry: Duration::from_secs(30),
            settle: Duration::from_millis(200),
            poll: Duration::from_secs(10),
            seldom: Duration::from_secs(300),
        }
    }
}

/// The API server cannot be reached with what the agent was given.
#[derive(Debug, thiserror::Error)]
pub enum KubeError {
    #[error("{path}: {message}: expected a kubeconfig file", path = path.display())]
    Kubeconfig { path: PathBuf, message: String },
    #[error("{0}: this is no pod with a service account; name a kubeconfig file with --kubeconfig")]
    NotInCluster(String),
    #[error("{0}")]
    Unusable(String),
    #[error("cannot start the thread that follows the API server: {0}")]
    Start(#[source] std::io::Error),
}

/// A burst of changes is over when there was none for this long…
const QUIET: Duration = Duration::from_millis(5);
/// …or when it has lasted this long…
const BURST: Duration = Duration::from_millis(50);
/// …or, while there is nothing yet that they could change by halves, when they are so many.
const CHUNK: usize = 1000;
/// How often to see whether anybody still wants to know.
const STOP: Duration = Duration::from_millis(250);

/// Sends what the API server holds and then each change, from a thread of its own, until the receiver is gone.
///
/// # Errors
/// If the configuration cannot be used. An API server that does not answer is waited for.
pub fn watch<E>(config: &KubeConfig, events: Sender<E>) -> Result<Arc<KubeStatus>, KubeError>
where
    E: From<Vec<Event>> + Send + 'static,
{
    watch_until(config, events, Arc::default())
}

/// Like [`watch`], and ends soon after `stop` is set.
///
/// # Errors
/// As [`watch`].
pub fn watch_until<E>(
    config: &KubeConfig,
    events: Sender<E>,
    stop: Arc<AtomicBool>,
) -> Result<Arc<KubeStatus>, KubeError>
where
    E: From<Vec<Event>> + Send + 'static,
{
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(KubeError::Start)?;
    let timing = config.timing;
    let api = runtime.block_on(Api::connect(config))?;
    let status = Arc::new(KubeStatus::default());
    let shared = Arc::clone(&status);
    thread::Builder::new()
        .name("kube".into())
        .spawn(move || run(&runtime, api, timing, &shared, &events, &stop))
        .map_err(KubeError::Start)?;
    Ok(status)
}

fn run<E: From<Vec<Event>>>(
    runtime: &Runtime,
    api: Api,
    timing: Timing,
    status: &Arc<KubeStatus>,
    events: &Sender<E>,
    stop: &AtomicBool,
) {
    let hub = Rc::new(RefCell::new(Hub::default()));
    let local = LocalSet::new();
    let catalog = Catalog::new(api, timing, Rc::clone(&hub), Arc::clone(status));
    local.spawn_local(catalog.run());
    local.block_on(runtime, send(&hub, status, events, stop));
}

/// Passes on what comes together as one message, until nobody wants it any more.
async fn send<E: From<Vec<Event>>>(
    hub: &RefCell<Hub>,
    status: &KubeStatus,
    events: &Sender<E>,
    stop: &AtomicBool,
) {
    let wake = Rc::clone(&hub.borrow().wake);
    while !stop.load(Ordering::Relaxed) {
        if timeout(STOP, wake.notified()).await.is_err() {
            continue;
        }
        burst(hub, &wake).await;
        let found = hub.borrow_mut().take();
        if found.iter().any(|event| matches!(event, Event::InSync)) {
            status.set_in_sync();
        }
        if !found.is_empty() && events.send(E::from(found)).is_err() {
            return;
        }
    }
}

async fn burst(hub: &RefCell<Hub>, wake: &Notify) {
    let end = Instant::now() + BURST;
    loop {
        let is_chunk = !hub.borrow().is_in_sync() && hub.borrow().pending() >= CHUNK;
        let quiet = end.min(Instant::now() + QUIET);
        if is_chunk || timeout_at(quiet, wake.notified()).await.is_err() || Instant::now() >= end {
            return;
        }
    }
}
