//! From manifests to a cluster that could run: what the API server and controllers would add is added, and what has no
//! address gets one.
//!
//! ```text
//! staged ── workloads ── defaults ── hosts ── addresses ── services
//!  --pending  pods of     namespaces,  their    that no CIDR   backends
//!             workloads   accounts     nodes    names
//! ```

mod addresses;
mod defaults;
mod hosts;
mod inhabited;
mod services;
mod staged;
mod workloads;

use std::collections::BTreeMap;

pub(super) use addresses::names_v6;
pub use inhabited::Inhabited;

use super::notes::{Note, Notes};
use super::place::Place;
use crate::policy::store::{Name, Store};

/// A cluster to look at.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) store: Store,
    /// Pods that stand for a workload.
    stand_ins: BTreeMap<Name, Place>,
}

/// The cluster with what the API server and controllers would add to these manifests: namespaces, accounts, backends of
/// services. What has no address gets none.
#[must_use]
pub fn completed(mut store: Store) -> (Store, Vec<Note>) {
    let mut notes = Notes::default();
    defaults::add(&mut store, &mut notes);
    services::add_backends(&mut store, &mut notes);
    (store, notes.0)
}

impl Prepared {
    /// `v6`: endpoints without an address get one of that family, too.
    pub(super) fn new(mut store: Store, pending: bool, v6: bool, notes: &mut Notes) -> Self {
        if pending {
            staged::apply(&mut store);
        }
        let stand_ins = workloads::add_pods(&mut store);
        defaults::add(&mut store, notes);
        hosts::add_nodes(&mut store);
        addresses::add(&mut store, v6, notes);
        services::add_backends(&mut store, notes);
        Self { store, stand_ins }
    }

    /// What a pod is to those who ask.
    pub(super) fn place(&self, namespace: &str, name: &str) -> Place {
        let name = (namespace.to_owned(), name.to_owned());
        let stand_in = self.stand_ins.get(&name).cloned();
        stand_in.unwrap_or(Place::Pod {
            namespace: name.0,
            name: name.1,
        })
    }
}
