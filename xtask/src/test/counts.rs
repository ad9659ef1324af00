//! Counting: test functions from the test harness's own lines, steps from their outcome.

use std::fmt::Write as _;
use std::time::Instant;

use super::took;
use crate::term::Ui;

/// Test functions of one or more runs.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) passed: u64,
    pub(super) failed: u64,
    pub(super) ignored: u64,
}

impl Counts {
    /// Adds what a `test result: ok. 12 passed; 0 failed; 0 ignored; …` line says; other lines say nothing.
    pub(super) fn read_line(&mut self, line: &str) {
        let Some((_, result)) = line.split_once("test result:") else {
            return;
        };
        let plain = without_escapes(result);
        for part in plain.split([';', '.']) {
            let mut words = part.split_whitespace();
            if let (Some(Ok(number)), Some(kind)) = (words.next().map(str::parse::<u64>), words.next()) {
                match kind {
                    "passed" => self.passed += number,
                    "failed" => self.failed += number,
                    "ignored" => self.ignored += number,
                    _ => {}
                }
            }
        }
    }
}

fn without_escapes(text: &str) -> String {
    let mut out = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c == '\u{1b}' {
            chars.by_ref().find(char::is_ascii_alphabetic);
        } else {
            out.push(c);
        }
    }
    out
}

/// How a step ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Outcome {
    word: Word,
    note: String,
    counts: Option<Counts>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word {
    Ok,
    Failed,
    NotRun,
}

impl Outcome {
    pub(super) fn ok() -> Self {
        Self::noted("")
    }

    pub(super) fn noted(note: &str) -> Self {
        Self {
            word: Word::Ok,
            note: note.to_owned(),
            counts: None,
        }
    }

    pub(super) fn failed(note: &str) -> Self {
        Self {
            word: Word::Failed,
            note: note.to_owned(),
            counts: None,
        }
    }

    pub(super) fn not_run(note: &str) -> Self {
        Self {
            word: Word::NotRun,
            note: note.to_owned(),
            counts: None,
        }
    }

    /// A test run counts by its functions.
    pub(super) fn tests(passed: bool, counts: Counts) -> Self {
        let word = if passed && counts.failed == 0 {
            Word::Ok
        } else {
            Word::Failed
        };
        let mut note = format!("{} passed, {} failed", counts.passed, counts.failed);
        if counts.ignored > 0 {
            note.push_str(&format!(", {} ignored", counts.ignored));
        }
        if !passed && counts.failed == 0 {
            note.push_str("; it did not compile or a test program died, see above");
        }
        Self {
            word,
            note,
            counts: Some(counts),
        }
    }

    /// Passed and failed, as the closing line counts them. A failed run in which no function failed (it did not
    /// compile, say) is one failure.
    fn totals(&self) -> (u64, u64) {
        let failed = self.word == Word::Failed;
        match (self.counts, self.word) {
            (Some(counts), _) => (counts.passed, counts.failed.max(u64::from(failed))),
            (None, Word::NotRun) => (0, 0),
            (None, _) => (u64::from(!failed), u64::from(failed)),
        }
    }
}

/// Every step and how it ended.
pub(super) struct Report {
    started: Instant,
    steps: Vec<(String, Outcome)>,
    /// What failed tests said.
    failures: String,
}

impl Default for Report {
    fn default() -> Self {
        Self {
            started: Instant::now(),
            steps: Vec::new(),
            failures: String::new(),
        }
    }
}

impl Report {
    /// Adds a step and tells whether it did not fail.
    pub(super) fn add(&mut self, name: &str, outcome: Outcome) -> bool {
        let passed = outcome.word != Word::Failed;
        self.steps.push((name.to_owned(), outcome));
        passed
    }

    /// Says it again at the end.
    pub(super) fn say_again(&mut self, failures: &str) {
        self.failures.push_str(failures);
    }

    pub(super) fn all_passed(&self) -> bool {
        self.steps.iter().all(|(_, outcome)| outcome.word != Word::Failed)
    }

    /// The summary; its last line is `N passed, N failed`.
    pub(super) fn render(&self, ui: &Ui) -> String {
        let width = self.steps.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        let mut text = String::new();
        if !self.failures.is_empty() {
            let _ = write!(text, "\nFailures\n{}", self.failures);
        }
        let _ = writeln!(text, "\nSummary after {}", took(self.started));
        let (mut passed, mut failed) = (0, 0);
        for (name, outcome) in &self.steps {
            let word = match outcome.word {
                Word::Ok => "ok",
                Word::Failed => "FAILED",
                Word::NotRun => "not run",
            };
            let line = format!(
                "  {name:width$}  {}  {}",
                ui.status(&format!("{word:7}")),
                outcome.note
            );
            let _ = writeln!(text, "{}", line.trim_end());
            let (more_passed, more_failed) = outcome.totals();
            (passed, failed) = (passed + more_passed, failed + more_failed);
        }
        let _ = writeln!(text, "{passed} passed, {failed} failed");
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(lines: &[&str]) -> Counts {
        let mut counts = Counts::default();
        lines.iter().for_each(|line| counts.read_line(line));
        counts
    }

    #[test]
    fn result_lines_are_added_up() {
        let counts = counted(&[
            "running 3 tests",
            "test a ... ok",
            "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.01s",
            "test result: \u{1b}[31mFAILED\u{1b}(B\u{1b}[m. 4 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out",
        ]);
        assert_eq!(
            counts,
            Counts {
                passed: 16,
                failed: 2,
                ignored: 1
            }
        );
        assert_eq!(
            counted(&["12 passed; 3 failed", "test result: ?"]),
            Counts::default()
        );
    }

    fn last_line(outcomes: Vec<Outcome>) -> String {
        let mut report = Report::default();
        for outcome in outcomes {
            report.add("step", outcome);
        }
        report
            .render(&Ui::plain())
            .lines()
            .last()
            .unwrap_or_default()
            .to_owned()
    }

    #[test]
    fn the_closing_line_counts_functions_and_steps() {
        let some = Counts {
            passed: 40,
            failed: 0,
            ignored: 0,
        };
        assert_eq!(
            last_line(vec![Outcome::ok(), Outcome::tests(true, some)]),
            "41 passed, 0 failed"
        );
        let two = Counts { failed: 2, ..some };
        assert_eq!(
            last_line(vec![Outcome::failed("x"), Outcome::tests(false, two)]),
            "40 passed, 3 failed"
        );
        assert_eq!(
            last_line(vec![Outcome::tests(false, Counts::default())]),
            "0 passed, 1 failed"
        );
        assert_eq!(
            last_line(vec![Outcome::not_run("no rustfmt")]),
            "0 passed, 0 failed"
        );
    }

    #[test]
    fn one_failure_fails_the_run() {
        let mut report = Report::default();
        assert!(report.add("a", Outcome::ok()));
        assert!(report.add("b", Outcome::not_run("")) && report.all_passed());
        assert!(!report.add("c", Outcome::tests(false, Counts::default())));
        assert!(!report.all_passed());
        let text = report.render(&Ui::plain());
        assert!(
            text.contains("  c  FAILED   0 passed, 0 failed; it did not compile"),
            "{text}"
        );
    }
}
