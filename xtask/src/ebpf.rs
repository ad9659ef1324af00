//! Compiling the eBPF programs: a toolchain of their own, a target directory of their own, BTF in the object.

use std::path::Path;

use anyhow::{Context as _, bail, ensure};

use crate::process;
use crate::setup::toolchain::Toolchain;
use crate::term::Ui;
use crate::workspace::{Object, Workspace};

const PACKAGE: &str = "calico-azure-ebpf";
/// `e_machine` of eBPF in an ELF header.
const EM_BPF: [u8; 2] = 247u16.to_le_bytes();

/// Builds one object and puts it where the agent's build script looks. An unchanged object keeps its time stamp,
/// so that the agent is not rebuilt for nothing.
pub(crate) fn build(ui: &Ui, ws: &Workspace, toolchain: &Toolchain, which: Object) -> anyhow::Result<()> {
    let step = ui.step(match which {
        Object::Default => "building the eBPF programs",
        Object::Log => "building the eBPF programs with logging",
        Object::Yardstick => "building the eBPF programs that benchmarks compare with",
    });
    let bin = which.bin();
    let target = if cfg!(target_endian = "big") {
        "bpfeb-unknown-none"
    } else {
        "bpfel-unknown-none"
    };
    let mut cargo = process::foreign(&toolchain.cargo);
    cargo.current_dir(&ws.root);
    cargo.env("RUSTC", &toolchain.rustc);
    // Distribution and stable compilers may build core too, once they are told that it is meant.
    cargo.env("RUSTC_BOOTSTRAP", "1");
    cargo.env("CARGO_ENCODED_RUSTFLAGS", flags(&toolchain.linker)?);
    cargo.args([
        "build",
        "--quiet",
        "--profile",
        "ebpf",
        "-Z",
        "build-std=core",
        "--target",
        target,
    ]);
    cargo.args(["--package", PACKAGE, "--bin", bin]).args(ws.locked());
    if which == Object::Log {
        cargo.args(["--features", "bpf-log"]);
    }
    cargo.arg("--target-dir").arg(ws.bpf_target());
    if !process::visible(&mut cargo)? {
        step.failed();
        bail!(
            "the eBPF programs do not build ({}); the compiler's messages are above",
            toolchain.describe()
        );
    }
    let built = ws.bpf_target().join(target).join("ebpf").join(bin);
    let bytes = std::fs::read(&built).with_context(|| format!("cannot read {}", built.display()))?;
    inspect(&bytes).with_context(|| format!("{} is not a usable eBPF object", built.display()))?;
    let object = ws.object(which);
    let changed = replace_if_different(&object, &bytes)?;
    let size = bytes.len() / 1024;
    step.done(&format!(
        "{} ({size} KiB{})",
        object.display(),
        if changed { "" } else { ", unchanged" }
    ));
    Ok(())
}

/// Flags separated as cargo wants them, so that a path may contain spaces.
fn flags(linker: &Path) -> anyhow::Result<String> {
    let linker = linker.to_str().with_context(|| {
        format!(
            "the linker's path {} is not UTF-8: move it or name another",
            linker.display()
        )
    })?;
    let flags = [
        "-Clink-arg=--btf".to_owned(),
        "-Cdebuginfo=2".to_owned(),
        // aya-ebpf lays out the registers of the machine that the programs will run on.
        format!("--cfg=bpf_target_arch=\"{}\"", std::env::consts::ARCH),
        format!("-Clinker={linker}"),
    ];
    Ok(flags.join("\u{1f}"))
}

fn inspect(object: &[u8]) -> anyhow::Result<()> {
    ensure!(
        object.starts_with(b"\x7fELF"),
        "it is not an ELF file: is the linker a bpf-linker?"
    );
    let machine = object.get(18..20);
    let expected = if cfg!(target_endian = "big") {
        [EM_BPF[1], EM_BPF[0]]
    } else {
        EM_BPF
    };
    ensure!(
        machine == Some(&expected),
        "its machine is {machine:?}, not eBPF: is the linker a bpf-linker?"
    );
    let btf = object.windows(5).any(|window| window == b".BTF\0");
    ensure!(
        btf,
        "it has no .BTF section: the linker ignored --btf, use bpf-linker 0.13.0"
    );
    Ok(())
}

fn replace_if_different(file: &Path, bytes: &[u8]) -> anyhow::Result<bool> {
    if std::fs::read(file).is_ok_and(|old| old == bytes) {
        return Ok(false);
    }
    // By renaming, so that a build that reads it meanwhile sees the old or the new one.
    let fresh = file.with_extension("o.new");
    std::fs::write(&fresh, bytes).with_context(|| format!("cannot write {}", fresh.display()))?;
    std::fs::rename(&fresh, file).with_context(|| format!("cannot write {}", file.display()))?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_survive_a_space_in_the_path() {
        let flags = flags(Path::new("/a b/bpf-linker")).unwrap();
        assert!(
            flags
                .split('\u{1f}')
                .any(|flag| flag == "-Clinker=/a b/bpf-linker"),
            "{flags}"
        );
        assert!(flags.contains("bpf_target_arch=\""), "{flags}");
    }

    #[test]
    fn other_files_are_not_taken_for_objects() {
        let mut elf = b"\x7fELF".to_vec();
        elf.resize(18, 0);
        elf.extend(if cfg!(target_endian = "big") {
            [0, 247]
        } else {
            [247, 0]
        });
        assert!(inspect(&elf).unwrap_err().to_string().contains(".BTF"));
        elf.extend(b"....BTF\0");
        inspect(&elf).unwrap();
        assert!(
            inspect(b"!<arch>")
                .unwrap_err()
                .to_string()
                .contains("not an ELF file")
        );
        assert!(inspect(b"\x7fELF").unwrap_err().to_string().contains("not eBPF"));
    }

    #[test]
    fn an_unchanged_object_keeps_its_time() {
        let file = std::env::temp_dir().join(format!("xtask-object-{}.o", std::process::id()));
        assert!(replace_if_different(&file, b"one").unwrap());
        let time = file.metadata().unwrap().modified().unwrap();
        assert!(!replace_if_different(&file, b"one").unwrap());
        assert_eq!(file.metadata().unwrap().modified().unwrap(), time);
        assert!(replace_if_different(&file, b"two").unwrap());
        std::fs::remove_file(&file).unwrap();
    }
}
