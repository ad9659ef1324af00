//! The program of an image: linked statically, stripped, without this machine's paths.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use super::Arch;
use crate::build;
use crate::process;
use crate::setup;
use crate::term::Ui;
use crate::workspace::Workspace;

/// What a static program is built for, the better first: musl's resolver needs no files of the system's.
const LIBCS: [&str; 2] = ["musl", "gnu"];

pub(super) fn build(ui: &Ui, ws: &Workspace, arch: Arch) -> anyhow::Result<PathBuf> {
    let target = target(arch)?;
    let is_native = arch.name() == std::env::consts::ARCH;
    // ring is C in part.
    let compiler = match (is_native, target.ends_with("musl")) {
        (true, true) => "musl-gcc".to_owned(),
        (true, false) => "cc".to_owned(),
        (false, _) => format!("{}-linux-gnu-gcc", arch.name()),
    };
    setup::c_compiler(ui, ws, &compiler)?;
    let mut cargo = process::cargo(&ws.root);
    let variable = target.replace('-', "_");
    cargo
        .args(["build", "--package", build::AGENT, "--bin", build::BINARY])
        .args(["--profile", "image", "--target", &target])
        .args(ws.locked())
        .env("RUSTFLAGS", flags(&ws.root))
        .env(format!("CC_{variable}"), &compiler);
    if !is_native || target.ends_with("gnu") {
        cargo.env(
            format!("CARGO_TARGET_{}_LINKER", variable.to_uppercase()),
            &compiler,
        );
    }
    let step = ui.step(format!("building a static {} for {target}", build::BINARY));
    if !process::visible(&mut cargo)? {
        step.failed();
        bail!("the program does not build for {target}; the compiler's messages are above");
    }
    let program = ws.target.join(&target).join("image").join(build::BINARY);
    step.done(&program.display().to_string());
    Ok(program)
}

/// The first target whose standard library is here.
fn target(arch: Arch) -> anyhow::Result<String> {
    let targets = LIBCS.map(|libc| format!("{}-unknown-linux-{libc}", arch.name()));
    let found = targets.iter().find(|target| has_library(target));
    found.cloned().with_context(|| {
        format!(
            "this Rust toolchain has no standard library for {}: `rustup target add {}`, or build on a machine that is {0}",
            arch.name(),
            targets[0]
        )
    })
}

fn has_library(target: &str) -> bool {
    let mut rustc = process::foreign(&rustc());
    rustc.args(["--print", "target-libdir", "--target", target]);
    let Ok(dir) = process::capture(&mut rustc) else {
        return false;
    };
    let Ok(entries) = std::fs::read_dir(dir.trim()) else {
        return false;
    };
    entries
        .flatten()
        .any(|entry| entry.file_name().to_string_lossy().starts_with("libstd-"))
}

/// The compiler of the cargo that runs us.
fn rustc() -> PathBuf {
    let beside = std::env::var_os("CARGO").map(|cargo| Path::new(&cargo).with_file_name("rustc"));
    beside
        .filter(|path| path.is_file())
        .unwrap_or_else(|| "rustc".into())
}

/// Where the sources are on this machine does not matter to the program.
fn flags(root: &Path) -> String {
    let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    let cargo_home = std::env::var_os("CARGO_HOME").map_or_else(|| home.join(".cargo"), PathBuf::from);
    format!(
        "-C target-feature=+crt-static --remap-path-prefix={}=/calico-azure --remap-path-prefix={}=/cargo",
        root.display(),
        cargo_home.display()
    )
}
