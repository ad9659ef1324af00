//! A real kube-apiserver and etcd for the tests: those that the environment names, else etcd from Debian and a kube-apiserver that
//! is built from Debian's sources of Kubernetes, which takes some minutes, once.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use sha2::{Digest as _, Sha256};

use crate::bookworm::{Bookworm, Go, remove};
use crate::process;
use crate::setup;
use crate::term::Ui;
use crate::workspace::Workspace;

/// As the envtest of controller-runtime calls them.
pub(crate) const APISERVER: &str = "TEST_ASSET_KUBE_APISERVER";
pub(crate) const ETCD: &str = "TEST_ASSET_ETCD";

/// What is built.
const VERSION: &str = "1.20.2";
/// Of `kubernetes_….orig.tar.gz`. A revision of Debian's that keeps it may change what is around it.
const SHA256: &str = "b83c0780efb182d928dc63d46488a847f161f04e40a94b96bf5247dd671ecdfc";
const MODULE: &str = "k8s.io/kubernetes";
/// What takes the place of a vendored package: of the releases with which the compiler of bookworm works, Debian has this. The vendored one
/// reads maps with the runtime's own iterator, whose size is another one since Go 1.18: the first custom resource would be a crash.
const REFLECT2: &str = "golang-github-modern-go-reflect2-dev";
/// Its release. What was built with other things is built again.
const REFLECT2_VERSION: &str = "1.0.2";
/// Where types are whose descriptions the server publishes. Debian's sources lack the generated file.
const STAGING: [&str; 12] = [
    "api",
    "apiextensions-apiserver",
    "apimachinery",
    "apiserver",
    "cloud-provider",
    "component-base",
    "kube-aggregator",
    "kube-controller-manager",
    "kube-proxy",
    "kube-scheduler",
    "kubelet",
    "metrics",
];

/// The two programs.
pub(crate) struct Assets {
    pub(crate) apiserver: PathBuf,
    pub(crate) etcd: PathBuf,
}

/// Finds or makes them.
pub(crate) fn prepare(ui: &Ui, ws: &Workspace) -> anyhow::Result<Assets> {
    let dir = ws.tools().join("apiserver");
    let mut bookworm = Bookworm::new(ui, ws);
    let etcd = match named(ETCD)? {
        Some(path) => path,
        None => etcd(&mut bookworm, ws, &dir)?,
    };
    let apiserver = match named(APISERVER)? {
        Some(path) => path,
        None => apiserver(ui, &mut bookworm, ws, &dir)?,
    };
    Ok(Assets { apiserver, etcd })
}

fn named(variable: &str) -> anyhow::Result<Option<PathBuf>> {
    let Some(path) = std::env::var_os(variable).filter(|path| !path.is_empty()) else {
        return Ok(None);
    };
    let path = PathBuf::from(path);
    ensure!(
        path.is_file(),
        "{variable}={}: expected a program; without the variable one is got from Debian",
        path.display()
    );
    Ok(Some(path))
}

fn etcd(bookworm: &mut Bookworm<'_>, ws: &Workspace, dir: &Path) -> anyhow::Result<PathBuf> {
    let program = dir.join("etcd");
    if !program.is_file() {
        let root = bookworm.unpacked(ws, "etcd", &["etcd-server".to_owned()])?;
        put(&root.join("usr/bin/etcd"), &program)?;
    }
    Ok(program)
}

