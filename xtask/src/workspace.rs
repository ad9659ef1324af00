//! Where things are: the checkout, the target directory, the objects and programs built into it.

use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// The paths every verb works with.
#[derive(Debug, Clone)]
pub(crate) struct Workspace {
    pub(crate) root: PathBuf,
    pub(crate) target: PathBuf,
}

/// Which of the eBPF objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Object {
    Default,
    /// Built with the `bpf-log` feature.
    Log,
    /// What benchmarks compare with.
    Yardstick,
}

impl Object {
    /// The binary that it is built from.
    pub(crate) fn bin(self) -> &'static str {
        match self {
            Self::Default | Self::Log => "calico-azure-tc",
            Self::Yardstick => "calico-azure-yardstick",
        }
    }
}

impl Workspace {
    /// Finds the checkout that this program belongs to. `CARGO_TARGET_DIR` is respected, as cargo does.
    pub(crate) fn find() -> anyhow::Result<Self> {
        let manifest = std::env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let root = manifest.parent().map(Path::to_path_buf).unwrap_or_default();
        anyhow::ensure!(
            root.join("calico-azure-ebpf/Cargo.toml").is_file(),
            "{} is not the calico-azure checkout; run `cargo xtask` inside it",
            root.display()
        );
        let target = match std::env::var_os("CARGO_TARGET_DIR").filter(|dir| !dir.is_empty()) {
            Some(dir) => std::path::absolute(dir).context("CARGO_TARGET_DIR")?,
            None => root.join("target"),
        };
        Ok(Self { root, target })
    }

    pub(crate) fn bpf_target(&self) -> PathBuf {
        self.target.join("bpf")
    }

    /// Where the finished eBPF object is.
    pub(crate) fn object(&self, which: Object) -> PathBuf {
        self.bpf_target().join(match which {
            Object::Default => "calico-azure-tc.o",
            Object::Log => "calico-azure-tc-log.o",
            Object::Yardstick => "calico-azure-yardstick.o",
        })
    }

    /// Where cargo puts a userspace program.
    pub(crate) fn program(&self, name: &str, debug: bool) -> PathBuf {
        self.target
            .join(if debug { "debug" } else { "release" })
            .join(name)
    }

    /// Where programs are installed that only this checkout uses.
    pub(crate) fn tools(&self) -> PathBuf {
        self.target.join("tools")
    }

    pub(crate) fn setup_log(&self) -> PathBuf {
        self.target.join("setup.log")
    }

    pub(crate) fn stamp(&self) -> PathBuf {
        self.target.join("setup.json")
    }

    /// `--locked` once there is a lock file: a build then never changes it behind the developer's back.
    pub(crate) fn locked(&self) -> Option<&'static str> {
        self.root.join("Cargo.lock").is_file().then_some("--locked")
    }
}
