//! What a reader of the result should know besides.

use std::fmt;

use crate::model::Severity;

/// An assumption, or something that is probably not meant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Note {
    /// `None`: an assumption that was made.
    pub severity: Option<Severity>,
    pub text: String,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.severity {
            Some(severity) => write!(f, "{severity}: {}", self.text),
            None => write!(f, "note: {}", self.text),
        }
    }
}

/// Notes in the order in which they came up.
#[derive(Debug, Default)]
pub(super) struct Notes(pub(super) Vec<Note>);

impl Notes {
    pub(super) fn note(&mut self, text: String) {
        let severity = None;
        self.0.push(Note { severity, text });
    }

    pub(super) fn warning(&mut self, text: String) {
        let severity = Some(Severity::Warning);
        self.0.push(Note { severity, text });
    }
}

/// The first few names of a list.
pub(super) fn some<S: AsRef<str>>(names: &[S]) -> String {
    const SHOWN: usize = 5;
    let shown: Vec<&str> = names.iter().take(SHOWN).map(AsRef::as_ref).collect();
    let more = names.len().saturating_sub(SHOWN);
    let more = if more == 0 {
        String::new()
    } else {
        format!(" and {more} more")
    };
    format!("{}{more}", shown.join(", "))
}
