//! Interfaces through which what is new may come to pods and go from them: those that have our programs, and those that are no pods'. What
//! comes by another may be a new pod's, whose policy nobody asks yet. Only `agent` writes them.

use std::collections::BTreeSet;
use std::io;

use calico_azure_ebpf::abi::{Pod as _, map};

use super::maps::Maps;
use super::syscall;

/// What is in the kernel's list.
///
/// # Errors
/// What the kernel says.
pub fn listed(maps: &Maps) -> io::Result<BTreeSet<u32>> {
    let entries = maps.dump_map(map::LINKS)?.into_iter();
    Ok(entries.filter_map(|(key, _)| u32::from_bytes(&key)).collect())
}

/// Puts an interface there.
///
/// # Errors
/// What the kernel says; `ENOSPC` or `E2BIG` if the list is full.
pub fn list(maps: &Maps, ifindex: u32) -> io::Result<()> {
    let (fd, shape) = maps.map(map::LINKS)?;
    syscall::put(fd, shape, ifindex.bytes(), 1_u32.bytes())
}

/// Takes it out.
///
/// # Errors
/// What the kernel says.
pub fn unlist(maps: &Maps, ifindex: u32) -> io::Result<()> {
    let (fd, shape) = maps.map(map::LINKS)?;
    syscall::delete(fd, shape, ifindex.bytes())
}