/// Each step leaves something that the next run finds, and puts it in its place when it is complete.
fn apiserver(ui: &Ui, bookworm: &mut Bookworm<'_>, ws: &Workspace, dir: &Path) -> anyhow::Result<PathBuf> {
    let program = dir.join("kube-apiserver");
    let (recipe, wanted) = (dir.join("kube-apiserver.recipe"), recipe());
    if program.is_file() && fs::read_to_string(&recipe).is_ok_and(|found| found == wanted) {
        return Ok(program);
    }
    setup::source_tools(ui, ws)?;
    let go = bookworm.go(ws)?;
    // What an interrupted build left of other sources must not be taken for these.
    let path = dir.join(format!("gopath-{VERSION}-{REFLECT2_VERSION}"));
    let source = path.join("src").join(MODULE);
    if !source.is_dir() {
        let file = bookworm.archive(ws)?.upstream("kubernetes")?;
        verify(&file)?;
        let libraries = bookworm.unpacked(ws, "reflect2", &[REFLECT2.to_owned()])?;
        unpack(&file, &libraries, &source)?;
    }
    let log = ws.setup_log();
    let generated = source.join("pkg/generated/openapi/zz_generated.openapi.go");
    if !generated.is_file() {
        generate(ui, &go, &path, &source, &generated, &log)?;
    }
    let new = dir.join("kube-apiserver.new");
    let version = format!("{MODULE}/vendor/k8s.io/component-base/version");
    let flags =
        format!("-s -w -X {version}.gitVersion=v{VERSION} -X {version}.gitMajor=1 -X {version}.gitMinor=20");
    let mut build = go.command(&path);
    build
        .current_dir(&source)
        .args(["build", "-ldflags", &flags, "-o"]);
    build.arg(&new).arg(format!("{MODULE}/cmd/kube-apiserver"));
    let title = format!("building kube-apiserver {VERSION} for the tests (some minutes, once)");
    process::logged(ui, &title, &mut build, &log)?;
    fs::rename(&new, &program).with_context(|| format!("cannot write {}", program.display()))?;
    fs::write(&recipe, wanted).with_context(|| format!("cannot write {}", recipe.display()))?;
    remove(&path)?;
    remove(&go.cache())?;
    Ok(program)
}

/// From what the program is built.
fn recipe() -> String {
    format!("Kubernetes {VERSION} ({SHA256}), reflect2 {REFLECT2_VERSION}\n")
}

fn verify(file: &Path) -> anyhow::Result<()> {
    let bytes = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let found = format!("{:x}", Sha256::digest(&bytes));
    ensure!(
        found == SHA256,
        "{} has SHA-256 {found}, and {SHA256} (Kubernetes {VERSION}) was expected: if Debian has a newer one, set the new version and sum \
         in xtask/src/apiserver.rs, or name a kube-apiserver in {APISERVER} and an etcd in {ETCD}",
        file.display()
    );
    Ok(())
}

/// Unpacks the sources, and puts the library in its place that the compiler needs.
fn unpack(file: &Path, libraries: &Path, source: &Path) -> anyhow::Result<()> {
    let parent = source.parent().context("a source directory has a parent")?;
    let new = parent.join("new");
    remove(&new)?;
    fs::create_dir_all(&new).with_context(|| format!("cannot create {}", new.display()))?;
    let mut tar = std::process::Command::new("tar");
    tar.arg("-xzf")
        .arg(file)
        .args(["--strip-components=1", "-C"])
        .arg(&new);
    process::capture(&mut tar)?;
    let vendored = new.join("vendor/github.com/modern-go/reflect2");
    remove(&vendored)?;
    let library = libraries.join("usr/share/gocode/src/github.com/modern-go/reflect2");
    copy_files(&library, &vendored)?;
    fs::rename(&new, source).with_context(|| format!("cannot write {}", source.display()))
}

/// Copies the files of a directory that has no others in it.
fn copy_files(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(to).with_context(|| format!("cannot create {}", to.display()))?;
    let files = fs::read_dir(from).with_context(|| {
        format!(
            "cannot list {}: expected the sources of {REFLECT2}",
            from.display()
        )
    })?;
    for file in files {
        let file = file?;
        if file.file_type()?.is_file() {
            let path = file.path();
            fs::copy(&path, to.join(file.file_name()))
                .with_context(|| format!("cannot copy {}", path.display()))?;
        }
    }
    Ok(())
}

