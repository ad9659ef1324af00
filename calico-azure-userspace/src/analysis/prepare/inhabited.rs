//! What single questions about a set of manifests are asked of.

use std::collections::BTreeMap;

use super::Prepared;
use crate::analysis::notes::{Note, Notes};
use crate::analysis::place::Place;
use crate::policy::store::{Name, Store};

/// A cluster that could run, in which everybody can be asked about.
#[derive(Debug)]
pub struct Inhabited {
    pub store: Store,
    /// Assumptions, and what is probably not meant.
    pub notes: Vec<Note>,
    stand_ins: BTreeMap<Name, Place>,
}

impl Inhabited {
    /// With what the API server and controllers would add, a pod for each workload that has none, and an address for
    /// each pod that has none, as `connectivity` has them.
    #[must_use]
    pub fn new(store: Store, v6: bool) -> Self {
        let mut notes = Notes::default();
        let Prepared { store, stand_ins } = Prepared::new(store, false, v6, &mut notes);
        Self {
            store,
            notes: notes.0,
            stand_ins,
        }
    }

    /// Names of the pods that stand for a workload.
    pub fn stand_ins(&self, namespace: &str, workload: &str) -> impl Iterator<Item = &str> {
        let of_workload = self.stand_ins.iter().filter(move |(_, place)| {
            matches!(place, Place::Workload { namespace: own, name, .. } if own == namespace && name == workload)
        });
        of_workload.map(|((_, pod), _)| pod.as_str())
    }
}
