//! Rules about single files: length, module docs, leftovers, traces of a developer's machine.

use super::lex::code_only;
use super::{Finding, Source};

const LONGEST: usize = 500;
const LONG: usize = 300;

/// Leftovers in code. In pieces, because this file is checked too.
const IN_CODE: [(&str, &str); 3] = [
    (concat!("to", "do!"), "finish it"),
    (concat!("unimplem", "ented!"), "finish it"),
    (concat!("#[ig", "nore"), "make the test run, or delete it"),
];

/// Leftovers anywhere, comments included.
const ANYWHERE: [(&str, &str); 5] = [
    (concat!("FIX", "ME"), "fix it"),
    (concat!("XX", "X"), "fix it"),
    (
        concat!("/wo", "rk/"),
        "a path of one developer's machine: make it relative",
    ),
    (
        concat!("/ro", "ot/"),
        "a path of one developer's machine: make it relative",
    ),
    (
        concat!("/ho", "me/"),
        "a path of one developer's machine: make it relative",
    ),
];

const CRATES_IO: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// Files a reader of the repository looks for first.
pub(super) fn required_files(sources: &[Source]) -> Vec<Finding> {
    ["README.md", "ARCHITECTURE.md", "LICENSE"]
        .into_iter()
        .filter(|name| !sources.iter().any(|source| source.path == *name))
        .map(|name| fail(name, 0, "is missing: write it"))
        .collect()
}

/// Every rule that looks at one file alone.
pub(super) fn check(source: &Source) -> Vec<Finding> {
    let Source { path, text } = source;
    let mut findings = Vec::new();
    for (line, content) in numbered(text) {
        for (what, advice) in ANYWHERE
            .into_iter()
            .filter(|(what, _)| contains_alone(content, what))
        {
            findings.push(fail(path, line, &format!("contains `{what}`: {advice}")));
        }
    }
    findings.extend(registry(source));
    if path.ends_with(".rs") {
        findings.extend(rust(path, text));
    }
    findings
}

fn rust(path: &str, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let first = text
        .lines()
        .find(|line| !line.trim().is_empty())
        .unwrap_or_default();
    if !first.starts_with("//!") {
        findings.push(fail(
            path,
            1,
            "does not begin with `//!`: say what the module is for",
        ));
    }
    let lines = text.lines().count();
    if lines > LONGEST && !is_test(path) {
        findings.push(fail(
            path,
            0,
            &format!("has {lines} lines, more than {LONGEST}: split it by concept"),
        ));
    } else if lines > LONG {
        let what = format!("has {lines} lines, more than {LONG}: consider splitting it");
        findings.push(Finding {
            warning: true,
            ..fail(path, 0, &what)
        });
    }
    for (line, content) in numbered(&code_only(text)) {
        for (what, advice) in IN_CODE.into_iter().filter(|(what, _)| content.contains(what)) {
            findings.push(fail(path, line, &format!("contains `{what}`: {advice}")));
        }
    }
    findings
}

/// Tests may be long: `tests.rs`, `…_tests.rs`, and `tests` directories inside a crate (the crate `tests` is code).
fn is_test(path: &str) -> bool {
    let inside = path.split_once('/').map_or("", |(_, inside)| inside);
    let name = path.rsplit('/').next().unwrap_or_default();
    name == "tests.rs" || name.ends_with("_tests.rs") || inside.split('/').any(|dir| dir == "tests")
}

/// Dependencies come from crates.io, whatever mirror a developer has configured.
fn registry(source: &Source) -> Vec<Finding> {
    let Source { path, text } = source;
    let lines = numbered(text);
    if path.ends_with("Cargo.lock") {
        let foreign = |line: &str| line.starts_with("source = ") && !line.contains(CRATES_IO);
        return lines
            .filter(|(_, line)| foreign(line))
            .map(|(at, line)| {
                fail(
                    path,
                    at,
                    &format!("`{line}` is not crates.io: build with cargo's default registry"),
                )
            })
            .collect();
    }
    if path.starts_with(".cargo/") {
        return lines
            .filter(|(_, line)| line.contains("replace-with") || line.starts_with("[registr"))
            .map(|(at, _)| {
                fail(
                    path,
                    at,
                    "configures a registry: that belongs in the developer's own cargo home",
                )
            })
            .collect();
    }
    Vec::new()
}

