//! The programs that the product is compared with, loaded.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use aya::maps::lpm_trie::Key;
use aya::maps::{Array, HashMap, LpmTrie, ProgramArray};
use aya::programs::{
    Program, SchedClassifier, TcAttachType, TestRun as _, TestRunAttrs, TestRunOptions, TestRunResult, Xdp,
    XdpMode,
};
use aya::{Ebpf, EbpfLoader};
use calico_azure_ebpf::abi::{self, CtKey4, CtKey6};
use calico_azure_ebpf::yardstick::{Member, Rule};
use ipnet::Ipv4Net;

/// An `abi` struct, as aya wants it.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Plain<T>(T);

// SAFETY: `abi::Pod` promises plain bytes without padding, and the wrapper is transparent.
unsafe impl<T: abi::Pod + Copy + 'static> aya::Pod for Plain<T> {}

/// TC programs of the object.
const CLASSIFIERS: [&str; 7] = [
    "empty",
    "clock",
    "lookup4",
    "lookup6",
    "walk",
    "walk_on",
    "minimal_tc",
];
/// XDP programs of the object.
const XDPS: [&str; 2] = ["minimal_xdp", "generate"];

/// `TC_ACT_UNSPEC` as the kernel returns it.
pub(super) const PASS: u32 = u32::MAX;
/// `TC_ACT_SHOT`.
pub(super) const DROP: u32 = 2;

/// The loaded object.
pub(super) struct Yardstick {
    ebpf: Ebpf,
    /// Of the sets: what was put in.
    members: Vec<(u32, Ipv4Net)>,
}

impl Yardstick {
    /// Loads everything into the calling thread's network namespace; nothing is attached.
    pub(super) fn load() -> Result<Self> {
        let mut ebpf = EbpfLoader::new().load(&crate::harness::built("calico-azure-yardstick.o")?)?;
        for name in CLASSIFIERS {
            classifier(&mut ebpf, name)?
                .load()
                .with_context(|| name.to_owned())?;
        }
        for name in XDPS {
            xdp(&mut ebpf, name)?.load().with_context(|| name.to_owned())?;
        }
        let next = classifier(&mut ebpf, "walk_on")?.fd()?.try_clone()?;
        let mut pages: ProgramArray<_> = ebpf.map_mut("PAGES").context("no map PAGES")?.try_into()?;
        pages.set(0, &next, 0)?;
        let mut keys: HashMap<_, Plain<CtKey4>, u64> = map(&mut ebpf, "KEYS4")?.try_into()?;
        let key = CtKey4 {
            addr: [1, 2],
            port: [3, 4],
            protocol: 6,
        };
        keys.insert(Plain(key), 1, 0)?;
        let mut keys: HashMap<_, Plain<CtKey6>, u64> = map(&mut ebpf, "KEYS6")?.try_into()?;
        let key = CtKey6 {
            addr: [[1; 4], [2; 4]],
            port: [3, 4],
            protocol: 6,
        };
        keys.insert(Plain(key), 1, 0)?;
        Ok(Self {
            ebpf,
            members: Vec::new(),
        })
    }

    /// Runs a TC program on a packet: the last return value and the mean time of a run.
    pub(super) fn run(&mut self, name: &str, packet: &[u8], repeat: u32) -> Result<(u32, Duration)> {
        let options = TestRunOptions {
            data_in: Some(packet),
            repeat,
            ..TestRunOptions::default()
        };
        let TestRunResult {
            return_value,
            duration,
            ..
        } = classifier(&mut self.ebpf, name)?.test_run(options)?;
        Ok((return_value, duration))
    }

    /// Runs an XDP program on so many live frames: those that it redirects leave.
    pub(super) fn live_frames(&mut self, name: &str, packet: &[u8], frames: u32) -> Result<()> {
        xdp(&mut self.ebpf, name)?.test_run(TestRunOptions {
            data_in: Some(packet),
            repeat: frames,
            attrs: TestRunAttrs::new().xdp_live_frames(64),
            ..TestRunOptions::default()
        })?;
        Ok(())
    }

    /// Attaches a TC program for as long as the object is loaded.
    pub(super) fn attach(&mut self, name: &str, interface: &str, direction: TcAttachType) -> Result<()> {
        classifier(&mut self.ebpf, name)?.attach(interface, direction)?;
        Ok(())
    }

    /// Attaches an XDP program, in the driver, for as long as the object is loaded.
    pub(super) fn attach_xdp(&mut self, name: &str, interface: &str) -> Result<()> {
        xdp(&mut self.ebpf, name)?.attach(interface, XdpMode::Driver)?;
        Ok(())
    }

    /// The rules of the walk and the members of its sets, instead of those that there were.
    pub(super) fn set_rules(&mut self, rules: &[Rule], members: Vec<(u32, Ipv4Net)>) -> Result<()> {
        let mut table: Array<_, Plain<Rule>> = map(&mut self.ebpf, "RULES")?.try_into()?;
        ensure!(
            rules.len() <= table.len() as usize,
            "the walk has no room for {} rules",
            rules.len()
        );
        for (i, rule) in (0..).zip(rules) {
            table.set(i, Plain(*rule), 0)?;
        }
        let mut length: Array<_, u32> = map(&mut self.ebpf, "LENGTH")?.try_into()?;
        length.set(0, u32::try_from(rules.len())?, 0)?;
        let mut sets: LpmTrie<_, Plain<Member>, u32> = map(&mut self.ebpf, "SETS")?.try_into()?;
        for member in self.members.drain(..) {
            sets.remove(&key(member))?;
        }
        for member in members {
            sets.insert(&key(member), 1, 0)?;
            self.members.push(member);
        }
        Ok(())
    }

    /// Packets from here are dropped by the minimal filter.
    pub(super) fn block(&mut self, source: Ipv4Addr) -> Result<()> {
        let mut blocked: HashMap<_, u32, u32> = map(&mut self.ebpf, "BLOCKED")?.try_into()?;
        blocked.insert(u32::from_ne_bytes(source.octets()), 1, 0)?;
        Ok(())
    }

    /// Where generated frames are sent.
    pub(super) fn aim(&mut self, ifindex: u32) -> Result<()> {
        let mut target: Array<_, u32> = map(&mut self.ebpf, "TARGET")?.try_into()?;
        target.set(0, ifindex, 0)?;
        Ok(())
    }
}

fn key((set, net): (u32, Ipv4Net)) -> Key<Plain<Member>> {
    let member = Member {
        set,
        addr: u32::from_ne_bytes(net.network().octets()),
    };
    Key::new(32 + u32::from(net.prefix_len()), Plain(member))
}

fn map<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut aya::maps::Map> {
    ebpf.map_mut(name)
        .ok_or_else(|| anyhow!("no map {name}; rebuild with `cargo xtask bench`"))
}

fn classifier<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut SchedClassifier> {
    match ebpf.program_mut(name) {
        Some(Program::SchedClassifier(program)) => Ok(program),
        _ => bail!("no TC program {name}; rebuild with `cargo xtask bench`"),
    }
}

fn xdp<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp> {
    match ebpf.program_mut(name) {
        Some(Program::Xdp(program)) => Ok(program),
        _ => bail!("no XDP program {name}; rebuild with `cargo xtask bench`"),
    }
}
