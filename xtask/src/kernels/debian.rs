//! Kernels from the Debian archive that this machine's apt knows, unpacked and not installed.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::Kernel;
use crate::debian::{self, Archive};
use crate::process;
use crate::term::Ui;

/// Kernels for virtual machines: few drivers, so a small download.
const META: &str = "linux-image-cloud-amd64";

/// The archive, with the suites of all kernels.
pub(super) struct Kernels<'a>(Archive<'a>);

/// An unpacked kernel.
pub(super) struct Files {
    /// Like `6.1.0-50-cloud-amd64`.
    pub(super) release: String,
    pub(super) vmlinuz: PathBuf,
    root: PathBuf,
}

impl<'a> Kernels<'a> {
    /// Asks apt where it has Debian from.
    pub(super) fn open(ui: &'a Ui, dir: &Path) -> anyhow::Result<Self> {
        let site = debian::site()?
            .context("apt has no Debian archive among its sources, and other kernels come from there")?;
        let lines: Vec<String> = Kernel::ALL
            .iter()
            .map(|kernel| format!("deb {site} {} main", kernel.suite()))
            .collect();
        Ok(Self(Archive::open(ui, &dir.join("apt"), &lines)?))
    }

    /// The newest kernel of a line that its suite has, unpacked once.
    pub(super) fn kernel(&mut self, kernel: Kernel) -> anyhow::Result<Files> {
        let root = self.0.dir().with_file_name(kernel.name());
        if let Some(files) = unpacked(&root) {
            return Ok(files);
        }
        self.0.update("asking the Debian archive for kernels")?;
        let depends = process::capture(self.0.apt("apt-cache").args([
            "show",
            "--no-all-versions",
            &format!("{META}/{}", kernel.suite()),
        ]))
        .or_else(|_| process::capture(self.0.apt("apt-cache").args(["show", META])))?;
        let package = depended(&depends, kernel.name())
            .with_context(|| format!("{} has no {META} of kernel {}", kernel.suite(), kernel.name()))?;
        let file = self.0.download(&package)?;
        debian::unpack(&file, &root)?;
        unpacked(&root).with_context(|| format!("{} holds no kernel", file.display()))
    }
}

/// The package of a kernel line among what versions of the meta package depend on.
fn depended(shown: &str, line: &str) -> Option<String> {
    let depends = shown.lines().filter_map(|text| text.strip_prefix("Depends: "));
    let named = depends.filter_map(|text| text.split([' ', ',']).next());
    let prefix = format!("linux-image-{line}.");
    named
        .filter(|name| name.starts_with(&prefix))
        .map(str::to_owned)
        .next()
}

fn unpacked(root: &Path) -> Option<Files> {
    let mut entries = fs::read_dir(root.join("boot")).ok()?.filter_map(Result::ok);
    let vmlinuz = entries.find(|entry| entry.file_name().to_string_lossy().starts_with("vmlinuz-"))?;
    let release = vmlinuz
        .file_name()
        .to_string_lossy()
        .strip_prefix("vmlinuz-")?
        .to_owned();
    Some(Files {
        release,
        vmlinuz: vmlinuz.path(),
        root: root.to_owned(),
    })
}

impl Files {
    /// Where its modules are, in directories by subsystem.
    pub(super) fn modules(&self) -> PathBuf {
        self.root.join("lib/modules").join(&self.release).join("kernel")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_is_what_the_meta_package_depends_on() {
        let shown = "Package: m\nVersion: 6.12.9-1\nDepends: linux-image-6.12.9+deb12-cloud-amd64 (= 6.12.9-1)\n\n\
                     Package: m\nVersion: 6.1.1\nDepends: linux-image-6.1.0-50-cloud-amd64 (= 6.1.1), x\n";
        assert_eq!(
            depended(shown, "6.1").as_deref(),
            Some("linux-image-6.1.0-50-cloud-amd64")
        );
        assert_eq!(
            depended(shown, "6.12").as_deref(),
            Some("linux-image-6.12.9+deb12-cloud-amd64")
        );
        assert_eq!(depended(shown, "5.10"), None);
    }
}
