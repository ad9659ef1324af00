//! The programs and maps of one node in the kernel.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::time::Duration;

use aya::maps::Map;
use aya::programs::{ProgramError, SchedClassifier, TestRun as _, TestRunOptions};
use aya::{Ebpf, EbpfError, EbpfLoader};
use calico_azure_ebpf::abi::{
    CidrClass, Config, CounterKey, CounterValue, CtKey4, CtKey6, CtValue, Endpoint, FragKey4, FragKey6,
    OwnerKey4, OwnerKey6, Pod, PolicyKey, PortKey, PrefixKey4, PrefixKey6, TOTALS_LEN, map, program,
};

use super::counters::Counters;
use super::io::{Entries, MapIo, Table};
use super::pins::{ExpectedMap, PinError, Pins};
use super::syscall::{self, Shape};

/// The programs, in the order in which their pins are listed.
pub const PROGRAMS: [&str; 4] = [
    program::FROM_WORKLOAD,
    program::TO_WORKLOAD,
    program::FROM_FABRIC,
    program::TO_FABRIC,
];

/// The kernel refused something.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    #[error(
        "this binary was built without the eBPF object: build it with `cargo xtask build`, or name one with --object"
    )]
    NoObject,
    #[error("loading eBPF programs needs root, or CAP_BPF and CAP_NET_ADMIN: run as root")]
    NotPermitted,
    #[error(
        "the kernel has no BTF (/sys/kernel/btf/vmlinux is missing): use a kernel built with CONFIG_DEBUG_INFO_BTF, \
         5.10 or newer"
    )]
    NoBtf,
    #[error("{0}")]
    Pin(#[from] PinError),
    #[error("cannot load the eBPF object: {0}")]
    Load(#[source] Box<EbpfError>),
    #[error("the eBPF object has no {kind} {name}; it is not one of this build")]
    Missing { kind: &'static str, name: &'static str },
    #[error("the kernel refuses program {name}: {source}")]
    Program {
        name: &'static str,
        source: Box<ProgramError>,
    },
    #[error("map {name}: {source}")]
    Map { name: &'static str, source: io::Error },
}

/// How many entries maps may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Established flows of each family.
    pub conntrack: u32,
    /// Half-open flows of each family.
    pub half_open: u32,
    /// Addresses, prefixes, policy pairs and port entries, each.
    pub tables: u32,
}

impl Default for Sizes {
    fn default() -> Self {
        Self {
            conntrack: 262_144,
            half_open: 65_536,
            tables: 1_048_576,
        }
    }
}

struct Spec {
    name: &'static str,
    /// `enum bpf_map_type`.
    kind: u32,
    shape: Shape,
    entries: u32,
}

const HASH: u32 = 1;
const ARRAY: u32 = 2;
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

fn specs(sizes: Sizes) -> Vec<Spec> {
    let Sizes {
        conntrack,
        half_open,
        tables,
    } = sizes;
    vec![
        spec::<u32, Config>(map::CONFIG, ARRAY, 1),
        spec::<u32, Endpoint>(map::ENDPOINTS, HASH, 4096),
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
        spec::<CtKey4, CtValue>(map::CT_EST4, LRU_HASH, conntrack),
        spec::<CtKey4, CtValue>(map::CT_HALF4, LRU_HASH, half_open),
        spec::<CtKey6, CtValue>(map::CT_EST6, LRU_HASH, conntrack),
        spec::<CtKey6, CtValue>(map::CT_HALF6, LRU_HASH, half_open),
        spec::<FragKey4, u64>(map::FRAGS4, LRU_HASH, 8192),
        spec::<FragKey6, u64>(map::FRAGS6, LRU_HASH, 8192),
        spec::<CounterKey, CounterValue>(map::DROPS, PERCPU_HASH, 16_384),
        spec::<u32, CounterValue>(map::TOTALS, PERCPU_ARRAY, TOTALS_LEN),
        Spec {
            name: map::EVENTS,
            kind: RINGBUF,
            shape: Shape { key: 0, value: 0 },
            entries: 1 << 20,
        },
    ]
}

/// The loaded object.
pub struct Kernel {
    ebpf: Ebpf,
    maps: BTreeMap<&'static str, (OwnedFd, Shape)>,
    pins: Option<Pins>,
}

impl Kernel {
    /// Loads programs and maps; with `pins`, maps of an earlier agent are taken over after a check.
    ///
    /// # Errors
    /// [`KernelError`].
    pub fn load(object: &[u8], pins: Option<Pins>, sizes: Sizes) -> Result<Self, KernelError> {
        if object.is_empty() {
            return Err(KernelError::NoObject);
        }
        if !std::path::Path::new("/sys/kernel/btf/vmlinux").exists() {
            return Err(KernelError::NoBtf);
        }
        raise_memlock();
        let specs = specs(sizes);
        let mut loader = EbpfLoader::new();
        if let Some(pins) = &pins {
            for spec in &specs {
                let (key_size, value_size) = sizes_of(spec);
                pins.check(
                    spec.name,
                    &ExpectedMap {
                        kind: spec.kind,
                        key_size,
                        value_size,
                        max_entries: spec.entries,
                    },
                )?;
            }
            pins.create()?;
        }
        for spec in &specs {
            loader.map_max_entries(spec.name, spec.entries);
            if let Some(pins) = &pins {
                loader.map_pin_path(spec.name, pins.maps().join(spec.name));
            }
        }
        let mut ebpf = loader.load(object).map_err(load_error)?;
        for name in PROGRAMS {
            classifier(&mut ebpf, name)?
                .load()
                .map_err(|source| KernelError::Program {
                    name,
                    source: Box::new(source),
                })?;
        }
        let mut maps = BTreeMap::new();
        for spec in &specs {
            let missing = KernelError::Missing {
                kind: "map",
                name: spec.name,
            };
            let fd = ebpf.map(spec.name).and_then(map_fd).ok_or(missing)?;
            let fd = fd.try_clone_to_owned().map_err(|source| KernelError::Map {
                name: spec.name,
                source,
            })?;
            maps.insert(spec.name, (fd, spec.shape));
        }
        Ok(Self { ebpf, maps, pins })
    }

    /// A program, to attach it or to run it on a packet.
    ///
    /// # Errors
    /// [`KernelError::Missing`].
    pub fn program(&mut self, name: &'static str) -> Result<&mut SchedClassifier, KernelError> {
        classifier(&mut self.ebpf, name)
    }

    /// Runs a program on a packet (`BPF_PROG_TEST_RUN`), with `context` as the beginning of its `__sk_buff`: the last
    /// return value and the mean time of a run.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn test_run(
        &mut self,
        name: &'static str,
        packet: &[u8],
        context: &[u8],
        repeat: u32,
    ) -> Result<(u32, Duration), KernelError> {
        let options = TestRunOptions {
            data_in: Some(packet),
            ctx_in: Some(context),
            repeat,
            ..TestRunOptions::default()
        };
        let result = classifier(&mut self.ebpf, name)?.test_run(options);
        let result = result.map_err(|source| KernelError::Program {
            name,
            source: Box::new(source),
        })?;
        Ok((result.return_value, result.duration))
    }

    /// Instructions that the verifier looked at (kernel 5.16, commit aba64c7da983; 0 before), and bytes of machine code.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn verified(&mut self, name: &'static str) -> Result<(u32, u32), KernelError> {
        let info = classifier(&mut self.ebpf, name)?.info();
        let info = info.map_err(|source| KernelError::Program {
            name,
            source: Box::new(source),
        })?;
        Ok((info.verified_instruction_count().unwrap_or(0), info.size_jitted()))
    }

    /// Where things are pinned, if they are.
    #[must_use]
    pub fn pins(&self) -> Option<&Pins> {
        self.pins.as_ref()
    }

    pub(super) fn ebpf(&mut self) -> &mut Ebpf {
        &mut self.ebpf
    }

    /// The ring buffer's descriptor, to read events from.
    pub(super) fn take_map(&mut self, name: &str) -> Option<Map> {
        self.ebpf.take_map(name)
    }

    fn map(&self, name: &'static str) -> io::Result<(BorrowedFd<'_>, Shape)> {
        let (fd, shape) = self.maps.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok((fd.as_fd(), *shape))
    }

    /// The counters.
    ///
    /// # Errors
    /// If a descriptor cannot be duplicated.
    pub fn counters(&self) -> io::Result<Counters> {
        let fd = |name| self.map(name).and_then(|(fd, _)| fd.try_clone_to_owned());
        Ok(Counters::new(fd(map::TOTALS)?, fd(map::DROPS)?))
    }

    /// Removes every entry of a flow table; for tests and benchmarks.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn forget_flows(&mut self) -> io::Result<()> {
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

    /// Reads a map of any kind, for `status` and tests.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn dump_map(&self, name: &'static str) -> io::Result<Entries> {
        let (fd, shape) = self.map(name)?;
        syscall::dump(fd, shape)
    }
}

