//! Kernels from the Debian archive that this machine's apt knows, unpacked and not installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};

use super::Kernel;
use crate::process;
use crate::term::Ui;

/// Kernels for virtual machines: few drivers, so a small download.
const META: &str = "linux-image-cloud-amd64";

/// apt with lists of its own, so that suites can be asked which this machine does not use.
pub(super) struct Archive<'a> {
    ui: &'a Ui,
    dir: PathBuf,
    updated: bool,
}

/// An unpacked kernel.
pub(super) struct Files {
    /// Like `6.1.0-50-cloud-amd64`.
    pub(super) release: String,
    pub(super) vmlinuz: PathBuf,
    root: PathBuf,
}

impl<'a> Archive<'a> {
    /// Asks apt where it has Debian from.
    pub(super) fn open(ui: &'a Ui, dir: &Path) -> anyhow::Result<Self> {
        let dir = dir.join("apt");
        for sub in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(dir.join(sub)).with_context(|| format!("cannot create {}", dir.display()))?;
        }
        let mut ask = Command::new("apt-get");
        ask.args([
            "indextargets",
            "--format",
            "$(SITE) $(ORIGIN) $(CODENAME)",
            "Created-By: Packages",
        ]);
        let targets = process::capture(&mut ask)?;
        let site = site(&targets)
            .context("apt has no Debian archive among its sources, and other kernels come from there")?;
        let lines: Vec<String> = Kernel::ALL
            .iter()
            .map(|kernel| format!("deb {site} {} main\n", kernel.suite()))
            .collect();
        let sources = dir.join("sources.list");
        fs::write(&sources, lines.concat()).with_context(|| format!("cannot write {}", sources.display()))?;
        Ok(Self {
            ui,
            dir,
            updated: false,
        })
    }

    fn apt(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        for (name, value) in [
            ("Dir::Etc::SourceList", "sources.list"),
            ("Dir::Etc::SourceParts", "none"),
            ("Dir::State::Lists", "lists"),
            ("Dir::Cache", "cache"),
        ] {
            command.args(["-o", &format!("{name}={}", self.dir.join(value).display())]);
        }
        // The lists are root's, and downloads go where only root may write.
        command
            .args(["-o", "APT::Sandbox::User=root", "-q"])
            .env("LC_ALL", "C");
        command
    }

    /// The newest kernel of a line that its suite has, unpacked once.
    pub(super) fn kernel(&mut self, kernel: Kernel) -> anyhow::Result<Files> {
        let root = self.dir.with_file_name(kernel.name());
        if let Some(files) = unpacked(&root) {
            return Ok(files);
        }
        let log = self.dir.join("log");
        if !self.updated {
            process::logged(
                self.ui,
                "asking the Debian archive for kernels",
                self.apt("apt-get").arg("update"),
                &log,
            )?;
            self.updated = true;
        }
        let depends = process::capture(self.apt("apt-cache").args([
            "show",
            "--no-all-versions",
            &format!("{META}/{}", kernel.suite()),
        ]))
        .or_else(|_| process::capture(self.apt("apt-cache").args(["show", META])))?;
        let package = depended(&depends, kernel.name())
            .with_context(|| format!("{} has no {META} of kernel {}", kernel.suite(), kernel.name()))?;
        let downloads = self.dir.join("cache/archives");
        let mut download = self.apt("apt-get");
        download.args(["download", &package]).current_dir(&downloads);
        process::logged(self.ui, &format!("downloading {package}"), &mut download, &log)?;
        let file = newest(&downloads, &package)?;
        fs::create_dir_all(&root)?;
        process::capture(Command::new("dpkg-deb").arg("-x").arg(&file).arg(&root))?;
        unpacked(&root).with_context(|| format!("{} holds no kernel", file.display()))
    }
}

/// The first site of Debian proper.
fn site(targets: &str) -> Option<&str> {
    targets.lines().find_map(|line| {
        let mut words = line.split(' ');
        let (site, origin) = (words.next()?, words.next()?);
        (origin == "Debian" && site.contains("/debian") && !site.contains("security")).then_some(site)
    })
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

fn newest(dir: &Path, package: &str) -> anyhow::Result<PathBuf> {
    let prefix = format!("{package}_");
    let mut files: Vec<PathBuf> = fs::read_dir(dir)?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with(&prefix))
        })
        .collect();
    files.sort();
    files
        .pop()
        .with_context(|| format!("apt left no {package} in {}", dir.display()))
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
    /// Where the modules are, compressed or not.
    pub(super) fn modules(&self, names: &[&str]) -> anyhow::Result<Vec<PathBuf>> {
        let dir = self.root.join("lib/modules").join(&self.release).join("kernel");
        names
            .iter()
            .map(|name| {
                let places = ["drivers/net", "net/sched"].map(|place| dir.join(place));
                let files = places.iter().flat_map(|place| {
                    ["ko", "ko.xz"].map(|extension| place.join(format!("{name}.{extension}")))
                });
                let found = files.clone().find(|file| file.is_file());
                ensure!(
                    found.is_some(),
                    "kernel {} has no module {name} in {}",
                    self.release,
                    dir.display()
                );
                found.context("checked above")
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_archive_is_where_apt_has_debian_from() {
        let targets = "https://example.org/other Other stable\nhttp://mirror.example/debian-security Debian bookworm-security\n\
                       http://mirror.example/debian Debian bookworm\n";
        assert_eq!(site(targets), Some("http://mirror.example/debian"));
        assert_eq!(site("https://example.org/other Other stable\n"), None);
    }

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
