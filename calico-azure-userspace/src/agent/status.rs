//! The status file, and the lock that keeps a second agent away.

use std::fs::{self, File, OpenOptions};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::preflight::Look;
use super::{AgentConfig, AgentError, Found};
use crate::dataplane::attach::Attached;

/// What `calico-azure status` shows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Status {
    pub node: String,
    /// Which network the node is on; none until links are known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub networking: Option<Found>,
    /// Every source has reported, and the kernel holds what follows from that.
    pub ready: bool,
    /// The kernel's current epoch.
    pub epoch: u32,
    /// Applies that got through.
    pub applies: u64,
    /// Messages of sources handled.
    pub inputs_seen: u64,
    /// The last apply, microseconds.
    pub last_apply_us: u64,
    /// From the agent's receiving the last change to the moment every packet obeyed it, microseconds.
    pub last_change_us: u64,
    /// Map operations of the last apply.
    pub last_operations: usize,
    pub endpoints: Vec<StatusEndpoint>,
    pub attached: Vec<Attached>,
    /// What the last look at the node itself found.
    pub preflight: Look,
    /// What is wrong, each with what to do.
    pub problems: Vec<String>,
}

/// One pod on this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StatusEndpoint {
    pub pod: String,
    pub interface: String,
    pub ifindex: u32,
}

/// Where the status of a node is.
#[must_use]
pub fn path(run_dir: &Path, node: &str) -> PathBuf {
    run_dir.join(format!("{node}.status.json"))
}

/// Where the chained CNI plug-in tells whose interface is whose.
#[must_use]
pub fn attachments_path(run_dir: &Path) -> PathBuf {
    run_dir.join("attachments")
}

/// Replaces the status file in one step.
pub(super) fn write(config: &AgentConfig, status: &Status) -> std::io::Result<()> {
    let path = path(&config.run_dir, &config.node);
    let temporary = path.with_extension("json.new");
    // In one piece: it is written with every change, and serde writes each word by itself.
    let mut text = serde_json::to_vec(status)?;
    text.push(b'\n');
    fs::write(&temporary, text)?;
    fs::rename(&temporary, &path)
}

/// Held as long as the agent lives; the kernel releases it when the process ends, however it ends.
///
/// # Errors
/// [`AgentError::Running`] if another one holds it.
pub fn lock(run_dir: &Path, pin_name: &str, node: &str) -> Result<File, AgentError> {
    fs::create_dir_all(run_dir).map_err(|source| AgentError::Io {
        path: run_dir.to_owned(),
        source,
    })?;
    let path = run_dir.join(format!("{pin_name}.lock"));
    let io = |source| AgentError::Io {
        path: path.clone(),
        source,
    };
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(io)?;
    // SAFETY: an open descriptor and plain flags.
    if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } != 0 {
        let error = std::io::Error::last_os_error();
        return Err(if error.kind() == std::io::ErrorKind::WouldBlock {
            AgentError::Running {
                node: node.to_owned(),
                path: path.clone(),
            }
        } else {
            io(error)
        });
    }
    Ok(file)
}
