//! What single questions about a set of manifests are asked of.

use std::collections::BTreeMap;

use super::Prepared;
use super::workloads::makes;
use crate::analysis::notes::{Note, Notes};
use crate::analysis::place::Place;
use crate::model::Workload;
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

    /// Names of a workload's pods: those that are there, else the one that stands for them.
    #[must_use]
    pub fn pods_of(&self, namespace: &str, workload: &str) -> Vec<String> {
        let key = |x: &Workload| x.key.namespace.as_deref() == Some(namespace) && x.key.name == workload;
        let workloads: Vec<_> = self.store.workloads().filter(|x| key(x)).collect();
        let pods = self.store.pods().filter(|pod| pod.namespace == namespace);
        let real = pods.filter(|pod| workloads.iter().any(|workload| makes(workload, pod)));
        let mut names: Vec<String> = real.map(|pod| pod.name.clone()).collect();
        if names.is_empty() {
            let of_workload = self.stand_ins.iter().filter(|(_, place)| {
                matches!(place, Place::Workload { namespace: own, name, .. } if own == namespace && name == workload)
            });
            names.extend(of_workload.map(|((_, pod), _)| pod.clone()));
        }
        names
    }
}