impl MapIo for Kernel {
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

fn sizes_of(spec: &Spec) -> (u32, u32) {
    let size = |size: usize| u32::try_from(size).unwrap_or(u32::MAX);
    (size(spec.shape.key), size(spec.shape.value))
}

fn classifier<'a>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut SchedClassifier, KernelError> {
    let program = ebpf.program_mut(name).ok_or(KernelError::Missing {
        kind: "program",
        name,
    })?;
    program.try_into().map_err(|source| KernelError::Program {
        name,
        source: Box::new(source),
    })
}

fn load_error(error: EbpfError) -> KernelError {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(cause) = source {
        if let Some(io) = cause.downcast_ref::<io::Error>()
            && matches!(io.raw_os_error(), Some(libc::EPERM | libc::EACCES))
            && !is_root()
        {
            return KernelError::NotPermitted;
        }
        source = cause.source();
    }
    if is_root() {
        KernelError::Load(Box::new(error))
    } else {
        KernelError::NotPermitted
    }
}

/// Whether the process runs as root.
#[must_use]
pub fn is_root() -> bool {
    // SAFETY: takes and returns plain numbers.
    unsafe { libc::geteuid() == 0 }
}

fn map_fd(map: &Map) -> Option<BorrowedFd<'_>> {
    match map {
        Map::Array(data)
        | Map::HashMap(data)
        | Map::LpmTrie(data)
        | Map::LruHashMap(data)
        | Map::PerCpuArray(data)
        | Map::PerCpuHashMap(data)
        | Map::RingBuf(data) => Some(data.fd().as_fd()),
        _ => None,
    }
}

/// Kernels before 5.11 charge maps against the locked-memory limit.
fn raise_memlock() {
    let limit = libc::rlimit {
        rlim_cur: libc::RLIM_INFINITY,
        rlim_max: libc::RLIM_INFINITY,
    };
    // SAFETY: passes a valid struct. A refusal shows up as a failing map creation, with its own error.
    let _refused = unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const limit) };
}
