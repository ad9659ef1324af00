//! Sets of connections: which protocols, to which destination ports or of which ICMP types.

use std::collections::{BTreeMap, BTreeSet};

use crate::policy::compile::ranges::{self, Range, Ranges};

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP6: u8 = 58;
const SCTP: u8 = 132;
const UDP_LITE: u8 = 136;

/// Protocols with a name, in the order in which they are shown.
pub(super) const NAMED: [(u8, &str); 6] = [
    (TCP, "TCP"),
    (UDP, "UDP"),
    (SCTP, "SCTP"),
    (ICMP, "ICMP"),
    (ICMP6, "ICMPv6"),
    (UDP_LITE, "UDPLite"),
];

/// Protocols, and for TCP, UDP and SCTP destination ports, for ICMP and ICMPv6 `type << 8 | code`. Port 0 is no port
/// that anything listens on, and never in the set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Connections {
    /// Whether protocols that `named` does not name are in the set, wholly.
    others: bool,
    /// Protocols for which it is not as for the others.
    named: BTreeMap<u8, Ranges>,
}

/// All that a set can have of a protocol.
#[must_use]
pub fn domain(protocol: u8) -> &'static [Range] {
    match protocol {
        TCP | UDP | SCTP => &[(1, u16::MAX)],
        ICMP | ICMP6 => ranges::ALL,
        _ => &[(0, 0)],
    }
}

/// Whether destination ports of the protocol can be told apart.
#[must_use]
pub fn has_ports(protocol: u8) -> bool {
    matches!(protocol, TCP | UDP | SCTP)
}

/// Whether the protocol's messages have types and codes.
#[must_use]
pub fn has_types(protocol: u8) -> bool {
    matches!(protocol, ICMP | ICMP6)
}

impl Connections {
    /// None at all.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Every protocol, wholly.
    #[must_use]
    pub fn all() -> Self {
        Self {
            others: true,
            named: BTreeMap::new(),
        }
    }

    /// What is given of the named protocols; of the others everything or nothing.
    #[must_use]
    pub fn new(others: bool, named: impl IntoIterator<Item = (u8, Ranges)>) -> Self {
        let named = named.into_iter().map(|(protocol, ranges)| {
            let within = ranges::common(&ranges, domain(protocol));
            (protocol, within)
        });
        let differs = |(protocol, ranges): &(u8, Ranges)| **ranges != *default(others, *protocol);
        Self {
            others,
            named: named.filter(differs).collect(),
        }
    }

    #[must_use]
    pub fn is_none(&self) -> bool {
        !self.others && self.named.is_empty()
    }

    #[must_use]
    pub fn is_all(&self) -> bool {
        self.others && self.named.is_empty()
    }

    /// What is in the set of a protocol.
    #[must_use]
    pub fn of(&self, protocol: u8) -> &[Range] {
        match self.named.get(&protocol) {
            Some(ranges) => ranges,
            None => default(self.others, protocol),
        }
    }

    /// Whether protocols that it does not name are in it.
    #[must_use]
    pub fn others(&self) -> bool {
        self.others
    }

    /// Protocols for which it is not as for the others, ascending.
    pub fn named(&self) -> impl Iterator<Item = u8> {
        self.named.keys().copied()
    }

    /// Whether the destination port, or ICMP `type << 8 | code`, is in the set.
    #[must_use]
    pub fn contains(&self, protocol: u8, port: u16) -> bool {
        ranges::contains(self.of(protocol), port)
    }

    /// What is in either.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        let both = |a: &[Range], b: &[Range]| ranges::union([a, b].concat());
        self.combine(other, self.others || other.others, both)
    }

    /// What is in both.
    #[must_use]
    pub fn common(&self, other: &Self) -> Self {
        self.combine(other, self.others && other.others, ranges::common)
    }

    /// What is in this one only.
    #[must_use]
    pub fn minus(&self, other: &Self) -> Self {
        self.combine(other, self.others && !other.others, ranges::minus)
    }

    fn combine(&self, other: &Self, others: bool, with: impl Fn(&[Range], &[Range]) -> Ranges) -> Self {
        let protocols: BTreeSet<u8> = self.named().chain(other.named()).collect();
        let named = protocols
            .into_iter()
            .map(|protocol| (protocol, with(self.of(protocol), other.of(protocol))));
        Self::new(others, named)
    }
}

