//! What a part of the benchmarks found: tables, targets, notes; on the terminal, as Markdown, as JSON.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::plot::Plot;
use super::stats::Figure;

/// One part's results.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Report {
    pub(super) tables: Vec<Table>,
    pub(super) targets: Vec<Target>,
    /// What the reader of the figures must know; what could not be measured, and why.
    pub(super) notes: Vec<String>,
    #[serde(skip)]
    pub(super) plots: Vec<Plot>,
}

/// A table; the first columns say what was measured.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Table {
    /// With the unit.
    pub(super) title: String,
    pub(super) columns: Vec<String>,
    pub(super) rows: Vec<Vec<Cell>>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Cell {
    Figure(Figure),
    Number(f64),
    Text(String),
}

impl From<Figure> for Cell {
    fn from(figure: Figure) -> Self {
        Self::Figure(figure)
    }
}

impl From<f64> for Cell {
    fn from(number: f64) -> Self {
        Self::Number(number)
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

/// A promise, and what became of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Target {
    pub(super) name: String,
    pub(super) value: f64,
    pub(super) limit: f64,
    pub(super) met: bool,
    at_least: bool,
}

impl Target {
    pub(super) fn at_most(name: impl Into<String>, value: f64, limit: f64) -> Self {
        Self {
            name: name.into(),
            value,
            limit,
            met: value <= limit,
            at_least: false,
        }
    }

    pub(super) fn at_least(name: impl Into<String>, value: f64, limit: f64) -> Self {
        Self {
            name: name.into(),
            value,
            limit,
            met: value >= limit,
            at_least: true,
        }
    }

    fn line(&self) -> String {
        format!(
            "{}: {} ({} {}): {}",
            self.name,
            number(self.value),
            if self.at_least { "at least" } else { "at most" },
            number(self.limit),
            if self.met { "ok" } else { "MISSED" }
        )
    }
}

impl Table {
    pub(super) fn new<const N: usize>(title: impl Into<String>, columns: [&str; N]) -> Self {
        Self {
            title: title.into(),
            columns: columns.map(str::to_owned).into(),
            rows: Vec::new(),
        }
    }

    pub(super) fn row<const N: usize>(&mut self, cells: [Cell; N]) {
        self.rows.push(cells.into());
    }
}

/// Three significant digits, or all before the point; whole numbers as they are.
pub(super) fn number(value: f64) -> String {
    let size = value.abs();
    match () {
        () if !value.is_finite() => "-".to_owned(),
        () if size >= 100.0 || value.fract() == 0.0 => {
            let digits = format!("{size:.0}");
            let mut text = String::from(if value < 0.0 { "-" } else { "" });
            for (at, digit) in digits.chars().enumerate() {
                if at > 0 && (digits.len() - at).is_multiple_of(3) {
                    text.push(',');
                }
                text.push(digit);
            }
            text
        }
        () if size >= 10.0 => format!("{value:.1}"),
        () => format!("{value:.2}"),
    }
}

impl Cell {
    fn text(&self) -> String {
        match self {
            Self::Figure(figure) => format!("{} ± {}", number(figure.median), number(figure.spread)),
            Self::Number(value) => number(*value),
            Self::Text(text) => text.clone(),
        }
    }
}

impl Report {
    pub(super) fn met(&self) -> bool {
        self.targets.iter().all(|target| target.met)
    }

