//! The protocols and ports that a rule is about. Ports that have names are known only where they are asked for: those
//! of the peer by its class, those of the endpoint itself by what `own` found.

use std::borrow::Cow;

use super::predicate::{Held, PredicateHandle, ports_of};
use super::ranges::{self, Range, Ranges, union};
use crate::model::{Icmp, Peer, PortRange, Rule};

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

/// What a rule asks of the port of one side, for TCP, UDP and SCTP.
#[derive(Debug)]
pub(super) struct Ports {
    /// `None` if there is no such list; empty if it has only names.
    listed: Option<Ranges>,
    excluded: Ranges,
    /// What numbers alone come to; `None` for all.
    plain: Option<Ranges>,
    names: Names,
}

/// What a rule calls ports of one side by.
#[derive(Debug)]
pub(super) enum Names {
    /// Numbers only.
    None,
    /// The peer's, as predicates.
    Peer {
        listed: Vec<PredicateHandle>,
        excluded: Vec<PredicateHandle>,
        /// The port is one of its backends'.
        service: Option<PredicateHandle>,
    },
    /// The endpoint's own.
    Own {
        /// Whether the list has names, and not only the exclusion.
        listed: bool,
        service: bool,
    },
}

/// What names and services come to on the endpoint's own side: protocols and ports.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum OwnPorts {
    Known {
        listed: Box<[(u8, u16)]>,
        excluded: Box<[(u8, u16)]>,
        service: Box<[(u8, u16)]>,
    },
    /// It cannot be told, and the rule denies: any port may be meant.
    Any,
}

impl Default for OwnPorts {
    fn default() -> Self {
        Self::Known {
            listed: Box::default(),
            excluded: Box::default(),
            service: Box::default(),
        }
    }
}

/// For whom a rule is asked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a> {
    /// Of the peer.
    pub(super) holding: &'a [Held],
    pub(super) own: &'a OwnPorts,
}

/// Which part of a protocol's ports.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Part<'a> {
    Nothing,
    Everything,
    Ranges(Cow<'a, [Range]>),
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

impl<'a> Part<'a> {
    fn of(ranges: Option<Cow<'a, [Range]>>) -> Self {
        ranges.map_or(Self::Everything, Self::Ranges)
    }
}

impl Ports {
    fn new(peer: &Peer, names: Names) -> Self {
        let ranges = |list: &[PortRange]| union(list.iter().map(|range| (range.first, range.last)).collect());
        let has_list = !peer.ports.is_empty() || !peer.named_ports.is_empty();
        let listed = has_list.then(|| ranges(&peer.ports));
        let excluded = ranges(&peer.not_ports);
        Self {
            plain: limited(listed.clone(), &excluded),
            listed,
            excluded,
            names,
        }
    }

    fn asks(&self) -> bool {
        self.plain.is_some() || !matches!(self.names, Names::None)
    }

    /// Whether only a protocol with ports can match.
    fn wants(&self) -> bool {
        let service = match &self.names {
            Names::None => false,
            Names::Peer { service, .. } => service.is_some(),
            Names::Own { service, .. } => *service,
        };
        self.listed.is_some() || service
    }

    fn predicates(&self) -> impl Iterator<Item = &PredicateHandle> {
        let (listed, excluded, service) = match &self.names {
            Names::Peer {
                listed,
                excluded,
                service,
            } => (listed.as_slice(), excluded.as_slice(), service.as_ref()),
            _ => (&[][..], &[][..], None),
        };
        listed.iter().chain(excluded).chain(service)
    }

    fn at(&self, protocol: u8, asked: Asked<'_>) -> Part<'_> {
        let single = |port| (port, port);
        let of_peer = |predicates: &[PredicateHandle]| {
            let ports = predicates
                .iter()
                .flat_map(|p| ports_of(asked.holding, p.id(), protocol));
            ports.map(single).collect::<Vec<_>>()
        };
        let of_own = |ports: &[(u8, u16)]| {
            let ports = ports.iter().filter(|(its, _)| *its == protocol);
            ports.map(|(_, port)| single(*port)).collect::<Vec<_>>()
        };
        let (listed, excluded, service) = match (&self.names, asked.own) {
            (Names::None, _) => return Part::of(self.plain.as_deref().map(Cow::Borrowed)),
            (
                Names::Peer {
                    listed,
                    excluded,
                    service,
                },
                _,
            ) => (
                of_peer(listed),
                of_peer(excluded),
                service
                    .as_ref()
                    .map(|service| of_peer(std::slice::from_ref(service))),
            ),
            (
                Names::Own { service: limits, .. },
                OwnPorts::Known {
                    listed,
                    excluded,
                    service,
                },
            ) => (of_own(listed), of_own(excluded), limits.then(|| of_own(service))),
            (Names::Own { listed, .. }, OwnPorts::Any) => {
                let all = if *listed { ranges::ALL.to_vec() } else { Vec::new() };
                (all, Vec::new(), None)
            }
        };
        let with = |numbers: &[Range], named: Vec<Range>| union([numbers, &named].concat());
        let listed = self.listed.as_deref().map(|numbers| with(numbers, listed));
        let listed = match (listed, service.map(union)) {
            (Some(listed), Some(service)) => Some(ranges::common(&listed, &service)),
            (listed, service) => listed.or(service),
        };
        let left = limited(listed, &with(&self.excluded, excluded));
        match left.as_deref() {
            Some([]) => Part::Nothing,
            _ => Part::of(left.map(|ranges| Cow::Owned(ranges.into_vec()))),
        }
    }
}

/// `only` (`None`: everything) without `but`; `None` if that is everything.
fn limited(only: Option<Ranges>, but: &[Range]) -> Option<Ranges> {
    match (only, but.is_empty()) {
        (only, true) => only,
        (only, false) => Some(ranges::minus(only.as_deref().unwrap_or(ranges::ALL), but)),
    }
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
