//! Rules of this repository that neither compiler nor clippy knows. Every rule is a function from text to findings.

mod layers;
mod lex;
mod text;
mod tree;

use std::fmt;
use std::process::ExitCode;

use crate::term::Ui;
use crate::workspace::Workspace;

/// A file of the repository: its path from the root, and its text.
pub(crate) struct Source {
    pub(crate) path: String,
    pub(crate) text: String,
}

/// One broken rule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Finding {
    pub(crate) path: String,
    /// 0 for the file as a whole.
    pub(crate) line: usize,
    pub(crate) what: String,
    /// Worth a look, not a failure.
    pub(crate) warning: bool,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.path, self.what),
            line => write!(f, "{}:{line}: {}", self.path, self.what),
        }
    }
}

/// Everything found in these files, in order of path and line.
pub(crate) fn check(sources: &[Source]) -> Vec<Finding> {
    let mut findings = text::required_files(sources);
    for source in sources {
        findings.extend(text::check(source));
        findings.extend(layers::check(source));
    }
    findings.sort();
    findings
}

/// Reads the tree, prints what was found, and tells whether nothing failed.
pub(crate) fn passes(ui: &Ui, ws: &Workspace) -> anyhow::Result<bool> {
    let sources = tree::read(&ws.root)?;
    let findings = check(&sources);
    for finding in &findings {
        if finding.warning {
            ui.warn(&finding.to_string());
        } else {
            ui.error(&finding.to_string());
        }
    }
    Ok(findings.iter().all(|finding| finding.warning))
}

pub(crate) fn run(ui: &Ui, ws: &Workspace) -> anyhow::Result<ExitCode> {
    let step = ui.step("tidy");
    if passes(ui, ws)? {
        step.done("");
        Ok(ExitCode::SUCCESS)
    } else {
        step.failed();
        Ok(ExitCode::FAILURE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_tree_is_tidy() {
        let ws = Workspace::find().unwrap();
        let findings = check(&tree::read(&ws.root).unwrap());
        let failures: Vec<String> = findings
            .iter()
            .filter(|one| !one.warning)
            .map(ToString::to_string)
            .collect();
        assert!(failures.is_empty(), "\n{}", failures.join("\n"));
    }

    #[test]
    fn findings_point_at_file_and_line() {
        let finding = |line| Finding {
            path: "a.rs".into(),
            line,
            what: "is long".into(),
            warning: false,
        };
        assert_eq!(finding(0).to_string(), "a.rs: is long");
        assert_eq!(finding(7).to_string(), "a.rs:7: is long");
    }
}
