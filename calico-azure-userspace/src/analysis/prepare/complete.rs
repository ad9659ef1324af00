//! What single questions about a set of manifests are asked of.

use std::collections::BTreeMap;

use super::{Prepared, defaults, hosts, services};
use crate::analysis::notes::{Note, Notes};
use crate::analysis::place::Place;
use crate::policy::store::{Name, Store};

/// A cluster that could run.
#[derive(Debug)]
pub struct Completed {
    pub store: Store,
    /// Assumptions, and what is probably not meant.
    pub notes: Vec<Note>,
    stand_ins: BTreeMap<Name, Place>,
}

impl Completed {
    /// With what the API server and controllers would add. A pod without an address has none, a workload no pods but
    /// those that are there.
    #[must_use]
    pub fn of(mut store: Store) -> Self {
        let mut notes = Notes::default();
        defaults::add(&mut store, &mut notes);
        hosts::add_nodes(&mut store);
        services::add_backends(&mut store, &mut notes);
        Self {
            store,
            notes: notes.0,
            stand_ins: BTreeMap::new(),
        }
    }

    /// Also with a pod for each workload that has none, and an address for each pod that has none, as `connectivity`
    /// has them.
    #[must_use]
    pub fn inhabited(store: Store, v6: bool) -> Self {
        let mut notes = Notes::default();
        let Prepared { store, stand_ins } = Prepared::new(store, false, v6, &mut notes);
        Self {
            store,
            notes: notes.0,
            stand_ins,
        }
    }

    /// Name of the pod that stands for a workload, if one does.
    pub fn stand_ins(&self, namespace: &str, workload: &str) -> impl Iterator<Item = &str> {
        let of_workload = self.stand_ins.iter().filter(move |(_, place)| {
            matches!(place, Place::Workload { namespace: own, name, .. } if own == namespace && name == workload)
        });
        of_workload.map(|((_, pod), _)| pod.as_str())
    }
}
