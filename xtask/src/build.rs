//! The eBPF object, then the userspace programs that embed it.

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use crate::ebpf;
use crate::image::Shipped;
use crate::process;
use crate::setup::toolchain::Toolchain;
use crate::setup::{self, Need};
use crate::term::Ui;
use crate::workspace::{Object, Workspace};

pub(crate) const AGENT: &str = "calico-azure-userspace";
/// The program of that package.
pub(crate) const BINARY: &str = "calico-azure";
pub(crate) const TESTS: &str = "calico-azure-tests";

pub(crate) fn run(ui: &Ui, ws: &Workspace, debug: bool, bpf_log: bool) -> anyhow::Result<ExitCode> {
    let toolchain = setup::run(ui, ws, Need::Build)?;
    if bpf_log {
        ebpf::build(ui, ws, &toolchain, Object::Log)?;
    }
    ebpf::build(ui, ws, &toolchain, Object::Default)?;
    userspace(ui, ws, &if debug { How::Debug } else { How::Release })?;
    Ok(ExitCode::SUCCESS)
}

/// Set-up for running, then both builds: what every verb needs that starts one of our programs.
pub(crate) fn all(ui: &Ui, ws: &Workspace) -> anyhow::Result<Toolchain> {
    let toolchain = setup::run(ui, ws, Need::Everything)?;
    ebpf::build(ui, ws, &toolchain, Object::Default)?;
    userspace(ui, ws, &How::Release)?;
    Ok(toolchain)
}

/// How userspace programs are built.
#[derive(Clone, Debug)]
pub(crate) enum How {
    Debug,
    Release,
    /// As the program of an image.
    Shipped(Shipped),
}

impl How {
    pub(crate) fn apply(&self, cargo: &mut Command) {
        match self {
            Self::Debug => {}
            Self::Release => {
                cargo.arg("--release");
            }
            Self::Shipped(shipped) => shipped.apply(cargo),
        }
    }

    /// Where cargo puts a program.
    pub(crate) fn program(&self, ws: &Workspace, name: &str) -> PathBuf {
        match self {
            Self::Debug => ws.program(name, true),
            Self::Release => ws.program(name, false),
            Self::Shipped(shipped) => shipped.program(ws, name),
        }
    }
}

/// The agent, the demo and the benchmarks.
pub(crate) fn userspace(ui: &Ui, ws: &Workspace, how: &How) -> anyhow::Result<()> {
    programs(ui, ws, how, "the agent and the test programs", &["--bins"]).map(drop)
}

/// The agent alone, and where it is.
pub(crate) fn agent(ui: &Ui, ws: &Workspace, how: &How) -> anyhow::Result<PathBuf> {
    programs(ui, ws, how, BINARY, &["--bin", BINARY])
}

fn programs(ui: &Ui, ws: &Workspace, how: &How, what: &str, which: &[&str]) -> anyhow::Result<PathBuf> {
    let step = ui.step(format!("building {what}"));
    let mut cargo = process::cargo(&ws.root);
    // Both packages, so that dependencies have the features that tests want, too, and are compiled once.
    cargo
        .args(["build", "--package", AGENT, "--package", TESTS])
        .args(which)
        .args(ws.locked());
    how.apply(&mut cargo);
    if !process::visible(&mut cargo)? {
        step.failed();
        anyhow::bail!("{what}: it does not build; the compiler's messages are above");
    }
    let path = how.program(ws, BINARY);
    step.done(&path.display().to_string());
    Ok(path)
}
