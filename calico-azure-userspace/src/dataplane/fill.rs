//! How full a node's tables are. Its callers only read.

use std::io;
use std::os::fd::AsFd as _;

use aya::maps::{MapData, MapType};
use serde::Serialize;

use super::kernel::Sizes;
use super::maps::specs;
use super::pins::{PinError, Pins};
use super::syscall;

/// One table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fill {
    /// Name of the map.
    pub table: &'static str,
    /// What is in it.
    pub entries: u32,
    /// What it can hold.
    pub limit: u32,
    /// When it is full the least recently used entry goes; others refuse what is new.
    pub evicts: bool,
}

impl Fill {
    /// Hundredths of the limit.
    #[must_use]
    pub fn percent(&self) -> u32 {
        let percent = u64::from(self.entries) * 100 / u64::from(self.limit.max(1));
        u32::try_from(percent).unwrap_or(u32::MAX)
    }
}

/// Counts what is in a node's pinned tables, with or without its agent: a system call for each entry.
///
/// # Errors
/// If nothing is pinned there, or it may not be read.
pub fn fills(pins: &Pins) -> Result<Vec<Fill>, PinError> {
    let mut fills = Vec::new();
    for spec in specs(Sizes::default()) {
        let path = pins.maps().join(spec.name);
        let data = MapData::from_pin(&path).map_err(|source| PinError::Map {
            path: path.clone(),
            source,
        })?;
        let failed = |source: aya::maps::MapError| PinError::Map {
            path: path.clone(),
            source,
        };
        let info = data.info().map_err(failed)?;
        let kind = info.map_type().map_err(failed)?;
        // Arrays are always full, and a ring has no entries.
        if !matches!(
            kind,
            MapType::Hash | MapType::PerCpuHash | MapType::LruHash | MapType::LpmTrie
        ) {
            continue;
        }
        let limit = info.max_entries();
        let entries = syscall::count(data.fd().as_fd(), spec.shape, limit);
        fills.push(Fill {
            table: spec.name,
            entries: entries.map_err(|source: io::Error| PinError::Io { path, source })?,
            limit,
            evicts: kind == MapType::LruHash,
        });
    }
    Ok(fills)
}
