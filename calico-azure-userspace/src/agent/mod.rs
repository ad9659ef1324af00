//! The DaemonSet's process: wires sources, policy and dataplane together, and owns every thread.
//!
//! One thread owns all state and handles one batch of messages at a time; sources and the event reader have threads
//! of their own and only send, or read a shared context. Nothing is written to the kernel before every source has
//! reported once. When the process ends, however it ends, the kernel goes on deciding.

mod adopt;
pub mod cni;
mod config;
mod core;
mod events;
pub mod felix;
mod health;
mod links;
mod metrics;
pub mod names;
mod networking;
pub mod preflight;
mod problems;
mod programs;
mod protect;
mod serve;
mod staged;
mod status;
mod sweep;
mod vitals;

pub use config::{
    AgentConfig, EstablishedFlows, FabricChoice, Failsafes, HostCgroup, Imds, LogFlows, MarkMask,
    SETTINGS_TIMEOUTS, SetLog, SetLogFn, Source, Tunnels, UnknownInterfaces, Wireserver, endpoint_to_host,
};
pub use links::LinkNames;
pub use networking::{Choice as NetworkingChoice, Found, Networking};
pub use serve::pages;
pub use status::{Lock, Status, attachments_path, lock, path as status_path};

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::dataplane::attach::AttachError;
use crate::dataplane::kernel::{Kernel, KernelError, is_root};
use crate::dataplane::pins::{PinError, Pins};
use crate::dataplane::{ApplyError, cgroup, ring};
use crate::sources::attachments::Attachment;
use crate::sources::links::{LinksError, Snapshot};
use crate::sources::{Event, attachments, dir, kube, links as link_source};

use self::core::{Core, Parts};
use self::felix::Felix;
use self::metrics::Metrics;
use self::programs::Programs;
use self::serve::Server;
use self::staged::{Staged, StagedTables};
use self::status::StatusPlugin;
use self::vitals::Vitals;

