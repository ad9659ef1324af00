//! `cargo xtask test --kernels`: the programs are loaded, and their tests run, on other kernels, each in a virtual machine.
//!
//! The kernels are Debian's, the machines qemu's in software emulation, and all that is in them is an initial file system with our
//! tests, the lab's tools, and `guest` (`tests/src/bin/guest.rs`) as the first process.

mod debian;
mod image;
mod machine;
mod modules;

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::{Context as _, ensure};
use serde_json::Value;

use self::image::Image;
use crate::build::How;
use crate::image::Shipped;
use crate::process;
use crate::setup::{self, Need};
use crate::term::Ui;
use crate::workspace::{Object, Workspace};
use crate::{build, ebpf};

/// A kernel that Debian has, by the suite it is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kernel {
    /// Bullseye's: the oldest that is supported.
    #[value(name = "5.10")]
    V5_10,
    /// Bookworm's.
    #[value(name = "6.1")]
    V6_1,
    /// Bookworm's backport.
    #[value(name = "6.12")]
    V6_12,
}

impl Kernel {
    pub(crate) const ALL: [Self; 3] = [Self::V5_10, Self::V6_1, Self::V6_12];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::V5_10 => "5.10",
            Self::V6_1 => "6.1",
            Self::V6_12 => "6.12",
        }
    }

    /// What later kernels have within others.
    fn own_modules(self) -> &'static [&'static str] {
        match self {
            Self::V5_10 => &["nft_counter", "nft_objref"],
            Self::V6_1 => &["nft_objref"],
            Self::V6_12 => &[],
        }
    }

    fn suite(self) -> &'static str {
        match self {
            Self::V5_10 => "bullseye",
            Self::V6_1 => "bookworm",
            Self::V6_12 => "bookworm-backports",
        }
    }
}

/// Modules that the tests need.
const MODULES: [&str; 11] = [
    "veth",
    "sch_ingress",
    "cls_bpf",
    // The lab's fabric and its nodes.
    "nf_tables",
    "nft_ct",
    "nft_chain_nat",
    "nft_nat",
    "nft_masq",
    // kube-proxy.
    "dummy",
    "ip_vs",
    "ip_vs_rr",
];

/// Tests of loaded programs that need nothing but `ip`.
const TESTS: [&str; 12] = [
    "programs",
    "edges",
    "service_marks",
    "packets",
    "conntrack",
    "sources",
    "adoption",
    "azure",
    "host_endpoints",
    "host_services",
    "untracked",
    "strangers",
];

/// Those that need not say where a packet came in, which `BPF_PROG_TEST_RUN` takes since 5.17.
const TESTS_OF_OLD: [&str; 3] = [
    "sources_that_are_not_the_pods_own",
    "what_cannot_be_read_is_dropped",
    "later_fragments_follow_their_first",
];

/// Tests with the lab and agents, for what this machine's kernel may not have: IPVS, and older ways of attaching.
const LIVE: [(&str, &str); 4] = [
    (
        "services",
        "egress_policy_judges_the_backend_and_the_answer_returns",
    ),
    (
        "inbound",
        "ingress_policy_judges_what_arrives_and_answers_return_with_the_other_modes",
    ),
    (
        "inbound",
        "affinity_keeps_a_client_with_one_backend_and_its_policy",
    ),
    (
        "host_services_live",
        "host_endpoints_judge_what_services_lead_to_and_the_answer_returns",
    ),
];

/// What became of one run in a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) name: String,
    pub(crate) ok: bool,
    /// As the guest says it: exit code and seconds.
    pub(crate) how: String,
}

/// How much is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    /// The programs, and their tests.
    Programs,
    /// Those of whole nodes, too.
    Everything,
}

