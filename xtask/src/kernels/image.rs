//! The file system of a virtual machine: our programs, what they are linked with, `ip`, and a plan.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};

use crate::process;

/// Seconds that one test program may take in software emulation.
const LIMIT: u32 = 1200;

/// What goes in.
pub(super) struct Image<'a> {
    /// Names and paths, the first process first.
    pub(super) programs: &'a [(String, PathBuf)],
    /// Names of runs, and what is run with its arguments, separated by tabs.
    pub(super) plan: &'a [(&'static str, String)],
    pub(super) object: &'a Path,
    pub(super) modules: &'a [PathBuf],
}

impl Image<'_> {
    /// Fills `root`, and packs it into `file`.
    pub(super) fn write(&self, root: &Path, file: &Path) -> anyhow::Result<()> {
        if root.exists() {
            fs::remove_dir_all(root)?;
        }
        for dir in [
            "bin", "sbin", "modules", "proc", "sys", "dev", "tmp", "run", "etc",
        ] {
            fs::create_dir_all(root.join(dir))?;
        }
        let mut plan = String::new();
        for module in self.modules {
            let name = module
                .file_name()
                .context("a module without a name")?
                .to_string_lossy();
            let name = name.trim_end_matches(".xz");
            let bytes = if module.extension().is_some_and(|extension| extension == "xz") {
                let output = Command::new("xz").arg("-dc").arg(module).output().context("xz")?;
                ensure!(output.status.success(), "xz cannot read {}", module.display());
                output.stdout
            } else {
                fs::read(module)?
            };
            fs::write(root.join("modules").join(name), bytes)?;
            writeln!(plan, "module\t/modules/{name}")?;
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
        let ip = process::which("ip").context("ip is not installed")?;
        fs::copy(&ip, root.join("sbin/ip"))?;
        linked.extend(libraries(&ip)?);
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
