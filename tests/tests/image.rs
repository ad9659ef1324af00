//! The container image: what is in it runs with nothing around it, and it is the one that manifests name.

#![expect(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What `cargo xtask image` wrote, in the target directory that this test is in.
fn archive() -> PathBuf {
    let name = format!("calico-azure-{VERSION}-{}.tar", std::env::consts::ARCH);
    let exe = std::env::current_exe().unwrap();
    let found = exe
        .ancestors()
        .map(|dir| dir.join("image").join(&name))
        .find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("no image/{name} in the target directory: run `cargo xtask image`"))
}

fn files(tar: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let mut archive = tar::Archive::new(tar);
    let entries = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        (entry.path().unwrap().display().to_string(), bytes)
    });
    entries.collect()
}

fn blob<'f>(files: &'f BTreeMap<String, Vec<u8>>, descriptor: &Value) -> &'f [u8] {
    let digest = descriptor["digest"].as_str().unwrap().replace(':', "/");
    &files[&format!("blobs/{digest}")]
}

fn json(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap()
}

#[test]
fn its_entry_point_runs_with_nothing_around_it() {
    let files = files(&fs::read(archive()).unwrap());
    let manifest = json(blob(&files, &json(&files["index.json"])["manifests"][0]));
    let config = json(blob(&files, &manifest["config"]));
    let root = tempfile::tempdir().unwrap();
    let layers = manifest["layers"].as_array().unwrap();
    assert_eq!(layers.len(), 1);
    tar::Archive::new(blob(&files, &layers[0]))
        .unpack(root.path())
        .unwrap();
    // Mount points of the pod: the root file system is read-only.
    for dir in ["bpffs", "host-cgroup", "run/calico-azure"] {
        assert!(root.path().join(dir).is_dir(), "{dir}");
    }
    let entry = config["config"]["Entrypoint"][0].as_str().unwrap();
    let output = chrooted(root.path(), entry).arg("--version").output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(said, format!("calico-azure {VERSION}\n"));
    // The programs for the kernel are in it: a second ELF file, whose machine is BPF.
    let program = fs::read(root.path().join(entry.trim_start_matches('/'))).unwrap();
    let is_bpf = |at: &[u8]| at.starts_with(b"\x7fELF") && at[18..20] == [247, 0];
    assert!(program.windows(20).any(is_bpf), "no eBPF object in the program");
}

fn chrooted(root: &Path, program: &str) -> Command {
    let root = CString::new(root.as_os_str().as_bytes()).unwrap();
    let mut command = Command::new(program);
    command.env_clear();
    // SAFETY: two plain system calls, with strings that were made before the fork.
    unsafe {
        command.pre_exec(move || {
            if libc::chroot(root.as_ptr()) == 0 && libc::chdir(c"/".as_ptr()) == 0 {
                Ok(())
            } else {
                Err(std::io::Error::last_os_error())
            }
        });
    }
    command
}

#[test]
fn manifests_name_it() {
    let files = files(&fs::read(archive()).unwrap());
    let name = json(&files["manifest.json"])[0]["RepoTags"][0]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(name, format!("calico-azure:{VERSION}"));
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/manifests");
    for entry in fs::read_dir(&dir).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        let images: Vec<&str> = text
            .lines()
            .filter_map(|line| line.trim().strip_prefix("image: "))
            .collect();
        // Init containers are of the same.
        let same = images.iter().all(|image| *image == name);
        assert!(same && !images.is_empty(), "{}: {images:?}", path.display());
    }
}