/// The agent cannot start, or cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    #[error("the agent needs root, or CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON: run it as root")]
    NotRoot,
    #[error("another agent for {node} is running on this machine (it holds {path}): stop that one first")]
    Running { node: String, path: PathBuf },
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("{0}")]
    Pin(#[from] PinError),
    #[error("{0}")]
    Kernel(#[from] KernelError),
    #[error("{0}")]
    Apply(#[from] ApplyError),
    #[error("{0}")]
    Attach(#[from] AttachError),
    #[error("{0}")]
    Links(#[from] LinksError),
    #[error("{0}")]
    Dir(#[from] dir::DirError),
    #[error("{0}")]
    Kube(#[from] kube::KubeError),
    #[error(
        "no cgroup2 file system is mounted here: mount the host's, name its root with --host-cgroup, or say `--host-cgroup none` \
         and leave what pods send to services of this very host unjudged"
    )]
    NoCgroup,
    #[error("cannot start a thread or catch signals: {0}")]
    Start(#[source] io::Error),
}

/// What arrives at the owner of all state.
pub(crate) enum Message {
    /// What the source of manifests saw change at once.
    Inputs(Vec<Event>),
    Links(Result<Snapshot, LinksError>),
    Attachments(Vec<Attachment>),
    Plugin(StatusPlugin),
    /// The programs are loaded, or never will be.
    Programs(Result<(), AgentError>),
    /// What the node looks like.
    Seen(Result<Box<preflight::Seen>, LinksError>),
    Stop,
}

impl From<Vec<Event>> for Message {
    fn from(events: Vec<Event>) -> Self {
        Self::Inputs(events)
    }
}

impl From<Vec<Attachment>> for Message {
    fn from(said: Vec<Attachment>) -> Self {
        Self::Attachments(said)
    }
}

impl From<Result<Box<preflight::Seen>, LinksError>> for Message {
    fn from(seen: Result<Box<preflight::Seen>, LinksError>) -> Self {
        Self::Seen(seen)
    }
}

impl From<Result<Snapshot, LinksError>> for Message {
    fn from(snapshot: Result<Snapshot, LinksError>) -> Self {
        Self::Links(snapshot)
    }
}

/// How long until a failed apply or attach is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// From now on a thread or task that panics takes the process with it. Whoever started it starts another, and the kernel goes on deciding
/// meanwhile; otherwise it would go on without what that thread did, deaf and to all appearances well.
pub fn end_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        std::process::abort();
    }));
}

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// [`AgentError`]. The kernel keeps what it has.
pub fn run(mut config: AgentConfig) -> Result<(), AgentError> {
    if !is_root() {
        return Err(AgentError::NotRoot);
    }
    let vitals = Arc::new(Vitals::default());
    let _lock = lock(&config.run_dir, &config.pin_name, &config.node)?;
    let mut look = preflight::Look::default();
    warn(&config, &mut look);
    let pins = Pins::new(&config.bpffs, &config.pin_name)?;
    let first = !pins.maps().exists() && pins.earlier_flows()?.is_empty();
    let (sender, messages) = mpsc::channel::<Message>();
    let follows = match &config.source {
        Source::Dir(dir) => {
            dir::watch(dir.clone(), sender.clone())?;
            None
        }
        Source::Kube(config) => Some(kube::watch(config, sender.clone())?),
    };
    let mut kernel = Kernel::prepare(&config.object, Some(pins), config.sizes)?;
    config.adopt_until = adopt::until(kernel.maps(), first, config.adopt).map_err(AgentError::Start)?;
    if let Some(debug) = ring::DebugLog::take(&mut kernel) {
        events::forward(debug)?;
    }
    let events = ring::Events::take(&mut kernel)?;
    let group = match &config.host_cgroup {
        HostCgroup::Auto => Some(cgroup::root().ok_or(AgentError::NoCgroup)?),
        HostCgroup::None => None,
        HostCgroup::Path(path) => Some(path.clone()),
    };
    let tables = StagedTables::default();
    let context = events::start(events, &config, tables.clone())?;
    let staged = Staged::start(tables)?;
    let maps = kernel.maps().try_clone().map_err(AgentError::Start)?;
    if let Some(status) = follows {
        vitals.follows(status);
    }
    sweep::start(maps.try_clone().map_err(AgentError::Start)?, Arc::clone(&vitals))?;
    let counters = maps.counters().map_err(AgentError::Start)?;
    let limits = config.sizes.limits();
    let metrics = Metrics::new(Arc::clone(&vitals), counters, Arc::clone(&context), limits);
    let server = Server::start(Arc::clone(&vitals), metrics)?;
    let (felix, _) = Felix::of(&config.told, std::iter::empty());
    server.listen(&felix.health, &felix.metrics);
    let watch = watch(&config, &felix);
    let programs = Programs::new(kernel, group, &config, config.link_names(&felix));
    let protector = programs.protector();
    programs.start(sender.clone()).map_err(AgentError::Start)?;
    let parts = Parts {
        protector: Arc::clone(&protector),
        context,
        staged,
        vitals: Arc::clone(&vitals),
        server,
        felix,
        look,
    };
    let told = vec![
        config.paths.cni_results.clone(),
        attachments_path(&config.run_dir),
    ];
    attachments::watch(told, sender.clone()).map_err(AgentError::Start)?;
    if let Some(plugin) = config.plugin.clone() {
        cni::start(plugin, sender.clone()).map_err(AgentError::Start)?;
    }
    let mut core = Core::new(config, maps, parts)?;
    link_source::watch(sender.clone(), move |news| {
        protect::tell(&protector, news);
    })?;
    preflight::watch::start(watch, sender.clone()).map_err(AgentError::Start)?;
    let mut signals = Signals::new([SIGTERM, SIGINT]).map_err(AgentError::Start)?;
    let stopper = move || {
        if signals.forever().next().is_some() {
            let _gone = sender.send(Message::Stop);
        }
    };
    thread::Builder::new()
        .name("signals".into())
        .spawn(stopper)
        .map_err(AgentError::Start)?;

    loop {
        let first = if core.must_retry() {
            match messages.recv_timeout(RETRY) {
                Ok(message) => Some(message),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
        } else {
            match messages.recv() {
                Ok(message) => Some(message),
                Err(_) => return Ok(()),
            }
        };
        vitals.begin();
        let begun = std::time::Instant::now();
        for message in first
            .into_iter()
            .chain(std::iter::from_fn(|| messages.try_recv().ok()))
        {
            match message {
                Message::Stop => {
                    tracing::info!("stopping; the kernel goes on enforcing what it has");
                    core.write_status();
                    return Ok(());
                }
                Message::Inputs(events) => events.into_iter().for_each(|event| core.resource(event)),
                Message::Links(snapshot) => core.links(snapshot?),
                Message::Attachments(said) => core.attachments(said),
                Message::Plugin(plugin) => core.plugin(plugin),
                Message::Programs(loaded) => {
                    loaded?;
                    core.loaded();
                }
                Message::Seen(Ok(seen)) => core.seen(*seen),
                Message::Seen(Err(error)) => tracing::warn!(%error, "cannot look at the node"),
            }
        }
        core.step(begun);
        vitals.end();
    }
}

/// Where the node itself is looked at, and how often.
fn watch(config: &AgentConfig, felix: &Felix) -> preflight::watch::Watch {
    preflight::watch::Watch {
        bpffs: config.bpffs.clone(),
        paths: config.paths.clone(),
        options: config.preflight(felix, None),
        every: config.preflight_interval,
    }
}

/// Says what is wrong with the node, before it is in the way.
fn warn(config: &AgentConfig, look: &mut preflight::Look) {
    let (felix, _) = Felix::of(&config.told, std::iter::empty());
    let watch = watch(config, &felix);
    let place = preflight::Place {
        bpffs: &watch.bpffs,
        paths: &watch.paths,
    };
    match preflight::gather(&place, &watch.options) {
        Ok(seen) => look.renew(preflight::preflight(&seen, &watch.options), &seen.unread),
        Err(error) => tracing::warn!(%error, "cannot look at the node"),
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    /// Set for a copy of this test's process.
    const COPY: &str = "CALICO_AZURE_TEST_PANICS";

    #[test]
    fn a_task_that_panics_takes_the_process_with_it() {
        const OWN: &str = "agent::tests::a_task_that_panics_takes_the_process_with_it";
        if std::env::var_os(COPY).is_some() {
            super::end_on_panic();
            // As an event loop does with its tasks: it goes on without this one.
            let _caught = std::panic::catch_unwind(|| panic!("on purpose"));
            return;
        }
        let own = std::env::current_exe().unwrap();
        let output = Command::new(own)
            .args(["--exact", OWN, "--nocapture"])
            .env(COPY, "1")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        let signal = std::os::unix::process::ExitStatusExt::signal(&output.status);
        assert_eq!(signal, Some(libc::SIGABRT), "{said}");
        assert!(said.contains("on purpose"), "{said}");
    }
}
