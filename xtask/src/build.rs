//! The eBPF object, then the userspace programs that embed it.

use std::process::ExitCode;

use crate::ebpf;
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
    userspace(ui, ws, debug)?;
    Ok(ExitCode::SUCCESS)
}

/// Set-up for running, then both builds: what every verb needs that starts one of our programs.
pub(crate) fn all(ui: &Ui, ws: &Workspace) -> anyhow::Result<Toolchain> {
    let toolchain = setup::run(ui, ws, Need::Everything)?;
    ebpf::build(ui, ws, &toolchain, Object::Default)?;
    userspace(ui, ws, false)?;
    Ok(toolchain)
}

/// The agent, the demo and the benchmarks.
pub(crate) fn userspace(ui: &Ui, ws: &Workspace, debug: bool) -> anyhow::Result<()> {
    let step = ui.step("building the agent and the test programs");
    let mut cargo = process::cargo(&ws.root);
    cargo
        .args(["build", "--package", AGENT, "--package", TESTS, "--bins"])
        .args(ws.locked());
    if !debug {
        cargo.arg("--release");
    }
    if !process::visible(&mut cargo)? {
        step.failed();
        anyhow::bail!("the userspace programs do not build; the compiler's messages are above");
    }
    step.done(&ws.program("calico-azure", debug).display().to_string());
    Ok(())
}
