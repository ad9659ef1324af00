//! What the demo shows: progress as it happens, colours on a terminal only.

use std::io::{IsTerminal as _, Write as _};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

/// How many steps the demo has.
const STEPS: u32 = 6;

#[derive(Debug)]
pub(super) struct Screen {
    colour: bool,
    terminal: bool,
    verbose: bool,
    start: Instant,
    step: AtomicU32,
}

/// ANSI colours.
#[derive(Clone, Copy, Debug)]
pub(super) enum Colour {
    Bold,
    Dim,
    Red,
    Green,
    Yellow,
}

impl Screen {
    pub(super) fn new(verbose: bool) -> Self {
        let terminal = std::io::stdout().is_terminal();
        // no-color.org: any non-empty value turns colours off.
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self {
            colour: terminal && !refused,
            terminal,
            verbose,
            start: Instant::now(),
            step: AtomicU32::new(0),
        }
    }

    pub(super) fn paint(&self, colour: Colour, text: &str) -> String {
        if !self.colour {
            return text.to_owned();
        }
        let code = match colour {
            Colour::Bold => 1,
            Colour::Dim => 2,
            Colour::Red => 31,
            Colour::Green => 32,
            Colour::Yellow => 33,
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }

    pub(super) fn step(&self, title: &str) {
        let number = self.step.fetch_add(1, Ordering::Relaxed) + 1;
        let title = self.paint(Colour::Bold, &format!("[{number}/{STEPS}] {title}"));
        self.line(&format!("\n{title}"));
    }

    /// Something took place, so long after the start.
    pub(super) fn done(&self, what: &str) {
        let time = self.paint(
            Colour::Dim,
            &format!("{:6.2} s", self.start.elapsed().as_secs_f64()),
        );
        self.line(&format!("  {time}  {what}"));
    }

    pub(super) fn text(&self, text: &str) {
        self.line(&format!("  {text}"));
    }

    pub(super) fn good(&self, text: &str) {
        self.line(&format!("  {} {text}", self.paint(Colour::Green, "ok  ")));
    }

    pub(super) fn bad(&self, text: &str) {
        self.line(&format!("  {} {text}", self.paint(Colour::Red, "FAIL")));
    }

    pub(super) fn warn(&self, text: &str) {
        self.line(&format!("  {} {text}", self.paint(Colour::Yellow, "note")));
    }

    pub(super) fn error(&self, text: &str) {
        let _ = writeln!(std::io::stderr(), "{} {text}", self.paint(Colour::Red, "error:"));
    }

    /// Only with `-v`.
    pub(super) fn detail(&self, text: impl FnOnce() -> String) {
        if self.verbose {
            self.line(&format!("       {}", self.paint(Colour::Dim, &text())));
        }
    }

    /// A line that the next one overwrites; on a terminal only.
    pub(super) fn progress(&self, text: &str) {
        if self.terminal {
            let mut out = std::io::stdout().lock();
            let _ = write!(out, "\r\x1b[K  {text}");
            let _ = out.flush();
        }
    }

    pub(super) fn verdict(&self, findings: &[String]) {
        let time = format!("{:.1} s", self.start.elapsed().as_secs_f64());
        if findings.is_empty() {
            let text = self.paint(Colour::Green, "Everything was as the policies say.");
            self.line(&format!("\n{text} {time}"));
            return;
        }
        let count = findings.len();
        let text = self.paint(Colour::Red, &format!("{count} things were not as they must be:"));
        self.line(&format!("\n{text}"));
        for finding in findings {
            self.line(&format!("  {finding}"));
        }
        self.line(&time);
    }

    /// Output that nobody reads (a closed pipe) is no reason to leave a cluster behind.
    fn line(&self, text: &str) {
        let mut out = std::io::stdout().lock();
        let clear = if self.terminal { "\r\x1b[K" } else { "" };
        // A leading line break belongs before the cleared line's text.
        let _ = writeln!(out, "{clear}{text}");
        let _ = out.flush();
    }
}
