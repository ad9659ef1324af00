//! The prefixes of one family, each with its class.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::super::CompileError;
use super::super::classes::Class;
use super::super::intern::Handle;
use super::super::predicate::Family;
use super::super::sources::SourceId;
use super::Naming;

/// A prefix, its address shifted to the top of the word. A prefix comes before all that it covers, and those come
/// before everything else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Prefix {
    pub(super) address: u128,
    pub(super) len: u8,
}

impl Prefix {
    pub(super) fn of(net: IpNet) -> Self {
        match net {
            IpNet::V4(net) => Self {
                address: u128::from(u32::from(net.network())) << 96,
                len: net.prefix_len(),
            },
            IpNet::V6(net) => Self {
                address: u128::from(net.network()),
                len: net.prefix_len(),
            },
        }
    }

    pub(super) fn net(self, family: Family) -> IpNet {
        let Self { address, len } = self;
        let four = || {
            let address = Ipv4Addr::from(u32::try_from(address >> 96).unwrap_or_default());
            Ipv4Net::new(address, len).unwrap_or_default()
        };
        match family {
            Family::V4 => four().into(),
            Family::V6 => Ipv6Net::new(Ipv6Addr::from(address), len)
                .unwrap_or_default()
                .into(),
        }
    }

    fn mask(len: u8) -> u128 {
        u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0)
    }

    fn last(self) -> u128 {
        self.address | !Self::mask(self.len)
    }

    fn covers(self, other: Self) -> bool {
        self.len <= other.len && (self.address ^ other.address) & Self::mask(self.len) == 0
    }
}

#[derive(Debug, Default)]
pub(super) struct Entry {
    /// Those that have the prefix, sorted.
    pub(super) sources: Vec<SourceId>,
    /// What holds for its addresses: `None` if nothing does.
    class: Option<Handle<Class>>,
    /// Whether that is not what holds for the prefix around it.
    shown: bool,
}

impl Entry {
    /// Sets the class; the one it had, and the one it was shown to have.
    fn replace(&mut self, class: Option<Handle<Class>>, outer: Option<&Handle<Class>>) -> Replaced {
        let shown = class.is_some() && class.as_ref() != outer;
        let before = std::mem::replace(&mut self.class, class);
        let was_shown = std::mem::replace(&mut self.shown, shown);
        let old = before.clone().filter(|_| was_shown);
        Replaced { before, old }
    }

    fn shown(&self) -> Option<&Handle<Class>> {
        self.class.as_ref().filter(|_| self.shown)
    }
}

struct Replaced {
    before: Option<Handle<Class>>,
    old: Option<Handle<Class>>,
}

#[derive(Debug)]
pub(super) struct Tree {
    pub(super) family: Family,
    host: u8,
    pub(super) entries: BTreeMap<Prefix, Entry>,
    /// How many entries have each length, save for single addresses.
    pub(super) lens: [usize; 128],
    pub(super) dirty: BTreeSet<Prefix>,
}

impl Tree {
    pub(super) fn new(family: Family) -> Self {
        Self {
            family,
            host: match family {
                Family::V4 => 32,
                Family::V6 => 128,
            },
            entries: BTreeMap::new(),
            lens: [0; 128],
            dirty: BTreeSet::new(),
        }
    }

    pub(super) fn attach(&mut self, prefix: Prefix, source: SourceId) {
        self.dirty.insert(prefix);
        if !self.entries.contains_key(&prefix) {
            // What its addresses had until now. Nothing lies inside a single address.
            let class = (prefix.len < self.host).then(|| self.around(prefix)).flatten();
            let entry = Entry {
                sources: Vec::with_capacity(1),
                class,
                shown: false,
            };
            self.entries.insert(prefix, entry);
            self.count(prefix, 1);
        }
        if let Some(entry) = self.entries.get_mut(&prefix)
            && let Err(place) = entry.sources.binary_search(&source)
        {
            entry.sources.insert(place, source);
        }
    }

    fn count(&mut self, prefix: Prefix, change: isize) {
        if prefix.len < self.host
            && let Some(count) = self.lens.get_mut(usize::from(prefix.len))
        {
            *count = count.saturating_add_signed(change);
        }
    }

    /// The class of the longest prefix around.
    fn around(&self, prefix: Prefix) -> Option<Handle<Class>> {
        (0..prefix.len).rev().find_map(|len| {
            if self.lens.get(usize::from(len)).is_none_or(|count| *count == 0) {
                return None;
            }
            let address = prefix.address & Prefix::mask(len);
            let entry = self.entries.get(&Prefix { address, len })?;
            Some(entry.class.clone())
        })?
    }

    pub(super) fn classify(
        &mut self,
        naming: &mut Naming<'_>,
        emit: &mut impl FnMut(Prefix, Option<Handle<Class>>, Option<&Handle<Class>>),
    ) -> Result<(), CompileError> {
        let mut done: Option<u128> = None;
        for prefix in std::mem::take(&mut self.dirty) {
            if done.is_some_and(|last| prefix.address <= last) {
                continue;
            }
            let outer = self.around(prefix);
            let Some(entry) = self.entries.get_mut(&prefix) else {
                continue;
            };
            let now = naming.class(outer.as_ref(), &entry.sources)?;
            let Replaced { before, old } = entry.replace(now.clone(), outer.as_ref());
            emit(prefix, old, entry.shown());
            if entry.sources.is_empty() {
                self.entries.remove(&prefix);
                self.count(prefix, -1);
            }
            if before != now && prefix.len < self.host {
                self.follow(prefix, now, naming, emit)?;
                done = Some(prefix.last());
            }
        }
        Ok(())
    }

    /// Finds the classes of everything inside a prefix.
    fn follow(
        &mut self,
        prefix: Prefix,
        class: Option<Handle<Class>>,
        naming: &mut Naming<'_>,
        emit: &mut impl FnMut(Prefix, Option<Handle<Class>>, Option<&Handle<Class>>),
    ) -> Result<(), CompileError> {
        let mut around = vec![(prefix, class)];
        let mut gone = Vec::new();
        let end = Prefix {
            address: prefix.last(),
            len: self.host,
        };
        let inside = self.entries.range_mut(prefix..=end);
        for (inner, entry) in inside.filter(|(inner, _)| **inner != prefix) {
            while around.last().is_some_and(|(outer, _)| !outer.covers(*inner)) {
                around.pop();
            }
            let outer = around.last().and_then(|(_, class)| class.as_ref());
            let now = naming.class(outer, &entry.sources)?;
            let Replaced { old, .. } = entry.replace(now.clone(), outer);
            emit(*inner, old, entry.shown());
            if entry.sources.is_empty() {
                gone.push(*inner);
            } else if inner.len < self.host {
                around.push((*inner, now));
            }
        }
        for prefix in gone {
            self.entries.remove(&prefix);
            self.count(prefix, -1);
        }
        Ok(())
    }
}