/// Boots each kernel in turn. The runs of each, in order; an error if a machine could not be made or did not finish.
pub(crate) fn run(
    ui: &Ui,
    ws: &Workspace,
    kernels: &[Kernel],
    extent: Extent,
) -> anyhow::Result<Vec<(Kernel, Vec<Run>)>> {
    let toolchain = setup::run(ui, ws, Need::Everything)?;
    setup::virtual_machines(ui, ws)?;
    ebpf::build(ui, ws, &toolchain, Object::Default)?;
    let how = How::Shipped(Shipped::for_tests(ws));
    let programs = programs(ui, ws, &how)?;
    let dir = ws.target.join("kernels");
    let mut archive = debian::Kernels::open(ui, &dir)?;
    let mut all = Vec::new();
    for &kernel in kernels {
        let files = archive.kernel(kernel)?;
        let image = Image {
            programs: &programs,
            plan: &plan(kernel, extent),
            object: &ws.object(Object::Default),
            modules: &modules::load_order(&files.modules(), &[kernel.own_modules(), &MODULES].concat())?,
        };
        let initrd = dir.join(format!("{}.img", kernel.name()));
        image.write(&dir.join(kernel.name()).join("root"), &initrd)?;
        let step = ui.step(format!("tests on kernel {}", files.release));
        let log = dir.join(format!("{}.log", kernel.name()));
        let console = machine::boot(&files.vmlinuz, &initrd, &log, |last| step.alive(last))?;
        let runs = machine::runs(&console);
        let failed = runs.iter().filter(|run| !run.ok).count();
        print!("{}", machine::told(&console));
        if machine::finished(&console) && failed == 0 && !runs.is_empty() {
            step.done(&format!("{} runs; the console: {}", runs.len(), log.display()));
        } else {
            step.failed();
        }
        ensure!(
            machine::finished(&console),
            "the machine with kernel {} stopped before its tests were over; its console: {}",
            files.release,
            log.display()
        );
        all.push((kernel, runs));
    }
    Ok(all)
}

/// What the guest runs on a kernel, as (name, program and arguments).
fn plan(kernel: Kernel, extent: Extent) -> Vec<(&'static str, String)> {
    let mut plan = vec![("verifier", "bench\t--verifier".to_owned())];
    if kernel == Kernel::V5_10 {
        let names = TESTS_OF_OLD.join("\t");
        plan.push((
            "programs",
            format!("programs\t--test-threads=1\t--exact\t{names}"),
        ));
    } else {
        plan.extend(TESTS.map(|name| (name, format!("{name}\t--test-threads=1"))));
    }
    if extent == Extent::Everything {
        plan.extend(LIVE.map(|(program, name)| (program, format!("{program}\t--exact\t{name}"))));
    }
    plan
}

/// Builds what runs in the machines: names and paths, the guest first.
fn programs(ui: &Ui, ws: &Workspace, how: &How) -> anyhow::Result<Vec<(String, PathBuf)>> {
    let step = ui.step("building the tests for other kernels");
    let mut cargo = process::cargo(&ws.root);
    cargo
        .args(["test", "--no-run", "--message-format=json", "--quiet"])
        .args(ws.locked())
        // Both, so that dependencies have the features that all tests want. The package's programs are built with its tests.
        .args(["--package", build::AGENT, "--package", build::TESTS]);
    let live: BTreeSet<&str> = LIVE.into_iter().map(|(program, _)| program).collect();
    let tests = || TESTS.into_iter().chain(live.iter().copied());
    for name in tests() {
        cargo.args(["--test", name]);
    }
    how.apply(&mut cargo);
    let messages = process::capture(&mut cargo)?;
    let mut found = vec![("guest".to_owned(), how.program(ws, "guest"))];
    for name in ["bench", build::BINARY] {
        found.push((name.to_owned(), how.program(ws, name)));
    }
    for name in tests() {
        let path = executable(&messages, name).with_context(|| format!("cargo built no test {name}"))?;
        found.push((name.to_owned(), path));
    }
    step.done("");
    Ok(found)
}

fn executable(messages: &str, name: &str) -> Option<PathBuf> {
    messages.lines().find_map(|line| {
        let message: Value = serde_json::from_str(line).ok()?;
        let named = message["target"]["name"] == name;
        let path = message["executable"].as_str().filter(|_| named)?;
        Some(path.into())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_is_found_among_cargos_messages() {
        let messages = r#"{"reason":"compiler-artifact","target":{"name":"programs"},"executable":null}
{"reason":"compiler-artifact","target":{"name":"other"},"executable":"/t/other-1"}
{"reason":"compiler-artifact","target":{"name":"programs"},"executable":"/t/programs-2"}
{"reason":"build-finished","success":true}"#;
        assert_eq!(executable(messages, "programs"), Some("/t/programs-2".into()));
        assert_eq!(executable(messages, "none"), None);
    }
}
