//! Writes painted ports as the fewest entries that the kernel's lookups turn back into the same decisions.
//!
//! The kernel asks for the port, its block of 256, its protocol and the table, and the first entry decides. So the
//! table's default has to be what protocols without a name get, and a protocol's default is the decision that spares
//! most blocks an entry of their own.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use calico_azure_ebpf::abi::{LEVEL_BLOCK, LEVEL_PORT, LEVEL_PROTOCOL, LEVEL_TABLE, PortKey, word};

use super::CompileError;
use super::intern::{Handle, Interner};
use super::paint::{Painted, Run};
use super::source::BySource;

/// A port table before it has an id: keys name table 0, and so do the decision words.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Table {
    /// `word::hint` bits of the protocols that have entries, and of what they are about.
    pub(super) hints: u8,
    pub(super) entries: Box<[(PortKey, u64)]>,
    /// Where the decisions of a table about source ports lead. Their ids are in the entries, and held here.
    pub(super) next: Box<[Handle<Table>]>,
}

impl Table {
    /// The table for what was painted; one about source ports, and those it leads to, if they matter.
    pub(super) fn intern(
        painted: &Painted,
        interner: &mut Interner<Self>,
    ) -> Result<Handle<Self>, CompileError> {
        let Painted { domains, by_source } = painted;
        let rest = domains.iter().find(|domain| domain.protocol.is_none());
        let default = rest
            .and_then(|rest| rest.runs.first())
            .map_or(0, |run| run.decision);
        let ports = domains
            .iter()
            .filter_map(|domain| Some((domain.protocol?, domain.runs.as_slice())));
        let rest = interner.intern(Self::of(default, ports))?;
        if by_source.is_empty() {
            return Ok(rest);
        }
        let lead = |table: &Handle<Self>| word::lead(word::table(table.id(), table.value().hints, 0), 0);
        let default = lead(&rest);
        let mut next = vec![rest];
        let mut sources = Vec::new();
        for BySource {
            protocol,
            kinds,
            pieces,
        } in by_source
        {
            let mut leads = Vec::new();
            for runs in kinds {
                let ports = std::iter::once((*protocol, runs.as_slice()));
                let any = runs.first().map_or(0, |run| run.decision);
                let table = interner.intern(Self::of(protocol_default(runs, any), ports))?;
                leads.push(lead(&table));
                next.push(table);
            }
            let runs = pieces.iter().filter_map(|piece| {
                let decision = *leads.get(piece.kind)?;
                let (first, last) = piece.range;
                Some(Run {
                    first,
                    last,
                    decision,
                })
            });
            sources.push((*protocol, runs.collect::<Vec<_>>()));
        }
        let sources = sources
            .iter()
            .map(|(protocol, runs)| (*protocol, runs.as_slice()));
        let mut table = Self::of(default, sources);
        table.hints |= word::hint::SOURCE;
        table.next = next.into();
        interner.intern(table)
    }

    /// `default` is for protocols that are not among the domains.
    fn of<'a>(default: u64, domains: impl Iterator<Item = (u8, &'a [Run])>) -> Self {
        let mut entries = vec![(key(LEVEL_TABLE, 0, 0), default)];
        let mut hints = 0;
        for (protocol, runs) in domains {
            let before = entries.len();
            encode(protocol, runs, default, &mut entries);
            if entries.len() > before {
                hints |= word::hint::of(protocol);
            }
        }
        Self {
            hints,
            entries: entries.into(),
            next: Box::default(),
        }
    }
}

fn key(level: u8, protocol: u8, port: u16) -> PortKey {
    PortKey {
        table: 0,
        port,
        protocol,
        level,
    }
}

fn encode(protocol: u8, runs: &[Run], table_default: u64, entries: &mut Vec<(PortKey, u64)>) {
    let default = protocol_default(runs, table_default);
    if default != table_default {
        entries.push((key(LEVEL_PROTOCOL, protocol, 0), default));
    }
    for piece in pieces(runs) {
        match piece {
            Piece::Whole(_, decision) if decision == default => {}
            Piece::Whole(blocks, decision) => {
                entries.extend(blocks.map(|block| (key(LEVEL_BLOCK, protocol, block.into()), decision)));
            }
            Piece::Mixed(block, runs) => {
                let mut base = default;
                let counts = counts(&runs);
                let best = counts
                    .iter()
                    .copied()
                    .fold((default, count(&counts, default)), |best, this| {
                        if this.1 > best.1 { this } else { best }
                    });
                if best.0 != default {
                    entries.push((key(LEVEL_BLOCK, protocol, block.into()), best.0));
                    base = best.0;
                }
                for run in runs.iter().filter(|run| run.decision != base) {
                    let ports = run.first..=run.last;
                    entries.extend(ports.map(|port| (key(LEVEL_PORT, protocol, port), run.decision)));
                }
            }
        }
    }
}

/// The decision that is (one of) the most frequent in most blocks, since it spares each of them one entry; the
/// table's own default spares the protocol's entry.
fn protocol_default(runs: &[Run], table_default: u64) -> u64 {
    if let [run] = runs {
        return run.decision;
    }
    let mut votes = BTreeMap::from([(table_default, 1)]);
    for piece in pieces(runs) {
        match piece {
            Piece::Whole(blocks, decision) => *votes.entry(decision).or_insert(0) += blocks.count(),
            Piece::Mixed(_, runs) => {
                let counts = counts(&runs);
                let most = counts.iter().map(|(_, ports)| *ports).max();
                for (decision, _) in counts.iter().filter(|(_, ports)| Some(*ports) == most) {
                    *votes.entry(*decision).or_insert(0) += 1;
                }
            }
        }
    }
    let best = votes
        .into_iter()
        .max_by_key(|(decision, votes)| (*votes, *decision == table_default));
    best.map_or(table_default, |(decision, _)| decision)
}

