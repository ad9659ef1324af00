//! The Debian archive, asked through an apt with sources and lists of its own: the machine's are neither read nor changed, and
//! what is downloaded is unpacked, not installed. apt checks signatures and checksums.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;

use crate::process;
use crate::term::Ui;

/// apt with lists of its own, so that suites can be asked which this machine does not use.
pub(crate) struct Archive<'a> {
    ui: &'a Ui,
    dir: PathBuf,
    updated: bool,
}

impl<'a> Archive<'a> {
    /// An archive with these lines as its `sources.list`; everything it needs is kept in `dir`.
    pub(crate) fn open(ui: &'a Ui, dir: &Path, sources: &[String]) -> anyhow::Result<Self> {
        for sub in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(dir.join(sub)).with_context(|| format!("cannot create {}", dir.display()))?;
        }
        let file = dir.join("sources.list");
        fs::write(&file, sources.join("\n") + "\n")
            .with_context(|| format!("cannot write {}", file.display()))?;
        Ok(Self {
            ui,
            dir: dir.to_owned(),
            updated: false,
        })
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// A program of apt that sees this archive only.
    pub(crate) fn apt(&self, program: &str) -> Command {
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

    /// Updates the lists, once.
    pub(crate) fn update(&mut self, title: &str) -> anyhow::Result<()> {
        if !self.updated {
            process::logged(self.ui, title, self.apt("apt-get").arg("update"), &self.log())?;
            self.updated = true;
        }
        Ok(())
    }

    /// Downloads the newest version of a package.
    pub(crate) fn download(&self, package: &str) -> anyhow::Result<PathBuf> {
        let mut download = self.apt("apt-get");
        download.args(["download", package]).current_dir(self.downloads());
        process::logged(
            self.ui,
            &format!("downloading {package}"),
            &mut download,
            &self.log(),
        )?;
        newest(&self.downloads(), &format!("{package}_"))
    }

    /// Downloads the upstream sources of a package, as the archive has them.
    pub(crate) fn upstream(&self, package: &str) -> anyhow::Result<PathBuf> {
        let mut download = self.apt("apt-get");
        download
            .args(["source", "--tar-only", package])
            .current_dir(self.downloads());
        let title = format!("downloading the sources of {package}");
        process::logged(self.ui, &title, &mut download, &self.log())?;
        newest(&self.downloads(), &format!("{package}_"))
    }

    fn downloads(&self) -> PathBuf {
        self.dir.join("cache/archives")
    }

    fn log(&self) -> PathBuf {
        self.dir.join("log")
    }
}

/// Where this machine's apt has Debian from, if it has.
pub(crate) fn site() -> anyhow::Result<Option<String>> {
    let mut ask = Command::new("apt-get");
    ask.args([
        "indextargets",
        "--format",
        "$(SITE) $(ORIGIN) $(CODENAME)",
        "Created-By: Packages",
    ]);
    Ok(first_site(&process::capture(&mut ask)?).map(str::to_owned))
}

/// Unpacks a package into a directory.
pub(crate) fn unpack(package: &Path, into: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(into).with_context(|| format!("cannot create {}", into.display()))?;
    process::capture(Command::new("dpkg-deb").arg("-x").arg(package).arg(into)).map(drop)
}

/// The first site of Debian proper.
fn first_site(targets: &str) -> Option<&str> {
    targets.lines().find_map(|line| {
        let mut words = line.split(' ');
        let (site, origin) = (words.next()?, words.next()?);
        (origin == "Debian" && site.contains("/debian") && !site.contains("security")).then_some(site)
    })
}

fn newest(dir: &Path, prefix: &str) -> anyhow::Result<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(dir)?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with(prefix))
        })
        .collect();
    files.sort();
    files
        .pop()
        .with_context(|| format!("apt left no {prefix}… in {}", dir.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_archive_is_where_apt_has_debian_from() {
        let targets = "https://example.org/other Other stable\nhttp://mirror.example/debian-security Debian bookworm-security\n\
                       http://mirror.example/debian Debian bookworm\n";
        assert_eq!(first_site(targets), Some("http://mirror.example/debian"));
        assert_eq!(first_site("https://example.org/other Other stable\n"), None);
    }
}
