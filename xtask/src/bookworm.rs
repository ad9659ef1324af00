//! What we take from Debian bookworm, wherever this machine's own packages come from: a Go compiler, etcd, the sources of Kubernetes.
//!
//! All of it is unpacked below the target directory. Nothing is installed: no service starts, and no Go comes onto the PATH.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};

use crate::debian::{self, Archive};
use crate::process;
use crate::setup;
use crate::term::Ui;
use crate::workspace::Workspace;

/// Where Debian is had from if this machine's apt has another distribution's packages.
const SITE: &str = "http://deb.debian.org/debian";
/// What apt checks the archive's signature with.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// The Go release in bookworm, as its packages are called.
const GO: &str = "1.19";

/// Bookworm's archive, asked only when something is missing.
pub(crate) struct Bookworm<'a> {
    ui: &'a Ui,
    dir: PathBuf,
    archive: Option<Archive<'a>>,
}

/// A Go compiler.
pub(crate) struct Go {
    root: PathBuf,
    /// Where its caches are.
    dir: PathBuf,
}

impl<'a> Bookworm<'a> {
    pub(crate) fn new(ui: &'a Ui, ws: &Workspace) -> Self {
        Self {
            ui,
            dir: ws.tools().join("bookworm"),
            archive: None,
        }
    }

    /// The compiler, unpacked once.
    pub(crate) fn go(&mut self, ws: &Workspace) -> anyhow::Result<Go> {
        let packages = [format!("golang-{GO}-go"), format!("golang-{GO}-src")];
        let dir = self.unpacked(ws, "go", &packages)?;
        let go = Go {
            root: dir.join(format!("usr/lib/go-{GO}")),
            dir: self.dir.clone(),
        };
        let program = go.root.join("bin/go");
        ensure!(program.is_file(), "golang-{GO}-go holds no {}", program.display());
        Ok(go)
    }

    /// Packages unpacked together, once: a directory that is there is complete.
    pub(crate) fn unpacked(
        &mut self,
        ws: &Workspace,
        name: &str,
        packages: &[String],
    ) -> anyhow::Result<PathBuf> {
        let dir = self.dir.join(name);
        if dir.is_dir() {
            return Ok(dir);
        }
        let unfinished = self.dir.join(format!("{name}.new"));
        remove(&unfinished)?;
        let archive = self.archive(ws)?;
        for package in packages {
            debian::unpack(&archive.download(package)?, &unfinished)?;
        }
        fs::rename(&unfinished, &dir).with_context(|| format!("cannot write {}", dir.display()))?;
        Ok(dir)
    }

    /// The archive, with its lists up to date.
    pub(crate) fn archive(&mut self, ws: &Workspace) -> anyhow::Result<&Archive<'a>> {
        if self.archive.is_none() {
            setup::archive_keyring(self.ui, ws, Path::new(KEYRING))?;
            let site = debian::site()?.unwrap_or_else(|| SITE.to_owned());
            let lines =
                ["deb", "deb-src"].map(|kind| format!("{kind} [signed-by={KEYRING}] {site} bookworm main"));
            let mut archive = Archive::open(self.ui, &self.dir.join("apt"), &lines)?;
            archive.update("asking Debian bookworm for packages")?;
            self.archive = Some(archive);
        }
        self.archive.as_ref().context("opened above")
    }
}

impl Go {
    /// The compiler, with an environment of its own: neither network nor modules, everything from `path`.
    pub(crate) fn command(&self, path: &Path) -> Command {
        let mut command = process::foreign(&self.root.join("bin/go"));
        for (name, _) in std::env::vars_os() {
            if name
                .to_str()
                .is_some_and(|name| name.starts_with("GO") || name.starts_with("CGO_"))
            {
                command.env_remove(&name);
            }
        }
        command
            .env("GOROOT", &self.root)
            .env("GOPATH", path)
            .env("GOCACHE", self.cache())
            .env("GO111MODULE", "off")
            .env("GOTELEMETRY", "off")
            .env("CGO_ENABLED", "0")
            // Its compiler collects garbage as often as a server would, and ends soon anyway.
            .env("GOGC", "400");
        command
    }

    /// Tools built from others' sources look for the compiler's own ones there.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn cache(&self) -> PathBuf {
        self.dir.join("go-cache")
    }
}

/// Removes a directory, if it is there.
pub(crate) fn remove(dir: &Path) -> anyhow::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", dir.display()))
        }
        _ => Ok(()),
    }
}
