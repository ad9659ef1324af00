//! Which sources have which prefixes, and the class that follows from it: an address has what its prefix and all
//! prefixes around it have. A change at a prefix is followed inwards only as far as it makes a difference.

mod tree;

use std::collections::HashMap;

use ipnet::IpNet;

use self::tree::{Prefix, Tree};
use super::CompileError;
use super::change::Sheet;
use super::classes::{Class, Classes};
use super::intern::{Handle, Interner};
use super::predicate::{Family, Held};
use super::sources::{SourceId, Sources};

/// Prefixes of both families that somebody has.
#[derive(Debug)]
pub(super) struct Prefixes {
    v4: Tree,
    v6: Tree,
}

impl Default for Prefixes {
    fn default() -> Self {
        Self {
            v4: Tree::new(Family::V4),
            v6: Tree::new(Family::V6),
        }
    }
}

impl Prefixes {
    /// The source has the prefix from now on.
    pub(super) fn attach(&mut self, net: IpNet, source: SourceId) {
        self.tree(&net).attach(Prefix::of(net), source);
    }

    /// It has it no longer.
    pub(super) fn detach(&mut self, net: IpNet, source: SourceId) {
        let prefix = Prefix::of(net);
        let tree = self.tree(&net);
        if let Some(entry) = tree.entries.get_mut(&prefix) {
            entry.sources.retain(|other| *other != source);
        }
        tree.dirty.insert(prefix);
    }

    /// Something else holds for a source that has the prefix.
    pub(super) fn touch(&mut self, net: IpNet) {
        self.tree(&net).dirty.insert(Prefix::of(net));
    }

    /// Who has exactly this prefix.
    pub(super) fn sources(&self, net: IpNet) -> &[SourceId] {
        let tree = match net {
            IpNet::V4(_) => &self.v4,
            IpNet::V6(_) => &self.v6,
        };
        let entry = tree.entries.get(&Prefix::of(net));
        entry.map_or(&[], |entry| &entry.sources)
    }

    /// Finds the classes of all that changed.
    pub(super) fn classify(
        &mut self,
        sources: &Sources,
        interner: &mut Interner<Class>,
        classes: &mut Classes,
        sheet: &mut Sheet,
    ) -> Result<(), CompileError> {
        for tree in [&mut self.v4, &mut self.v6] {
            let family = tree.family;
            let mut naming = Naming {
                family,
                sources,
                interner: &mut *interner,
                known: HashMap::new(),
            };
            let mut emit = |prefix: Prefix, old: Option<Handle<Class>>, new: Option<&Handle<Class>>| {
                if old.as_ref().map(Handle::id) != new.map(Handle::id) {
                    sheet.class(prefix.net(family), new.map(Handle::id));
                    classes.replace(old.as_ref(), new);
                }
            };
            tree.classify(&mut naming, &mut emit)?;
        }
        Ok(())
    }

    fn tree(&mut self, net: &IpNet) -> &mut Tree {
        match net {
            IpNet::V4(_) => &mut self.v4,
            IpNet::V6(_) => &mut self.v6,
        }
    }

    #[cfg(test)]
    pub(super) fn counts(&self) -> Vec<usize> {
        let used = |tree: &Tree| tree.lens.iter().sum::<usize>();
        let trees = [&self.v4, &self.v6];
        trees
            .map(|tree| tree.entries.len() + tree.dirty.len() + used(tree))
            .into()
    }
}

/// Names classes, and remembers those it has named: most addresses are alike.
struct Naming<'a> {
    family: Family,
    sources: &'a Sources,
    interner: &'a mut Interner<Class>,
    known: HashMap<(u32, SourceId), Option<Handle<Class>>>,
}

impl Naming<'_> {
    fn class(
        &mut self,
        outer: Option<&Handle<Class>>,
        sources: &[SourceId],
    ) -> Result<Option<Handle<Class>>, CompileError> {
        match sources {
            [] => Ok(outer.cloned()),
            [source] => {
                let key = (outer.map_or(0, Handle::id), *source);
                if let Some(class) = self.known.get(&key) {
                    return Ok(class.clone());
                }
                let class = self.union(outer, sources)?;
                self.known.insert(key, class.clone());
                Ok(class)
            }
            _ => self.union(outer, sources),
        }
    }

    fn union(
        &mut self,
        outer: Option<&Handle<Class>>,
        sources: &[SourceId],
    ) -> Result<Option<Handle<Class>>, CompileError> {
        let mut holding: Vec<Held> = outer.map_or_else(Vec::new, |class| class.value().holding.to_vec());
        for source in sources {
            holding.extend_from_slice(self.sources.held(*source));
        }
        if holding.is_empty() {
            return Ok(None);
        }
        holding.sort_unstable();
        holding.dedup();
        let class = Class {
            family: self.family,
            holding: holding.into(),
        };
        self.interner.intern(class).map(Some)
    }
}