fn default(others: bool, protocol: u8) -> &'static [Range] {
    if others { domain(protocol) } else { &[] }
}

/// Connections by number, each once; 0 is none at all.
#[derive(Debug)]
pub(super) struct Pool {
    all: Vec<Connections>,
    numbers: std::collections::HashMap<Connections, u32>,
}

/// A number of [`Pool`].
pub(super) type Number = u32;

pub(super) const NONE: Number = 0;

impl Default for Pool {
    fn default() -> Self {
        let none = Connections::none();
        Self {
            all: vec![none.clone()],
            numbers: [(none, NONE)].into(),
        }
    }
}

impl Pool {
    pub(super) fn number(&mut self, connections: Connections) -> Number {
        if let Some(number) = self.numbers.get(&connections) {
            return *number;
        }
        let number = Number::try_from(self.all.len()).unwrap_or(NONE);
        self.all.push(connections.clone());
        self.numbers.insert(connections, number);
        number
    }

    pub(super) fn get(&self, number: Number) -> &Connections {
        static NOTHING: Connections = Connections {
            others: false,
            named: BTreeMap::new(),
        };
        let place = usize::try_from(number).unwrap_or_default();
        self.all.get(place).unwrap_or(&NOTHING)
    }

    pub(super) fn union(&mut self, a: Number, b: Number) -> Number {
        match (a, b) {
            _ if a == b => a,
            (NONE, x) | (x, NONE) => x,
            _ => {
                let union = self.get(a).union(self.get(b));
                self.number(union)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(others: bool, named: &[(u8, &[Range])]) -> Connections {
        Connections::new(
            others,
            named
                .iter()
                .map(|(protocol, ranges)| (*protocol, (*ranges).into())),
        )
    }

    #[test]
    fn what_is_the_same_set_is_equal() {
        assert_eq!(
            set(true, &[(TCP, &[(0, u16::MAX)]), (47, &[(0, 0)])]),
            Connections::all()
        );
        assert_eq!(
            set(false, &[(TCP, &[(0, 0)]), (UDP, &[])]),
            Connections::none(),
            "port 0 is no port"
        );
        assert_ne!(set(true, &[(ICMP, &[(1, u16::MAX)])]), Connections::all());
    }

    #[test]
    fn sets_are_combined_protocol_by_protocol() {
        let web = set(false, &[(TCP, &[(80, 80), (443, 443)])]);
        let but_ssh = set(true, &[(TCP, &[(1, 21), (23, u16::MAX)]), (47, &[])]);
        assert_eq!(web.common(&but_ssh), web);
        assert_eq!(web.union(&but_ssh), but_ssh);
        assert!(web.minus(&but_ssh).is_none());
        let rest = but_ssh.minus(&web);
        assert_eq!(rest.of(TCP), [(1, 21), (23, 79), (81, 442), (444, u16::MAX)]);
        assert!(rest.contains(UDP, 53) && !rest.contains(47, 0) && rest.contains(50, 0));
        let missing = Connections::all().minus(&but_ssh);
        assert_eq!(missing, set(false, &[(TCP, &[(22, 22)]), (47, &[(0, 0)])]));
        assert!(missing.union(&but_ssh).is_all());
    }

    #[test]
    fn a_pool_numbers_each_set_once() {
        let mut pool = Pool::default();
        let web = pool.number(set(false, &[(TCP, &[(80, 80)])]));
        let dns = pool.number(set(false, &[(UDP, &[(53, 53)])]));
        assert_eq!(pool.number(Connections::none()), NONE);
        assert_eq!(pool.number(set(false, &[(TCP, &[(80, 80)])])), web);
        let both = pool.union(web, dns);
        assert_eq!((pool.union(both, dns), pool.union(NONE, web)), (both, web));
        assert!(pool.get(both).contains(UDP, 53) && pool.get(both).contains(TCP, 80));
    }
}
