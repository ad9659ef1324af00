//! Makes a machine able to build and run everything here; every verb calls it, so it is quick when nothing is to do.
//!
//! Facts are gathered in [`facts`], judged by pure functions ([`problems`], [`toolchain`], [`packages`]), and acted
//! on here. The stamp remembers the toolchain that was found; what a reboot undoes is checked each time.

mod apt;
mod facts;
mod linker;
mod packages;
mod problems;
mod rustup;
mod stamp;
pub(crate) mod toolchain;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

use self::facts::Facts;
use self::problems::Problem;
use self::stamp::Stamp;
use self::toolchain::{Attempt, Choice, Toolchain};
use crate::process;
use crate::term::Ui;
use crate::workspace::Workspace;

/// What the verb is about to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// Only compile: no privilege and no particular kernel needed.
    Build,
    /// Compile, load programs, make network namespaces.
    Everything,
}

/// Does whatever is still to do and returns the toolchain for the eBPF programs.
pub(crate) fn run(ui: &Ui, ws: &Workspace, need: Need) -> anyhow::Result<Toolchain> {
    let mut facts = Facts::of_machine();
    fail_on(&facts.problems(need))?;
    std::fs::create_dir_all(&ws.target).with_context(|| format!("cannot create {}", ws.target.display()))?;
    if need == Need::Everything {
        if !facts.bpffs_mounted {
            mount_bpffs(ui)?;
            facts.bpffs_mounted = true;
        }
        install_tools(ui, ws, &facts)?;
    }
    if let Some(toolchain) = Stamp::read(&ws.stamp()).and_then(Stamp::if_still_true) {
        return Ok(toolchain);
    }
    let step = ui.step("finding a toolchain for the eBPF programs");
    let toolchain = find_toolchain(ui, ws, &facts)?;
    Stamp::of(&toolchain).write(&ws.stamp())?;
    step.done(&toolchain.describe());
    Ok(toolchain)
}

fn fail_on(problems: &[Problem]) -> anyhow::Result<()> {
    if problems.is_empty() {
        return Ok(());
    }
    bail!(
        "{}",
        problems
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join("\n       ")
    )
}

fn mount_bpffs(ui: &Ui) -> anyhow::Result<()> {
    let step = ui.step("mounting the BPF file system at /sys/fs/bpf");
    match process::capture(Command::new("mount").args(["-t", "bpf", "bpffs", facts::BPFFS])) {
        Ok(_) => step.done(""),
        Err(error) => {
            step.failed();
            bail!(Problem::MountFailed {
                error: format!("{error:#}")
            });
        }
    }
    Ok(())
}

/// Programs the demo, the tests and the benchmarks start.
fn install_tools(ui: &Ui, ws: &Workspace, facts: &Facts) -> anyhow::Result<()> {
    install(ui, ws, facts, || {
        packages::missing_tools(
            |file| Path::new(file).exists(),
            |name| process::which(name).is_some(),
        )
    })
}

/// What virtual machines with other kernels need besides.
pub(crate) fn virtual_machines(ui: &Ui, ws: &Workspace) -> anyhow::Result<()> {
    let facts = Facts::of_machine();
    if !facts.has_apt() || std::env::consts::ARCH != "x86_64" {
        bail!(
            "other kernels come from the Debian archive, by apt, for x86_64; {} has none",
            facts.distro_name()
        );
    }
    install(ui, ws, &facts, || {
        packages::missing_machine_tools(|name| process::which(name).is_some())
    })
}

/// An installed CNI plug-in.
pub(crate) fn cni_plugin(name: &str) -> Option<PathBuf> {
    let mut files = packages::CNI
        .iter()
        .map(|beside| Path::new(beside).with_file_name(name));
    files.find(|file| file.is_file())
}

/// What unpacks sources from the Debian archive.
pub(crate) fn source_tools(ui: &Ui, ws: &Workspace) -> anyhow::Result<()> {
    install(ui, ws, &Facts::of_machine(), || {
        packages::missing_source_tools(|name| process::which(name).is_some())
    })
}

