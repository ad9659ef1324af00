//! Modules of a kernel in the order in which they load: each after those that it says it needs.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};

/// A module, as the kernel takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Module {
    /// Like `ip_vs`.
    pub(super) name: String,
    pub(super) bytes: Vec<u8>,
}

/// Those of `names`, and what they need, of all that are below `dir`.
pub(super) fn load_order(dir: &Path, names: &[&str]) -> anyhow::Result<Vec<Module>> {
    let mut files = BTreeMap::new();
    find(dir, &mut files)?;
    let read = |name: &str| {
        let file = files
            .get(name)
            .with_context(|| format!("no module {name} in {}", dir.display()))?;
        uncompressed(file)
    };
    let (mut order, mut met) = (Vec::new(), BTreeSet::new());
    for name in names {
        visit(name, &read, &mut met, &mut order)?;
    }
    Ok(order)
}

fn visit(
    name: &str,
    read: &impl Fn(&str) -> anyhow::Result<Vec<u8>>,
    met: &mut BTreeSet<String>,
    order: &mut Vec<Module>,
) -> anyhow::Result<()> {
    if !met.insert(name.to_owned()) {
        return Ok(());
    }
    let bytes = read(name)?;
    for needed in depends(&bytes) {
        visit(&needed, read, met, order)?;
    }
    order.push(Module {
        name: name.to_owned(),
        bytes,
    });
    Ok(())
}

/// What a module's own description says that it needs.
fn depends(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = module.windows(KEY.len()).position(|window| window == KEY) else {
        return Vec::new();
    };
    let value = module.get(at + KEY.len()..).unwrap_or_default();
    let value = value.split(|byte| *byte == 0).next().unwrap_or_default();
    let names = String::from_utf8_lossy(value);
    let names = names.split(',').filter(|name| !name.is_empty());
    names.map(named).collect()
}

/// Files have dashes where the kernel has underscores.
fn named(name: &str) -> String {
    name.replace('-', "_")
}

/// Adds all modules below `dir`, by name.
fn find(dir: &Path, files: &mut BTreeMap<String, PathBuf>) -> anyhow::Result<()> {
    for entry in fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            find(&path, files)?;
        } else if let Some(file) = path.file_name().and_then(|name| name.to_str()) {
            let stem = file.strip_suffix(".ko").or_else(|| file.strip_suffix(".ko.xz"));
            if let Some(stem) = stem {
                files.insert(named(stem), path);
            }
        }
    }
    Ok(())
}

fn uncompressed(file: &Path) -> anyhow::Result<Vec<u8>> {
    if file.extension().is_none_or(|extension| extension != "xz") {
        return fs::read(file).with_context(|| format!("cannot read {}", file.display()));
    }
    let output = Command::new("xz").arg("-dc").arg(file).output().context("xz")?;
    ensure!(output.status.success(), "xz cannot read {}", file.display());
    Ok(output.stdout)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(wanted: &[&str]) -> anyhow::Result<Vec<String>> {
        let modules = BTreeMap::from([
            ("top", "mid-one,base"),
            ("mid_one", "base"),
            ("base", ""),
            ("other", "base"),
        ]);
        let read = |name: &str| {
            let depends = modules.get(name).context("no such module")?;
            Ok(format!("ELF\0license=GPL\0depends={depends}\0name=x\0").into_bytes())
        };
        let (mut order, mut met) = (Vec::new(), BTreeSet::new());
        for name in wanted {
            visit(name, &read, &mut met, &mut order)?;
        }
        Ok(order.into_iter().map(|module| module.name).collect())
    }

    #[test]
    fn what_a_module_needs_comes_before_it_and_once() {
        assert_eq!(
            order(&["top", "other"]).unwrap(),
            ["base", "mid_one", "top", "other"]
        );
        assert_eq!(order(&["base"]).unwrap(), ["base"]);
        assert!(order(&["none"]).is_err());
    }
}
