//! A lab's name and directory, and how to undo a lab of which only the names are left.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, Once, PoisonError};
use std::time::Duration;

use super::{LabError, NetNs, Result, agent, netns};

const PREFIX: &str = "caz-";

/// Labs of this process that a signal must undo.
static LIVE: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// One lab's name and directory. The directory goes when this is dropped, unless [`LabDir::keep`] was called.
#[derive(Debug)]
pub struct LabDir {
    id: String,
    path: PathBuf,
    keep: bool,
}

impl LabDir {
    /// Names a lab and makes its directory. From the first lab on, SIGINT, SIGTERM and SIGHUP undo this process's labs.
    pub fn create() -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let id = format!("{PREFIX}{}-{number}", std::process::id());
        let path = directory(&id);
        let dir = Self {
            path,
            keep: false,
            id,
        };
        undo_on_signal()?;
        LIVE.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(dir.id.clone());
        for sub in [dir.manifests(), dir.staging(), dir.ipam(), dir.run(), dir.log()] {
            fs::create_dir_all(&sub).map_err(LabError::file(sub))?;
        }
        Ok(dir)
    }

    /// The lab's name, which begins the names of its namespaces.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The directory itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the agents watch.
    #[must_use]
    pub fn manifests(&self) -> PathBuf {
        self.path.join("manifests")
    }

    /// Beside [`Self::manifests`], on the same file system: files are written here and renamed.
    #[must_use]
    pub fn staging(&self) -> PathBuf {
        self.path.join("staging")
    }

    /// The IPAM plugin's state.
    #[must_use]
    pub fn ipam(&self) -> PathBuf {
        self.path.join("ipam")
    }

    /// The agents' `--run-dir`.
    #[must_use]
    pub fn run(&self) -> PathBuf {
        self.path.join("run")
    }

    /// Logs and flow logs.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.path.join("log")
    }

    /// Leaves the lab to [`remove`].
    pub fn keep(&mut self) {
        self.keep = true;
        forget(&self.id);
    }
}

impl Drop for LabDir {
    fn drop(&mut self) {
        if !self.keep {
            forget(&self.id);
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// The names of all labs on this machine, and whether the process that made each is still running.
#[must_use]
pub fn labs() -> Vec<(String, bool)> {
    let files = fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten();
    let names = files
        .filter_map(|file| file.file_name().into_string().ok())
        .chain(NetNs::all());
    let ids: BTreeSet<_> = names.filter_map(|name| lab_of(&name)).collect();
    ids.into_iter()
        .map(|(pid, number)| {
            (
                format!("{PREFIX}{pid}-{number}"),
                Path::new("/proc").join(pid.to_string()).exists(),
            )
        })
        .collect()
}

/// Removes every process, pin, namespace and file of the lab `id`, whoever made it. Fails if something is left.
pub fn remove(id: &str) -> Result<()> {
    let Some((pid, number)) = lab_of(id).filter(|(pid, number)| id == format!("{PREFIX}{pid}-{number}"))
    else {
        let known = labs()
            .into_iter()
            .map(|(id, _)| id)
            .collect::<Vec<_>>()
            .join(", ");
        return Err(LabError::Unknown {
            kind: "lab",
            name: id.to_owned(),
            known,
        });
    };
    let mine = |name: &String| lab_of(name) == Some((pid, number));
    let names: Vec<_> = NetNs::all().into_iter().filter(mine).collect();
    for name in &names {
        terminate(name);
    }
    let path = directory(id);
    for name in &names {
        if let Some(node) = name
            .strip_prefix(&format!("{id}-"))
            .filter(|rest| rest.starts_with("node-"))
        {
            agent::cleanup_leftovers(name, id, node, &path.join("run"));
        }
    }
    for name in &names {
        netns::delete(name);
    }
    match fs::remove_dir_all(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(LabError::file(path)(error)),
        _ => Ok(()),
    }
}

fn directory(id: &str) -> PathBuf {
    std::env::temp_dir().join(id)
}

/// `caz-<pid>-<n>` at the start of a name, followed by nothing or by `-…`.
fn lab_of(name: &str) -> Option<(u32, u32)> {
    let mut parts = name.strip_prefix(PREFIX)?.splitn(3, '-');
    let pid = parts.next()?.parse().ok()?;
    let number = parts.next()?.parse().ok()?;
    Some((pid, number))
}

/// Ends the processes in a namespace of a lab, first politely.
fn terminate(name: &str) {
    let own = i32::try_from(std::process::id()).unwrap_or(0);
    for (signal, patience) in [(libc::SIGTERM, 30), (libc::SIGKILL, 10)] {
        for _ in 0..patience {
            let pids: Vec<_> = NetNs::pids(name)
                .unwrap_or_default()
                .into_iter()
                .filter(|pid| *pid != own)
                .collect();
            if pids.is_empty() {
                return;
            }
            for pid in pids {
                // SAFETY: kill takes no pointers. The process sits in a namespace that belongs to this lab.
                unsafe { libc::kill(pid, signal) };
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

fn forget(id: &str) {
    LIVE.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
}

fn undo_on_signal() -> Result<()> {
    static INSTALLED: Once = Once::new();
    let mut result = Ok(());
    INSTALLED.call_once(|| {
        let signals = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP];
        match signal_hook::iterator::Signals::new(signals) {
            Ok(mut signals) => {
                std::thread::spawn(move || {
                    let Some(signal) = signals.forever().next() else {
                        return;
                    };
                    undo_all();
                    std::process::exit(128 + signal);
                });
            }
            Err(error) => result = Err(LabError::io("cannot install signal handlers")(error)),
        }
    });
    result
}

fn undo_all() {
    let ids = LIVE.lock().unwrap_or_else(PoisonError::into_inner).clone();
    for id in ids {
        eprintln!("removing lab {id}");
        // Twice: other threads may have been adding to it.
        for _ in 0..2 {
            if let Err(error) = remove(&id) {
                eprintln!("warning: {error}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::lab_of;

    #[test]
    fn only_names_of_labs_are_recognised() {
        assert_eq!(lab_of("caz-12-3"), Some((12, 3)));
        assert_eq!(lab_of("caz-12-3-node-1"), Some((12, 3)));
        for foreign in [
            "caz-12",
            "caz-12-",
            "caz-x-3",
            "xcaz-12-3",
            "caz-12-3x",
            "cni-12-3-node-1",
            "",
        ] {
            assert_eq!(lab_of(foreign), None, "{foreign}");
        }
    }
}
