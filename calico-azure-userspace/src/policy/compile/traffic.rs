//! The protocols and ports that a rule is about.

use std::borrow::Cow;

use super::predicate::PredicateHandle;
use super::ranges::{self, Ranges};
use super::side::{Asked, Names, Part, Ports, limited};
use crate::model::{Icmp, Rule};

pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;
pub(super) const SCTP: u8 = 132;
pub(super) const ICMP: u8 = 1;
pub(super) const ICMP6: u8 = 58;

/// What a rule asks besides addresses.
#[derive(Debug)]
pub(super) struct Traffic {
    protocol: Option<u8>,
    not_protocol: Option<u8>,
    source: Ports,
    destination: Ports,
    /// Of ICMP and ICMPv6; `None` for all.
    icmp: Option<Ranges>,
    icmp_only: bool,
}

impl Traffic {
    pub(super) fn new(rule: &Rule, source: Names, destination: Names) -> Self {
        let criterion = |icmp: Option<Icmp>| icmp.filter(|icmp| icmp.kind.is_some() || icmp.code.is_some());
        let (icmp, not_icmp) = (criterion(rule.icmp), criterion(rule.not_icmp));
        Self {
            protocol: rule.protocol,
            not_protocol: rule.not_protocol,
            source: Ports::new(&rule.source, source),
            destination: Ports::new(&rule.destination, destination),
            icmp: limited(
                icmp.map(icmp_ranges),
                &not_icmp.map(icmp_ranges).unwrap_or_default(),
            ),
            icmp_only: icmp.is_some(),
        }
    }

    /// Protocols that the rule treats differently from those that no rule names.
    pub(super) fn named(&self) -> impl Iterator<Item = u8> {
        let asks_ports = self.source.asks() || self.destination.asks();
        let with_ports: &[u8] = if asks_ports && self.protocol.is_none() {
            &[TCP, UDP, SCTP]
        } else {
            &[]
        };
        let with_types: &[u8] = if self.icmp.is_some() && self.protocol.is_none() {
            &[ICMP, ICMP6]
        } else {
            &[]
        };
        self.protocol
            .into_iter()
            .chain(self.not_protocol)
            .chain(with_ports.iter().chain(with_types).copied())
    }

    /// The predicates whose ports matter.
    pub(super) fn predicates(&self) -> impl Iterator<Item = &PredicateHandle> {
        self.source.predicates().chain(self.destination.predicates())
    }

    /// Whether the rule asks about the source port.
    pub(super) fn asks_source(&self) -> bool {
        self.source.asks()
    }

    /// The source ports of a protocol that the rule may match.
    pub(super) fn sources(&self, protocol: u8, asked: Asked<'_>) -> Part<'_> {
        if !has_ports(protocol) || !self.is_of(Some(protocol)) {
            return Part::Nothing;
        }
        self.source.at(protocol, asked)
    }

    /// What the rule matches of a protocol, or (`None`) of all protocols that no rule names, if the packet has that
    /// source port. Protocols without ports have none that could be meant.
    pub(super) fn part(&self, protocol: Option<u8>, sport: u16, asked: Asked<'_>) -> Part<'_> {
        if !self.is_of(protocol) {
            return Part::Nothing;
        }
        match protocol {
            Some(protocol) if has_ports(protocol) => {
                let comes_from = match self.source.at(protocol, asked) {
                    Part::Nothing => false,
                    Part::Everything => true,
                    Part::Ranges(ranges) => ranges::contains(&ranges, sport),
                };
                if self.icmp_only || !comes_from {
                    return Part::Nothing;
                }
                self.destination.at(protocol, asked)
            }
            _ if self.source.wants() || self.destination.wants() => Part::Nothing,
            Some(ICMP | ICMP6) => Part::of(self.icmp.as_deref().map(Cow::Borrowed)),
            _ if self.icmp_only => Part::Nothing,
            _ => Part::Everything,
        }
    }

    fn is_of(&self, protocol: Option<u8>) -> bool {
        self.protocol.is_none_or(|wanted| protocol == Some(wanted))
            && self
                .not_protocol
                .is_none_or(|unwanted| protocol != Some(unwanted))
    }
}

/// The only protocols whose ports policy looks at.
fn has_ports(protocol: u8) -> bool {
    matches!(protocol, TCP | UDP | SCTP)
}

fn icmp_ranges(icmp: Icmp) -> Ranges {
    let word = |kind: u8, code: u8| u16::from_be_bytes([kind, code]);
    match (icmp.kind, icmp.code) {
        (Some(kind), Some(code)) => Box::new([(word(kind, code), word(kind, code))]),
        (Some(kind), None) => Box::new([(word(kind, 0), word(kind, u8::MAX))]),
        (None, Some(code)) => (0..=u8::MAX)
            .map(|kind| (word(kind, code), word(kind, code)))
            .collect(),
        (None, None) => ranges::ALL.into(),
    }
}
