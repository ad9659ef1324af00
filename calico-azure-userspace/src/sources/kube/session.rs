//! An API server for those without an event loop: the nodes, a Lease, events about what was found.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use http::Method;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};

use super::client::Api;
use super::lease::{Candidate, LASTS, LeaseName};
use super::nodes::{NodesError, list};
use super::{KubeConfig, KubeError};

/// How often a Lease is looked at; Kubernetes' own components do so every 2 s.
const RENEW: Duration = Duration::from_secs(2);
/// Before somebody else may think that we are gone, we think so ourselves.
const TRUST: Duration = Duration::from_secs(10);

/// A client and the loop that it runs on.
pub struct Session {
    api: Api,
    runtime: Runtime,
}

/// About an object of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// A Node, or `None` for the cluster as a whole.
    pub node: Option<String>,
    /// `RouteMissing`.
    pub reason: String,
    pub message: String,
    /// Else it is good news.
    pub warning: bool,
}

/// Bytes of an event's message that API servers take.
const MESSAGE: usize = 1024;

impl Session {
    /// A client of the API server that the configuration names.
    ///
    /// # Errors
    /// [`KubeError`].
    pub fn new(config: &KubeConfig) -> Result<Self, KubeError> {
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(KubeError::Start)?;
        let api = runtime.block_on(Api::connect(config))?;
        Ok(Self { api, runtime })
    }

    /// Every Node object.
    ///
    /// # Errors
    /// [`NodesError`].
    pub fn nodes(&self) -> Result<Vec<Value>, NodesError> {
        let nodes = self.runtime.block_on(list(&self.api));
        nodes.map_err(|error| NodesError::List(error.to_string()))
    }

    /// Writes an event. `who`: the component, and its instance.
    ///
    /// # Errors
    /// In words.
    pub fn tell(&self, notice: &Notice, (component, instance): (&str, &str)) -> Result<(), String> {
        const EVENTS: &str = "/api/v1/namespaces/default/events";
        let event = event(notice, component, instance);
        let written = self
            .runtime
            .block_on(self.api.write(Method::POST, EVENTS, &event));
        written.map(drop).map_err(|error| error.to_string())
    }
}

fn event(notice: &Notice, component: &str, instance: &str) -> Value {
    let now = Timestamp::now();
    let second = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let (kind, name) = match &notice.node {
        Some(node) => ("Node", node.as_str()),
        None => ("Namespace", "default"),
    };
    let mut message = notice.message.clone();
    while message.len() > MESSAGE {
        message.pop();
    }
    json!({
        "apiVersion": "v1", "kind": "Event",
        // As client-go names them.
        "metadata": {"namespace": "default", "name": format!("{name}.{:x}", now.as_nanosecond())},
        // `kubectl describe node` looks for events about the node's name as an id, as the kubelet writes them.
        "involvedObject": {"apiVersion": "v1", "kind": kind, "name": name, "uid": name},
        "reason": notice.reason, "message": message,
        "type": if notice.warning { "Warning" } else { "Normal" },
        "source": {"component": component}, "reportingComponent": component, "reportingInstance": instance,
        "firstTimestamp": second, "lastTimestamp": second, "count": 1,
    })
}

/// Whether we lead, as long as somebody renews it.
#[derive(Debug)]
pub struct Leading {
    /// Renewed at, in seconds after `begun`, plus one; 0: we do not lead.
    renewed: std::sync::atomic::AtomicU64,
    begun: Instant,
    stop: AtomicBool,
}

impl Leading {
    /// Whether we do at this moment.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        match self.renewed.load(Ordering::Acquire) {
            0 => false,
            renewed => self.begun.elapsed() < Duration::from_secs(renewed) + TRUST,
        }
    }

    /// Lets go of it, soon.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
    }
}

/// Stands for election from now on, on a thread of its own; joined, it has let go of the Lease.
///
/// # Errors
/// [`KubeError`].
pub fn elect(
    config: &KubeConfig,
    name: LeaseName,
) -> Result<(Arc<Leading>, thread::JoinHandle<()>), KubeError> {
    let session = Session::new(config)?;
    let leading = Arc::new(Leading {
        renewed: 0.into(),
        begun: Instant::now(),
        stop: AtomicBool::new(false),
    });
    let shared = Arc::clone(&leading);
    let run = move || {
        let mut candidate = Candidate::new(name);
        let mut said = String::new();
        while !shared.stop.load(Ordering::Acquire) {
            let asked = shared.begun.elapsed().as_secs();
            match session.runtime.block_on(candidate.step(&session.api)) {
                Ok(ours) => {
                    let was = shared
                        .renewed
                        .swap(if ours { asked + 1 } else { 0 }, Ordering::AcqRel);
                    if ours != (was != 0) {
                        tracing::info!(leads = ours, "the Lease has changed hands");
                    }
                    said.clear();
                }
                // What we have we keep until it is too old.
                Err(error) => {
                    let text = error.to_string();
                    if text != said {
                        tracing::warn!("the Lease: {text}");
                        said = text;
                    }
                }
            }
            let until = Instant::now() + RENEW;
            while Instant::now() < until && !shared.stop.load(Ordering::Acquire) {
                thread::sleep(RENEW / 20);
            }
        }
        shared.renewed.store(0, Ordering::Release);
        if let Err(error) = session.runtime.block_on(candidate.release(&session.api)) {
            tracing::warn!(%error, "cannot let go of the Lease; it ends in {} s", LASTS.as_secs());
        }
    };
    let thread = thread::Builder::new().name("lease".into()).spawn(run);
    Ok((leading, thread.map_err(KubeError::Start)?))
}
