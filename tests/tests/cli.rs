//! Bad input on the command line: each a message that names what is wrong, and an exit code.

#![expect(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Output};

use calico_azure_tests::lab::binary;

fn run(command: &mut Command) -> (Option<i32>, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().unwrap();
    (
        status.code(),
        format!(
            "{}{}",
            String::from_utf8_lossy(&stdout),
            String::from_utf8_lossy(&stderr)
        ),
    )
}

fn calico_azure(args: &[&str]) -> (Option<i32>, String) {
    run(Command::new(binary().unwrap()).args(args))
}

#[track_caller]
fn check(files: &[(&str, &str)], code: i32, expected: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    let (status, text) = calico_azure(&["check", &dir.path().to_string_lossy()]);
    assert_eq!(status, Some(code), "{text}");
    for part in expected {
        assert!(text.contains(part), "expected {part:?} in:\n{text}");
    }
}

const HEAD: &str =
    "apiVersion: projectcalico.org/v3\nkind: NetworkPolicy\nmetadata: {name: web, namespace: shop}\n";

fn policy(spec: &str) -> String {
    format!("{HEAD}spec:\n{spec}")
}

#[test]
fn manifests_with_mistakes() {
    let fine = policy(
        "  selector: app == 'web'\n  ingress:\n  - {action: Allow, protocol: TCP, destination: {ports: [80]}}\n",
    );
    check(&[("p.yaml", &fine)], 0, &["1 polic"]);
    check(&[("p.yaml", "kind: [unclosed\n")], 2, &["p.yaml"]);
    check(
        &[("p.yaml", &policy("  selector: all()\n  ingres: []\n"))],
        2,
        &["p.yaml:6", "shop/web", "ingres", "ingress"],
    );
    check(
        &[("p.yaml", &policy("  selector: app = 'web'\n"))],
        2,
        &["p.yaml:5", "shop/web", "spec.selector", "=="],
    );
    check(
        &[(
            "p.yaml",
            &policy("  ingress:\n  - action: Allow\n    source:\n      nets: [10.0.0.1/8]\n"),
        )],
        1,
        &["p.yaml:8", "shop/web", "nets[0]", "10.0.0.0/8"],
    );
    check(
        &[(
            "p.yaml",
            &policy("  ingress:\n  - action: Allow\n    source:\n      nets: [10.0.0.0/40]\n"),
        )],
        2,
        &["p.yaml:8", "nets[0]", "10.0.0.0/40"],
    );
    let port = "  ingress:\n  - action: Allow\n    protocol: TCP\n    destination:\n      ports: [70000]\n";
    check(
        &[("p.yaml", &policy(port))],
        2,
        &["p.yaml:9", "shop/web", "ports[0]", "70000"],
    );
    check(
        &[("p.yaml", &policy("  tier: nowhere\n  ingress: []\n"))],
        1,
        &["shop/web", "nowhere"],
    );
    check(
        &[("a.yaml", &fine), ("b.yaml", &fine)],
        2,
        &["a.yaml", "b.yaml", "shop/web"],
    );
}

#[test]
fn paths_that_cannot_be_read() {
    let (code, text) = calico_azure(&["check", "/nowhere/at/all.yaml"]);
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("/nowhere/at/all.yaml"), "{text}");
    let (code, text) = calico_azure(&["agent", "--node", "n", "--source", "/nowhere"]);
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("/nowhere") && text.contains("directory"), "{text}");
    let (code, text) = calico_azure(&["frobnicate"]);
    assert_eq!(code, Some(2), "{text}");
}

#[test]
fn an_unreadable_file_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("p.yaml");
    std::fs::write(&file, [0xff, 0xfe, 0x00, 0x80]).unwrap();
    let (code, text) = calico_azure(&["check", &dir.path().to_string_lossy()]);
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("p.yaml"), "{text}");
}

#[test]
fn an_interface_that_does_not_exist() {
    let (code, text) = calico_azure(&["load", "--interface", "nope0"]);
    assert_eq!(code, Some(2), "{text}");
    assert!(
        text.contains("interface nope0 does not exist") && text.contains("lo"),
        "{text}"
    );
    assert!(!Path::new("/sys/fs/bpf/calico-azure/manual").exists());
}

#[test]
fn without_root() {
    let nobody = 65534;
    // Where nobody may not go, a copy of the binary must be.
    let dir = tempfile::Builder::new().prefix("caz").tempdir_in("/tmp").unwrap();
    let copy = dir.path().join("calico-azure");
    std::fs::copy(binary().unwrap(), &copy).unwrap();
    std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    for args in [
        &["agent", "--node", "n", "--source", "/tmp"][..],
        &["load", "--interface", "lo"],
        &["cleanup", "--node", "n"],
    ] {
        let (code, text) = run(Command::new(&copy).args(args).uid(nobody).gid(nobody));
        assert_eq!(code, Some(2), "{text}");
        assert!(text.contains("root"), "{args:?}: {text}");
    }
}

#[test]
fn a_kernel_without_btf_and_a_missing_bpffs() {
    let hidden = |hide: &str, args: &[&str]| {
        let script = format!("mount -t tmpfs none {hide} && exec \"$0\" \"$@\"");
        run(Command::new("unshare")
            .args(["--mount", "sh", "-c", &script])
            .arg(binary().unwrap())
            .args(args))
    };
    let (code, text) = hidden("/sys/kernel/btf", &["load", "--interface", "lo"]);
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("BTF"), "{text}");
    let (code, text) = hidden("/sys/fs/bpf", &["load", "--interface", "lo"]);
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("mount -t bpf"), "{text}");
}
