//! Puts programs on interfaces. It sees every change of the node's links first, on the thread that reads them from
//! the kernel, so that a new pod's interface is protected whatever the owner of policy is busy with.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::links::LinkNames;
use crate::dataplane::attach::{Attached, Attachments, How, Mode, Role};
use crate::dataplane::kernel::Kernel;
use crate::dataplane::pins::{PinError, Pins};
use crate::dataplane::{inherit, links};
use crate::sources::links::{Link, LinkKind, News, Snapshot};

/// Shared by the links' thread and the owner of policy. Held for as long as an attach takes.
pub(super) type SharedProtector = Arc<Mutex<Slot>>;

/// The protector, or what it has to know once its programs are loaded.
pub(super) enum Slot {
    Awaited {
        latest: Option<Snapshot>,
        prefixes: Option<Vec<String>>,
    },
    Here(Box<Protector>),
}

pub(super) struct Protector {
    kernel: Kernel,
    attachments: Attachments,
    how: How,
    names: LinkNames,
    /// Bridges whose ports are pods' interfaces.
    bridges: BTreeSet<u32>,
    /// Links that were there before the agent and have no programs of an earlier one: their traffic must not stop
    /// before their policy is in the kernel.
    inherited: BTreeSet<u32>,
    /// What the programs know as such that have them, or are no pods'.
    listed: BTreeSet<u32>,
    /// Of these, ends of pairs that look like the host's own.
    own: BTreeSet<u32>,
    /// Links of the last snapshot, `None` before the first.
    known: Option<BTreeSet<u32>>,
    /// Interfaces that take no XDP program of ours.
    refused: BTreeSet<u32>,
    /// Failed attaches, by interface.
    failures: BTreeMap<u32, String>,
}

impl Protector {
    /// `kernel` has its programs loaded.
    pub(super) fn new(kernel: Kernel, attach: Mode, names: LinkNames) -> Self {
        Self {
            kernel,
            attachments: Attachments::default(),
            how: attach.resolve(),
            names,
            bridges: BTreeSet::new(),
            inherited: BTreeSet::new(),
            listed: BTreeSet::new(),
            own: BTreeSet::new(),
            known: None,
            refused: BTreeSet::new(),
            failures: BTreeMap::new(),
        }
    }

    /// Interfaces with other names are pods'. What has programs keeps them.
    fn set_prefixes(&mut self, prefixes: &[String]) {
        self.names.prefixes = prefixes.to_vec();
    }

    /// The links have changed.
    fn see(&mut self, snapshot: &Snapshot) {
        let now: BTreeSet<u32> = snapshot.links.keys().copied().collect();
        match self.known.replace(now.clone()) {
            None => self.take_over(snapshot),
            Some(before) => {
                for gone in before.difference(&now) {
                    self.attachments.forget(&self.kernel, *gone);
                    self.unlist(*gone);
                    self.own.remove(gone);
                    self.inherited.remove(gone);
                    self.failures.remove(gone);
                    self.refused.remove(gone);
                }
            }
        }
        self.bridges = self.names.bridges(snapshot);
        self.list_no_pods(snapshot);
        self.attach_named(snapshot);
    }

    /// What is no pod's. Between its address and its route a pod's host end looks like the host's own, so it may turn out to be one.
    fn list_no_pods(&mut self, snapshot: &Snapshot) {
        for (ifindex, link) in &snapshot.links {
            let own = link.kind == LinkKind::Veth && self.names.is_own(snapshot, *ifindex, link);
            if own && !self.listed.contains(ifindex) {
                self.own.insert(*ifindex);
            }
            if own || link.kind != LinkKind::Veth {
                self.list(*ifindex);
            } else if self.own.remove(ifindex) && !self.attachments.has(*ifindex, Role::Workload) {
                self.unlist(*ifindex);
            }
        }
    }

    /// A link is there or is called otherwise. Long before routes tell of it, its name does: a pod's must not speak
    /// before it has our programs.
    fn meet(&mut self, ifindex: u32, link: &Link) {
        let Some(known) = &mut self.known else { return };
        known.insert(ifindex);
        if link.kind != LinkKind::Veth {
            self.list(ifindex);
        }
        if self.names.is_pods_bridge(link) {
            self.bridges.insert(ifindex);
        }
        if self.names.is_pods(link, &self.bridges) && !self.inherited.contains(&ifindex) {
            self.attach(ifindex, &link.name, Role::Workload);
        }
    }

