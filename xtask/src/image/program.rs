//! The program of an image: linked statically, stripped, without this machine's paths. Tests are built alike, and test what is shipped.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;

use super::Arch;
use crate::build;
use crate::process;
use crate::setup;
use crate::term::Ui;
use crate::workspace::Workspace;

/// What a static program is built for, the better first: musl's resolver needs no files of the system's.
const LIBCS: [&str; 2] = ["musl", "gnu"];

/// How a program is built that is to be shipped.
#[derive(Clone, Debug)]
pub(crate) struct Shipped {
    target: String,
    /// The C compiler, because ring is C in part.
    compiler: String,
    /// Whether it links, too.
    links: bool,
    flags: String,
}

impl Shipped {
    /// For an image.
    fn new(ui: &Ui, ws: &Workspace, arch: Arch) -> anyhow::Result<Self> {
        let target = target(arch)?;
        let is_native = arch.name() == std::env::consts::ARCH;
        let compiler = match (is_native, target.ends_with("musl")) {
            (true, true) => "musl-gcc".to_owned(),
            (true, false) => "cc".to_owned(),
            (false, _) => format!("{}-linux-gnu-gcc", arch.name()),
        };
        setup::c_compiler(ui, ws, &compiler)?;
        Ok(Self {
            links: !is_native || target.ends_with("gnu"),
            flags: flags(&ws.root),
            target,
            compiler,
        })
    }

    /// For this machine's tests: where images are of the same libc, they share all that is compiled.
    pub(crate) fn for_tests(ws: &Workspace) -> Self {
        Self {
            target: format!("{}-unknown-linux-gnu", std::env::consts::ARCH),
            compiler: "cc".into(),
            links: true,
            flags: flags(&ws.root),
        }
    }

    /// Says so to a `cargo build` or `cargo test`.
    pub(crate) fn apply(&self, cargo: &mut Command) {
        let variable = self.target.replace('-', "_");
        cargo
            .args(["--profile", "image", "--target", &self.target])
            .env("RUSTFLAGS", &self.flags)
            .env(format!("CC_{variable}"), &self.compiler);
        if self.links {
            let linker = format!("CARGO_TARGET_{}_LINKER", variable.to_uppercase());
            cargo.env(linker, &self.compiler);
        }
    }

    /// Where cargo puts such a program.
    pub(crate) fn program(&self, ws: &Workspace, name: &str) -> PathBuf {
        ws.target.join(&self.target).join("image").join(name)
    }
}

pub(super) fn build(ui: &Ui, ws: &Workspace, arch: Arch) -> anyhow::Result<PathBuf> {
    let shipped = Shipped::new(ui, ws, arch)?;
    build::agent(ui, ws, &build::How::Shipped(shipped))
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