/// A C compiler for a program's few parts in C.
pub(crate) fn c_compiler(ui: &Ui, ws: &Workspace, name: &str) -> anyhow::Result<()> {
    install(ui, ws, &Facts::of_machine(), || {
        packages::missing_compilers(name, |name| process::which(name).is_some())
    })
}

/// The keys of the Debian archive, which Debian itself has and other distributions have as a package.
pub(crate) fn archive_keyring(ui: &Ui, ws: &Workspace, file: &Path) -> anyhow::Result<()> {
    let facts = Facts::of_machine();
    if !facts.has_apt() {
        bail!(
            "kube-apiserver and etcd for the tests come from the Debian archive, by apt, and {} has none: name programs of your own in \
             {} and {}",
            facts.distro_name(),
            crate::apiserver::APISERVER,
            crate::apiserver::ETCD
        );
    }
    if file.is_file() {
        return Ok(());
    }
    apt::Apt::new(ui, ws.setup_log()).install(
        "installing the keys of the Debian archive",
        &["debian-archive-keyring".to_owned()],
    )
}

fn install(
    ui: &Ui,
    ws: &Workspace,
    facts: &Facts,
    missing_now: impl Fn() -> Vec<&'static packages::Tool>,
) -> anyhow::Result<()> {
    let missing = missing_now();
    if missing.is_empty() {
        return Ok(());
    }
    let names: Vec<String> = missing.iter().map(|tool| tool.name.to_owned()).collect();
    if !facts.has_apt() {
        fail_on(&packages::by_hand(&missing, facts.distro_name()))?;
        return Ok(());
    }
    let mut apt = apt::Apt::new(ui, ws.setup_log());
    let wanted = packages::select(&missing, |package| apt.candidate(package).is_some()).or_else(|_| {
        apt.update();
        packages::select(&missing, |package| apt.candidate(package).is_some())
            .map_err(|problem| apt.because(problem))
    })?;
    apt.install(&format!("installing {}", names.join(", ")), &wanted)?;
    fail_on(&packages::still_missing(&missing_now()))
}

/// The first toolchain that has the sources of `core` and a linker that understands its output.
fn find_toolchain(ui: &Ui, ws: &Workspace, facts: &Facts) -> anyhow::Result<Toolchain> {
    let wish = std::env::var(toolchain::OVERRIDE)
        .ok()
        .filter(|wish| !wish.is_empty());
    let mut attempts = toolchain::attempts(facts);
    let mut tried: Vec<String> = Vec::new();
    loop {
        let found = facts::toolchains(wish.as_deref());
        match toolchain::choose(&found, wish.as_deref()) {
            Ok(Choice { candidate, why }) => {
                let linker = linker::find_or_install(ui, ws, facts, &candidate)?;
                return Ok(Toolchain {
                    why,
                    linker,
                    ..Toolchain::of(&candidate)
                });
            }
            Err(problem) if wish.is_some() => bail!(problem),
            Err(problem) => tried.extend(problem.reasons()),
        }
        if attempts.is_empty() {
            tried.dedup();
            bail!(Problem::NoToolchain { tried });
        }
        if let Err(error) = attempt(ui, ws, facts, attempts.remove(0)) {
            tried.push(format!("{error:#}"));
        }
    }
}

fn attempt(ui: &Ui, ws: &Workspace, facts: &Facts, attempt: Attempt) -> anyhow::Result<()> {
    match attempt {
        Attempt::Rustup => rustup::install(ui, &ws.setup_log()),
        Attempt::Apt if !facts.root => bail!(Problem::NotRoot {
            to: "install a Rust compiler with sources"
        }),
        Attempt::Apt => {
            let mut apt = apt::Apt::new(ui, ws.setup_log());
            let wanted = match packages::compiler(|package| apt.candidate(package)) {
                Some(set) => set,
                None => {
                    apt.update();
                    packages::compiler(|package| apt.candidate(package)).ok_or_else(|| {
                        apt.because(Problem::NoCompilerPackage {
                            distro: facts.distro_name().to_owned(),
                        })
                    })?
                }
            };
            apt.install(
                "installing the distribution's Rust compiler with its sources",
                &wanted,
            )
        }
    }
}