    /// The first snapshot: links that carry programs of an earlier agent get this one's in place; pins of links
    /// that are gone go, and those of pods' programs on what is no pod's.
    fn take_over(&mut self, snapshot: &Snapshot) {
        self.inherited = snapshot.links.keys().copied().collect();
        let pinned = self.kernel.pins().map(Pins::pinned_links);
        let pinned = pinned.and_then(Result::ok).unwrap_or_default();
        match links::listed(self.kernel.maps()) {
            Ok(listed) => self.listed = listed,
            Err(error) => tracing::error!(%error, "cannot read which interfaces are known"),
        }
        // What has programs, has them before its neighbours get newer ones. And nobody is new where there was no agent before.
        let first = self.listed.is_empty() && pinned.is_empty();
        let there = snapshot.links.keys().filter(|_| first);
        for ifindex in pinned.iter().map(|(ifindex, _program)| ifindex).chain(there) {
            self.list(*ifindex);
        }
        for gone in &self.listed - &self.inherited {
            self.unlist(gone);
        }
        for (ifindex, _program) in pinned {
            let Some(link) = snapshot.links.get(&ifindex) else {
                self.attachments.forget(&self.kernel, ifindex);
                continue;
            };
            self.inherited.remove(&ifindex);
            if self.names.is_own(snapshot, ifindex, link) {
                self.attachments.detach(&self.kernel, ifindex, Role::Workload);
            }
        }
    }

    /// Policy is in the kernel: nothing need wait any longer. `endpoints` are pods' links, whatever their names.
    pub(super) fn release(&mut self, snapshot: &Snapshot, endpoints: impl Iterator<Item = u32>) {
        self.inherit_flows();
        self.inherited.clear();
        self.attach_named(snapshot);
        for ifindex in endpoints {
            let link = snapshot.links.get(&ifindex);
            // Without its NIC a node is lost, and nobody could tell it otherwise.
            if let Some(link) = link.filter(|link| !self.names.is_own(snapshot, ifindex, link)) {
                self.attach(ifindex, &link.name, Role::Workload);
            }
        }
        // Those that began meanwhile.
        self.inherit_flows();
    }

    /// Takes over the flows of an agent with another layout. Without them its flows would have to begin anew.
    fn inherit_flows(&self) {
        let Some(pins) = self.kernel.pins() else { return };
        match inherit::flows(pins, self.kernel.maps()) {
            Ok(0) => {}
            Ok(flows) => tracing::info!(flows, "took over flows of an earlier layout"),
            Err(error) => tracing::error!(%error, "cannot take over flows of an earlier layout"),
        }
    }

    /// Untracked policy of these interfaces is enforced by the programs that are there; XDP only drops earlier. So an
    /// interface that has no room for it is no failure.
    pub(super) fn hasten(&mut self, snapshot: &Snapshot, untracked: &BTreeSet<u32>) {
        for (ifindex, name, role) in self.names.roles(snapshot) {
            if role != Role::Fabric {
                continue;
            }
            if !untracked.contains(&ifindex) {
                self.attachments.detach_untracked(&self.kernel, ifindex);
                self.refused.remove(&ifindex);
                continue;
            }
            if self.refused.contains(&ifindex) {
                continue;
            }
            let attached = self
                .attachments
                .attach_untracked(&mut self.kernel, &name, ifindex);
            if let Err(error) = attached {
                tracing::warn!(interface = name, %error, "untracked policy is enforced without XDP");
                self.refused.insert(ifindex);
            }
        }
    }

    /// Attaches to links whose name or default route tells what they are.
    fn attach_named(&mut self, snapshot: &Snapshot) {
        for (ifindex, name, role) in self.names.roles(snapshot) {
            if !self.inherited.contains(&ifindex) {
                self.attach(ifindex, &name, role);
            }
        }
    }

