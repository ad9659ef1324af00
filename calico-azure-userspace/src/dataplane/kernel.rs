//! The programs and maps of one node in the kernel.

use std::io;
use std::time::Duration;

use aya::maps::{Map, MapError, ProgramArray};
use aya::programs::{
    CgroupSkb, ProgramError, ProgramFd, SchedClassifier, TestRun as _, TestRunOptions, TestRunResult, Xdp,
};
use aya::{Ebpf, EbpfError, EbpfLoader};
use calico_azure_ebpf::abi::{calls, map, program, socket_calls};

use super::io::{Entries, MapIo, Table};
use super::load;
use super::maps::{Maps, sizes_of, specs};
use super::pins::{ExpectedMap, Fit, PinError, Pins};

/// The programs of interfaces, in the order in which their pins are listed, and those that they call.
pub const PROGRAMS: [&str; 16] = [
    program::FROM_WORKLOAD,
    program::TO_WORKLOAD,
    program::FROM_FABRIC,
    program::TO_FABRIC,
    program::SERVICE,
    program::HOST_IN4,
    program::HOST_IN6,
    program::HOST_OUT4,
    program::HOST_OUT6,
    program::RESET4,
    program::RESET6,
    program::FROM_WORKLOAD6,
    program::TO_WORKLOAD6,
    program::SERVICE6,
    program::HOST_SERVICE4,
    program::HOST_SERVICE6,
];

/// The programs of control groups: the one that is attached, and those that it calls.
pub const SOCKET_PROGRAMS: [&str; 3] = [program::TO_HOST, program::HOST_SOCKET4, program::HOST_SOCKET6];

/// `XDP_PASS`.
const XDP_PASS: u32 = 2;

/// Programs that call each other by their place in `CALLS`.
const CALLS: [(u32, &str); 14] = [
    (calls::SERVICE, program::SERVICE),
    (calls::TO_WORKLOAD, program::TO_WORKLOAD),
    (calls::TO_FABRIC, program::TO_FABRIC),
    (calls::FROM_WORKLOAD6, program::FROM_WORKLOAD6),
    (calls::TO_WORKLOAD6, program::TO_WORKLOAD6),
    (calls::SERVICE6, program::SERVICE6),
    (calls::HOST_IN4, program::HOST_IN4),
    (calls::HOST_IN6, program::HOST_IN6),
    (calls::HOST_OUT4, program::HOST_OUT4),
    (calls::HOST_OUT6, program::HOST_OUT6),
    (calls::RESET4, program::RESET4),
    (calls::RESET6, program::RESET6),
    (calls::HOST_SERVICE4, program::HOST_SERVICE4),
    (calls::HOST_SERVICE6, program::HOST_SERVICE6),
];

