//! What rules ask of an address.

use std::fmt;

use ipnet::IpNet;

use super::intern::Handle;
use crate::model::ServiceName;
use crate::selector::Selector;

/// A set of addresses that a rule wants its peer in, or out of.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Predicate {
    /// In one of these; sorted, without host bits, without duplicates.
    Nets(Box<[IpNet]>),
    /// Of a pod, host endpoint or network set that matches.
    Selector(Selector),
    /// Of an endpoint that gives a port this name, and matches. Rules mostly ask at which port it does: [`Held::at`].
    NamedPort {
        selector: Option<Selector>,
        name: String,
        /// `None`: any.
        protocol: Option<u8>,
    },
    /// Of one of the service's backends. Rules on the destination ask at which port.
    Service(ServiceName),
}

pub(super) type PredicateHandle = Handle<Predicate>;

impl Predicate {
    pub(super) fn nets(nets: &[IpNet]) -> Self {
        let mut nets: Vec<_> = nets.iter().map(IpNet::trunc).collect();
        nets.sort_unstable();
        nets.dedup();
        Self::Nets(nets.into())
    }
}

/// What holds for an address: a predicate, or one of the ports at which it does. Ports are not predicates of their
/// own, so that an endpoint's new port number is a new class and no new rule. Ordered by predicate, first without a
/// port, then by protocol and port.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Held(u64);

impl Held {
    const AT: u64 = 1 << 31;

    pub(super) fn of(predicate: u32) -> Self {
        Self(u64::from(predicate) << 32)
    }

    pub(super) fn at(predicate: u32, (protocol, port): (u8, u16)) -> Self {
        Self(u64::from(predicate) << 32 | Self::AT | u64::from(protocol) << 16 | u64::from(port))
    }

    pub(super) fn predicate(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// Protocol and port, if it is about one.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "takes the fields of a packed word apart"
    )]
    pub(super) fn port(self) -> Option<(u8, u16)> {
        (self.0 & Self::AT != 0).then_some(((self.0 >> 16) as u8, self.0 as u16))
    }
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port() {
            Some((protocol, port)) => write!(f, "{} at {protocol}:{port}", self.predicate()),
            None => write!(f, "{}", self.predicate()),
        }
    }
}

/// The ports of one protocol at which a predicate holds, ascending.
pub(super) fn ports_of(holding: &[Held], predicate: u32, protocol: u8) -> impl Iterator<Item = u16> {
    let start = holding.partition_point(|held| *held < Held::at(predicate, (protocol, 0)));
    let held = holding.get(start..).unwrap_or_default().iter();
    held.map_while(move |held| {
        let (its, port) = held.port()?;
        (held.predicate() == predicate && its == protocol).then_some(port)
    })
}

/// Protocols and ports at which a predicate holds, ascending.
pub(super) fn all_ports_of(holding: &[Held], predicate: u32) -> impl Iterator<Item = (u8, u16)> {
    let start = holding.partition_point(|held| *held < Held::at(predicate, (0, 0)));
    let held = holding.get(start..).unwrap_or_default().iter();
    held.map_while(move |held| held.port().filter(|_| held.predicate() == predicate))
}

/// One of the two address families; a table index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    pub(super) fn of(net: &IpNet) -> Self {
        match net {
            IpNet::V4(_) => Self::V4,
            IpNet::V6(_) => Self::V6,
        }
    }
}

/// One value for each family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct PerFamily<T> {
    pub(super) v4: T,
    pub(super) v6: T,
}

impl<T> PerFamily<T> {
    pub(super) fn new(mut value: impl FnMut(Family) -> T) -> Self {
        Self {
            v4: value(Family::V4),
            v6: value(Family::V6),
        }
    }

    pub(super) fn get(&self, family: Family) -> &T {
        match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        }
    }
}
