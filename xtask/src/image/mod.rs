//! `cargo xtask image`: a container image without a container runtime: one layer with one static program, as an OCI layout in a tar
//! archive that Docker, containerd, podman and skopeo load. The same program gives the same digest.

mod oci;
mod program;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::ValueEnum;

use crate::setup::{self, Need};
use crate::term::Ui;
use crate::workspace::{Object, Workspace};
use crate::{build, ebpf};
pub(crate) use program::Shipped;

/// What the image's program runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Arch {
    #[value(name = "x86_64")]
    X86_64,
    #[value(name = "aarch64")]
    Aarch64,
}

impl Arch {
    /// This machine's, if it is one of them.
    fn host() -> anyhow::Result<Self> {
        let arch = std::env::consts::ARCH;
        Self::from_str(arch, false)
            .ok()
            .with_context(|| format!("this machine is {arch}: name the image's architecture with --arch"))
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
        }
    }

    /// As container images call it.
    fn of_images(self) -> &'static str {
        match self {
            Self::X86_64 => "amd64",
            Self::Aarch64 => "arm64",
        }
    }
}

/// Builds the image and prints where it is, and its digest.
pub(crate) fn run(
    ui: &Ui,
    ws: &Workspace,
    arch: Option<Arch>,
    tag: Option<&str>,
) -> anyhow::Result<ExitCode> {
    let (path, digest) = build(ui, ws, arch, tag)?;
    println!("{}", path.display());
    println!("{digest}");
    Ok(ExitCode::SUCCESS)
}

/// The archive, and the image's name with its digest.
pub(crate) fn build(
    ui: &Ui,
    ws: &Workspace,
    arch: Option<Arch>,
    tag: Option<&str>,
) -> anyhow::Result<(PathBuf, String)> {
    let version = env!("CARGO_PKG_VERSION");
    let tag = tag.unwrap_or(version);
    let arch = arch.map_or_else(Arch::host, Ok)?;
    let toolchain = setup::run(ui, ws, Need::Build)?;
    ebpf::build(ui, ws, &toolchain, Object::Default)?;
    let program = program::build(ui, ws, arch)?;
    let bytes = fs::read(&program).with_context(|| format!("cannot read {}", program.display()))?;
    let image = oci::Image {
        name: build::BINARY,
        tag,
        version,
        arch: arch.of_images(),
        program: &bytes,
    };
    let (archive, digest) = image.archive()?;
    let dir = ws.target.join("image");
    let path = dir.join(format!("{}-{tag}-{}.tar", build::BINARY, arch.name()));
    fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    fs::write(&path, archive).with_context(|| format!("cannot write {}", path.display()))?;
    Ok((path, format!("{}:{tag}@{digest}", build::BINARY)))
}
