//! Where the figures go, and on what machine they were measured.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use serde_json::{Map, Value, json};

use super::report::Report;

/// Kernel, processor, date and load, for the figures' caption.
pub(super) fn caption() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let load = read("/proc/loadavg");
    let seconds = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |time| time.as_secs());
    format!(
        "{}; {}; load {}",
        machine(),
        date(seconds),
        load.split(' ').next().unwrap_or("unknown")
    )
}

/// Kernel and processor.
pub(super) fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let kernel = read("/proc/sys/kernel/osrelease");
    let cpus = read("/proc/cpuinfo");
    let model = cpus
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    let count = cpus.lines().filter(|line| line.starts_with("processor")).count();
    format!(
        "kernel {}, {count} x {}",
        kernel.trim(),
        model.map_or("unknown processor", |(_, model)| model.trim())
    )
}

/// A day of the Gregorian calendar and a time, from seconds since 1970.
fn date(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let mut year = 1970;
    let mut left = days;
    let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    while left >= 365 + u64::from(leap(year)) {
        left -= 365 + u64::from(leap(year));
        year += 1;
    }
    let february = 28 + u64::from(leap(year));
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if left < length {
            break;
        }
        left -= length;
        month += 1;
    }
    format!(
        "{year}-{month:02}-{:02} {:02}:{:02} UTC",
        left + 1,
        rest / 3600,
        rest / 60 % 60
    )
}

/// Puts a part into the file, beside those that other runs put there, and its plots into the directory `bench` beside
/// the file.
pub(super) fn save(json: &Path, part: &str, caption: &str, report: &Report) -> Result<()> {
    let mut all = known(json);
    all.insert(part.to_owned(), json!({"caption": caption, "report": report}));
    let dir = json.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
    let text = format!("{:#}\n", Value::Object(all));
    std::fs::write(json, text).with_context(|| json.display().to_string())?;
    println!("written to {}", json.display());
    let plots = dir.join("bench");
    for plot in &report.plots {
        std::fs::create_dir_all(&plots).with_context(|| plots.display().to_string())?;
        let path = plots.join(format!("{}.svg", plot.name));
        std::fs::write(&path, plot.svg(caption)).with_context(|| path.display().to_string())?;
        println!("written to {}", path.display());
    }
    Ok(())
}

/// Caption and report of a part, as an earlier run saved them.
pub(super) fn saved(json: &Path, part: &str) -> Option<(String, Report)> {
    let all = known(json);
    let one = all.get(part)?;
    let caption = one.get("caption")?.as_str()?.to_owned();
    let report = serde_json::from_value(one.get("report")?.clone()).ok()?;
    Some((caption, report))
}

fn known(json: &Path) -> Map<String, Value> {
    let text = std::fs::read_to_string(json).ok();
    text.and_then(|text| serde_json::from_str(&text).ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_know_leap_years() {
        assert_eq!(date(0), "1970-01-01 00:00 UTC");
        assert_eq!(date(951_782_400), "2000-02-29 00:00 UTC");
        assert_eq!(date(1_709_251_199), "2024-02-29 23:59 UTC");
        assert_eq!(date(1_795_417_200), "2026-11-23 07:00 UTC");
        assert_eq!(date(4_107_542_400), "2100-03-01 00:00 UTC");
    }

    #[test]
    fn parts_are_kept_beside_each_other() {
        let dir = tempfile::tempdir().unwrap();
        let json = dir.path().join("bench.json");
        let report = |note: &str| Report {
            notes: vec![note.to_owned()],
            ..Report::default()
        };
        for (part, note) in [("a", "first"), ("b", "second"), ("a", "third")] {
            save(&json, part, "here and now", &report(note)).unwrap();
        }
        let (caption, a) = saved(&json, "a").unwrap();
        assert_eq!(
            (caption.as_str(), a.notes),
            ("here and now", vec!["third".to_owned()])
        );
        assert_eq!(saved(&json, "b").unwrap().1.notes, ["second"]);
        assert!(saved(&json, "c").is_none());
    }
}