/// Writes the descriptions of types that the server publishes, with Kubernetes' own generator.
fn generate(
    ui: &Ui,
    go: &Go,
    path: &Path,
    source: &Path,
    generated: &Path,
    log: &Path,
) -> anyhow::Result<()> {
    let tool = path.join("openapi-gen");
    let mut build = go.command(path);
    build.current_dir(source).args(["build", "-o"]).arg(&tool);
    build.arg(format!("{MODULE}/vendor/k8s.io/kube-openapi/cmd/openapi-gen"));
    process::logged(ui, "building Kubernetes' generator", &mut build, log)?;
    let mut packages = BTreeSet::new();
    for part in STAGING {
        let dir = source.join("staging/src/k8s.io").join(part);
        described(&dir, &format!("{MODULE}/vendor/k8s.io/{part}"), &mut packages)?;
    }
    described(&source.join("pkg"), &format!("{MODULE}/pkg"), &mut packages)?;
    let packages: Vec<String> = packages.into_iter().collect();
    // In a base of its own, so that a run that was interrupted leaves nothing that looks complete.
    let base = path.join("generated");
    let package = format!("{MODULE}/pkg/generated/openapi");
    let mut run = process::foreign(&tool);
    run.current_dir(source)
        .env("GOROOT", go.root())
        .env("GOPATH", path)
        .env("GO111MODULE", "off")
        .env("PATH", with_go(go)?)
        .args(["--go-header-file", "hack/boilerplate/boilerplate.generatego.txt"])
        .args(["-O", "zz_generated.openapi", "-r", "/dev/null", "-p", &package])
        .arg("--output-base")
        .arg(&base)
        .args(["-i", &packages.join(",")]);
    process::logged(
        ui,
        "generating what Debian's sources of Kubernetes lack",
        &mut run,
        log,
    )?;
    put(&base.join(&package).join("zz_generated.openapi.go"), generated)
}

/// The generator asks `go` where packages are.
fn with_go(go: &Go) -> anyhow::Result<std::ffi::OsString> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = std::iter::once(go.root().join("bin")).chain(std::env::split_paths(&path));
    Ok(std::env::join_paths(dirs)?)
}

/// The packages below a directory that ask for descriptions.
fn described(dir: &Path, package: &str, found: &mut BTreeSet<String>) -> anyhow::Result<()> {
    let entries = fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))?;
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let kind = entry.file_type()?;
        if kind.is_dir() {
            described(&entry.path(), &format!("{package}/{name}"), found)?;
        } else if kind.is_file() && name.ends_with(".go") {
            let text = fs::read_to_string(entry.path())?;
            if text.contains("+k8s:openapi-gen=true") {
                found.insert(package.to_owned());
            }
        }
    }
    Ok(())
}

/// Copies a program or file to where it is looked for, in one step.
fn put(from: &Path, to: &Path) -> anyhow::Result<()> {
    let new = to.with_extension("new");
    if let Some(dir) = to.parent() {
        fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    }
    fs::copy(from, &new).with_context(|| format!("cannot copy {}", from.display()))?;
    fs::rename(&new, to).with_context(|| format!("cannot write {}", to.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_that_ask_for_descriptions_are_found() {
        let root = std::env::temp_dir().join(format!("xtask-described-{}", std::process::id()));
        fs::create_dir_all(root.join("a/v1")).unwrap();
        fs::write(root.join("a/v1/doc.go"), "// +k8s:openapi-gen=true\npackage v1\n").unwrap();
        fs::write(root.join("a/v1/README"), "+k8s:openapi-gen=true").unwrap();
        fs::write(root.join("a/other.go"), "package a\n").unwrap();
        let mut found = BTreeSet::new();
        described(&root, "m/pkg", &mut found).unwrap();
        fs::remove_dir_all(&root).unwrap();
        assert_eq!(found.into_iter().collect::<Vec<_>>(), ["m/pkg/a/v1"]);
    }

    #[test]
    fn other_sources_are_refused() {
        let file = std::env::temp_dir().join(format!("xtask-sources-{}", std::process::id()));
        fs::write(&file, "other").unwrap();
        let error = verify(&file).unwrap_err().to_string();
        fs::remove_file(&file).unwrap();
        assert!(error.contains(SHA256) && error.contains(APISERVER), "{error}");
    }
}
