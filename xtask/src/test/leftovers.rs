//! What tests must not leave on the machine: network namespaces, pins, control groups and files of theirs.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Where tests put things, all of whose names begin alike.
const PLACES: [&str; 4] = [
    "/run/netns",
    "/sys/fs/bpf",
    "/sys/fs/bpf/calico-azure",
    "/sys/fs/cgroup",
];
const PREFIX: &str = "caz-";

/// What is there, whoever left it.
pub(super) fn all() -> BTreeSet<PathBuf> {
    let places = PLACES.iter().map(PathBuf::from);
    places
        .chain([std::env::temp_dir()])
        .flat_map(|place| of(&place))
        .collect()
}

fn of(place: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(place).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(PREFIX))
        .map(|entry| entry.path())
        .collect()
}

/// What is there now and was not `before`, and is of no process that still runs: other tests may run beside these.
pub(super) fn since(before: &BTreeSet<PathBuf>) -> Vec<PathBuf> {
    all()
        .difference(before)
        .filter(|path| !is_of_a_running_process(path))
        .cloned()
        .collect()
}

/// Names go on with the id of the process that made them.
fn is_of_a_running_process(path: &Path) -> bool {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
    let id = name
        .as_deref()
        .and_then(|name| name.strip_prefix(PREFIX)?.split('-').next());
    id.is_some_and(|id| id.parse::<u32>().is_ok() && Path::new("/proc").join(id).exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_begins_like_ours_is_found() {
        let dir = std::env::temp_dir().join(format!("xtask-leftovers-{}", std::process::id()));
        for name in ["caz-1-2-node-1", "cazar", "other"] {
            std::fs::create_dir_all(dir.join(name)).unwrap();
        }
        assert_eq!(of(&dir), [dir.join("caz-1-2-node-1")]);
        assert_eq!(of(&dir.join("nowhere")), Vec::<PathBuf>::new());
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn what_a_running_process_has_is_not_left_behind() {
        let own = std::process::id();
        assert!(is_of_a_running_process(Path::new(&format!(
            "/run/netns/caz-{own}-1-node-1"
        ))));
        for name in ["caz-0-1", "caz-api-7", "caz-"] {
            assert!(!is_of_a_running_process(Path::new(name)), "{name}");
        }
    }
}
