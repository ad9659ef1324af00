//! The ports of one side of a rule. Those that have names are known only where they are asked for: the peer's by its
//! class, the endpoint's own by what `own` found.

use std::borrow::Cow;

use super::predicate::{Held, PredicateHandle, ports_of};
use super::ranges::{self, Range, Ranges, union};
use crate::model::{Peer, PortRange};

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

impl<'a> Part<'a> {
    pub(super) fn of(ranges: Option<Cow<'a, [Range]>>) -> Self {
        ranges.map_or(Self::Everything, Self::Ranges)
    }
}

impl Ports {
    pub(super) fn new(peer: &Peer, names: Names) -> Self {
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

    pub(super) fn asks(&self) -> bool {
        self.plain.is_some() || !matches!(self.names, Names::None)
    }

    /// Whether only a protocol with ports can match.
    pub(super) fn wants(&self) -> bool {
        let service = match &self.names {
            Names::None => false,
            Names::Peer { service, .. } => service.is_some(),
            Names::Own { service, .. } => *service,
        };
        self.listed.is_some() || service
    }

    pub(super) fn predicates(&self) -> impl Iterator<Item = &PredicateHandle> {
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

    pub(super) fn at(&self, protocol: u8, asked: Asked<'_>) -> Part<'_> {
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
pub(super) fn limited(only: Option<Ranges>, but: &[Range]) -> Option<Ranges> {
    match (only, but.is_empty()) {
        (only, true) => only,
        (only, false) => Some(ranges::minus(only.as_deref().unwrap_or(ranges::ALL), but)),
    }
}
