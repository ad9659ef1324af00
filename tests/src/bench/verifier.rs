//! What the verifier says of each program: instructions that it follows, and stack.
//!
//! It tells both in its log, which a loader gets to see of what it refuses only. So each program is loaded once without room for
//! another descriptor: the verifier has accepted it by then, and the call fails after it.

use std::fmt;

use anyhow::{Context as _, Result, bail, ensure};
use aya::programs::{CgroupSkb, ProgramError, SchedClassifier, Xdp};
use aya::{EbpfLoader, VerifierLogLevel};
use calico_azure_ebpf::abi::program;
use calico_azure_userspace::dataplane::kernel::{PROGRAMS, SOCKET_PROGRAMS, Sizes};

use super::output::machine;
use crate::harness::object;

/// The verifier may look at this many instructions of a program at most.
const VERIFIED_LIMIT: u32 = 100_000;
/// On kernels whose verifier prunes less: what 6.12 takes 90,000 steps for takes 5.10 170,000. They allow a million.
const VERIFIED_LIMIT_OLD: u32 = 200_000;
/// Bytes of stack, those of all functions that are active at a time together.
pub const STACK_LIMIT: u32 = 512;

/// What the verifier says of a program.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    pub name: &'static str,
    /// Instructions that it followed, on all ways; `None` if its log does not tell.
    pub instructions: Option<u32>,
    /// Bytes of the stack of each function, the program's own first; none if its log does not tell.
    pub stack: Vec<u32>,
}

/// How many instructions this kernel's verifier may follow.
#[must_use]
pub fn limit() -> u32 {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    limit_of(&release)
}

fn limit_of(release: &str) -> u32 {
    let mut numbers = release.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    match (numbers.next(), numbers.next()) {
        (Some(major), Some(minor)) if (major, minor) < (6, 12) => VERIFIED_LIMIT_OLD,
        _ => VERIFIED_LIMIT,
    }
}

/// Of every program. While it runs, this process can open nothing.
///
/// # Errors
/// If the kernel refuses a program.
pub fn verified() -> Result<Vec<Verified>> {
    let object = object()?;
    let mut loader = EbpfLoader::new();
    loader.verifier_log_level(VerifierLogLevel::STATS);
    for name in small() {
        loader.map_max_entries(name, 1024);
    }
    let mut ebpf = loader.load(&object)?;
    let mut all = Vec::new();
    let programs = PROGRAMS.into_iter().chain(SOCKET_PROGRAMS);
    for name in programs.chain([program::UNTRACKED]) {
        let program = ebpf
            .program_mut(name)
            .with_context(|| format!("no program {name}"))?;
        let room = Room::none()?;
        let result = match name {
            _ if SOCKET_PROGRAMS.contains(&name) => {
                <&mut CgroupSkb>::try_from(program).and_then(CgroupSkb::load)
            }
            program::UNTRACKED => <&mut Xdp>::try_from(program).and_then(Xdp::load),
            _ => <&mut SchedClassifier>::try_from(program).and_then(SchedClassifier::load),
        };
        drop(room);
        let log = match result {
            Err(ProgramError::LoadError {
                io_error,
                verifier_log,
            }) if io_error.raw_os_error() == Some(libc::EMFILE) => verifier_log.to_string(),
            Err(error) => return Err(error).with_context(|| format!("the kernel refuses {name}")),
            Ok(()) => bail!("{name} was loaded without a descriptor"),
        };
        all.push(parse(name, &log));
    }
    Ok(all)
}

/// Maps whose size can be chosen; what is allocated in advance takes time.
fn small() -> impl Iterator<Item = &'static str> {
    let sizes = Sizes {
        conntrack: 1024,
        half_open: 1024,
        tables: 1024,
    };
    sizes
        .limits()
        .into_iter()
        .filter(|(_, entries)| *entries == 1024)
        .map(|(name, _)| name)
}

/// As long as it lives, the process gets no further descriptors.
struct Room(libc::rlimit);

impl Room {
    fn none() -> Result<Self> {
        let mut before = libc::rlimit {
            rlim_cur: 0,
            rlim_max: 0,
        };
        // SAFETY: writes a struct of ours.
        let read = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut before) };
        let none = libc::rlimit {
            rlim_cur: 0,
            ..before
        };
        // SAFETY: reads a struct of ours.
        let set = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const none) };
        ensure!(read == 0 && set == 0, "cannot change the limit of descriptors");
        Ok(Self(before))
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        // SAFETY: reads a struct of ours. It was in force before, so nothing refuses it.
        unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const self.0) };
    }
}

fn parse(name: &'static str, log: &str) -> Verified {
    let after = |start: &str| log.lines().find_map(|line| line.trim().strip_prefix(start));
    let followed = after("processed ").and_then(|rest| rest.split(' ').next()?.parse().ok());
    let depths = after("stack depth ").unwrap_or_default().split([' ', '+']);
    Verified {
        name,
        instructions: followed,
        stack: depths.map_while(|depth| depth.parse().ok()).collect(),
    }
}

impl fmt::Display for Verified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            name,
            instructions,
            stack,
        } = self;
        let unknown = || "unknown".to_owned();
        let followed = instructions.map_or_else(unknown, |instructions| instructions.to_string());
        let stack: Vec<String> = stack.iter().map(u32::to_string).collect();
        let stack = if stack.is_empty() {
            unknown()
        } else {
            stack.join("+")
        };
        write!(f, "{name:<16} {followed:>22}   {stack}")
    }
}

/// Prints all of it; whether it is within the limits.
pub(super) fn run() -> Result<bool> {
    let limit = limit();
    let mut fine = true;
    println!(
        "{:<16} {:>22}   BYTES OF STACK, BY FUNCTION",
        "PROGRAM", "VERIFIED INSTRUCTIONS"
    );
    for program in verified()? {
        fine &= program
            .instructions
            .is_none_or(|instructions| instructions <= limit);
        println!("{program}");
    }
    println!(
        "limit {limit}; that of the stack, {STACK_LIMIT} bytes on any way through the functions, is the verifier's own. {}",
        machine()
    );
    Ok(fine)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_found_in_the_verifiers_log() {
        let log = "verification time 31337 usec\nstack depth 328+96+0+184\nprocessed 82571 insns (limit 1000000) \
                   max_states_per_insn 4 total_states 4711 peak_states 815 mark_read 42\n";
        let expected = Verified {
            name: "service",
            instructions: Some(82_571),
            stack: vec![328, 96, 0, 184],
        };
        assert_eq!(parse("service", log), expected);
        // Newer kernels say more behind it.
        let log = "stack depth 64 max 64\nprocessed 5 insns (limit 1000000)";
        assert_eq!(parse("service", log).stack, [64]);
        let silent = parse("service", "");
        assert_eq!((silent.instructions, silent.stack.len()), (None, 0));
        assert_eq!(silent.to_string().matches("unknown").count(), 2);
    }

    #[test]
    fn older_kernels_have_a_limit_of_their_own() {
        assert_eq!(limit_of("5.10.0-35-cloud-amd64"), VERIFIED_LIMIT_OLD);
        assert_eq!(limit_of("6.1.0"), VERIFIED_LIMIT_OLD);
        assert_eq!(limit_of("6.12.95+deb12"), VERIFIED_LIMIT);
        assert_eq!(limit_of("6.18.44\n"), VERIFIED_LIMIT);
    }
}
