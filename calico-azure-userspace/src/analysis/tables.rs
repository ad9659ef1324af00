//! Port tables read back: for every protocol which source ports may talk to which destination ports.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;

use calico_azure_ebpf::abi::{LEVEL_BLOCK, LEVEL_PORT, LEVEL_PROTOCOL, LEVEL_TABLE, PolicyKey, word};

use super::connections::{Connections, Number, Pool, domain, has_ports};
use crate::policy::Desired;
use crate::policy::compile::ranges::{self, Range, Ranges};

/// What one table allows.
#[derive(Debug, Default)]
struct Table {
    /// Whether protocols that are not named are allowed.
    others: bool,
    named: BTreeMap<u8, Vec<Slice>>,
}

/// Destination ports that are open to some source ports.
#[derive(Clone, Debug)]
struct Slice {
    sources: Ranges,
    open: Ranges,
}

/// Level, protocol and port of an entry, and the decision.
type Entry = (u8, u8, u16, u64);

/// The tables of a compiled cluster. Each table, and each pair of tables, is read once.
pub(super) struct Tables<'d> {
    desired: &'d Desired,
    entries: HashMap<u32, Vec<Entry>>,
    decoded: HashMap<u32, Rc<Table>>,
    pairs: HashMap<(u32, u32), Number>,
    alone: HashMap<u32, Number>,
}

/// A table's id and hints, as a table word has them.
pub(super) type TableRef = u32;
/// The set, and its only table, of what has no policy. No table has this id and all hints.
pub(super) const OPEN: u32 = u32::MAX;
/// The set, and its only table, of what may not talk at all.
pub(super) const CLOSED: u32 = 0;

impl<'d> Tables<'d> {
    pub(super) fn new(desired: &'d Desired) -> Self {
        let mut entries: HashMap<u32, Vec<Entry>> = HashMap::new();
        for (key, decision) in &desired.ports {
            let of_table = entries.entry(key.table).or_default();
            of_table.push((key.level, key.protocol, key.port, *decision));
        }
        Self {
            desired,
            entries,
            decoded: HashMap::new(),
            pairs: HashMap::new(),
            alone: HashMap::new(),
        }
    }

    /// The table of a policy set for a peer class.
    pub(super) fn table(&self, set: u32, class: u32, default_class: u32) -> TableRef {
        if matches!(set, OPEN | CLOSED) {
            return set;
        }
        let word = |class| self.desired.policy.get(&PolicyKey { set, class });
        let word = word(class).or_else(|| word(default_class));
        word.map_or(CLOSED, |word| {
            (*word & u64::from(u32::MAX)).try_into().unwrap_or(CLOSED)
        })
    }

    /// What both tables allow, the sender's and the receiver's: with one source port for both.
    pub(super) fn pair(&mut self, a: TableRef, b: TableRef, pool: &mut Pool) -> Number {
        if let Some(number) = self.pairs.get(&(a, b)) {
            return *number;
        }
        let (first, second) = (self.read(a), self.read(b));
        let number = pool.number(first.common(&second));
        self.pairs.insert((a, b), number);
        number
    }

    /// What one table allows.
    pub(super) fn alone(&mut self, table: TableRef, pool: &mut Pool) -> Number {
        if let Some(number) = self.alone.get(&table) {
            return *number;
        }
        let everything = self.read(OPEN);
        let number = pool.number(self.read(table).common(&everything));
        self.alone.insert(table, number);
        number
    }

    fn read(&mut self, table: TableRef) -> Rc<Table> {
        if let Some(known) = self.decoded.get(&table) {
            return Rc::clone(known);
        }
        let decoded = Rc::new(self.decode(table));
        self.decoded.insert(table, Rc::clone(&decoded));
        decoded
    }

    fn decode(&mut self, table: TableRef) -> Table {
        if table == OPEN {
            return Table {
                others: true,
                named: BTreeMap::new(),
            };
        }
        let Plain { others, named } = self.plain(table);
        if word::table_hints(table.into()) & word::hint::SOURCE == 0 {
            let allowed = |(protocol, runs): (u8, Vec<(Range, u64)>)| {
                let open = runs
                    .iter()
                    .filter(|(_, decision)| word::decision_allows(*decision));
                let open = ranges::union(open.map(|(range, _)| *range).collect());
                let slice = Slice {
                    sources: ranges::ALL.into(),
                    open: ranges::common(&open, domain(protocol)),
                };
                (protocol, vec![slice])
            };
            return Table {
                others: word::decision_allows(others),
                named: named.into_iter().map(allowed).collect(),
            };
        }
        // Its ports are source ports, and its decisions lead to the tables that decide.
        let base = self.next(others);
        let mut joined = Table {
            others: base.others,
            named: base.named.clone(),
        };
        for (protocol, runs) in named {
            let mut sources: BTreeMap<u64, Vec<Range>> = BTreeMap::new();
            for (range, decision) in runs {
                let real = (range.0.max(1), range.1);
                if !has_ports(protocol) {
                    sources.entry(decision).or_default().push(range);
                } else if real.0 <= real.1 {
                    sources.entry(decision).or_default().push(real);
                }
            }
            let mut slices = Vec::new();
            for (decision, sources) in sources {
                let next = self.next(decision);
                slices.extend(next.of(protocol).iter().map(|slice| Slice {
                    sources: ranges::common(&slice.sources, &ranges::union(sources.clone())),
                    open: slice.open.clone(),
                }));
            }
            joined.named.insert(protocol, slices);
        }
        joined
    }

