//! Progress lines: short, with elapsed times, coloured only on a terminal (and never with `NO_COLOR`).

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

/// Where progress goes (stderr), and whether it may be coloured.
pub(crate) struct Ui {
    colour: bool,
}

/// One piece of work in progress.
pub(crate) struct Step<'a> {
    ui: &'a Ui,
    title: String,
    started: Instant,
}

impl Ui {
    pub(crate) fn new() -> Self {
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self {
            colour: std::io::stderr().is_terminal() && !no_color,
        }
    }

    #[cfg(test)]
    pub(crate) fn plain() -> Self {
        Self { colour: false }
    }

    /// Whether programs we start may be told to use colours.
    pub(crate) fn coloured(&self) -> bool {
        self.colour
    }

    /// Announces a piece of work.
    pub(crate) fn step(&self, title: impl Into<String>) -> Step<'_> {
        let title = title.into();
        eprintln!("{} {title}", self.paint("1;34", "==>"));
        Step {
            ui: self,
            title,
            started: Instant::now(),
        }
    }

    pub(crate) fn note(&self, text: &str) {
        eprintln!("    {text}");
    }

    pub(crate) fn warn(&self, text: &str) {
        eprintln!("{} {text}", self.paint("1;33", "warning:"));
    }

    pub(crate) fn error(&self, text: &str) {
        eprintln!("{} {text}", self.paint("1;31", "error:"));
    }

    /// `ok` in green, `FAILED` in red, anything else in yellow.
    pub(crate) fn status(&self, word: &str) -> String {
        match word.trim() {
            "ok" => self.paint("32", word),
            "FAILED" => self.paint("1;31", word),
            _ => self.paint("33", word),
        }
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour {
            format!("\u{1b}[{code}m{text}\u{1b}[0m")
        } else {
            text.to_owned()
        }
    }
}

impl Step<'_> {
    pub(crate) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// A sign of life in long work.
    pub(crate) fn alive(&self, last_line: &str) {
        let shown: String = last_line.trim().chars().take(90).collect();
        self.ui
            .note(&format!("… {} ({}) {shown}", self.title, seconds(self.elapsed())));
    }

    pub(crate) fn done(self, result: &str) {
        let word = self.ui.status("ok");
        let gap = if result.is_empty() { "" } else { " " };
        eprintln!("    {word} ({}){gap}{result}", seconds(self.elapsed()));
    }

    pub(crate) fn failed(self) {
        eprintln!("    {} ({})", self.ui.status("FAILED"), seconds(self.elapsed()));
    }
}

/// `0.04 s`, `12.3 s`, `4 min 05 s`.
pub(crate) fn seconds(time: Duration) -> String {
    let whole = time.as_secs();
    match whole {
        0 => format!("{:.2} s", time.as_secs_f64()),
        1..100 => format!("{:.1} s", time.as_secs_f64()),
        _ => format!("{} min {:02} s", whole / 60, whole % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_short_and_readable() {
        assert_eq!(seconds(Duration::from_millis(40)), "0.04 s");
        assert_eq!(seconds(Duration::from_millis(12_340)), "12.3 s");
        assert_eq!(seconds(Duration::from_secs(245)), "4 min 05 s");
    }

    #[test]
    fn no_escape_codes_without_a_terminal() {
        assert_eq!(Ui::plain().status("FAILED"), "FAILED");
        assert_eq!(Ui { colour: true }.status("ok"), "\u{1b}[32mok\u{1b}[0m");
    }
}
