//! Source ports: where rules tell them apart, each kind of them is painted on its own.

use std::collections::{BTreeSet, HashMap};

use super::paint::{Domain, Painted, Run};
use super::predicate::{Family, Held};
use super::ranges::{self, Range};
use super::sets::{Match, Set};
use super::side::Part;

/// The source ports of a protocol, by the rules that they match.
pub(super) struct Split {
    pub(super) protocol: u8,
    /// One port of each kind, at least one.
    pub(super) stand_ins: Vec<u16>,
    /// In order, without gaps, from 0 to 65535.
    pieces: Vec<Piece>,
}

/// Adjacent ports of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) range: Range,
    pub(super) kind: usize,
}

/// A protocol whose decisions depend on the source port.
#[derive(Debug)]
pub(super) struct BySource {
    pub(super) protocol: u8,
    /// What is decided for each kind of source port.
    pub(super) kinds: Vec<Vec<Run>>,
    /// In order, without gaps, from 0 to 65535.
    pub(super) pieces: Vec<Piece>,
}

pub(super) fn split(set: &Set, family: Family, holding: &[Held], protocol: u8) -> Split {
    let rules = set.by_source.iter().filter_map(|place| set.rules.get(*place));
    let matches: Vec<Match<'_>> = rules.filter_map(|rule| rule.effect(family, holding)).collect();
    let asked: Vec<_> = matches
        .iter()
        .filter_map(
            |Match { rule, asked, .. }| match rule.traffic.sources(protocol, *asked) {
                Part::Ranges(ranges) => Some(ranges),
                // The same for all source ports.
                Part::Nothing | Part::Everything => None,
            },
        )
        .collect();
    let mut starts = BTreeSet::from([0]);
    for (first, last) in asked.iter().flat_map(|ranges| ranges.iter()) {
        starts.insert(*first);
        starts.extend(last.checked_add(1));
    }
    let mut kinds: HashMap<Vec<bool>, usize> = HashMap::new();
    let mut stand_ins = Vec::new();
    let mut pieces: Vec<Piece> = Vec::new();
    for start in starts {
        if let Some(previous) = pieces.last_mut() {
            previous.range.1 = start - 1;
        }
        let matched = asked
            .iter()
            .map(|ranges| ranges::contains(ranges, start))
            .collect();
        let kind = *kinds.entry(matched).or_insert_with(|| {
            stand_ins.push(start);
            stand_ins.len() - 1
        });
        let range = (start, u16::MAX);
        pieces.push(Piece { range, kind });
    }
    Split {
        protocol,
        stand_ins,
        pieces,
    }
}

/// Sorts what was painted, one domain for each kind of each split and one for the rest, into what depends on the
/// source port and what does not.
pub(super) fn join(splits: Vec<Split>, painted: Vec<Domain>) -> Painted {
    let mut painted = painted.into_iter();
    let (mut domains, mut by_source) = (Vec::new(), Vec::new());
    for Split {
        protocol,
        stand_ins,
        mut pieces,
    } in splits
    {
        let mut own: Vec<Domain> = painted.by_ref().take(stand_ins.len()).collect();
        if own
            .windows(2)
            .all(|pair| matches!(pair, [a, b] if a.runs == b.runs))
        {
            domains.extend(own.pop());
            continue;
        }
        // Kinds that rules tell apart, but to no effect, are one.
        let mut kinds: Vec<Vec<Run>> = Vec::new();
        let mut places = Vec::new();
        for domain in own {
            let known = kinds.iter().position(|runs| *runs == domain.runs);
            places.push(known.unwrap_or(kinds.len()));
            if known.is_none() {
                kinds.push(domain.runs);
            }
        }
        for piece in &mut pieces {
            piece.kind = places.get(piece.kind).copied().unwrap_or_default();
        }
        pieces.dedup_by(|next, piece| {
            let same = next.kind == piece.kind;
            if same {
                piece.range.1 = next.range.1;
            }
            same
        });
        by_source.push(BySource {
            protocol,
            kinds,
            pieces,
        });
    }
    domains.extend(painted);
    Painted { domains, by_source }
}
