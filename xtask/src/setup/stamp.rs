//! Remembers the toolchain that set-up found, and notices when it is no longer what it was.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash as _, Hasher as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde_json::{Value, json};

use super::linker;
use super::toolchain::{self, Toolchain};

/// Changes when set-up itself does more or other things than before.
const VERSION: u32 = 1;

/// A found toolchain and a hash of what it depends on.
pub(super) struct Stamp {
    hash: String,
    toolchain: Toolchain,
}

impl Stamp {
    pub(super) fn of(toolchain: &Toolchain) -> Self {
        Self {
            hash: hash_of(toolchain),
            toolchain: toolchain.clone(),
        }
    }

    /// A stamp that is missing or unreadable only means that set-up looks again.
    pub(super) fn read(file: &Path) -> Option<Self> {
        let value: Value = serde_json::from_slice(&std::fs::read(file).ok()?).ok()?;
        let text = |key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
        let path = |key: &str| text(key).map(PathBuf::from);
        Some(Self {
            hash: text("hash")?,
            toolchain: Toolchain {
                cargo: path("cargo")?,
                rustc: path("rustc")?,
                linker: path("linker")?,
                label: text("label")?,
                why: text("why")?,
            },
        })
    }

    pub(super) fn if_still_true(self) -> Option<Toolchain> {
        let files = [
            &self.toolchain.cargo,
            &self.toolchain.rustc,
            &self.toolchain.linker,
        ];
        (files.iter().all(|file| file.is_file()) && self.hash == hash_of(&self.toolchain))
            .then_some(self.toolchain)
    }

    pub(super) fn write(&self, file: &Path) -> anyhow::Result<()> {
        let Toolchain {
            cargo,
            rustc,
            linker,
            label,
            why,
        } = &self.toolchain;
        let value = json!({
            "hash": self.hash, "cargo": cargo, "rustc": rustc, "linker": linker, "label": label, "why": why,
        });
        std::fs::write(file, format!("{value:#}\n"))
            .with_context(|| format!("cannot write {}", file.display()))
    }
}

/// Covers the programs (size and time), the user's wishes, the distribution and this code's version.
fn hash_of(toolchain: &Toolchain) -> String {
    let mut hasher = DefaultHasher::new();
    VERSION.hash(&mut hasher);
    for file in [&toolchain.cargo, &toolchain.rustc, &toolchain.linker] {
        file.hash(&mut hasher);
        if let Ok(meta) = file.metadata() {
            meta.len().hash(&mut hasher);
            meta.modified().ok().hash(&mut hasher);
        }
    }
    for name in [toolchain::OVERRIDE, linker::OVERRIDE] {
        std::env::var_os(name).hash(&mut hasher);
    }
    std::fs::read("/etc/os-release")
        .unwrap_or_default()
        .hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_or_missing_program_voids_the_stamp() {
        let dir = std::env::temp_dir().join(format!("xtask-stamp-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let linker = dir.join("bpf-linker");
        std::fs::write(&linker, "one").unwrap();
        let toolchain = Toolchain {
            cargo: linker.clone(),
            rustc: linker.clone(),
            linker: linker.clone(),
            label: "rustc 1.96.0".into(),
            why: "because".into(),
        };
        let file = dir.join("setup.json");
        Stamp::of(&toolchain).write(&file).unwrap();
        assert_eq!(Stamp::read(&file).and_then(Stamp::if_still_true), Some(toolchain));
        std::fs::write(&linker, "other").unwrap();
        assert_eq!(Stamp::read(&file).and_then(Stamp::if_still_true), None);
        std::fs::remove_file(&linker).unwrap();
        assert_eq!(Stamp::read(&file).and_then(Stamp::if_still_true), None);
        std::fs::write(&file, "not json").unwrap();
        assert!(Stamp::read(&file).is_none());
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
