//! The file system of a virtual machine: our programs and the lab's tools, what they are linked with, and a plan.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};

use super::modules::Module;
use crate::{process, setup};

/// Seconds that one test program may take in software emulation.
const LIMIT: u32 = 2400;
/// What the lab makes networks with.
const TOOLS: [&str; 3] = ["ip", "nft", "ipvsadm"];
/// What it makes pods' interfaces with.
const PLUGINS: [&str; 2] = ["ptp", "host-local"];

/// What goes in.
pub(super) struct Image<'a> {
    /// Names and paths, the first process first.
    pub(super) programs: &'a [(String, PathBuf)],
    /// Names of runs, and what is run with its arguments, separated by tabs.
    pub(super) plan: &'a [(&'static str, String)],
    pub(super) object: &'a Path,
    /// In the order in which they load.
    pub(super) modules: &'a [Module],
}

impl Image<'_> {
    /// Fills `root`, and packs it into `file`.
    pub(super) fn write(&self, root: &Path, file: &Path) -> anyhow::Result<()> {
        if root.exists() {
            fs::remove_dir_all(root)?;
        }
        for dir in [
            "bin",
            "sbin",
            "usr/lib/cni",
            "modules",
            "proc",
            "sys",
            "dev",
            "tmp",
            "run",
            "etc",
        ] {
            fs::create_dir_all(root.join(dir))?;
        }
        let mut plan = String::new();
        for module in self.modules {
            let inside = format!("modules/{}.ko", module.name);
            fs::write(root.join(&inside), &module.bytes)?;
            writeln!(plan, "module\t/{inside}")?;
        }
        let mut linked = BTreeSet::new();
        for (number, (name, path)) in self.programs.iter().enumerate() {
            let inside = if number == 0 {
                root.join("init")
            } else {
                root.join("bin").join(name)
            };
            // What a debugger needs would fill the machine's memory.
            process::capture(Command::new("strip").arg("-o").arg(&inside).arg(path))?;
            linked.extend(libraries(path)?);
        }
        for (name, command) in self.plan {
            writeln!(plan, "run\t{name}\t{LIMIT}\t/bin/{command}")?;
        }
        for tool in TOOLS {
            let path = process::which(tool).with_context(|| format!("{tool} is not installed"))?;
            fs::copy(&path, root.join("sbin").join(tool))?;
            linked.extend(libraries(&path)?);
        }
        for plugin in PLUGINS {
            let path = setup::cni_plugin(plugin).with_context(|| format!("no CNI plug-in {plugin}"))?;
            fs::copy(&path, root.join("usr/lib/cni").join(plugin))?;
            linked.extend(libraries(&path)?);
        }
        for library in linked {
            let inside = root.join(library.strip_prefix("/").unwrap_or(&library));
            if let Some(dir) = inside.parent() {
                fs::create_dir_all(dir)?;
            }
            fs::copy(&library, &inside).with_context(|| library.display().to_string())?;
        }
        fs::copy(self.object, root.join("object"))?;
        fs::write(root.join("plan"), plan)?;
        pack(root, file)
    }
}

/// Shared libraries that a program is linked with, and its loader.
fn libraries(program: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let text = process::capture(Command::new("ldd").arg(program))?;
    Ok(parse_ldd(&text))
}

fn parse_ldd(text: &str) -> Vec<PathBuf> {
    let paths = text
        .lines()
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')));
    paths.map(PathBuf::from).collect()
}

fn pack(root: &Path, file: &Path) -> anyhow::Result<()> {
    let names = process::capture(Command::new("find").arg(".").current_dir(root))?;
    let list = file.with_extension("list");
    fs::write(&list, names)?;
    let status = Command::new("cpio")
        .args(["--create", "--format=newc", "--quiet"])
        .current_dir(root)
        .stdin(fs::File::open(&list)?)
        .stdout(fs::File::create(file)?)
        .stderr(Stdio::inherit())
        .status()
        .context("cpio")?;
    ensure!(status.success(), "cpio could not write {}", file.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_and_the_loader_are_found() {
        let text = "\tlinux-vdso.so.1 (0x7ffe)\n\tlibc.so.6 => /lib/libc.so.6 (0x7f)\n\t/lib64/ld-linux.so.2 (0x7f)\n";
        let expected = ["/lib/libc.so.6", "/lib64/ld-linux.so.2"].map(PathBuf::from);
        assert_eq!(parse_ldd(text), expected);
    }
}