    fn attach(&mut self, ifindex: u32, name: &str, role: Role) {
        if self.attachments.has(ifindex, role) {
            return;
        }
        let how = self.how;
        self.failures.remove(&ifindex);
        match self
            .attachments
            .attach(&mut self.kernel, name, ifindex, role, how)
        {
            Ok(()) => {
                self.list(ifindex);
                tracing::info!(interface = name, ifindex, ?role, %how, "attached");
            }
            Err(error) if error.is_gone() => tracing::debug!(interface = name, "gone before it was attached"),
            Err(error) => {
                tracing::error!(interface = name, %error, "cannot attach");
                self.failures.insert(ifindex, error.to_string());
            }
        }
    }

    /// What is new may pass through it.
    fn list(&mut self, ifindex: u32) {
        if self.listed.contains(&ifindex) {
            return;
        }
        match links::list(self.kernel.maps(), ifindex) {
            Ok(()) => {
                self.listed.insert(ifindex);
            }
            Err(error) => {
                tracing::error!(ifindex, %error, "nothing new passes between pods and this interface");
            }
        }
    }

    /// It is gone.
    fn unlist(&mut self, ifindex: u32) {
        if self.listed.remove(&ifindex)
            && let Err(error) = links::unlist(self.kernel.maps(), ifindex)
        {
            tracing::warn!(ifindex, %error, "an interface that is gone stays known");
        }
    }

    pub(super) fn attached(&self) -> Vec<Attached> {
        self.attachments.iter().cloned().collect()
    }

    pub(super) fn failures(&self) -> Vec<String> {
        self.failures.values().cloned().collect()
    }

    /// What is left of an agent with another layout: its tables, and programs on what is no interface of ours any more.
    pub(super) fn remove_other_layouts(&self) -> Result<(), PinError> {
        let removed = self
            .kernel
            .pins()
            .map(Pins::remove_other_layouts)
            .transpose()?
            .unwrap_or_default();
        if !removed.is_empty() {
            tracing::info!(?removed, "removed an earlier layout");
        }
        Ok(())
    }
}

/// Programs are not loaded yet.
pub(super) fn awaited() -> SharedProtector {
    Arc::new(Mutex::new(Slot::Awaited {
        latest: None,
        prefixes: None,
    }))
}

fn locked(protector: &SharedProtector) -> MutexGuard<'_, Slot> {
    protector.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Programs are loaded: it learns what it has missed.
pub(super) fn arrived(slot: &SharedProtector, mut protector: Protector) {
    let mut slot = locked(slot);
    if let Slot::Awaited { latest, prefixes } = &mut *slot {
        if let Some(prefixes) = prefixes.take() {
            protector.set_prefixes(&prefixes);
        }
        if let Some(snapshot) = latest.take() {
            protector.see(&snapshot);
        }
    }
    *slot = Slot::Here(Box::new(protector));
}

/// The protector, for the time of one call; `None` while its programs are not loaded.
pub(super) fn with<R>(protector: &SharedProtector, f: impl FnOnce(&mut Protector) -> R) -> Option<R> {
    match &mut *locked(protector) {
        Slot::Awaited { .. } => None,
        Slot::Here(protector) => Some(f(protector)),
    }
}

/// The node's links have changed.
pub(super) fn tell(protector: &SharedProtector, news: News<'_>) {
    match (&mut *locked(protector), news) {
        (Slot::Here(protector), News::Link(ifindex, link)) => protector.meet(ifindex, link),
        (Slot::Here(protector), News::Snapshot(snapshot)) => protector.see(snapshot),
        // Those that are there before the programs have to wait for their policy.
        (Slot::Awaited { .. }, News::Link(..)) => {}
        (Slot::Awaited { latest, .. }, News::Snapshot(snapshot)) => *latest = Some(snapshot.clone()),
    }
}

/// Interfaces with other names are pods'.
pub(super) fn set_prefixes(protector: &SharedProtector, new: &[String]) {
    match &mut *locked(protector) {
        Slot::Here(protector) => protector.set_prefixes(new),
        Slot::Awaited { prefixes, .. } => *prefixes = Some(new.to_vec()),
    }
}
