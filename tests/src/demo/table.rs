//! The matrix as a table, and who denied what.

use std::collections::{BTreeMap, BTreeSet};

use calico_azure_userspace::policy::Direction;

use super::matrix::{Checked, OUTSIDE, kinds};
use super::screen::{Colour, Screen};
use crate::lab::Cluster;
use crate::lab::probe::Kind;

/// One letter for each kind of probe, in a fixed place.
fn letter(index: usize, kind: Kind) -> char {
    match kind {
        Kind::Icmp => 'i',
        _ => char::from(b'a' + u8::try_from(index).unwrap_or(25).min(25)).to_ascii_uppercase(),
    }
}

pub(super) fn print(cluster: &Cluster, screen: &Screen, checked: &[Checked]) {
    let kinds = kinds(cluster);
    let legend: Vec<_> = kinds
        .iter()
        .enumerate()
        .map(|(i, kind)| format!("{} {kind}", letter(i, *kind)))
        .collect();
    screen.text(&format!(
        "seen on the wire, from row to column: {}; 4 or 6 only that family; . none",
        legend.join(", ")
    ));
    let mut cells: BTreeMap<(&str, &str), Vec<&Checked>> = BTreeMap::new();
    for result in checked {
        cells
            .entry((&result.case.src, &result.case.dst))
            .or_default()
            .push(result);
    }
    let names: Vec<&String> = cluster.pods.keys().collect();
    let width = kinds.len().max(3) + 2;
    let columns: Vec<_> = (1..=names.len()).map(|n| format!("{n:<width$}")).collect();
    screen.text(&format!("{:>22}  {}", "", columns.concat()));
    for (number, src) in names.iter().enumerate() {
        let mut row = String::new();
        for dst in &names {
            let cell = cells.get(&(src.as_str(), dst.as_str()));
            row.push_str(&cell.map_or_else(
                || screen.paint(Colour::Dim, &format!("{:<width$}", "-")),
                |cell| self::cell(screen, &kinds, cell, width),
            ));
        }
        screen.text(&format!("{:>2} {src:<19}  {row}", number + 1));
    }
    outside(screen, checked);
    denied(screen, checked);
}

/// Who reached the world outside.
fn outside(screen: &Screen, checked: &[Checked]) {
    let mut names: Vec<&str> = OUTSIDE.iter().map(|(name, _)| *name).collect();
    names.dedup();
    for name in names {
        let ips: Vec<_> = OUTSIDE
            .iter()
            .filter(|(n, _)| *n == name)
            .map(|(_, ip)| ip.to_string())
            .collect();
        let mut pods: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
        for Checked { case, .. } in checked
            .iter()
            .filter(|c| c.case.dst == name && c.outcome.passed())
        {
            pods.entry(&case.src).or_default().insert(case.kind.to_string());
        }
        let mut words: Vec<_> = pods
            .into_iter()
            .map(|(pod, kinds)| format!("{pod} ({})", kinds.into_iter().collect::<Vec<_>>().join(" ")))
            .collect();
        if words.is_empty() {
            words.push("nobody".to_owned());
        }
        screen.text(&format!("{name} ({}) was reached by:", ips.join(", ")));
        for line in wrap(&words, 96) {
            screen.text(&format!("    {line}"));
        }
    }
}

fn cell(screen: &Screen, kinds: &[Kind], results: &[&Checked], width: usize) -> String {
    let mark = |(index, kind): (usize, &Kind)| {
        let passed = |v6: bool| {
            let mut results = results.iter().filter(|r| r.case.kind == *kind);
            results.any(|r| r.case.dst_ip.is_ipv6() == v6 && r.outcome.passed())
        };
        match (passed(false), passed(true)) {
            (true, true) => letter(index, *kind),
            (true, false) => '4',
            (false, true) => '6',
            (false, false) => '.',
        }
    };
    let text: String = kinds.iter().enumerate().map(mark).collect();
    let colour = match (results.iter().all(|r| r.ok()), text.chars().all(|c| c == '.')) {
        (false, _) => Colour::Red,
        (true, true) => Colour::Dim,
        (true, false) => Colour::Green,
    };
    screen.paint(colour, &format!("{text:<width$}"))
}