/// `needle` not as a part of a longer word or path.
fn contains_alone(line: &str, needle: &str) -> bool {
    line.match_indices(needle).any(|(at, _)| {
        let before = line.get(..at).and_then(|text| text.chars().next_back());
        let after = line.get(at + needle.len()..).and_then(|text| text.chars().next());
        let word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '.');
        !word(before) && (needle.ends_with('/') || !after.is_some_and(char::is_alphanumeric))
    })
}

fn numbered(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(at, line)| (at + 1, line))
}

fn fail(path: &str, line: usize, what: &str) -> Finding {
    Finding {
        path: path.to_owned(),
        line,
        what: what.to_owned(),
        warning: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, text: &str) -> Vec<String> {
        check(&Source {
            path: path.into(),
            text: text.into(),
        })
        .iter()
        .map(ToString::to_string)
        .collect()
    }

    fn check_one(path: &str, text: &str, expected: &str) {
        let all = found(path, text);
        assert!(
            all.iter().any(|one| one.contains(expected)),
            "wanted {expected:?}, found {all:?}"
        );
    }

    #[test]
    fn a_clean_file_has_no_findings() {
        assert_eq!(found("a/src/b.rs", "//! B.\n\nfn f() {}\n"), Vec::<String>::new());
        assert_eq!(
            found(
                "README.md",
                &["See `src/wo", "rk/mod.rs`, chroot/x and HEX", "XX.\n"].concat()
            ),
            Vec::<String>::new()
        );
    }

    #[test]
    fn long_files_fail_except_tests() {
        let text = format!("//! B.\n{}", "\n".repeat(500));
        check_one("a/src/b.rs", &text, "a/src/b.rs: has 501 lines, more than 500");
        check_one("tests/src/lab.rs", &text, "more than 500");
        for path in [
            "a/src/b/tests.rs",
            "a/tests/it.rs",
            "a/src/b_tests.rs",
            "tests/tests/it.rs",
        ] {
            assert!(
                check(&Source {
                    path: path.into(),
                    text: text.clone()
                })
                .iter()
                .all(|one| one.warning),
                "{path}"
            );
        }
        let medium = format!("//! B.\n{}", "\n".repeat(300));
        let findings = check(&Source {
            path: "a/src/b.rs".into(),
            text: medium,
        });
        assert!(
            findings.iter().all(|one| one.warning) && findings.len() == 1,
            "{findings:?}"
        );
    }

    #[test]
    fn leftovers_are_found_in_code_and_not_in_strings() {
        let todo = concat!("to", "do!()");
        check_one(
            "a/b.rs",
            &format!("//! B.\nfn f() {{ {todo} }}\n"),
            "a/b.rs:2: contains",
        );
        check_one(
            "a/b.rs",
            &format!("//! B.\n{}d]\n", concat!("#[ig", "nore")),
            "make the test run",
        );
        assert_eq!(
            found("a/b.rs", &format!("//! B.\nconst A: &str = \"{todo}\";\n")),
            Vec::<String>::new()
        );
        check_one("a/b.rs", "fn f() {}\n", "does not begin with `//!`");
        check_one("a/b.rs", "", "does not begin with `//!`");
    }

    #[test]
    fn traces_of_a_machine_are_found_anywhere() {
        check_one(
            "docs/a.md",
            &format!("x\nin {}y\n", concat!("/wo", "rk/")),
            "docs/a.md:2: contains",
        );
        check_one(
            "a.yaml",
            &format!("path: {}.cargo\n", concat!("/ro", "ot/")),
            "make it relative",
        );
        check_one("a.md", concat!("FIX", "ME later"), "fix it");
    }

    #[test]
    fn dependencies_come_from_crates_io() {
        let lock = format!("source = \"{CRATES_IO}\"\nsource = \"registry+https://mirror.example/index\"\n");
        assert_eq!(found("Cargo.lock", &lock).len(), 1);
        check_one("Cargo.lock", &lock, "Cargo.lock:2:");
        check_one(".cargo/config.toml", "[registries.x]\n", "own cargo home");
    }

    #[test]
    fn missing_documents_are_named() {
        let readme = Source {
            path: "README.md".into(),
            text: String::new(),
        };
        let findings: Vec<String> = required_files(&[readme])
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(
            findings,
            [
                "ARCHITECTURE.md: is missing: write it",
                "LICENSE: is missing: write it"
            ]
        );
    }
}
