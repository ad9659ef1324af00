//! Reading the repository's text files: what git tracks or would track, or every file where there is no git.

use std::path::Path;
use std::process::Command;

use anyhow::Context as _;

use super::Source;
use crate::process;

/// Every text file, sorted by path. Binary files and files that were deleted but not yet committed are left out.
pub(super) fn read(root: &Path) -> anyhow::Result<Vec<Source>> {
    let mut paths = match listed_by_git(root) {
        Some(paths) => paths,
        None => {
            let mut found = Vec::new();
            walk(root, "", &mut found)?;
            found
        }
    };
    paths.sort();
    paths.dedup();
    let mut sources = Vec::new();
    for path in paths {
        match std::fs::read(root.join(&path)) {
            Ok(bytes) => sources.extend(String::from_utf8(bytes).ok().map(|text| Source { path, text })),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("cannot read {path}")),
        }
    }
    Ok(sources)
}

fn listed_by_git(root: &Path) -> Option<Vec<String>> {
    let mut git = Command::new("git");
    git.arg("-C").arg(root).args(["-c", "core.quotePath=false"]);
    // A checkout that belongs to another user (CI, sudo) is still ours to read.
    git.arg("-c").arg(format!("safe.directory={}", root.display()));
    git.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
    let output = process::capture(&mut git).ok()?;
    let paths: Vec<String> = output
        .split('\0')
        .filter(|path| !path.is_empty())
        .map(str::to_owned)
        .collect();
    (!paths.is_empty()).then_some(paths)
}

fn walk(root: &Path, dir: &str, found: &mut Vec<String>) -> anyhow::Result<()> {
    let full = root.join(dir);
    for entry in std::fs::read_dir(&full).with_context(|| format!("cannot list {}", full.display()))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = if dir.is_empty() {
            name.clone()
        } else {
            format!("{dir}/{name}")
        };
        let kind = entry.file_type()?;
        if kind.is_dir() && name != ".git" && name != "target" {
            walk(root, &path, found)?;
        } else if kind.is_file() {
            found.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_git_the_directory_is_walked() {
        let root = std::env::temp_dir().join(format!("xtask-tree-{}", std::process::id()));
        std::fs::create_dir_all(root.join("a/target")).unwrap();
        std::fs::write(root.join("a/b.rs"), "//! B.\n").unwrap();
        std::fs::write(root.join("a/target/skipped.rs"), "").unwrap();
        std::fs::write(root.join("binary"), [0xff, 0xfe]).unwrap();
        let mut found = Vec::new();
        walk(&root, "", &mut found).unwrap();
        found.sort();
        assert_eq!(found, ["a/b.rs", "binary"]);
        let paths: Vec<String> = read(&root)
            .unwrap()
            .into_iter()
            .map(|source| source.path)
            .collect();
        std::fs::remove_dir_all(&root).unwrap();
        assert_eq!(paths, ["a/b.rs"]);
    }
}
