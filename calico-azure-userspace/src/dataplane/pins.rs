//! Where things are pinned, and whether what is pinned there is what we expect.
//!
//! `<bpffs>/calico-azure/<node>-<layout hash>/{maps,links}`: one directory for each node, because several agents may
//! share a machine, and for each layout, because a map of another layout must never be reused. A directory
//! `conntrack-<hash>` beside them says which conntrack entries are in those maps.
//!
//! An agent that finds maps of its layout but of other sizes sets their directory aside, under another hash: to it they are
//! those of an earlier layout.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use aya::maps::MapInfo;
use calico_azure_ebpf::abi::{CONNTRACK_HASH, LAYOUT_HASH};

/// A pin cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PinError {
    #[error(
        "{path} is not a bpf file system: mount one there (mount -t bpf bpf {path}), or name another with --bpffs"
    )]
    NotBpffs { path: PathBuf },
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error(
        "{path} is pinned with {found}, but this build expects {expected}; \
         run `calico-azure cleanup` for the node, or remove the pin if it is not ours"
    )]
    Mismatch {
        path: PathBuf,
        found: String,
        expected: String,
    },
    #[error("{path}: {source}")]
    Map {
        path: PathBuf,
        source: aya::maps::MapError,
    },
    #[error("node name {0:?} cannot be a directory name: expected letters, digits, '-', '.' or '_'")]
    Name(String),
}

/// The pin directories of one node.
#[derive(Clone, Debug)]
pub struct Pins {
    root: PathBuf,
    dir: PathBuf,
    node: String,
}

