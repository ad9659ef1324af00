//! Words of a manifest in messages, and the words that were probably meant.

/// A value as part of a message: in quotes, printable and not too long.
pub(super) fn quote(text: &str) -> String {
    const LONGEST: usize = 60;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{:?}…", text.get(..end).unwrap_or_default()),
        None => format!("{text:?}"),
    }
}

/// The candidate that was probably meant.
pub(crate) fn closest<'c>(text: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    let distances = candidates.into_iter().map(|candidate| {
        let ignoring_case = text.eq_ignore_ascii_case(candidate);
        (
            if ignoring_case {
                0
            } else {
                distance(text, candidate)
            },
            candidate,
        )
    });
    let (distance, candidate) = distances.min()?;
    (distance <= (candidate.len() / 3).max(1)).then_some(candidate)
}

/// Edits from one to the other, exchanged neighbours being one; long texts are far from everything.
fn distance(a: &str, b: &str) -> usize {
    if a.len() > 64 {
        return usize::MAX;
    }
    let b: Vec<char> = b.chars().collect();
    let at = |row: &[usize], column: usize| row.get(column).copied().unwrap_or(usize::MAX / 2);
    let mut above: Vec<usize> = (0..=b.len()).collect();
    let mut above_that: Vec<usize> = Vec::new();
    let mut last_x = None;
    for (i, x) in a.chars().enumerate() {
        let mut row = vec![i + 1];
        let mut last_y = None;
        for (j, y) in b.iter().copied().enumerate() {
            let mut best = (at(&above, j) + usize::from(x != y))
                .min(at(&above, j + 1) + 1)
                .min(at(&row, j) + 1);
            if j > 0 && last_x == Some(y) && last_y == Some(x) {
                best = best.min(at(&above_that, j - 1) + 1);
            }
            row.push(best);
            last_y = Some(y);
        }
        above_that = std::mem::replace(&mut above, row);
        last_x = Some(x);
    }
    above.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closest_finds_typing_errors_only() {
        let names = ["selector", "notSelector", "nets", "notNets", "ports"];
        assert_eq!(closest("selectr", names), Some("selector"));
        assert_eq!(closest("notselector", names), Some("notSelector"));
        assert_eq!(closest("net", names), Some("nets"));
        assert_eq!(closest("prots", names), Some("ports"));
        assert_eq!(closest("TPC", ["UDP", "TCP"]), Some("TCP"));
        assert_eq!(closest("destination", names), None);
        assert_eq!(closest(&"x".repeat(1000), names), None);
        assert_eq!(closest("", []), None);
    }

    #[test]
    fn quote_is_bounded_and_printable() {
        assert_eq!(quote("a\"\u{1b}"), "\"a\\\"\\u{1b}\"");
        assert!(quote(&"ü".repeat(1000)).chars().count() < 70);
    }
}
