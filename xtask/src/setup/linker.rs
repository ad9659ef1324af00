//! Finding or installing a bpf-linker whose LLVM can read what the chosen rustc writes.
//!
//! Version numbers do not tell which LLVM a linker was built with, so each candidate links a tiny function that
//! this very rustc compiled.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use super::apt::Apt;
use super::facts::{Facts, version_pair};
use super::packages;
use super::problems::Problem;
use super::toolchain::Candidate;
use crate::process;
use crate::term::Ui;
use crate::workspace::Workspace;

/// Names a bpf-linker to use instead of the choice made here.
pub(super) const OVERRIDE: &str = "CALICO_AZURE_BPF_LINKER";
/// The release that is installed where none is there.
const VERSION: &str = "0.13.0";
/// The LLVM releases it can be built with, the most proven first.
const LLVM_MAJORS: [u32; 3] = [22, 21, 23];

const PROBE: &str = "\
#![no_std]
#[unsafe(no_mangle)]
#[unsafe(link_section = \"classifier\")]
pub extern \"C\" fn probe(x: u64) -> u32 {
    (x & 3) as u32
}
";

/// A linker for this toolchain: the user's, one that is here already, or a new one in the target directory.
pub(super) fn find_or_install(
    ui: &Ui,
    ws: &Workspace,
    facts: &Facts,
    rust: &Candidate,
) -> anyhow::Result<PathBuf> {
    let scratch = ws.target.join("bpf-linker-probe");
    if let Some(wish) = std::env::var_os(OVERRIDE).filter(|wish| !wish.is_empty()) {
        let linker = PathBuf::from(wish);
        probe(rust, &linker, &scratch).with_context(|| format!("{OVERRIDE}={}", linker.display()))?;
        return Ok(linker);
    }
    let ours = ws.tools().join("bin/bpf-linker");
    let mut reasons = Vec::new();
    for linker in std::iter::once(ours.clone()).chain(process::all_on_path("bpf-linker")) {
        match linker.is_file().then(|| probe(rust, &linker, &scratch)) {
            Some(Ok(())) => return Ok(linker),
            Some(Err(error)) => reasons.push(format!("{}: {error:#}", linker.display())),
            None => {}
        }
    }
    match install(ui, ws, facts, rust).and_then(|()| probe(rust, &ours, &scratch)) {
        Ok(()) => Ok(ours),
        Err(error) => {
            reasons.push(format!("{error:#}"));
            bail!(Problem::NoLinker {
                llvm: rust.llvm,
                reasons
            })
        }
    }
}

/// Compiles a function with this rustc and links it for BPF.
fn probe(rust: &Candidate, linker: &Path, scratch: &Path) -> anyhow::Result<()> {
    let version = process::capture(process::foreign(linker).arg("--version"))?;
    if !recent(&version) {
        let first = version.lines().next().unwrap_or_default();
        bail!("it says that it is `{first}`, and bpf-linker 0.10.4 or newer is needed");
    }
    std::fs::create_dir_all(scratch).with_context(|| format!("cannot create {}", scratch.display()))?;
    let (source, bitcode, object) = (
        scratch.join("probe.rs"),
        scratch.join("probe.bc"),
        scratch.join("probe.o"),
    );
    std::fs::write(&source, PROBE).with_context(|| format!("cannot write {}", source.display()))?;
    let mut rustc = process::foreign(&rust.rustc());
    rustc.args([
        "--edition",
        "2024",
        "--crate-type",
        "lib",
        "--emit",
        "llvm-bc",
        "-C",
        "panic=abort",
        "-o",
    ]);
    process::capture(rustc.arg(&bitcode).arg(&source))?;
    let mut link = process::foreign(linker);
    link.args(["--target", "bpfel-unknown-none", "--export", "probe", "-o"])
        .arg(&object)
        .arg(&bitcode);
    process::capture(&mut link).map(drop)
}

fn recent(version: &str) -> bool {
    let number = version.split_whitespace().next_back().unwrap_or_default();
    let patch = number
        .split(['.', '-'])
        .nth(2)
        .and_then(|text| text.parse::<u32>().ok())
        .unwrap_or(0);
    version_pair(number).is_some_and(|pair| (pair, patch) >= ((0, 10), 4))
}

