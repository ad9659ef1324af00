//! What rules ask of an address.

use ipnet::IpNet;

use super::intern::Handle;
use crate::selector::Selector;

/// A set of addresses that a rule wants its peer in, or out of.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Predicate {
    /// In one of these; sorted, without host bits, without duplicates.
    Nets(Box<[IpNet]>),
    /// Of a pod or network set that matches.
    Selector(Selector),
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

/// One of the two address families; a table index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    pub(super) const ALL: [Self; 2] = [Self::V4, Self::V6];

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