/// Denied pairs under the rule that denies them: one line for each of a pod's rules.
fn denied(screen: &Screen, checked: &[Checked]) {
    // (pod, direction, rule) -> peer -> kinds
    let mut rules: BTreeMap<(&str, Direction, &str), BTreeMap<&str, Vec<String>>> = BTreeMap::new();
    let mut probed: BTreeMap<(&str, &str), Vec<String>> = BTreeMap::new();
    for Checked { case, .. } in checked.iter().filter(|c| c.case.dst_ip.is_ipv4()) {
        probed
            .entry((&case.src, &case.dst))
            .or_default()
            .push(case.kind.to_string());
        if let (false, Some((direction, pod))) = (case.expected.allow, &case.expected.by) {
            let peer = if *direction == Direction::Egress {
                &case.dst
            } else {
                &case.src
            };
            let peers = rules.entry((pod, *direction, &case.expected.rule)).or_default();
            peers.entry(peer).or_default().push(case.kind.to_string());
        }
    }
    screen.text("");
    screen.text("denied (IPv6 alike), by whom:");
    for ((pod, direction, rule), peers) in rules {
        let (word, arrow) = match direction {
            Direction::Egress => ("egress", "to"),
            Direction::Ingress => ("ingress", "from"),
        };
        screen.text(&format!(
            "{word} of {} {}",
            screen.paint(Colour::Bold, pod),
            screen.paint(Colour::Dim, rule)
        ));
        let peers: Vec<_> = peers
            .into_iter()
            .map(|(peer, kinds)| {
                let pair = if direction == Direction::Egress {
                    (pod, peer)
                } else {
                    (peer, pod)
                };
                let all = probed.get(&pair).map(Vec::as_slice).unwrap_or_default();
                format!("{peer}{}", which(&kinds, all))
            })
            .collect();
        for line in wrap(&peers, 96) {
            screen.text(&format!("    {arrow} {line}"));
        }
    }
}

/// The kinds in question among all that were probed, in the fewest words.
fn which(kinds: &[String], all: &[String]) -> String {
    let rest: Vec<_> = all.iter().filter(|kind| !kinds.contains(kind)).cloned().collect();
    match rest.len() {
        0 => String::new(),
        few if few < kinds.len() => format!(" (all but {})", rest.join(" ")),
        _ => format!(" ({})", kinds.join(" ")),
    }
}

fn wrap(words: &[String], width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in words {
        match lines.last_mut() {
            Some(line) if line.len() + word.len() + 2 <= width => {
                line.push_str(", ");
                line.push_str(word);
            }
            _ => lines.push(word.clone()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_distinct_and_icmp_has_its_own() {
        let kinds = [Kind::Tcp(80), Kind::Tcp(81), Kind::Udp(80), Kind::Icmp];
        let letters: Vec<_> = kinds.iter().enumerate().map(|(i, k)| letter(i, *k)).collect();
        assert_eq!(letters, ['A', 'B', 'C', 'i']);
    }

    #[test]
    fn the_shorter_list_is_shown() {
        let [a, b, c] = ["a", "b", "c"].map(ToOwned::to_owned);
        let all = [a.clone(), b.clone(), c.clone()];
        assert_eq!(which(&all, &all), "");
        assert_eq!(which(&[a.clone(), b], &all), " (all but c)");
        assert_eq!(which(&[a], &all), " (a)");
    }

    #[test]
    fn lines_are_filled_but_not_over() {
        let words = ["aaaa", "bbbb", "cccccccccccc"].map(ToOwned::to_owned);
        assert_eq!(wrap(&words, 10), ["aaaa, bbbb", "cccccccccccc"]);
    }
}