/// Builds the linker against the distribution's LLVM, or lets cargo-binstall fetch the project's own binary.
fn install(ui: &Ui, ws: &Workspace, facts: &Facts, rust: &Candidate) -> anyhow::Result<()> {
    let fetched = process::which("cargo-binstall").map(|_| binstall(ui, ws));
    if let Some(Ok(())) = fetched {
        return Ok(());
    }
    let major = llvm_with_headers(ui, ws, facts, rust)?;
    let mut command = process::cargo(&ws.root);
    command.env("LLVM_PREFIX", format!("/usr/lib/llvm-{major}"));
    // The workspace's settings are for the workspace's crates.
    command.env_remove("RUSTFLAGS").env_remove("CARGO_TARGET_DIR");
    command.args([
        "install",
        "bpf-linker",
        "--version",
        VERSION,
        "--locked",
        "--force",
        "--no-default-features",
    ]);
    command
        .arg("--features")
        .arg(format!("llvm-{major}"))
        .arg("--root")
        .arg(ws.tools());
    let title = format!("building bpf-linker {VERSION} against LLVM {major} (about a minute)");
    process::logged(ui, &title, &mut command, &ws.setup_log())
}

fn binstall(ui: &Ui, ws: &Workspace) -> anyhow::Result<()> {
    let mut command = process::cargo(&ws.root);
    command
        .args(["binstall", "--no-confirm", "--force", "--root"])
        .arg(ws.tools());
    command.arg(format!("bpf-linker@{VERSION}"));
    process::logged(
        ui,
        &format!("fetching bpf-linker {VERSION}"),
        &mut command,
        &ws.setup_log(),
    )
}

/// An LLVM at least as new as rustc's, with what is needed to build against it.
fn llvm_with_headers(ui: &Ui, ws: &Workspace, facts: &Facts, rust: &Candidate) -> anyhow::Result<u32> {
    let fitting = || LLVM_MAJORS.into_iter().filter(|&major| major >= rust.llvm);
    let header = |major: u32| Path::new(&format!("/usr/lib/llvm-{major}/include/llvm-c/Core.h")).exists();
    let others = [
        "/usr/include/zlib.h",
        "/usr/include/zstd.h",
        "/usr/include/libxml2/libxml/tree.h",
    ];
    if let Some(major) = fitting().find(|&major| header(major))
        && others.iter().all(|file| Path::new(file).exists())
    {
        return Ok(major);
    }
    let wanted = fitting()
        .map(|major| format!("llvm-{major}-dev"))
        .collect::<Vec<_>>()
        .join(" or ");
    if !facts.has_apt() {
        bail!(
            "building one needs {wanted}, zlib, zstd and libxml2 with headers, and {} has no apt",
            facts.distro_name()
        );
    }
    if !facts.root {
        bail!(Problem::NotRoot {
            to: "install LLVM for building bpf-linker"
        });
    }
    let mut apt = Apt::new(ui, ws.setup_log());
    let mut major = fitting().find(|major| apt.candidate(&format!("llvm-{major}-dev")).is_some());
    if major.is_none() {
        apt.update();
        major = fitting().find(|major| apt.candidate(&format!("llvm-{major}-dev")).is_some());
    }
    let Some(major) = major else {
        bail!(apt.because(Problem::NoLlvmPackage { wanted }));
    };
    apt.install(
        &format!("installing LLVM {major} to build bpf-linker with"),
        &packages::llvm(major),
    )?;
    Ok(major)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn linkers_before_0_10_4_are_refused() {
        for (version, expected) in [
            ("bpf-linker 0.13.0\n", true),
            ("bpf-linker 0.10.4", true),
            ("bpf-linker 0.10.3", false),
            ("bpf-linker 0.9.14", false),
            ("bpf-linker 1.0.0-rc1", true),
            ("", false),
        ] {
            assert_eq!(recent(version), expected, "{version:?}");
        }
    }
}
