//! Embeds the eBPF object: copies it to `OUT_DIR/tc.o`, from where the library includes it.
//!
//! Without an object the file is empty, so that documentation, clippy and the pure tests need no eBPF toolchain; loading
//! programs then fails at run time and says so.

use std::error::Error;
use std::path::{Path, PathBuf};

/// Names the object to embed instead of the one `cargo xtask build` made.
const OVERRIDE: &str = "CALICO_AZURE_EBPF_OBJECT";
const OBJECT: &str = "bpf/calico-azure-tc.o";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed={OVERRIDE}");
    let out_dir = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR, and it is not set")?);
    let embedded = out_dir.join("tc.o");
    let (object, required) = match std::env::var_os(OVERRIDE).filter(|path| !path.is_empty()) {
        Some(path) => (PathBuf::from(path), true),
        None => (built_object(&out_dir), false),
    };
    // Cargo runs us again when the file appears, and each time while it is missing.
    println!("cargo::rerun-if-changed={}", object.display());
    match std::fs::read(&object) {
        Ok(bytes) if bytes.starts_with(b"\x7fELF") => std::fs::write(&embedded, bytes)?,
        Ok(_) => {
            return Err(format!(
                "{} is not an ELF object: run `cargo xtask build`",
                object.display()
            )
            .into());
        }
        Err(error) if required => return Err(format!("{OVERRIDE}={}: {error}", object.display()).into()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            println!(
                "cargo::warning=no eBPF object at {}: this build cannot load programs",
                object.display()
            );
            println!("cargo::warning=run `cargo xtask build` to make it");
            std::fs::write(&embedded, [])?;
        }
        Err(error) => return Err(format!("cannot read {}: {error}", object.display()).into()),
    }
    Ok(())
}

/// The object in this build's own target directory (`OUT_DIR` is inside it), else in the workspace's.
fn built_object(out_dir: &Path) -> PathBuf {
    let own = out_dir
        .ancestors()
        .map(|dir| dir.join(OBJECT))
        .find(|path| path.is_file());
    own.unwrap_or_else(|| {
        let manifest = std::env::var_os("CARGO_MANIFEST_DIR")
            .map(PathBuf::from)
            .unwrap_or_default();
        manifest.parent().unwrap_or(&manifest).join("target").join(OBJECT)
    })
}
