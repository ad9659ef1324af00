//! What is true of this machine. Gathering is here; judging is elsewhere and takes a [`Facts`] value.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::Need;
use super::problems::Problem;
use super::toolchain::{Candidate, Origin};
use crate::process;

/// Where the BPF file system belongs.
pub(super) const BPFFS: &str = "/sys/fs/bpf";
/// Ring buffers came with 5.8; 5.10 is the oldest long-term kernel that has them.
const OLDEST_KERNEL: (u32, u32) = (5, 10);

/// Everything the decisions depend on.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    pub(super) os: String,
    pub(super) root: bool,
    /// As in `uname -r`.
    pub(super) kernel: String,
    pub(super) btf: bool,
    pub(super) bpf_filesystem: bool,
    pub(super) bpffs_mounted: bool,
    /// Contents of /etc/os-release.
    pub(super) os_release: String,
    pub(super) apt: bool,
    pub(super) rustup: bool,
    /// The user forbade rustup to download anything (`RUSTUP_AUTO_INSTALL=0`).
    pub(super) rustup_may_not_install: bool,
}

impl Facts {
    pub(super) fn of_machine() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        Self {
            os: std::env::consts::OS.to_owned(),
            root: effective_uid(&read("/proc/self/status")) == Some(0),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            btf: Path::new("/sys/kernel/btf/vmlinux").exists(),
            bpf_filesystem: read("/proc/filesystems")
                .lines()
                .any(|line| line.split('\t').next_back() == Some("bpf")),
            bpffs_mounted: is_bpffs_mounted(&read("/proc/self/mounts")),
            os_release: read("/etc/os-release"),
            apt: process::which("apt-get").is_some(),
            rustup: process::which("rustup").is_some(),
            rustup_may_not_install: std::env::var("RUSTUP_AUTO_INSTALL").is_ok_and(|value| value == "0"),
        }
    }

    /// Everything that stands in the way and cannot be installed.
    pub(super) fn problems(&self, need: Need) -> Vec<Problem> {
        if self.os != "linux" {
            return vec![Problem::NotLinux { os: self.os.clone() }];
        }
        let mut problems = Vec::new();
        if need == Need::Build {
            return problems;
        }
        if !self.root {
            problems.push(Problem::NotRoot {
                to: "load eBPF programs and make network namespaces",
            });
        }
        if version_pair(&self.kernel).is_none_or(|version| version < OLDEST_KERNEL) {
            problems.push(Problem::OldKernel {
                release: self.kernel.clone(),
            });
        }
        if !self.btf {
            problems.push(Problem::NoBtf);
        }
        if !self.bpf_filesystem {
            problems.push(Problem::NoBpffs);
        }
        problems
    }

    /// Debian, Ubuntu, or a distribution that says it is like them, with apt present.
    pub(super) fn has_apt(&self) -> bool {
        let family = ["ID", "ID_LIKE"]
            .iter()
            .filter_map(|key| self.release_field(key))
            .collect::<Vec<_>>()
            .join(" ");
        self.apt
            && family
                .split_whitespace()
                .any(|id| id == "debian" || id == "ubuntu")
    }

    pub(super) fn distro_name(&self) -> &str {
        self.release_field("PRETTY_NAME").unwrap_or("this distribution")
    }

    fn release_field(&self, key: &str) -> Option<&str> {
        self.os_release.lines().find_map(|line| {
            let (name, value) = line.split_once('=')?;
            (name == key).then(|| value.trim_matches(['"', '\'']))
        })
    }
}

fn effective_uid(status: &str) -> Option<u32> {
    let ids = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    ids.split_whitespace().nth(1)?.parse().ok()
}

fn is_bpffs_mounted(mounts: &str) -> bool {
    mounts.lines().any(|line| {
        let mut fields = line.split(' ').skip(1);
        fields.next() == Some(BPFFS) && fields.next() == Some("bpf")
    })
}

/// `(5, 15)` of `5.15.0-1052-azure` or `1.96.0`.
pub(super) fn version_pair(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// The Rust toolchains on this machine, or only the one the user names.
pub(super) fn toolchains(wish: Option<&str>) -> Vec<Candidate> {
    if let Some(wish) = wish {
        let prefix = if wish.contains('/') {
            Some(PathBuf::from(wish))
        } else {
            rustup_prefix(wish)
        };
        return prefix
            .and_then(|prefix| inspect(Origin::Override, wish, &prefix))
            .into_iter()
            .collect();
    }
    let mut found: Vec<Candidate> = rustup_names()
        .iter()
        .filter_map(|name| inspect(Origin::Rustup, name, &rustup_prefix(name)?))
        .collect();
    // rustup's proxies are called rustc as well: only a real compiler knows its sysroot to be above itself.
    for rustc in process::all_on_path("rustc") {
        let Some(prefix) = rustc.parent().and_then(Path::parent) else {
            continue;
        };
        if found.iter().all(|known| known.prefix != prefix) && sysroot(&rustc).as_deref() == Some(prefix) {
            found.extend(inspect(Origin::System, "the distribution's compiler", prefix));
        }
    }
    found
}

fn rustup_names() -> Vec<String> {
    let Some(rustup) = process::which("rustup") else {
        return Vec::new();
    };
    let list = process::capture(process::foreign(&rustup).args(["toolchain", "list"])).unwrap_or_default();
    list.lines()
        .filter_map(|line| line.split_whitespace().next())
        .map(str::to_owned)
        .collect()
}

fn rustup_prefix(name: &str) -> Option<PathBuf> {
    let rustup = process::which("rustup")?;
    let mut command = process::foreign(&rustup);
    // Asking about a toolchain must not install it.
    command
        .env("RUSTUP_AUTO_INSTALL", "0")
        .args(["run", name, "rustc", "--print", "sysroot"]);
    process::capture(&mut command)
        .ok()
        .map(|text| PathBuf::from(text.trim()))
}

fn sysroot(rustc: &Path) -> Option<PathBuf> {
    let mut command = process::foreign(rustc);
    command
        .env("RUSTUP_AUTO_INSTALL", "0")
        .args(["--print", "sysroot"]);
    process::capture(&mut command)
        .ok()
        .map(|text| PathBuf::from(text.trim()))
}

fn inspect(origin: Origin, name: &str, prefix: &Path) -> Option<Candidate> {
    let version = process::capture(process::foreign(&prefix.join("bin/rustc")).arg("-vV")).ok()?;
    let field = |key: &str| {
        version
            .lines()
            .find_map(|line| line.strip_prefix(key))
            .map(str::trim)
    };
    Some(Candidate {
        origin,
        name: name.to_owned(),
        prefix: prefix.to_path_buf(),
        release: field("release:")?.to_owned(),
        llvm: field("LLVM version:").and_then(|text| text.split('.').next()?.parse().ok())?,
        has_cargo: Command::new(prefix.join("bin/cargo"))
            .arg("-V")
            .output()
            .is_ok_and(|out| out.status.success()),
        has_sources: prefix
            .join("lib/rustlib/src/rust/library/core/Cargo.toml")
            .is_file(),
    })
}

#[cfg(test)]
#[path = "facts_tests.rs"]
pub(super) mod tests;
