//! A named network namespace.

use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use super::{LabError, Result, exec};

/// Where `ip netns` keeps the names.
const NAMES: &str = "/run/netns";

/// A network namespace under a name of `ip netns`; removed with its last clone.
#[derive(Clone, Debug)]
pub struct NetNs(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    name: String,
    file: File,
}

impl NetNs {
    /// Creates the namespace, with `lo` up.
    pub fn create(name: &str) -> Result<Self> {
        exec::run(Command::new("ip").args(["netns", "add", name]), b"", "the host")?;
        let path = Path::new(NAMES).join(name);
        let file = File::open(&path).map_err(|error| {
            delete(name);
            LabError::File { path, error }
        })?;
        let ns = Self(Arc::new(Inner {
            name: name.to_owned(),
            file,
        }));
        ns.ip(&["link", "set", "lo", "up"])?;
        Ok(ns)
    }

    /// The name that `ip netns` shows.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The file that stands for the namespace.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        Path::new(NAMES).join(&self.0.name)
    }

    /// Runs `f` on a fresh thread inside the namespace. A socket stays in the namespace it was made in.
    pub fn run<T: Send>(&self, f: impl FnOnce() -> T + Send) -> Result<T> {
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                self.enter()?;
                Ok(f())
            });
            inside.join().map_err(|_| LabError::Panicked {
                place: self.0.name.clone(),
            })?
        })
    }

    /// Moves the calling thread into the namespace, for good: only for threads made for it.
    pub fn enter(&self) -> Result<()> {
        enter(self.0.file.as_raw_fd())
            .map_err(LabError::io(format!("cannot enter namespace {}", self.0.name)))
    }

    /// A command that will run in the namespace. Only the network changes: `/sys`, and so the bpffs, stay the host's.
    #[must_use]
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        let ns = self.clone();
        // SAFETY: between fork and exec the closure makes one system call and allocates nothing. It owns a clone of
        // the namespace, so the descriptor is open whenever the command is spawned.
        unsafe { command.pre_exec(move || enter(ns.0.file.as_raw_fd())) };
        command
    }

    /// Runs `program` in the namespace and returns its stdout.
    pub fn exec(&self, program: &str, args: &[&str]) -> Result<String> {
        exec::run(self.command(program).args(args), b"", self.name())
    }

    /// Runs `ip` in the namespace.
    pub fn ip(&self, args: &[&str]) -> Result<String> {
        self.exec("ip", args)
    }

    /// Runs many commands of `ip`, one in a line.
    pub fn ip_batch(&self, commands: &str) -> Result<()> {
        let mut command = self.command("ip");
        exec::run(command.args(["-batch", "-"]), commands.as_bytes(), self.name()).map(drop)
    }

    /// Loads an nftables script in the namespace, as one transaction.
    pub fn nft(&self, script: &str) -> Result<()> {
        exec::run(
            self.command("nft").args(["-f", "-"]),
            script.as_bytes(),
            self.name(),
        )
        .map(drop)
    }

    /// Sets sysctls under `/proc/sys/net`, given as `("ipv4/ip_forward", "1")`.
    pub fn sysctl(&self, settings: &[(&str, &str)]) -> Result<()> {
        self.run(|| {
            for (key, value) in settings {
                let path = Path::new("/proc/sys/net").join(key);
                std::fs::write(&path, value).map_err(LabError::file(path))?;
            }
            Ok(())
        })?
    }

    /// Processes in the namespace.
    pub(super) fn pids(name: &str) -> Result<Vec<i32>> {
        let text = exec::run(Command::new("ip").args(["netns", "pids", name]), b"", "the host")?;
        Ok(text
            .split_whitespace()
            .filter_map(|pid| pid.parse().ok())
            .collect())
    }

    /// Names of all namespaces, of whoever made them.
    pub fn all() -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(NAMES) else {
            return Vec::new();
        };
        let mut names: Vec<_> = entries
            .flatten()
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect();
        names.sort();
        names
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        delete(&self.name);
    }
}

/// Deletes the name; the namespace goes with its last socket and process. It may be gone already.
pub(super) fn delete(name: &str) {
    let _ = exec::output(Command::new("ip").args(["netns", "del", name]), b"");
}

fn enter(fd: i32) -> std::io::Result<()> {
    // SAFETY: setns takes no pointers; a bad descriptor is an error it reports.
    if unsafe { libc::setns(fd, libc::CLONE_NEWNET) } == 0 {
        return Ok(());
    }
    Err(std::io::Error::last_os_error())
}