impl Pins {
    /// Names the directories; creates nothing.
    ///
    /// # Errors
    /// If `bpffs` is not one, or the name does not do.
    pub fn new(bpffs: &Path, node: &str) -> Result<Self, PinError> {
        if !is_bpffs(bpffs) {
            return Err(PinError::NotBpffs {
                path: bpffs.to_owned(),
            });
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
        if node.is_empty() || node.starts_with('.') || !node.chars().all(plain) {
            return Err(PinError::Name(node.to_owned()));
        }
        // bpffs allows no dots in names.
        let node = node.replace('.', "_");
        let root = bpffs.join("calico-azure");
        let dir = root.join(format!("{node}-{LAYOUT_HASH:016x}"));
        Ok(Self { root, dir, node })
    }

    /// Creates the directories.
    ///
    /// # Errors
    /// What the file system says.
    pub fn create(&self) -> Result<(), PinError> {
        for dir in [self.maps(), self.links(), self.dir.join(conntrack())] {
            fs::create_dir_all(&dir).map_err(|source| PinError::Io {
                path: dir.clone(),
                source,
            })?;
        }
        Ok(())
    }

    /// Directory of the map pins.
    #[must_use]
    pub fn maps(&self) -> PathBuf {
        self.dir.join("maps")
    }

    /// Directory of the link pins.
    #[must_use]
    pub fn links(&self) -> PathBuf {
        self.dir.join("links")
    }

    /// Pin of a link: one for each interface and program.
    #[must_use]
    pub fn link(&self, ifindex: u32, program: &str) -> PathBuf {
        self.links().join(format!("{ifindex}-{program}"))
    }

    /// Pins of the same link in this node's directories of other layouts.
    ///
    /// # Errors
    /// What the file system says.
    pub fn earlier_links(&self, ifindex: u32, program: &str) -> Result<Vec<PathBuf>, PinError> {
        let mut pins = self.other_layouts()?;
        for pin in &mut pins {
            pin.extend(["links", &format!("{ifindex}-{program}")]);
        }
        pins.retain(|pin| pin.exists());
        Ok(pins)
    }

    /// Directories of map pins of other layouts whose conntrack entries are as this build's.
    ///
    /// # Errors
    /// What the file system says.
    pub fn earlier_flows(&self) -> Result<Vec<PathBuf>, PinError> {
        let mut dirs = self.other_layouts()?;
        dirs.retain(|dir| dir.join(conntrack()).is_dir());
        Ok(dirs.into_iter().map(|dir| dir.join("maps")).collect())
    }

    /// Gives the directory the name of another layout, so that this one's is free.
    ///
    /// # Errors
    /// What the file system says.
    pub fn set_aside(&self) -> Result<PathBuf, PinError> {
        let names = (1..).map(|n| format!("{}-{:016x}", self.node, LAYOUT_HASH.wrapping_add(n)));
        let free = names.map(|name| self.root.join(name)).find(|dir| !dir.exists());
        let aside = free.unwrap_or_else(|| self.root.clone());
        fs::rename(&self.dir, &aside).map_err(|source| PinError::Io {
            path: self.dir.clone(),
            source,
        })?;
        Ok(aside)
    }

    /// Pinned links as (ifindex, program).
    ///
    /// # Errors
    /// What the file system says.
    pub fn pinned_links(&self) -> Result<Vec<(u32, String)>, PinError> {
        let dir = self.links();
        let entries = match fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(PinError::Io { path: dir, source }),
        };
        let mut links = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|source| PinError::Io {
                path: dir.clone(),
                source,
            })?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if let Some((ifindex, program)) = name.split_once('-')
                && let Ok(ifindex) = ifindex.parse()
            {
                links.push((ifindex, program.to_owned()));
            }
        }
        Ok(links)
    }

    /// Compares an existing pin with what this build would create; aya reuses a pin without looking.
    ///
    /// # Errors
    /// [`PinError::Mismatch`], or that it cannot be read.
    pub fn check(&self, name: &str, expected: &ExpectedMap) -> Result<Fit, PinError> {
        let path = self.maps().join(name);
        match path.try_exists() {
            Ok(false) => return Ok(Fit::Reusable),
            Ok(true) => {}
            Err(source) => return Err(PinError::Io { path, source }),
        }
        let info = MapInfo::from_pin(&path).map_err(|source| PinError::Map {
            path: path.clone(),
            source,
        })?;
        let kind = info.map_type().map_err(|source| PinError::Map {
            path: path.clone(),
            source,
        })?;
        let found = ExpectedMap {
            kind: kind as u32,
            key_size: info.key_size(),
            value_size: info.value_size(),
            max_entries: info.max_entries(),
        };
        if found == *expected {
            return Ok(Fit::Reusable);
        }
        let resized = ExpectedMap {
            max_entries: expected.max_entries,
            ..found
        };
        if resized == *expected {
            return Ok(Fit::OtherSize);
        }
        Err(PinError::Mismatch {
            path,
            found: found.to_string(),
            expected: expected.to_string(),
        })
    }

    /// Removes every directory of this node, of this and of other layouts, and their parent if it is empty then.
    ///
    /// # Errors
    /// What the file system says.
    pub fn remove(&self) -> Result<Vec<PathBuf>, PinError> {
        let mut removed = Vec::new();
        for dir in self.all_layouts()? {
            fs::remove_dir_all(&dir).map_err(|source| PinError::Io {
                path: dir.clone(),
                source,
            })?;
            removed.push(dir);
        }
        // Another node's pins keep the parent.
        let _not_empty = fs::remove_dir(&self.root);
        Ok(removed)
    }

    /// Removes this node's directories of other layouts, and with their link pins their programs.
    ///
    /// # Errors
    /// What the file system says.
    pub fn remove_other_layouts(&self) -> Result<Vec<PathBuf>, PinError> {
        let others = self.other_layouts()?;
        for dir in &others {
            fs::remove_dir_all(dir).map_err(|source| PinError::Io {
                path: dir.clone(),
                source,
            })?;
        }
        Ok(others)
    }

    /// This node's directories of other layouts.
    ///
    /// # Errors
    /// What the file system says.
    pub fn other_layouts(&self) -> Result<Vec<PathBuf>, PinError> {
        let mut others = self.all_layouts()?;
        others.retain(|dir| *dir != self.dir);
        Ok(others)
    }

    /// This node's directories, of whatever layout.
    ///
    /// # Errors
    /// What the file system says.
    pub fn all_layouts(&self) -> Result<Vec<PathBuf>, PinError> {
        let io = |source| PinError::Io {
            path: self.root.clone(),
            source,
        };
        let entries = match fs::read_dir(&self.root) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(io(error)),
        };
        let mut found = Vec::new();
        for entry in entries {
            let entry = entry.map_err(io)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let ours = name.rsplit_once('-').is_some_and(|(node, hash)| {
                node == self.node && hash.len() == 16 && hash.chars().all(|c| c.is_ascii_hexdigit())
            });
            if ours {
                found.push(entry.path());
            }
        }
        Ok(found)
    }
}

/// Name of the directory that says which conntrack entries there are.
fn conntrack() -> String {
    format!("conntrack-{CONNTRACK_HASH:016x}")
}

/// What a pin is to this build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// What it would create itself, or nothing at all.
    Reusable,
    /// The same, of another size.
    OtherSize,
}

/// What a map is, as the kernel tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExpectedMap {
    /// `enum bpf_map_type`.
    pub kind: u32,
    pub key_size: u32,
    pub value_size: u32,
    pub max_entries: u32,
}

impl std::fmt::Display for ExpectedMap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            kind,
            key_size,
            value_size,
            max_entries,
        } = self;
        write!(
            f,
            "type {kind}, keys of {key_size} and values of {value_size} bytes, {max_entries} entries"
        )
    }
}

fn is_bpffs(path: &Path) -> bool {
    use std::os::unix::ffi::OsStrExt as _;
    const BPF_FS_MAGIC: u32 = 0xcafe_4a11;
    let Ok(path) = std::ffi::CString::new(path.as_os_str().as_bytes()) else {
        return false;
    };
    let mut stat = std::mem::MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: the path is a C string and the buffer is of the right type.
    if unsafe { libc::statfs(path.as_ptr(), stat.as_mut_ptr()) } != 0 {
        return false;
    }
    // SAFETY: the call succeeded, so the buffer is filled.
    let stat = unsafe { stat.assume_init() };
    u32::try_from(stat.f_type) == Ok(BPF_FS_MAGIC)
}
