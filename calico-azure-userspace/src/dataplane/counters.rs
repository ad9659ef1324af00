//! Counters of the programs, summed over CPUs.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

use aya::maps::MapData;
use calico_azure_ebpf::abi::{CounterKey, CounterValue, Hook, Pod as _, Reason, TOTALS_LOST_EVENTS, map};

use super::pins::{PinError, Pins};
use super::syscall::{self, Shape};

/// The two counter maps.
#[derive(Debug)]
pub struct Counters {
    totals: OwnedFd,
    drops: OwnedFd,
}

impl Counters {
    pub(super) fn new(totals: OwnedFd, drops: OwnedFd) -> Self {
        Self { totals, drops }
    }

    /// Opens the counters of a node whose programs are loaded, with or without its agent.
    ///
    /// # Errors
    /// If nothing is pinned there.
    pub fn open(pins: &Pins) -> Result<Self, PinError> {
        let open = |name: &str| {
            let path = pins.maps().join(name);
            let data = MapData::from_pin(&path).map_err(|source| PinError::Map {
                path: path.clone(),
                source,
            })?;
            let fd = data.fd().as_fd().try_clone_to_owned();
            fd.map_err(|source| PinError::Io { path, source })
        };
        Ok(Self::new(open(map::TOTALS)?, open(map::DROPS)?))
    }

    /// Packets and bytes by hook and reason; zero ones left out.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn totals(&self) -> io::Result<BTreeMap<(Hook, Reason), CounterValue>> {
        let mut totals = BTreeMap::new();
        for &hook in Hook::ALL {
            for &reason in Reason::ALL {
                let index = hook as u32 * 64 + reason as u32;
                let values = syscall::get(self.totals.as_fd(), shape(size_of::<u32>()), index.bytes())?;
                let sum = sum(&values.unwrap_or_default());
                if sum.packets != 0 {
                    totals.insert((hook, reason), sum);
                }
            }
        }
        Ok(totals)
    }

    /// Flow records that were not written: the ring was full, or the limit on them was reached.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn lost_records(&self) -> io::Result<u64> {
        let index = TOTALS_LOST_EVENTS;
        let values = syscall::get(self.totals.as_fd(), shape(size_of::<u32>()), index.bytes())?;
        Ok(sum(&values.unwrap_or_default()).packets)
    }

    /// Drops by interface, hook and reason.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn drops(&self) -> io::Result<BTreeMap<CounterKey, CounterValue>> {
        let entries = syscall::dump(self.drops.as_fd(), shape(size_of::<CounterKey>()))?;
        Ok(entries
            .iter()
            .filter_map(|(key, value)| Some((CounterKey::from_bytes(key)?, sum(value))))
            .collect())
    }
}

/// A per-CPU map is read as one value for each possible CPU.
fn shape(key: usize) -> Shape {
    Shape {
        key,
        value: size_of::<CounterValue>() * aya::util::nr_cpus().unwrap_or(1),
    }
}

fn sum(values: &[u8]) -> CounterValue {
    let mut sum = CounterValue::default();
    for value in values
        .chunks_exact(size_of::<CounterValue>())
        .filter_map(CounterValue::from_bytes)
    {
        sum.packets += value.packets;
        sum.bytes += value.bytes;
    }
    sum
}