/// As [`CALLS`], in `SOCKET_CALLS`.
const SOCKET_CALLS: [(u32, &str); 2] = [
    (socket_calls::HOST_SOCKET4, program::HOST_SOCKET4),
    (socket_calls::HOST_SOCKET6, program::HOST_SOCKET6),
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

/// The loaded object.
pub struct Kernel {
    ebpf: Ebpf,
    maps: Maps,
    pins: Option<Pins>,
}

impl Kernel {
    /// Loads programs and maps; with `pins`, maps of an earlier agent are taken over after a check.
    ///
    /// # Errors
    /// [`KernelError`].
    pub fn load(object: &[u8], pins: Option<Pins>, sizes: Sizes) -> Result<Self, KernelError> {
        let mut kernel = Self::prepare(object, pins, sizes)?;
        kernel.load_programs()?;
        Ok(kernel)
    }

    /// As [`Self::load`], but for the programs.
    ///
    /// # Errors
    /// [`KernelError`].
    pub fn prepare(object: &[u8], pins: Option<Pins>, sizes: Sizes) -> Result<Self, KernelError> {
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
            let mut resized = false;
            for spec in &specs {
                let (key_size, value_size) = sizes_of(spec);
                let fit = pins.check(
                    spec.name,
                    &ExpectedMap {
                        kind: spec.kind,
                        key_size,
                        value_size,
                        max_entries: spec.entries,
                    },
                )?;
                resized |= fit == Fit::OtherSize;
            }
            if resized {
                let aside = pins.set_aside()?;
                tracing::info!(path = %aside.display(), "tables are to have other sizes: they are made anew");
            }
            pins.create()?;
        }
        for spec in &specs {
            loader.map_max_entries(spec.name, spec.entries);
            if let Some(pins) = &pins {
                loader.map_pin_path(spec.name, pins.maps().join(spec.name));
            }
        }
        let ebpf = loader.load(object).map_err(load_error)?;
        let maps = Maps::of(&ebpf, &specs)?;
        Ok(Self { ebpf, maps, pins })
    }

    /// Loads the programs, which takes the verifier seconds.
    ///
    /// # Errors
    /// [`KernelError`].
    pub fn load_programs(&mut self) -> Result<(), KernelError> {
        let names: Vec<_> = PROGRAMS
            .into_iter()
            .chain(SOCKET_PROGRAMS)
            .chain([program::UNTRACKED])
            .collect();
        load::all(&mut self.ebpf, &names)?;
        // Before anything is attached: a call that finds nothing drops the packet.
        connect(&mut self.ebpf)
    }

    /// A program, to attach it or to run it on a packet.
    ///
    /// # Errors
    /// [`KernelError::Missing`].
    pub fn program(&mut self, name: &'static str) -> Result<&mut SchedClassifier, KernelError> {
        classifier(&mut self.ebpf, name)
    }

    /// The program of control groups.
    ///
    /// # Errors
    /// [`KernelError::Missing`].
    pub fn to_host(&mut self) -> Result<&mut CgroupSkb, KernelError> {
        socket(&mut self.ebpf, program::TO_HOST)
    }

    /// The XDP program.
    ///
    /// # Errors
    /// [`KernelError::Missing`].
    pub fn untracked(&mut self) -> Result<&mut Xdp, KernelError> {
        untracked(&mut self.ebpf)
    }

    /// Runs the XDP program on a frame of the loopback interface: whether it passes.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn run_untracked(&mut self, frame: &[u8]) -> Result<bool, KernelError> {
        let failed = |source| KernelError::Program {
            name: program::UNTRACKED,
            source: Box::new(source),
        };
        let options = TestRunOptions {
            data_in: Some(frame),
            repeat: 1,
            ..TestRunOptions::default()
        };
        let result = self.untracked()?.test_run(options).map_err(failed)?;
        Ok(result.return_value == XDP_PASS)
    }

    /// Runs a program on a packet (`BPF_PROG_TEST_RUN`), with `context` as the beginning of its `__sk_buff`, which becomes what
    /// the last run made of it: the last return value and the mean time of a run.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn test_run(
        &mut self,
        name: &'static str,
        packet: &[u8],
        context: &mut [u8],
        repeat: u32,
    ) -> Result<(u32, Duration), KernelError> {
        let before = context.to_vec();
        let options = TestRunOptions {
            data_in: Some(packet),
            ctx_in: Some(&before),
            ctx_out: Some(context),
            repeat,
            ..TestRunOptions::default()
        };
        let result = self.run(name, options)?;
        Ok((result.return_value, result.duration))
    }

    /// As [`Self::test_run`], once: the return value, and what became of the packet.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn test_rewrite(
        &mut self,
        name: &'static str,
        packet: &[u8],
        context: &[u8],
    ) -> Result<(u32, Vec<u8>), KernelError> {
        let mut out = vec![0; packet.len()];
        let options = TestRunOptions {
            data_in: Some(packet),
            data_out: Some(&mut out),
            ctx_in: Some(context),
            ..TestRunOptions::default()
        };
        let result = self.run(name, options)?;
        out.truncate(result.data_size_out as usize);
        Ok((result.return_value, out))
    }

    fn run(&mut self, name: &'static str, options: TestRunOptions<'_>) -> Result<TestRunResult, KernelError> {
        let result = match name {
            program::TO_HOST => self.to_host()?.test_run(options),
            _ => classifier(&mut self.ebpf, name)?.test_run(options),
        };
        result.map_err(|source| KernelError::Program {
            name,
            source: Box::new(source),
        })
    }

    /// Instructions that the verifier looked at (kernel 5.16, commit aba64c7da983; 0 before), and bytes of machine code.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn verified(&mut self, name: &'static str) -> Result<(u32, u32), KernelError> {
        let info = match name {
            program::UNTRACKED => self.untracked()?.info(),
            _ if SOCKET_PROGRAMS.contains(&name) => socket(&mut self.ebpf, name)?.info(),
            _ => classifier(&mut self.ebpf, name)?.info(),
        };
        let info = info.map_err(|source| KernelError::Program {
            name,
            source: Box::new(source),
        })?;
        Ok((info.verified_instruction_count().unwrap_or(0), info.size_jitted()))
    }

    /// The tables.
    #[must_use]
    pub fn maps(&self) -> &Maps {
        &self.maps
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
}

