//! The status file, and the lock that keeps a second agent away.

use std::fs::{self, File, OpenOptions};
use std::net::IpAddr;
use std::os::fd::AsRawFd as _;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};

use calico_azure_ebpf::abi::fnv;
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
    /// From the agent's start to the moment everything was in the kernel and in force, microseconds; 0: it is not yet.
    pub cold_start_us: u64,
    /// Map operations of the last apply.
    pub last_operations: usize,
    /// The chained CNI plug-in, if the agent is to keep it installed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cni_plugin: Option<StatusPlugin>,
    /// What computed names of pods' interfaces begin with.
    pub interface_prefixes: Vec<String>,
    pub endpoints: Vec<StatusEndpoint>,
    pub attached: Vec<Attached>,
    /// What the last look at the node itself found.
    pub preflight: Look,
    /// What is wrong, each with what to do.
    pub problems: Vec<String>,
}

/// The chained CNI plug-in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct StatusPlugin {
    /// The network configuration that it is in; empty: it is in none.
    pub configuration: String,
    /// How often the agent has put it there: more than once if somebody writes it anew.
    pub installs: u64,
    /// Why it is nowhere.
    #[serde(skip)]
    pub problem: Option<String>,
}

/// One pod on this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StatusEndpoint {
    pub pod: String,
    pub interface: String,
    pub ifindex: u32,
    /// What it may send from.
    pub addresses: Vec<IpAddr>,
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

/// Bytes that a socket's name in the abstract has room for (unix(7)).
const LONGEST_NAME: usize = 107;

/// Held as long as the agent lives; the kernel releases it when the process ends, however it ends.
#[derive(Debug)]
pub struct Lock {
    _file: File,
    _name: UnixDatagram,
}

/// Keeps a second agent from the node's pins, by a name in the network namespace that both would have to be in, and from the files in
/// `run_dir`.
///
/// # Errors
/// [`AgentError::Running`] if another one holds either.
pub fn lock(run_dir: &Path, pin_name: &str, node: &str) -> Result<Lock, AgentError> {
    let mut name = format!("calico-azure/{pin_name}");
    if name.len() > LONGEST_NAME {
        name = format!("calico-azure/{:016x}", fnv(pin_name, 0));
    }
    let bound = SocketAddr::from_abstract_name(&name).and_then(|address| UnixDatagram::bind_addr(&address));
    let bound = bound.map_err(|source| {
        let path = PathBuf::from(format!("@{name}"));
        if source.kind() == std::io::ErrorKind::AddrInUse {
            let node = node.to_owned();
            AgentError::Running { node, path }
        } else {
            AgentError::Io { path, source }
        }
    })?;
    Ok(Lock {
        _file: lock_file(run_dir, pin_name, node)?,
        _name: bound,
    })
}

fn lock_file(run_dir: &Path, pin_name: &str, node: &str) -> Result<File, AgentError> {
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
