//! Which files of a directory are manifests.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Deepest nesting of directories.
const MAX_DEPTH: usize = 32;

/// What was found below a directory.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    /// In order of their paths. What they are (a dangling link, say) shows when they are read.
    pub(crate) files: Vec<PathBuf>,
    /// Directories whose manifests are not known.
    pub(crate) failed: Vec<(PathBuf, io::Error)>,
}

/// Finds `*.yaml`, `*.yml` and `*.json` below `dir`. Links are followed; hidden entries are passed over, among
/// them the versions of a mounted ConfigMap, which its visible links point into.
pub(crate) fn manifests(dir: &Path) -> Listing {
    let mut listing = Listing::default();
    walk(dir, &mut Vec::new(), &mut listing);
    listing.files.sort();
    listing
}

fn walk(dir: &Path, above: &mut Vec<(u64, u64)>, listing: &mut Listing) {
    if let Err(error) = try_walk(dir, above, listing) {
        // A directory inside that went away while we looked is no longer a place where manifests are.
        if above.is_empty() || error.kind() != io::ErrorKind::NotFound {
            listing.failed.push((dir.to_owned(), error));
        }
    }
}

fn try_walk(dir: &Path, above: &mut Vec<(u64, u64)>, listing: &mut Listing) -> io::Result<()> {
    let metadata = fs::metadata(dir)?;
    let this = (metadata.dev(), metadata.ino());
    if above.contains(&this) {
        // A link to a directory that contains it: everything in there is found anyway.
        return Ok(());
    }
    if above.len() >= MAX_DEPTH {
        return Err(io::Error::other(format!(
            "nested more than {MAX_DEPTH} directories deep"
        )));
    }
    let entries = fs::read_dir(dir)?.collect::<io::Result<Vec<_>>>()?;
    above.push(this);
    for entry in entries {
        let path = entry.path();
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        if path.is_dir() {
            walk(&path, above, listing);
        } else if is_manifest(&path) {
            listing.files.push(path);
        }
    }
    above.pop();
    Ok(())
}

fn is_manifest(path: &Path) -> bool {
    path.extension()
        .is_some_and(|extension| extension == "yaml" || extension == "yml" || extension == "json")
}

/// Reads a manifest.
///
/// # Errors
/// Also if it is no regular file (opening a pipe would wait for a writer), or not UTF-8.
pub(crate) fn read(path: &Path) -> io::Result<String> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "expected a regular file",
        ));
    }
    let bytes = fs::read(path)?;
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let line = error
            .as_bytes()
            .iter()
            .take(at)
            .filter(|byte| **byte == b'\n')
            .count()
            + 1;
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("expected UTF-8 text, but line {line} is not"),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let listing = manifests(dir);
        assert!(listing.failed.is_empty(), "{:?}", listing.failed);
        let relative = |path: &PathBuf| path.strip_prefix(dir).map(|path| path.display().to_string()).ok();
        listing.files.iter().filter_map(relative).collect()
    }

    #[test]
    fn finds_manifests_in_order_and_passes_over_the_rest() -> io::Result<()> {
        let dir = tempfile::tempdir()?;
        fs::create_dir_all(dir.path().join("sub/deeper"))?;
        fs::create_dir(dir.path().join(".git"))?;
        for name in [
            "b.yaml",
            "a.yml",
            "c.json",
            "d.txt",
            "e.yaml~",
            ".f.yaml.swp",
            ".g.yaml",
            ".git/h.yaml",
            "sub/deeper/i.yaml",
        ] {
            fs::write(dir.path().join(name), "")?;
        }
        assert_eq!(
            names(dir.path()),
            ["a.yml", "b.yaml", "c.json", "sub/deeper/i.yaml"]
        );
        Ok(())
    }

    #[test]
    fn follows_links_as_a_mounted_config_map_has_them() -> io::Result<()> {
        use std::os::unix::fs::symlink;
        let dir = tempfile::tempdir()?;
        fs::create_dir(dir.path().join("..2026_01"))?;
        fs::write(dir.path().join("..2026_01/a.yaml"), "x")?;
        symlink("..2026_01", dir.path().join("..data"))?;
        symlink("..data/a.yaml", dir.path().join("a.yaml"))?;
        symlink(".", dir.path().join("loop"))?;
        assert_eq!(names(dir.path()), ["a.yaml"]);
        assert_eq!(read(&dir.path().join("a.yaml"))?, "x");
        Ok(())
    }

    #[test]
    fn what_cannot_be_listed_or_read_is_said() -> io::Result<()> {
        let dir = tempfile::tempdir()?;
        let missing = dir.path().join("missing");
        assert_eq!(
            manifests(&missing).failed.first().map(|(path, _)| path.clone()),
            Some(missing)
        );
        let binary = dir.path().join("a.yaml");
        fs::write(&binary, b"a: b\n\xff")?;
        let message = read(&binary).map_err(|error| error.to_string());
        assert_eq!(message, Err("expected UTF-8 text, but line 2 is not".into()));
        Ok(())
    }
}