/// For harnesses that own programs and tables together.
impl MapIo for Kernel {
    fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> io::Result<()> {
        self.maps.put(table, key, value)
    }

    fn delete(&mut self, table: Table, key: &[u8]) -> io::Result<()> {
        self.maps.delete(table, key)
    }

    fn dump(&self, table: Table) -> io::Result<Entries> {
        self.maps.dump(table)
    }

    fn wait_for_programs(&self) -> io::Result<()> {
        self.maps.wait_for_programs()
    }
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

fn socket<'a>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut CgroupSkb, KernelError> {
    let program = ebpf.program_mut(name).ok_or(KernelError::Missing {
        kind: "program",
        name,
    })?;
    program.try_into().map_err(|source| KernelError::Program {
        name,
        source: Box::new(source),
    })
}

fn untracked(ebpf: &mut Ebpf) -> Result<&mut Xdp, KernelError> {
    let name = program::UNTRACKED;
    let program = ebpf.program_mut(name).ok_or(KernelError::Missing {
        kind: "program",
        name,
    })?;
    program.try_into().map_err(|source| KernelError::Program {
        name,
        source: Box::new(source),
    })
}

/// Fills the tables of programs. Those of an earlier agent that share them call these from now on; the other tables are the same.
fn connect(ebpf: &mut Ebpf) -> Result<(), KernelError> {
    let mut programs = Vec::new();
    for (place, name) in CALLS {
        programs.push((place, cloned(name, classifier(ebpf, name)?.fd())?));
    }
    fill(ebpf, map::CALLS, programs)?;
    let mut programs = Vec::new();
    for (place, name) in SOCKET_CALLS {
        programs.push((place, cloned(name, socket(ebpf, name)?.fd())?));
    }
    fill(ebpf, map::SOCKET_CALLS, programs)
}

fn cloned(name: &'static str, fd: Result<&ProgramFd, ProgramError>) -> Result<ProgramFd, KernelError> {
    let fd = fd.and_then(|fd| Ok(fd.try_clone()?));
    fd.map_err(|source| KernelError::Program {
        name,
        source: Box::new(source),
    })
}

fn fill(ebpf: &mut Ebpf, name: &'static str, programs: Vec<(u32, ProgramFd)>) -> Result<(), KernelError> {
    let failed = |source: MapError| KernelError::Map {
        name,
        source: io::Error::other(source),
    };
    let table = ebpf
        .map_mut(name)
        .ok_or(KernelError::Missing { kind: "map", name })?;
    let mut table = ProgramArray::try_from(table).map_err(failed)?;
    for (place, fd) in programs {
        table.set(place, &fd, 0).map_err(failed)?;
    }
    Ok(())
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

/// Kernels before 5.11 charge maps against the locked-memory limit.
fn raise_memlock() {
    let limit = libc::rlimit {
        rlim_cur: libc::RLIM_INFINITY,
        rlim_max: libc::RLIM_INFINITY,
    };
    // SAFETY: passes a valid struct. A refusal shows up as a failing map creation, with its own error.
    let _refused = unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const limit) };
}
