//! Decides, for one set and one peer class, the first match of every protocol and port at once: rules are painted in
//! order over what is still undecided.

use calico_azure_ebpf::abi::word;

use super::predicate::{Family, Held};
use super::sets::{Decision, Effect, Match, Set};
use super::side::Part;
use super::source::{self, BySource, Split};

/// Ports from `first` to `last` with one decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Run {
    pub(super) first: u16,
    pub(super) last: u16,
    /// A decision word of no table.
    pub(super) decision: u64,
}

/// What decides every packet.
#[derive(Debug)]
pub(super) struct Painted {
    /// Protocols of which the source port does not matter, and all that no rule names.
    pub(super) domains: Vec<Domain>,
    /// Protocols of which it does.
    pub(super) by_source: Vec<BySource>,
}

/// One protocol, or (`None`) all that no rule names.
#[derive(Debug)]
pub(super) struct Domain {
    pub(super) protocol: Option<u8>,
    /// Stands for all source ports that no rule tells from it.
    sport: u16,
    /// In order, without gaps, from 0 to 65535.
    pub(super) runs: Vec<Run>,
    undecided: Vec<Span>,
    /// Undecided too, but not by this tier.
    passed: Vec<Span>,
}

#[derive(Clone, Copy, Debug)]
struct Span {
    first: u16,
    last: u16,
    log: bool,
}

/// Paints the set for peers for which exactly the predicates in `holding` (ascending) hold.
pub(super) fn paint(set: &Set, family: Family, holding: &[Held]) -> Painted {
    let protocols = set.protocols.iter().copied();
    let splits: Vec<Split> = protocols
        .map(|protocol| source::split(set, family, holding, protocol))
        .collect();
    let named = splits.iter().flat_map(|split| {
        let sports = split.stand_ins.iter();
        sports.map(|sport| Domain::new(Some(split.protocol), *sport))
    });
    let mut domains: Vec<Domain> = named.chain([Domain::new(None, 0)]).collect();
    let mut specific: Vec<usize> = holding
        .iter()
        .filter(|held| held.port().is_none())
        .filter_map(|held| set.by_predicate.get(&held.predicate()))
        .flatten()
        .copied()
        .collect();
    specific.sort_unstable();

    let (mut specific, mut unconditional) = (specific.as_slice(), set.unconditional.as_slice());
    for tier in &set.tiers {
        while domains.iter().any(|domain| !domain.undecided.is_empty()) {
            let Some(place) = next(&mut specific, &mut unconditional, tier.end) else {
                break;
            };
            let Some(Match { rule, effect, asked }) =
                set.rules.get(place).and_then(|rule| rule.effect(family, holding))
            else {
                continue;
            };
            for domain in &mut domains {
                match rule.traffic.part(domain.protocol, domain.sport, asked) {
                    Part::Nothing => {}
                    Part::Everything => domain.paint(0, u16::MAX, effect),
                    Part::Ranges(ranges) => {
                        ranges
                            .iter()
                            .for_each(|(first, last)| domain.paint(*first, *last, effect));
                    }
                }
            }
        }
        for places in [&mut specific, &mut unconditional] {
            *places = places
                .split_at(places.partition_point(|place| *place < tier.end))
                .1;
        }
        domains
            .iter_mut()
            .for_each(|domain| domain.end_tier(tier.default));
    }
    domains.iter_mut().for_each(Domain::finish);
    source::join(splits, domains)
}

/// Takes the lower of the first two places, if it is before `end`.
fn next<'a>(a: &mut &'a [usize], b: &mut &'a [usize], end: usize) -> Option<usize> {
    let list = match (a.first(), b.first()) {
        (Some(x), y) if y.is_none_or(|y| x < y) => a,
        _ => b,
    };
    let (place, rest) = list.split_first().filter(|(place, _)| **place < end)?;
    *list = rest;
    Some(*place)
}

impl Domain {
    fn new(protocol: Option<u8>, sport: u16) -> Self {
        let undecided = vec![Span {
            first: 0,
            last: u16::MAX,
            log: false,
        }];
        Self {
            protocol,
            sport,
            runs: Vec::new(),
            undecided,
            passed: Vec::new(),
        }
    }

    fn paint(&mut self, first: u16, last: u16, effect: Effect) {
        let start = self.undecided.partition_point(|span| span.last < first);
        let end = self.undecided.partition_point(|span| span.first <= last);
        if start >= end {
            return;
        }
        let mut kept: Vec<Span> = Vec::with_capacity(3);
        for span in self.undecided.get(start..end).unwrap_or_default() {
            if span.first < first {
                kept.push(Span {
                    last: first - 1,
                    ..*span
                });
            }
            let hit = Span {
                first: span.first.max(first),
                last: span.last.min(last),
                ..*span
            };
            match effect {
                Effect::Decide(decision) => self.runs.push(hit.decided(decision)),
                Effect::Pass => self.passed.push(hit),
                Effect::Log => kept.push(Span { log: true, ..hit }),
            }
            if span.last > last {
                kept.push(Span {
                    first: last + 1,
                    ..*span
                });
            }
        }
        self.undecided.splice(start..end, kept);
    }

    fn end_tier(&mut self, default: Option<Decision>) {
        match default {
            Some(decision) => self
                .runs
                .extend(self.undecided.drain(..).map(|span| span.decided(decision))),
            None => self.passed.append(&mut self.undecided),
        }
        std::mem::swap(&mut self.undecided, &mut self.passed);
        self.undecided.sort_unstable_by_key(|span| span.first);
    }

    fn finish(&mut self) {
        self.runs.sort_unstable();
        self.runs.dedup_by(|next, run| {
            let same = next.decision == run.decision;
            if same {
                run.last = next.last;
            }
            same
        });
    }
}

impl Span {
    fn decided(self, decision: Decision) -> Run {
        let decision = if decision.goes_on {
            word::undecided(self.log, 0)
        } else {
            word::decision(decision.allow, self.log, decision.rule, 0)
        };
        Run {
            first: self.first,
            last: self.last,
            decision,
        }
    }
}
