//! The maps of one node: tables, flows and counters, through descriptors that are independent of the programs.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::time::Duration;

use aya::Ebpf;
use aya::maps::Map;
use calico_azure_ebpf::abi::{
    Budget, CidrClass, Config, Configs, CounterKey, CounterValue, CtKey4, CtKey6, CtValue, DENIED_LEN,
    Denied, EARLY_LEN, EarlyCount, Endpoint, FragKey4, FragKey6, FragValue, HostEndpoint, OwnerKey4,
    OwnerKey6, Pod, PolicyKey, PortKey, PrefixKey4, PrefixKey6, ServiceKey4, ServiceKey6, TOTALS_LEN, calls,
    map, socket_calls,
};

use super::clock;
use super::counters::Counters;
use super::io::{Entries, MapIo, Table};
use super::kernel::{KernelError, Sizes};
use super::syscall::{self, Shape};

pub(super) struct Spec {
    pub(super) name: &'static str,
    /// `enum bpf_map_type`.
    pub(super) kind: u32,
    pub(super) shape: Shape,
    pub(super) entries: u32,
}

const HASH: u32 = 1;
const ARRAY: u32 = 2;
const PROG_ARRAY: u32 = 3;
const PERCPU_HASH: u32 = 5;
const PERCPU_ARRAY: u32 = 6;
const LRU_HASH: u32 = 9;
const LPM_TRIE: u32 = 11;
const RINGBUF: u32 = 27;

fn spec<K: Pod, V: Pod>(name: &'static str, kind: u32, entries: u32) -> Spec {
    Spec {
        name,
        kind,
        shape: Shape {
            key: size_of::<K>(),
            value: size_of::<V>(),
        },
        entries,
    }
}

/// Every map, as this build makes it.
pub(super) fn specs(sizes: Sizes) -> Vec<Spec> {
    let Sizes {
        conntrack,
        half_open,
        tables,
    } = sizes;
    vec![
        spec::<u32, Configs>(map::CONFIG, ARRAY, 1),
        spec::<u32, Endpoint>(map::ENDPOINTS, HASH, 4096),
        spec::<u32, HostEndpoint>(map::HOSTS, HASH, 1024),
        spec::<OwnerKey4, u32>(map::OWNERS4, HASH, 8192),
        spec::<OwnerKey6, u32>(map::OWNERS6, HASH, 8192),
        spec::<u32, u64>(map::CLASS4, HASH, tables),
        spec::<[u32; 4], u64>(map::CLASS6, HASH, tables),
        spec::<PrefixKey4, CidrClass>(map::CIDR4, LPM_TRIE, tables),
        spec::<PrefixKey6, CidrClass>(map::CIDR6, LPM_TRIE, tables),
        spec::<PolicyKey, u64>(map::POLICY, HASH, tables),
        spec::<PortKey, u64>(map::PORTS, HASH, tables),
        spec::<PrefixKey4, u32>(map::ROUTES4, LPM_TRIE, 262_144),
        spec::<PrefixKey6, u32>(map::ROUTES6, LPM_TRIE, 262_144),
        spec::<ServiceKey4, u32>(map::SERVICES4, HASH, 262_144),
        spec::<ServiceKey6, u32>(map::SERVICES6, HASH, 262_144),
        spec::<u32, u32>(map::LINKS, HASH, 4096),
        spec::<u32, u64>(map::MARKS, HASH, 4096),
        spec::<u32, u32>(map::CALLS, PROG_ARRAY, calls::LEN),
        spec::<u32, u32>(map::SOCKET_CALLS, PROG_ARRAY, socket_calls::LEN),
        spec::<CtKey4, CtValue>(map::CT_EST4, LRU_HASH, conntrack),
        spec::<CtKey4, CtValue>(map::CT_HALF4, LRU_HASH, half_open),
        spec::<CtKey6, CtValue>(map::CT_EST6, LRU_HASH, conntrack),
        spec::<CtKey6, CtValue>(map::CT_HALF6, LRU_HASH, half_open),
        spec::<FragKey4, FragValue>(map::FRAGS4, LRU_HASH, 8192),
        spec::<FragKey6, FragValue>(map::FRAGS6, LRU_HASH, 8192),
        spec::<CounterKey, CounterValue>(map::DROPS, PERCPU_HASH, 16_384),
        spec::<u32, CounterValue>(map::TOTALS, PERCPU_ARRAY, TOTALS_LEN),
        spec::<u32, Budget>(map::BUDGET, PERCPU_ARRAY, 1),
        spec::<u32, Denied>(map::DENIED, PERCPU_ARRAY, DENIED_LEN),
        spec::<u32, EarlyCount>(map::EARLY, PERCPU_ARRAY, EARLY_LEN),
        Spec {
            name: map::EVENTS,
            kind: RINGBUF,
            shape: Shape { key: 0, value: 0 },
            entries: 1 << 20,
        },
    ]
}

