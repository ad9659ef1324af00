//! A control group of a test's own, with the test in it: its sockets are the only ones that programs on it see.

use std::fs;
use std::path::{Path, PathBuf};

use calico_azure_userspace::dataplane::cgroup;

use super::{LabError, Result};

/// The group. Dropped, the process goes back to where it was, and the group is gone.
#[derive(Debug)]
pub struct Cgroup {
    path: PathBuf,
    before: PathBuf,
}

impl Cgroup {
    /// Makes a group and moves this process into it.
    pub fn enter(name: &str) -> Result<Self> {
        let root = cgroup::root().ok_or_else(|| LabError::Unknown {
            kind: "file system",
            name: "cgroup2".into(),
            known: "only those in /proc/self/mounts".into(),
        })?;
        let own = fs::read_to_string("/proc/self/cgroup")
            .map_err(LabError::file(Path::new("/proc/self/cgroup")))?;
        let before = own.lines().find_map(|line| line.strip_prefix("0::/"));
        let before = root.join(before.unwrap_or_default());
        let path = before.join(format!("caz-{}-{name}", std::process::id()));
        fs::create_dir(&path).map_err(LabError::file(&path))?;
        let group = Self { path, before };
        move_to(&group.path)?;
        Ok(group)
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn move_to(group: &Path) -> Result<()> {
    let file = group.join("cgroup.procs");
    fs::write(&file, std::process::id().to_string()).map_err(LabError::file(&file))
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _stays = move_to(&self.before);
        // Sockets that are closing hold the group for a moment, but not its directory.
        let _stays = fs::remove_dir(&self.path);
    }
}
