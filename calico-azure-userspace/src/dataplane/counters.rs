//! Counters of the programs, summed over CPUs.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

use aya::maps::MapData;
use calico_azure_ebpf::abi::{
    CounterKey, CounterValue, EarlyCount, Hook, Pod as _, Reason, TOTALS_LOST_EVENTS, map,
};

use super::pins::{PinError, Pins};
use super::syscall::{self, Shape};

/// The counter maps.
#[derive(Debug)]
pub struct Counters {
    totals: OwnedFd,
    drops: OwnedFd,
    early: OwnedFd,
}

impl Counters {
    pub(super) fn new(totals: OwnedFd, drops: OwnedFd, early: OwnedFd) -> Self {
        Self { totals, drops, early }
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
        Ok(Self::new(
            open(map::TOTALS)?,
            open(map::DROPS)?,
            open(map::EARLY)?,
        ))
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
        for count in self.early()? {
            add(
                totals.entry((Hook::Untracked, Reason::PolicyDeny)).or_default(),
                &count,
            );
        }
        Ok(totals)
    }

    /// Of each processor, what XDP has counted apart: [`Self::totals`], [`Self::drops`] and [`Self::lost_records`] have it already.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn early(&self) -> io::Result<Vec<EarlyCount>> {
        let each = Shape {
            key: size_of::<u32>(),
            value: size_of::<EarlyCount>() * aya::util::nr_cpus().unwrap_or(1),
        };
        let entries = syscall::dump(self.early.as_fd(), each)?;
        let values = entries
            .iter()
            .flat_map(|(_, values)| values.chunks_exact(size_of::<EarlyCount>()));
        let counts = values.filter_map(EarlyCount::from_bytes);
        Ok(counts.filter(|count| count.packets != 0).collect())
    }

    /// Flow records that were not written: the ring was full, or the limit on them was reached.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn lost_records(&self) -> io::Result<u64> {
        let index = TOTALS_LOST_EVENTS;
        let values = syscall::get(self.totals.as_fd(), shape(size_of::<u32>()), index.bytes())?;
        let early: u64 = self.early()?.iter().map(|count| count.packets).sum();
        Ok(sum(&values.unwrap_or_default()).packets + early)
    }

    /// Drops by interface, hook and reason.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn drops(&self) -> io::Result<BTreeMap<CounterKey, CounterValue>> {
        let entries = syscall::dump(self.drops.as_fd(), shape(size_of::<CounterKey>()))?;
        let drops = entries
            .iter()
            .filter_map(|(key, value)| Some((CounterKey::from_bytes(key)?, sum(value))));
        let mut drops: BTreeMap<CounterKey, CounterValue> = drops.collect();
        for count in self.early()? {
            let key = CounterKey {
                ifindex: count.ifindex,
                hook: Hook::Untracked as u16,
                reason: u16::from(Reason::PolicyDeny as u8),
            };
            add(drops.entry(key).or_default(), &count);
        }
        Ok(drops)
    }
}

fn add(sum: &mut CounterValue, count: &EarlyCount) {
    sum.packets += count.packets;
    sum.bytes += count.bytes;
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