impl Sizes {
    /// How many entries each table can hold, by the map's name. Arrays and rings are left out.
    #[must_use]
    pub fn limits(self) -> BTreeMap<&'static str, u32> {
        let specs = specs(self).into_iter();
        specs
            .filter(|spec| matches!(spec.kind, HASH | PERCPU_HASH | LRU_HASH | LPM_TRIE))
            .map(|spec| (spec.name, spec.entries))
            .collect()
    }
}

/// Descriptors of every map.
#[derive(Debug)]
pub struct Maps {
    maps: BTreeMap<&'static str, (OwnedFd, Shape)>,
}

impl Maps {
    pub(super) fn of(ebpf: &Ebpf, specs: &[Spec]) -> Result<Self, KernelError> {
        let mut maps = BTreeMap::new();
        for &Spec { name, shape, .. } in specs {
            let fd = ebpf.map(name).and_then(map_fd);
            let fd = fd
                .ok_or(KernelError::Missing { kind: "map", name })?
                .try_clone_to_owned();
            maps.insert(
                name,
                (fd.map_err(|source| KernelError::Map { name, source })?, shape),
            );
        }
        Ok(Self { maps })
    }

    /// Descriptors of the same maps.
    ///
    /// # Errors
    /// If there are too many.
    pub fn try_clone(&self) -> io::Result<Self> {
        let clone =
            |(name, (fd, shape)): (&&'static str, &(OwnedFd, Shape))| Ok((*name, (fd.try_clone()?, *shape)));
        Ok(Self {
            maps: self.maps.iter().map(clone).collect::<io::Result<_>>()?,
        })
    }

    pub(super) fn map(&self, name: &'static str) -> io::Result<(BorrowedFd<'_>, Shape)> {
        let (fd, shape) = self.maps.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok((fd.as_fd(), *shape))
    }

    /// The counters.
    ///
    /// # Errors
    /// If a descriptor cannot be duplicated.
    pub fn counters(&self) -> io::Result<Counters> {
        let fd = |name| self.map(name).and_then(|(fd, _)| fd.try_clone_to_owned());
        Ok(Counters::new(fd(map::TOTALS)?, fd(map::DROPS)?, fd(map::EARLY)?))
    }

    /// Removes every entry of a flow table; for tests and benchmarks.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn forget_flows(&self) -> io::Result<()> {
        for name in [
            map::CT_EST4,
            map::CT_HALF4,
            map::CT_EST6,
            map::CT_HALF6,
            map::FRAGS4,
            map::FRAGS6,
        ] {
            let (fd, shape) = self.map(name)?;
            for (key, _) in syscall::dump(fd, shape)? {
                syscall::delete(fd, shape, &key)?;
            }
        }
        Ok(())
    }

    /// The configuration that the programs see.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn config(&self) -> io::Result<Option<Config>> {
        let (fd, shape) = self.map(map::CONFIG)?;
        let bytes = syscall::get(fd, shape, 0_u32.bytes())?;
        let configs = bytes.and_then(|bytes| Configs::from_bytes(&bytes));
        Ok(configs.map(|configs| *configs.config()))
    }

    /// A time to come, as `Config::adopt_until` has it.
    #[must_use]
    pub fn time_in(&self, time: Duration) -> u32 {
        let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        u32::try_from(clock::now().saturating_add(nanoseconds) >> 30).unwrap_or(u32::MAX)
    }

    /// Reads a map of any kind, for `status` and tests.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn dump_map(&self, name: &'static str) -> io::Result<Entries> {
        let (fd, shape) = self.map(name)?;
        syscall::dump(fd, shape)
    }
}

impl MapIo for Maps {
    fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> io::Result<()> {
        let (fd, shape) = self.map(table.name())?;
        syscall::put(fd, shape, key, value)
    }

    fn delete(&mut self, table: Table, key: &[u8]) -> io::Result<()> {
        let (fd, shape) = self.map(table.name())?;
        syscall::delete(fd, shape, key)
    }

    fn dump(&self, table: Table) -> io::Result<Entries> {
        self.dump_map(table.name())
    }

    fn wait_for_programs(&self) -> io::Result<()> {
        syscall::synchronize()
    }
}

/// Key and value size, as the kernel tells them.
pub(super) fn sizes_of(spec: &Spec) -> (u32, u32) {
    let size = |size: usize| u32::try_from(size).unwrap_or(u32::MAX);
    (size(spec.shape.key), size(spec.shape.value))
}

fn map_fd(map: &Map) -> Option<BorrowedFd<'_>> {
    match map {
        Map::Array(data)
        | Map::HashMap(data)
        | Map::LpmTrie(data)
        | Map::LruHashMap(data)
        | Map::PerCpuArray(data)
        | Map::PerCpuHashMap(data)
        | Map::ProgramArray(data)
        | Map::RingBuf(data) => Some(data.fd().as_fd()),
        _ => None,
    }
}
