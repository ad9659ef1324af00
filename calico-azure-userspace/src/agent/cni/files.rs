//! The plug-in's program beside the node's own, and its place in the network configuration that the container runtime uses.

use std::fs;
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::PLUGIN;
use super::conflist::{FileKind, Ours, first, has, kind, with, without};
use crate::agent::attachments_path;

/// What a configuration of one plug-in is kept as while a list stands in for it.
const KEPT: &str = "before-calico-azure";
/// Bytes.
const PIECE: usize = 64 << 10;

/// Of a node.
#[derive(Clone, Debug)]
pub struct Dirs {
    /// Its CNI plug-ins.
    pub bin: PathBuf,
    /// Its network configurations.
    pub conf: PathBuf,
    /// The agent's.
    pub run: PathBuf,
}

/// Why it is not installed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// The network's own plug-in brings it, perhaps later.
    #[error("{0}: no network configuration")]
    NoNetwork(String),
    #[error("{0}")]
    Broken(String),
}

impl From<String> for Unfit {
    fn from(problem: String) -> Self {
        Self::Broken(problem)
    }
}

/// Where it is, and what had to be done for that.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Installed {
    pub configuration: PathBuf,
    /// In a word each; nothing if it was there.
    pub done: Vec<String>,
    /// It was not in the configuration.
    pub added: bool,
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> String {
    let path = path.display().to_string();
    move |error| format!("{path}: {error}")
}

/// Copies this program beside the node's plug-ins and adds it to the network configuration that the container runtime uses, as far as that is
/// not done.
///
/// # Errors
/// [`Unfit`]. The configuration is whole, with or without it.
pub fn install(dirs: &Dirs, ours: &Ours) -> Result<Installed, Unfit> {
    let none = || Unfit::NoNetwork(dirs.conf.display().to_string());
    let name = first(names(&dirs.conf)?).ok_or_else(none)?;
    let path = dirs.conf.join(&name);
    let text = fs::read_to_string(&path).map_err(at(&path))?;
    let kind = kind(&name).unwrap_or(FileKind::List);
    let changed = with(&text, kind, ours).map_err(|problem| format!("{}: {problem}", path.display()))?;
    let mut installed = Installed {
        configuration: path.clone(),
        ..Installed::default()
    };
    // First the program, so that no configuration names what is not there.
    let program = dirs.bin.join(PLUGIN);
    let own = std::env::current_exe().map_err(at(Path::new("/proc/self/exe")))?;
    if !same(&own, &program) {
        let bytes = fs::read(&own).map_err(at(&own))?;
        replace(&program, &bytes, 0o755)?;
        installed.done.push(format!("wrote {}", program.display()));
    }
    match (changed, kind) {
        (None, _) => return Ok(installed),
        (Some(text), FileKind::List) => {
            let mode = fs::metadata(&path).map_err(at(&path))?.permissions().mode();
            replace(&path, text.as_bytes(), mode)?;
            let done = format!("added {PLUGIN} to {}", path.display());
            installed.done.push(done);
        }
        (Some(text), FileKind::Single) => {
            // Its list would come second: it makes room, and comes back when we go.
            let list = path.with_extension("conflist");
            let kept = dirs.conf.join(format!("{name}.{KEPT}"));
            let own = || kept.exists() && fs::read_to_string(&list).is_ok_and(|text| has(&text));
            if list.exists() && !own() {
                let beside = format!(
                    "{} is in the way: {} stands beside it",
                    path.display(),
                    list.display()
                );
                return Err(beside.into());
            }
            replace(&list, text.as_bytes(), 0o600)?;
            fs::rename(&path, &kept).map_err(at(&kept))?;
            let done = format!(
                "wrote {} for {name}, which is {} now",
                list.display(),
                kept.display()
            );
            installed.done.push(done);
            installed.configuration = list;
        }
    }
    installed.added = true;
    Ok(installed)
}

/// Whether two files are the same program.
fn same(own: &Path, copy: &Path) -> bool {
    let differ = || -> io::Result<bool> {
        let (mut own, mut copy) = (fs::File::open(own)?, fs::File::open(copy)?);
        if own.metadata()?.len() != copy.metadata()?.len() {
            return Ok(true);
        }
        // A piece at a time: the agent looks again and again, and is not to hold two programs in memory for that.
        let (mut left, mut right) = (vec![0; PIECE], vec![0; PIECE]);
        loop {
            let length = own.read(&mut left)?;
            let (Some(left), Some(right)) = (left.get(..length), right.get_mut(..length)) else {
                return Ok(true);
            };
            if left.is_empty() {
                return Ok(false);
            }
            copy.read_exact(right)?;
            if left != right {
                return Ok(true);
            }
        }
    };
    matches!(differ(), Ok(false))
}

/// Takes it out of every network configuration, and removes it. What was done, in a word each.
///
/// # Errors
/// What could not be read or written.
pub fn remove(dirs: &Dirs) -> Result<Vec<String>, String> {
    let mut done = Vec::new();
    let names = names(&dirs.conf)?;
    // Back in place first: the runtime always finds one.
    for name in names
        .iter()
        .filter_map(|name| name.strip_suffix(KEPT)?.strip_suffix('.'))
    {
        let (kept, path) = (dirs.conf.join(format!("{name}.{KEPT}")), dirs.conf.join(name));
        fs::rename(&kept, &path).map_err(at(&path))?;
        let list = path.with_extension("conflist");
        fs::remove_file(&list).map_err(at(&list))?;
        done.push(format!("{} is back", path.display()));
    }
    for name in names.iter().filter(|name| kind(name) == Some(FileKind::List)) {
        let path = dirs.conf.join(name);
        // What is no configuration, or is gone with the one above, has no plug-in of ours.
        let without = fs::read_to_string(&path)
            .ok()
            .and_then(|text| without(&text).ok().flatten());
        if let Some(text) = without {
            let mode = fs::metadata(&path).map_err(at(&path))?.permissions().mode();
            replace(&path, text.as_bytes(), mode)?;
            done.push(format!("took {PLUGIN} out of {}", path.display()));
        }
    }
    // CRI-O takes a pod's network down with the configuration that it was made with, and cannot without the program.
    let mut pods = fs::read_dir(attachments_path(&dirs.run)).into_iter().flatten();
    let program = dirs.bin.join(PLUGIN);
    if program.exists() && pods.next().is_some() {
        let left = format!(
            "left {}: pods that were made with it are still there",
            program.display()
        );
        done.push(left);
        return Ok(done);
    }
    match fs::remove_file(&program) {
        Ok(()) => done.push(format!("removed {}", program.display())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(at(&program)(error)),
    }
    Ok(done)
}

/// Names of a directory's files; one that is not there has none.
fn names(dir: &Path) -> Result<Vec<String>, String> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(at(dir)(error)),
    };
    let entries = entries.flatten().filter(|entry| entry.path().is_file());
    Ok(entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect())
}

/// Writes a file in one step: whoever reads it reads the old one or the new one.
fn replace(path: &Path, bytes: &[u8], mode: u32) -> Result<(), String> {
    // No configuration by its name.
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".calico-azure-new");
    let temporary = PathBuf::from(temporary);
    let write = || {
        fs::write(&temporary, bytes)?;
        fs::set_permissions(&temporary, fs::Permissions::from_mode(mode))?;
        fs::File::open(&temporary)?.sync_all()?;
        fs::rename(&temporary, path)
    };
    write().map_err(at(path))
}