    /// Aligned columns.
    pub(super) fn terminal(&self) -> String {
        let mut out = String::new();
        for table in &self.tables {
            let _ok = writeln!(out, "\n{}", table.title);
            let widths = table.widths();
            let line = |cells: Vec<String>, numbers: &[bool]| {
                let cells = cells.iter().zip(&widths).zip(numbers);
                let cells = cells.map(|((cell, &width), &right)| {
                    let pad = " ".repeat(width - cell.chars().count());
                    if right {
                        format!("{pad}{cell}")
                    } else {
                        format!("{cell}{pad}")
                    }
                });
                format!("  {}", cells.collect::<Vec<_>>().join("  ").trim_end())
            };
            let numbers = table.numbers();
            let _ok = writeln!(out, "{}", line(table.columns.clone(), &numbers));
            for row in &table.rows {
                let _ok = writeln!(out, "{}", line(row.iter().map(Cell::text).collect(), &numbers));
            }
        }
        if !self.targets.is_empty() || !self.notes.is_empty() {
            out.push('\n');
        }
        for target in &self.targets {
            let _ok = writeln!(out, "target  {}", target.line());
        }
        for note in &self.notes {
            let _ok = writeln!(out, "note    {note}");
        }
        out
    }

    /// For the documentation.
    pub(super) fn markdown(&self) -> String {
        let mut out = String::new();
        for table in &self.tables {
            let rule: Vec<&str> = table
                .numbers()
                .iter()
                .map(|&number| if number { "---:" } else { "---" })
                .collect();
            let _ok = writeln!(
                out,
                "{}\n\n| {} |\n| {} |",
                table.title,
                table.columns.join(" | "),
                rule.join(" | ")
            );
            for row in &table.rows {
                let cells: Vec<String> = row.iter().map(Cell::text).collect();
                let _ok = writeln!(out, "| {} |", cells.join(" | "));
            }
            out.push('\n');
        }
        for line in self.targets.iter().map(Target::line).chain(self.notes.clone()) {
            let _ok = writeln!(out, "* {line}");
        }
        out
    }
}

impl Table {
    fn widths(&self) -> Vec<usize> {
        let of = |at: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(at)).map(Cell::text);
            let cells = cells.chain(self.columns.get(at).cloned());
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        (0..self.columns.len()).map(of).collect()
    }

    /// Which columns hold numbers.
    fn numbers(&self) -> Vec<bool> {
        let of = |at: usize| {
            let mut cells = self.rows.iter().filter_map(|row| row.get(at));
            cells.any(|cell| !matches!(cell, Cell::Text(_)))
        };
        (0..self.columns.len()).map(of).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let mut table = Table::new("ns per packet", ["what", "median", "ratio"]);
        let figure = |median| Figure {
            median,
            spread: 0.5,
            runs: 3,
        };
        table.row(["empty".into(), figure(26.0).into(), 1.0.into()]);
        table.row(["walk, 10,000 rules".into(), figure(51234.4).into(), "-".into()]);
        Report {
            tables: vec![table],
            targets: vec![
                Target::at_most("growth", 1.3, 1.2),
                Target::at_least("rate", 0.98, 0.97),
            ],
            notes: vec!["a note".into()],
            plots: Vec::new(),
        }
    }

    #[test]
    fn a_report_reads_the_same_everywhere() {
        let report = report();
        assert!(!report.met());
        let terminal = report.terminal();
        assert!(
            terminal.contains("  empty                   26 ± 0.50      1\n"),
            "{terminal}"
        );
        assert!(
            terminal.contains("growth: 1.30 (at most 1.20): MISSED"),
            "{terminal}"
        );
        let markdown = report.markdown();
        assert!(
            markdown.contains("| what | median | ratio |\n| --- | ---: | ---: |\n"),
            "{markdown}"
        );
        assert!(
            markdown.contains("| walk, 10,000 rules | 51,234 ± 0.50 | - |\n"),
            "{markdown}"
        );
        let json = serde_json::to_string(&report).unwrap();
        let back: Report = serde_json::from_str(&json).unwrap();
        assert_eq!(back.markdown(), markdown);
    }

    #[test]
    fn numbers_have_three_digits() {
        let texts = [0.0, 0.123, 9.876, 26.04, 999.6, 1_234_567.0, f64::NAN].map(number);
        assert_eq!(texts, ["0", "0.12", "9.88", "26.0", "1,000", "1,234,567", "-"]);
    }
}
