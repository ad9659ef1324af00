//! Facts about machines we do not have, and what is said about them.

use super::*;

pub(in super::super) fn good() -> Facts {
    Facts {
        os: "linux".into(),
        root: true,
        kernel: "5.15.0-1052-azure".into(),
        btf: true,
        bpf_filesystem: true,
        bpffs_mounted: true,
        os_release: "PRETTY_NAME=\"Ubuntu 22.04.4 LTS\"\nID=ubuntu\nID_LIKE=debian\n".into(),
        apt: true,
        rustup: false,
        rustup_may_not_install: false,
    }
}

fn said(facts: &Facts, need: Need) -> String {
    facts
        .problems(need)
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn a_good_machine_has_no_problems() {
    assert_eq!(said(&good(), Need::Everything), "");
}

#[test]
fn each_obstacle_is_named_with_its_remedy() {
    let cases: [(Facts, &str, &str); 7] = [
        (
            Facts {
                os: "macos".into(),
                ..good()
            },
            "macos",
            "virtual machine",
        ),
        (
            Facts {
                root: false,
                ..good()
            },
            "not root",
            "sudo",
        ),
        (
            Facts {
                kernel: "5.4.0-150-generic".into(),
                ..good()
            },
            "5.4.0-150-generic",
            "5.10",
        ),
        (
            Facts {
                kernel: "4.19.0".into(),
                ..good()
            },
            "4.19.0",
            "5.10",
        ),
        (
            Facts {
                kernel: String::new(),
                ..good()
            },
            "unknown",
            "5.10",
        ),
        (
            Facts { btf: false, ..good() },
            "/sys/kernel/btf/vmlinux",
            "CONFIG_DEBUG_INFO_BTF",
        ),
        (
            Facts {
                bpf_filesystem: false,
                ..good()
            },
            "BPF file system",
            "CONFIG_BPF_SYSCALL",
        ),
    ];
    for (facts, what, remedy) in cases {
        let text = said(&facts, Need::Everything);
        assert!(
            text.contains(what) && text.contains(remedy),
            "wanted {what:?} and {remedy:?} in: {text}"
        );
    }
}

#[test]
fn all_obstacles_are_told_at_once() {
    let facts = Facts {
        root: false,
        btf: false,
        kernel: "4.9.0".into(),
        ..good()
    };
    assert_eq!(facts.problems(Need::Everything).len(), 3);
}

#[test]
fn compiling_needs_neither_root_nor_a_kernel() {
    let facts = Facts {
        root: false,
        btf: false,
        bpf_filesystem: false,
        kernel: "4.9.0".into(),
        ..good()
    };
    assert_eq!(said(&facts, Need::Build), "");
    assert!(
        said(
            &Facts {
                os: "windows".into(),
                ..good()
            },
            Need::Build
        )
        .contains("windows")
    );
}

#[test]
fn apt_is_used_on_debian_and_its_relatives_only() {
    assert!(good().has_apt());
    assert!(
        Facts {
            os_release: "ID=debian".into(),
            ..good()
        }
        .has_apt()
    );
    assert!(
        Facts {
            os_release: "ID=linuxmint\nID_LIKE=\"ubuntu debian\"".into(),
            ..good()
        }
        .has_apt()
    );
    assert!(
        !Facts {
            os_release: "ID=fedora\nPRETTY_NAME=\"Fedora 44\"".into(),
            ..good()
        }
        .has_apt()
    );
    assert!(!Facts { apt: false, ..good() }.has_apt());
    assert_eq!(good().distro_name(), "Ubuntu 22.04.4 LTS");
}

#[test]
fn proc_files_are_understood() {
    assert_eq!(effective_uid("Name:\tx\nUid:\t1000\t0\t0\t0\n"), Some(0));
    assert_eq!(effective_uid("Uid:\t0\t1000\t0\t0\n"), Some(1000));
    assert_eq!(effective_uid("nonsense"), None);
    assert!(is_bpffs_mounted(
        "proc /proc proc rw 0 0\nbpffs /sys/fs/bpf bpf rw 0 0\n"
    ));
    assert!(!is_bpffs_mounted("tmpfs /sys/fs/bpf tmpfs rw 0 0\n"));
    assert!(!is_bpffs_mounted("bpffs /run/cilium/bpffs bpf rw 0 0\n"));
    assert_eq!(version_pair("6.18.44-fc"), Some((6, 18)));
    assert_eq!(version_pair("garbage"), None);
}