    fn next(&mut self, decision: u64) -> Rc<Table> {
        let next = word::decision_next(decision);
        // One level of leads is all that there is; a table that leads on, or no lead at all, denies.
        if !word::decision_leads(decision) || word::table_hints(next) & word::hint::SOURCE != 0 {
            return Rc::default();
        }
        self.read(next.try_into().unwrap_or(0))
    }

    /// The table's decisions as the kernel finds them.
    fn plain(&self, table: TableRef) -> Plain {
        let (id, hints) = (word::table_id(table.into()), word::table_hints(table.into()));
        let entries = self.entries.get(&id).map_or(&[][..], |entries| entries);
        let of_level = |level| entries.iter().filter(move |entry| entry.0 == level);
        let others = of_level(LEVEL_TABLE).map(|entry| entry.3).next().unwrap_or(0);
        let hinted = |protocol: &u8| hints & word::hint::of(*protocol) != 0;
        let own = entries.iter().filter(|entry| entry.0 != LEVEL_TABLE);
        let protocols: BTreeSet<u8> = own.map(|entry| entry.1).filter(hinted).collect();
        let runs = |protocol: u8| {
            let of = |level| {
                let own = of_level(level).filter(move |entry| entry.1 == protocol);
                own.map(|entry| (entry.2, entry.3))
                    .collect::<BTreeMap<u16, u64>>()
            };
            let whole = of(LEVEL_PROTOCOL).values().copied().next().unwrap_or(others);
            (protocol, runs(whole, &of(LEVEL_BLOCK), &of(LEVEL_PORT)))
        };
        Plain {
            others,
            named: protocols.into_iter().map(runs).collect(),
        }
    }
}

/// A table's own decisions, whatever they lead to.
struct Plain {
    others: u64,
    named: Vec<(u8, Vec<(Range, u64)>)>,
}

/// Adjacent ports with one decision, from 0 to 65535.
fn runs(whole: u64, blocks: &BTreeMap<u16, u64>, ports: &BTreeMap<u16, u64>) -> Vec<(Range, u64)> {
    let mut runs: Vec<(Range, u64)> = Vec::new();
    let mut push = |range: Range, decision| match runs.last_mut() {
        Some((last, same)) if *same == decision => last.1 = range.1,
        _ => runs.push((range, decision)),
    };
    for block in 0..=u8::MAX {
        let (first, last) = (
            u16::from_be_bytes([block, 0]),
            u16::from_be_bytes([block, u8::MAX]),
        );
        let base = blocks.get(&u16::from(block)).copied().unwrap_or(whole);
        let mut next = u32::from(first);
        for (port, decision) in ports.range(first..=last) {
            if let Ok(start) = u16::try_from(next)
                && start < *port
            {
                push((start, *port - 1), base);
            }
            push((*port, *port), *decision);
            next = u32::from(*port) + 1;
        }
        if let Ok(start) = u16::try_from(next)
            && start <= last
        {
            push((start, last), base);
        }
    }
    runs
}

impl Table {
    fn of(&self, protocol: u8) -> Vec<Slice> {
        if let Some(slices) = self.named.get(&protocol) {
            return slices.clone();
        }
        let open = if self.others { domain(protocol) } else { &[] };
        vec![Slice {
            sources: ranges::ALL.into(),
            open: open.into(),
        }]
    }

    fn common(&self, other: &Self) -> Connections {
        let protocols: BTreeSet<u8> = self.named.keys().chain(other.named.keys()).copied().collect();
        let named = protocols.into_iter().map(|protocol| {
            let (ours, theirs) = (self.of(protocol), other.of(protocol));
            let mut open = Vec::new();
            for a in &ours {
                let meeting = theirs
                    .iter()
                    .filter(|b| !ranges::common(&a.sources, &b.sources).is_empty());
                open.extend(meeting.flat_map(|b| ranges::common(&a.open, &b.open)));
            }
            (protocol, ranges::union(open))
        });
        Connections::new(self.others && other.others, named)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_beat_blocks_and_blocks_beat_the_protocol() {
        let found = runs(
            1,
            &[(1, 2), (255, 3)].into(),
            &[(0, 9), (255, 9), (256, 2), (300, 1), (65535, 9)].into(),
        );
        let expected = [
            ((0, 0), 9),
            ((1, 254), 1),
            ((255, 255), 9),
            ((256, 299), 2),
            ((300, 300), 1),
            ((301, 511), 2),
            ((512, 65279), 1),
            ((65280, 65534), 3),
            ((65535, 65535), 9),
        ];
        assert_eq!(found, expected);
        assert_eq!(runs(5, &BTreeMap::new(), &BTreeMap::new()), [((0, 65535), 5)]);
    }
}
