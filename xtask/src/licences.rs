//! The licence check for machines without cargo-deny: the same allow list, read from deny.toml.
//!
//! Only what deny.toml uses of TOML is understood: string arrays and the exceptions' inline tables. cargo-deny reads
//! the whole file when it is installed.

use std::path::Path;

use anyhow::{Context as _, ensure};
use serde_json::Value;

use crate::process;
use crate::spdx;
use crate::workspace::Workspace;

/// What deny.toml accepts.
#[derive(Debug, Default, PartialEq, Eq)]
struct Allowed {
    everywhere: Vec<String>,
    /// Package name and licence.
    exceptions: Vec<(String, String)>,
    /// Platforms whose dependencies count.
    targets: Vec<String>,
}

/// Checks every package in the dependency graph; returns how many there are.
pub(crate) fn check(ws: &Workspace) -> anyhow::Result<usize> {
    let file = ws.root.join("deny.toml");
    let allowed = read_allowed(&file)?;
    let mut cargo = process::cargo(&ws.root);
    cargo
        .args(["metadata", "--format-version", "1", "--all-features"])
        .args(ws.locked());
    for target in &allowed.targets {
        cargo.args(["--filter-platform", target]);
    }
    let metadata: Value =
        serde_json::from_str(&process::capture(&mut cargo)?).context("cargo metadata's output")?;
    let packages = metadata
        .get("packages")
        .and_then(Value::as_array)
        .context("cargo metadata lists no packages")?;
    let findings: Vec<String> = packages
        .iter()
        .filter_map(|package| finding(package, &allowed))
        .collect();
    ensure!(
        findings.is_empty(),
        "{}\nremove the dependency, or, after reading the licence, add it to [licenses] in deny.toml",
        findings.join("\n")
    );
    Ok(packages.len())
}

fn finding(package: &Value, allowed: &Allowed) -> Option<String> {
    let text = |key: &str| package.get(key).and_then(Value::as_str);
    let name = text("name").unwrap_or("?");
    let shown = format!("{name} {}", text("version").unwrap_or("?"));
    let Some(licence) = text("license") else {
        return Some(format!("{shown}: its Cargo.toml names no SPDX licence"));
    };
    let accepts = |id: &str| {
        allowed.everywhere.iter().any(|one| one == id)
            || allowed
                .exceptions
                .iter()
                .any(|(package, one)| package == name && one == id)
    };
    match spdx::satisfied(licence, &accepts) {
        Ok(true) => None,
        Ok(false) => Some(format!("{shown}: {licence} is not allowed by deny.toml")),
        Err(error) => Some(format!("{shown}: {error}")),
    }
}

fn read_allowed(file: &Path) -> anyhow::Result<Allowed> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let allowed = parse(&text);
    ensure!(
        !allowed.everywhere.is_empty(),
        "{}: [licenses] has no allow list",
        file.display()
    );
    Ok(allowed)
}

fn parse(text: &str) -> Allowed {
    let mut allowed = Allowed::default();
    let (mut section, mut key, mut open) = ("", "", 0i64);
    for line in text
        .lines()
        .map(|line| line.split('#').next().unwrap_or_default().trim())
    {
        let mut value = line;
        if open == 0 {
            if let Some(name) = line.strip_prefix('[') {
                section = name.trim_end_matches(']');
                continue;
            }
            let Some((name, rest)) = line.split_once('=') else {
                continue;
            };
            (key, value) = (name.trim(), rest);
        }
        let strings: Vec<String> = value.split('"').skip(1).step_by(2).map(str::to_owned).collect();
        match (section, key) {
            ("graph", "targets") => allowed.targets.extend(strings),
            ("licenses", "allow") => allowed.everywhere.extend(strings),
            ("licenses", "exceptions") => {
                if let Some((package, licences)) = strings.split_first() {
                    allowed
                        .exceptions
                        .extend(licences.iter().map(|licence| (package.clone(), licence.clone())));
                }
            }
            _ => {}
        }
        // Brackets inside strings do not occur in licences or package names.
        for c in value.chars() {
            open += i64::from(c == '[') - i64::from(c == ']');
        }
    }
    allowed
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const DENY: &str = r#"
[graph]
targets = ["x86_64-unknown-linux-gnu"]
[licenses]
confidence-threshold = 0.9
allow = [
    "MIT", # a comment
    "Apache-2.0",
]
exceptions = [
    # Another comment.

    { crate = "programs", allow = ["GPL-2.0-only"] },
]
[bans]
allow = ["not a licence"]
"#;

    #[test]
    fn the_allow_list_is_read() {
        assert_eq!(
            parse(DENY),
            Allowed {
                everywhere: vec!["MIT".into(), "Apache-2.0".into()],
                exceptions: vec![("programs".into(), "GPL-2.0-only".into())],
                targets: vec!["x86_64-unknown-linux-gnu".into()],
            }
        );
        assert_eq!(
            parse("[licenses]\nallow = [\"ISC\"]\nunused = 1\n").everywhere,
            ["ISC"]
        );
    }

    #[test]
    fn the_repository_s_own_list_is_understood() {
        let allowed = parse(include_str!("../../deny.toml"));
        assert!(
            allowed.everywhere.iter().any(|one| one == "Apache-2.0"),
            "{allowed:?}"
        );
        let gpl = ("calico-azure-ebpf".to_owned(), "GPL-2.0-only".to_owned());
        assert!(allowed.exceptions.contains(&gpl), "{allowed:?}");
        assert_eq!(allowed.targets.len(), 4, "{allowed:?}");
        assert!(
            !allowed.everywhere.iter().any(|one| one.starts_with("GPL")),
            "{allowed:?}"
        );
    }

    #[test]
    fn findings_name_package_and_licence() {
        let allowed = parse(DENY);
        let package =
            |name: &str, licence: Value| json!({"name": name, "version": "1.2.3", "license": licence});
        assert_eq!(
            finding(&package("a", json!("MIT OR GPL-3.0-only")), &allowed),
            None
        );
        assert_eq!(
            finding(&package("programs", json!("GPL-2.0-only")), &allowed),
            None
        );
        let gpl = finding(&package("a", json!("GPL-2.0-only")), &allowed).unwrap();
        assert_eq!(gpl, "a 1.2.3: GPL-2.0-only is not allowed by deny.toml");
        assert!(
            finding(&package("a", Value::Null), &allowed)
                .unwrap()
                .contains("no SPDX licence")
        );
    }
}
