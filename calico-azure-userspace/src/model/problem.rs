//! What is wrong with a manifest, where, and what to do about it.

use std::fmt::{self, Write as _};
use std::path::PathBuf;

use serde::Serialize;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Something is not enforced as written; whatever it was, it does not open anything.
    Error,
    /// Enforced as written, which may not be what was meant; or knowingly not enforced.
    Warning,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
        })
    }
}

/// One thing that is wrong with a manifest.
///
/// `Display` gives several lines: what, where, the line of the manifest with the place underlined, and help.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    pub severity: Severity,
    pub file: PathBuf,
    /// From 1.
    pub line: Option<u32>,
    /// In characters, from 1.
    pub column: Option<u32>,
    /// `Kind namespace/name`.
    pub object: Option<String>,
    /// Like `spec.ingress[0].source.nets[1]`.
    pub field: Option<String>,
    /// What is wrong, and what was expected.
    pub message: String,
    /// What to do.
    pub help: Option<String>,
    /// The line of the manifest.
    #[serde(skip)]
    pub excerpt: Option<Excerpt>,
}

/// (Part of) a line of a manifest with a place in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Excerpt {
    /// Printable characters only.
    pub text: String,
    /// Characters before the place.
    pub skip: usize,
    /// Characters of the place, at least 1.
    pub length: usize,
}

/// Longer lines (JSON may be one line) are cut around the place.
const WIDTH: usize = 100;

impl Excerpt {
    /// Of the line that contains `byte`; `length` 0 stands for all that is left of it.
    pub(super) fn new(text: &str, byte: usize, length: usize) -> Option<Self> {
        let (before, after) = text.split_at_checked(byte)?;
        let before = before.rsplit(['\n', '\r']).next().unwrap_or_default();
        let after = after.split(['\n', '\r']).next().unwrap_or_default().trim_end();
        let skip = before.chars().count();
        let left = after.chars().count();
        let length = if length == 0 { left } else { length.min(left) };
        let cut = if skip + length > WIDTH {
            skip.saturating_sub(WIDTH / 2)
        } else {
            0
        };
        let line: String = before
            .chars()
            .chain(after.chars())
            .skip(cut)
            .take(WIDTH)
            .map(printable)
            .collect();
        let skip = skip - cut;
        Some(Self {
            text: line,
            skip,
            length: length.clamp(1, (WIDTH - skip.min(WIDTH - 1)).max(1)),
        })
    }
}

/// One column wide, and nothing that a terminal would obey.
fn printable(c: char) -> char {
    match c {
        '\t' => ' ',
        c if c.is_control() => '\u{fffd}',
        c => c,
    }
}

/// Text that may hold what a manifest says: only its line breaks are obeyed.
struct Plain<'t>(&'t str);

impl fmt::Display for Plain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut chars = self.0.chars();
        chars.try_for_each(|c| f.write_char(if c == '\n' { c } else { printable(c) }))
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            severity,
            file,
            line,
            column,
            object,
            field,
            message,
            help,
            excerpt,
        } = self;
        write!(f, "{severity}: ")?;
        for part in [object, field].into_iter().flatten() {
            write!(f, "{}: ", Plain(part))?;
        }
        write!(f, "{}", Plain(message))?;
        let number = line.map(|line| line.to_string()).unwrap_or_default();
        let margin = " ".repeat(number.len());
        write!(f, "\n{margin}--> {}", Plain(&file.to_string_lossy()))?;
        for part in [line, column].into_iter().flatten() {
            write!(f, ":{part}")?;
        }
        if let Some(Excerpt { text, skip, length }) = excerpt {
            let (skip, mark) = (" ".repeat(*skip), "^".repeat(*length));
            write!(f, "\n{margin} |\n{number} | {text}\n{margin} | {skip}{mark}")?;
        }
        if let Some(help) = help {
            write!(f, "\n{margin} = help: {}", Plain(help))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(text: &str, byte: usize, length: usize) -> Problem {
        Problem {
            severity: Severity::Error,
            file: "a/b.yaml".into(),
            line: Some(12),
            column: Some(9),
            object: Some("NetworkPolicy a/b".into()),
            field: Some("spec.selector".into()),
            message: "wrong".into(),
            help: Some("do right".into()),
            excerpt: Excerpt::new(text, byte, length),
        }
    }

    #[test]
    fn shows_the_line_and_underlines_the_place() {
        let expected = "error: NetworkPolicy a/b: spec.selector: wrong
  --> a/b.yaml:12:9
   |
12 |   selector: x
   |             ^
   = help: do right";
        assert_eq!(
            problem("spec:\n  selector: x\n  order: 1\n", 18, 0).to_string(),
            expected
        );
    }

    #[test]
    fn names_cannot_speak_to_the_terminal() {
        let mut problem = problem("x", 0, 0);
        problem.object = Some("NetworkPolicy a\u{1b}]0;b".into());
        let shown = problem.to_string();
        assert!(
            shown.starts_with("error: NetworkPolicy a\u{fffd}]0;b: "),
            "{shown}"
        );
    }

    #[test]
    fn long_lines_are_cut_and_control_characters_shown_harmless() {
        let line = format!("{}\u{1b}[31m\"here\"{}", " ".repeat(500), "x".repeat(500));
        let Some(excerpt) = Excerpt::new(&line, 505, 6) else {
            panic!("no excerpt")
        };
        assert!(excerpt.text.chars().count() <= WIDTH);
        assert!(!excerpt.text.contains('\u{1b}'));
        let marked: String = excerpt
            .text
            .chars()
            .skip(excerpt.skip)
            .take(excerpt.length)
            .collect();
        assert_eq!(marked, "\"here\"");
        let Some(end) = Excerpt::new("abc", 3, 0) else {
            panic!("no excerpt")
        };
        assert_eq!((end.skip, end.length), (3, 1));
        assert_eq!(Excerpt::new("é", 1, 0), None);
    }
}
