//! `to_host` on a control group: every socket in it and below is where a packet can leave to this very host.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use aya::programs::links::{FdLink, LinkError};
use aya::programs::{CgroupAttachMode, CgroupSkbAttachType};
use calico_azure_ebpf::abi::program;

use super::attach::AttachError;
use super::kernel::Kernel;

type Failed = Box<dyn std::error::Error + Send + Sync>;

/// Where the machine's unified hierarchy is mounted.
#[must_use]
pub fn root() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    root_in(&mounts)
}

fn root_in(mounts: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ');
        let (_, path, kind) = (fields.next()?, fields.next()?, fields.next()?);
        (kind == "cgroup2").then(|| PathBuf::from(path))
    })
}

/// Attaches the program, beside those of others. One of an earlier agent is replaced without a moment in which there is none.
///
/// # Errors
/// If the path is no control group, or the kernel refuses.
pub fn attach(kernel: &mut Kernel, path: &Path) -> Result<(), AttachError> {
    let failed = |source: Failed| AttachError::Cgroup {
        path: path.to_owned(),
        source,
    };
    let group = File::open(path).map_err(|error| failed(error.into()))?;
    let pin = kernel.pins().map(|pins| pins.link(0, program::TO_HOST));
    let program = kernel.to_host()?;
    // A link is always one of several (kernel/bpf/cgroup.c, cgroup_bpf_link_attach); said as a flag too, the kernel refuses it.
    let mode = CgroupAttachMode::Single;
    let id = program.attach(group, CgroupSkbAttachType::Ingress, mode);
    let id = id.map_err(|error| failed(error.into()))?;
    let link = program.take_link(id).map_err(|error| failed(error.into()))?;
    let link = FdLink::try_from(link).map_err(|error: LinkError| failed(error.into()))?;
    let Some(pin) = pin else {
        // Without pins the program is to live as long as the process: for tests.
        std::mem::forget(link);
        return Ok(());
    };
    // No dot: bpffs refuses names that have one.
    let new = pin.with_file_name(format!("{}_new", program::TO_HOST));
    let _never_finished = fs::remove_file(&new);
    link.pin(&new).map_err(|error| failed(error.into()))?;
    fs::rename(&new, &pin).map_err(|error| failed(error.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unified_hierarchy_is_found_among_older_ones() {
        let mounts =
            "cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        assert_eq!(root_in(mounts), Some("/sys/fs/cgroup/unified".into()));
        assert_eq!(root_in("proc /proc proc rw 0 0\n"), None);
    }
}
