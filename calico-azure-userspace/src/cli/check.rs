//! `check`: validates manifests.

use std::io::{self, Write};
use std::path::PathBuf;

use serde::Serialize;

use super::{ERROR, FINDING, OK};
use crate::model::load::load_paths;
use crate::model::{Problem, Resource, Severity};

#[derive(Serialize)]
struct Findings {
    problems: Vec<Problem>,
    /// Objects that policy depends on, policies included.
    objects: usize,
    policies: usize,
    /// Objects that are of no concern to policy, or not enforced.
    ignored: Vec<String>,
    errors: usize,
    warnings: usize,
}

/// Reads the paths and prints what is wrong with them; returns the exit code: 0 nothing, 1 warnings, 2 errors.
pub fn run(paths: &[PathBuf], json: bool, out: &mut dyn Write) -> u8 {
    let loaded = load_paths(paths);
    let mut problems = loaded.problems.clone();
    problems.extend(loaded.missing_tiers());
    // A file's own problems first, then those of objects, as a reader meets them.
    problems.sort_by(|a, b| (&a.file, a.line, a.column).cmp(&(&b.file, b.line, b.column)));
    let errors = problems
        .iter()
        .filter(|problem| problem.severity == Severity::Error)
        .count();
    let warnings = problems.len() - errors;
    let policies = loaded
        .resources
        .iter()
        .filter(|resource| matches!(resource, Resource::Policy(_)))
        .count();
    let findings = Findings {
        problems,
        objects: loaded.resources.len(),
        policies,
        ignored: loaded.ignored,
        errors,
        warnings,
    };
    let printed = if json {
        print_json(&findings, out)
    } else {
        print(&findings, out)
    };
    match printed {
        // Whoever closed the pipe has seen enough.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => ERROR,
        _ if errors > 0 || loaded.unreadable => ERROR,
        _ if warnings > 0 => FINDING,
        _ => OK,
    }
}

fn print_json(findings: &Findings, out: &mut dyn Write) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, findings)?;
    writeln!(out)?;
    out.flush()
}

fn print(findings: &Findings, out: &mut dyn Write) -> io::Result<()> {
    let Findings {
        problems,
        objects,
        policies,
        ignored,
        errors,
        warnings,
    } = findings;
    for problem in problems {
        writeln!(out, "{problem}\n")?;
    }
    let count =
        |number: usize, one: &str, many: &str| format!("{number} {}", if number == 1 { one } else { many });
    writeln!(
        out,
        "{}, {}, {} ignored, {}, {}",
        count(*objects, "object", "objects"),
        count(*policies, "policy", "policies"),
        ignored.len(),
        count(*errors, "error", "errors"),
        count(*warnings, "warning", "warnings"),
    )?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const GOOD: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: a, namespace: b}
spec: {podSelector: {}}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: c}
";
    const WARNS: &str = "
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: a}
spec:
  tier: nowhere
";

    fn check(files: &[(&str, &str)], json: bool) -> (u8, String) {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(dir.path().join(name), text).unwrap();
        }
        let mut out = Vec::new();
        let code = run(&[dir.path().to_owned()], json, &mut out);
        (code, String::from_utf8(out).unwrap())
    }

    #[test]
    fn clean_manifests() {
        let expected = "1 object, 1 policy, 1 ignored, 0 errors, 0 warnings\n";
        assert_eq!(check(&[("a.yaml", GOOD)], false), (OK, expected.to_owned()));
    }

    #[test]
    fn a_tier_that_nobody_made_is_a_finding() {
        let (code, out) = check(&[("a.yaml", WARNS)], false);
        assert_eq!(code, FINDING, "{out}");
        assert!(
            out.starts_with("warning: GlobalNetworkPolicy a: spec.tier: tier \"nowhere\" does not exist"),
            "{out}"
        );
        assert!(out.contains("a.yaml:6:9"), "{out}");
        let tier = "{apiVersion: projectcalico.org/v3, kind: Tier, metadata: {name: nowhere}}";
        assert_eq!(check(&[("a.yaml", WARNS), ("b.yaml", tier)], false).0, OK);
    }

    #[test]
    fn errors_and_nothing_at_all() {
        assert_eq!(check(&[("a.yaml", "a: {")], false).0, ERROR);
        assert_eq!(check(&[("a.yaml", "a: b")], false).0, ERROR);
        let (code, out) = check(&[], false);
        assert!(code == ERROR && out.contains("no manifests here"), "{out}");
        let mut out = Vec::new();
        assert_eq!(run(&["does/not/exist.yaml".into()], false, &mut out), ERROR);
        let out = String::from_utf8(out).unwrap();
        assert!(
            out.contains("--> does/not/exist.yaml\n") && out.contains("cannot read it"),
            "{out}"
        );
    }

    #[test]
    fn json_names_every_problem() {
        let (code, out) = check(&[("a.yaml", WARNS), ("b.yaml", GOOD)], true);
        let json: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!(code, FINDING);
        assert_eq!(
            (&json["objects"], &json["policies"], &json["warnings"]),
            (&2.into(), &2.into(), &1.into())
        );
        assert_eq!(json["ignored"][0], "ConfigMap c (v1)");
        let problem = &json["problems"][0];
        assert_eq!(
            (&problem["line"], &problem["severity"]),
            (&6.into(), &"warning".into())
        );
        assert_eq!(problem["field"], "spec.tier");
    }

    #[test]
    fn a_closed_pipe_is_no_error() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a.yaml"), GOOD).unwrap();
        assert_eq!(run(&[dir.path().to_owned()], false, &mut Closed), OK);
    }
}