/// Blocks of 256 ports.
enum Piece {
    /// Blocks with one decision.
    Whole(RangeInclusive<u8>, u64),
    /// A block with several; runs cut to it.
    Mixed(u8, Vec<Run>),
}

fn pieces(runs: &[Run]) -> impl Iterator<Item = Piece> {
    let mut rest = runs;
    // The next block; 256 at the end.
    let mut block: u16 = 0;
    std::iter::from_fn(move || {
        let low = u8::try_from(block).ok()?;
        let (start, end) = (u16::from_be_bytes([low, 0]), u16::from_be_bytes([low, u8::MAX]));
        rest = rest.split_at(rest.partition_point(|run| run.last < start)).1;
        let run = rest.first()?;
        if run.last >= end {
            let [last, tail] = run.last.to_be_bytes();
            let last = if tail == u8::MAX { last } else { last - 1 };
            block = u16::from(last) + 1;
            return Some(Piece::Whole(low..=last, run.decision));
        }
        block += 1;
        let cut = rest.iter().take_while(|run| run.first <= end);
        let cut = cut.map(|run| Run {
            first: run.first.max(start),
            last: run.last.min(end),
            ..*run
        });
        Some(Piece::Mixed(low, cut.collect()))
    })
}

/// Ports of each decision.
fn counts(runs: &[Run]) -> Vec<(u64, u32)> {
    let mut counts: Vec<(u64, u32)> = Vec::with_capacity(runs.len());
    let mut sorted: Vec<_> = runs
        .iter()
        .map(|run| (run.decision, u32::from(run.last - run.first) + 1))
        .collect();
    sorted.sort_unstable();
    for (decision, ports) in sorted {
        match counts.last_mut() {
            Some(last) if last.0 == decision => last.1 += ports,
            _ => counts.push((decision, ports)),
        }
    }
    counts
}

fn count(counts: &[(u64, u32)], decision: u64) -> u32 {
    counts
        .iter()
        .find(|(other, _)| *other == decision)
        .map_or(0, |(_, ports)| *ports)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs(text: &[(u16, u64)]) -> Vec<Run> {
        let mut first = 0;
        let run = |(last, decision): &(u16, u64)| {
            let run = Run {
                first,
                last: *last,
                decision: *decision,
            };
            first = last.saturating_add(1);
            run
        };
        text.iter().map(run).collect()
    }

    fn encoded(runs: &[Run], table_default: u64) -> Vec<(PortKey, u64)> {
        let mut entries = Vec::new();
        encode(6, runs, table_default, &mut entries);
        entries
    }

    /// Entries needed if the protocol's default is `default`, counted port by port.
    fn cost(runs: &[Run], default: u64, table_default: u64) -> usize {
        let decisions: Vec<u64> = runs
            .iter()
            .flat_map(|run| (run.first..=run.last).map(|_| run.decision))
            .collect();
        let blocks = decisions.chunks(256).map(|block| {
            let differing = |base: u64| block.iter().filter(|decision| **decision != base).count();
            let best = (0..5).map(|base| 1 + differing(base)).min().unwrap();
            differing(default).min(best)
        });
        usize::from(default != table_default) + blocks.sum::<usize>()
    }

    #[test]
    fn no_choice_of_defaults_needs_fewer_entries() {
        let mut rng = crate::policy::generate::Rng::new(1);
        for _ in 0..60 {
            let mut ends: Vec<u16> = (0..rng.below(8)).map(|_| rng.port()).collect();
            // Some at block edges, some close to each other.
            ends.extend((0..rng.below(4)).map(|_| u16::from_be_bytes([rng.byte() & 3, 255])));
            ends.extend((0..rng.below(4)).map(|_| u16::from(rng.byte())));
            ends.push(u16::MAX);
            ends.sort_unstable();
            ends.dedup();
            let decisions: Vec<(u16, u64)> = ends.into_iter().map(|end| (end, rng.below(4) as u64)).collect();
            let runs = runs(&decisions);
            let least = (0..5).map(|default| cost(&runs, default, 4)).min().unwrap();
            let least_of_table = (0..5).map(|default| cost(&runs, default, 1)).min().unwrap();
            assert_eq!(encoded(&runs, 4).len(), least, "{decisions:?}");
            assert_eq!(encoded(&runs, 1).len(), least_of_table, "{decisions:?}");
        }
    }

    #[test]
    fn one_port_is_one_entry_and_a_range_takes_blocks() {
        let port = encoded(&runs(&[(79, 0), (80, 1), (u16::MAX, 0)]), 0);
        assert_eq!(port, [(key(LEVEL_PORT, 6, 80), 1)]);
        let range = encoded(&runs(&[(254, 0), (1024, 1), (u16::MAX, 0)]), 0);
        let expected = [
            (key(LEVEL_PORT, 6, 255), 1),
            (key(LEVEL_BLOCK, 6, 1), 1),
            (key(LEVEL_BLOCK, 6, 2), 1),
            (key(LEVEL_BLOCK, 6, 3), 1),
            (key(LEVEL_PORT, 6, 1024), 1),
        ];
        assert_eq!(range, expected);
    }
}
