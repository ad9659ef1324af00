//! Manifests for commands that analyse them: what is wrong with them goes to stderr, what is right is used.

use std::io::{self, Write};
use std::path::PathBuf;

use super::{ERROR, FINDING, OK};
use crate::analysis::Note;
use crate::model::load::{Origin, load_paths};
use crate::model::{Resource, Severity};

/// What was read.
pub(super) struct Inputs {
    pub(super) resources: Vec<Resource>,
    /// Where each of them is.
    pub(super) origins: Vec<Origin>,
    /// Some objects are not what they were meant to be; they count as they would be enforced.
    pub(super) invalid: bool,
}

/// Nothing can be said: a file could not be read, or not to its end. It was reported.
#[derive(Debug, thiserror::Error)]
#[error("not everything could be read, so nothing can be said")]
pub(super) struct Unreadable;

impl Inputs {
    pub(super) fn read(paths: &[PathBuf], err: &mut dyn Write) -> Result<Self, Unreadable> {
        let loaded = load_paths(paths);
        let mut problems = loaded.problems.clone();
        problems.extend(loaded.missing_tiers());
        problems.sort_by(|a, b| (&a.file, a.line, a.column).cmp(&(&b.file, b.line, b.column)));
        for problem in &problems {
            // If stderr is closed, nobody wants to know.
            let _closed = writeln!(err, "{problem}\n");
        }
        if loaded.unreadable {
            return Err(Unreadable);
        }
        if !loaded.ignored.is_empty() {
            let names = loaded.ignored.join(", ");
            let _closed = writeln!(err, "note: not about policy, and so ignored: {names}");
        }
        Ok(Self {
            resources: loaded.resources,
            origins: loaded.origins,
            invalid: problems.iter().any(|problem| problem.severity == Severity::Error),
        })
    }

    /// The exit code if all went well.
    pub(super) fn code(&self) -> u8 {
        if self.invalid { FINDING } else { OK }
    }
}

pub(super) fn print_notes<'n>(notes: impl IntoIterator<Item = &'n Note>, err: &mut dyn Write) {
    for note in notes {
        let _closed = writeln!(err, "{note}");
    }
}

/// Whoever closed the pipe has seen enough.
pub(super) fn written(result: io::Result<()>, code: u8) -> u8 {
    match result {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => ERROR,
        _ => code,
    }
}

/// One line of a table: the columns padded, all but the last.
pub(super) fn row(out: &mut dyn Write, cells: &[&str], widths: &[usize]) -> io::Result<()> {
    let Some((last, cells)) = cells.split_last() else {
        return Ok(());
    };
    for (cell, width) in cells.iter().zip(widths) {
        let padding = width.saturating_sub(cell.chars().count());
        write!(out, "{cell}{:padding$}  ", "")?;
    }
    writeln!(out, "{last}")
}

/// A list, one item on each line.
pub(super) fn json_lines<T: serde::Serialize>(
    out: &mut dyn Write,
    items: impl Iterator<Item = T>,
) -> io::Result<()> {
    write!(out, "[")?;
    for (place, item) in items.enumerate() {
        write!(out, "{}", if place == 0 { "\n" } else { ",\n" })?;
        serde_json::to_writer(&mut *out, &item)?;
    }
    writeln!(out, "\n]")?;
    out.flush()
}
