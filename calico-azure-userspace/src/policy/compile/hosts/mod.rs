//! Host endpoints of this node: which of them governs which interface, and the policy sets of its stages.
//!
//! A host has several addresses, and what passes through it has any. So what rules ask of the near side cannot be
//! resolved once, as it is for a pod. A stage has a *template*, and for each class of the near side's address an
//! ordinary policy set, in which that side is resolved: `(template, class of the near side)` → policy set, then as for
//! pods `(policy set, class of the far side)` → port table.

mod failsafe;
mod split;
mod template;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use calico_azure_ebpf::abi::{HOST_SETS, host_set, to_host};

use self::split::Split;
pub(super) use self::template::Template;
use self::template::{Sphere, Stages};
use super::change::Sheet;
use super::classes::{Class, Classes};
use super::counted::Turnover;
use super::intern::Handle;
use super::place::Context;
use super::sets::SetContent;
use super::touched::Touched;
use super::{CompileError, Interners};
use crate::model::{EndpointToHost, HostEndpoint};
use crate::policy::store::Store;
use crate::policy::{Desired, DesiredHost, Direction};

/// `HOSTS` key of what passes through pods' interfaces.
const PODS: u32 = 0;

type Sets = [Option<Handle<Template>>; HOST_SETS];

#[derive(Debug, Default)]
pub(super) struct Hosts {
    /// Of the host endpoints that govern something here, by name.
    stages: BTreeMap<String, Sets>,
    /// Interfaces that have one.
    placed: BTreeSet<u32>,
    /// By the template's id.
    splits: BTreeMap<u32, Split>,
    /// Those of `splits` that have not seen classes yet.
    new: BTreeSet<u32>,
    /// Sets that are not what they were: to be counted.
    pub(super) taken: Vec<Handle<SetContent>>,
    pub(super) left: Vec<Handle<SetContent>>,
}

impl Hosts {
    /// Finds anew what governs the interfaces; `moved`: interfaces of pods may be others.
    pub(super) fn place(
        &mut self,
        touched: &Touched,
        moved: bool,
        context: &mut Context<'_>,
    ) -> Result<(), CompileError> {
        let policies = touched.inheritance()
            || touched.settings
            || touched.facts
            || !(touched.hosts.is_empty() && touched.policies.is_empty() && touched.tiers.is_empty());
        if !(policies || moved || touched.interfaces) {
            return Ok(());
        }
        let store = context.store;
        let governing = governing(store, context.sheet.desired());
        let alike_from = if governing.is_empty() {
            0
        } else {
            failsafe::alike_from(store)
        };
        context.sheet.alike_from(alike_from);
        let mut known = std::mem::take(&mut self.stages);
        for host in governing.values() {
            if self.stages.contains_key(&host.name) {
                continue;
            }
            let sets = match known.remove(&host.name).filter(|_| !policies) {
                Some(sets) => sets,
                None => sets(host, context)?,
            };
            self.stages.insert(host.name.clone(), sets);
        }
        self.settle(context)?;
        for gone in self.placed.iter().filter(|x| !governing.contains_key(x)) {
            context.sheet.host(*gone, None);
        }
        self.placed = governing.keys().copied().collect();
        let action = to_host_action(store);
        if action != 0 && self.placed.insert(PODS) {
            let mut desired = DesiredHost::default();
            desired.sets[host_set::TO_HOST] = action;
            context.sheet.host(PODS, Some(desired));
        }
        for (ifindex, host) in governing {
            let Some(sets) = self.stages.get(&host.name) else {
                continue;
            };
            let mut desired = DesiredHost {
                name: host.name.clone(),
                sets: sets.each_ref().map(|set| set.as_ref().map_or(0, Handle::id)),
            };
            if ifindex == PODS {
                desired.sets[host_set::TO_HOST] = action;
            }
            context.sheet.host(ifindex, Some(desired));
        }
        Ok(())
    }

    /// Makes what templates need that came into use, and unmakes the rest.
    fn settle(&mut self, context: &mut Context<'_>) -> Result<(), CompileError> {
        let used = self.stages.values().flatten().flatten();
        let used: BTreeMap<u32, Handle<Template>> = used.map(|set| (set.id(), set.clone())).collect();
        for (id, template) in &used {
            if !self.splits.contains_key(id) {
                let split = Split::new(template.clone(), context, &mut self.taken)?;
                self.splits.insert(*id, split);
                self.new.insert(*id);
            }
        }
        let gone: Vec<u32> = self
            .splits
            .keys()
            .filter(|id| !used.contains_key(id))
            .copied()
            .collect();
        for id in gone {
            if let Some(split) = self.splits.remove(&id) {
                split.end(context, &mut self.left);
            }
        }
        Ok(())
    }

    /// Follows classes that came into use and that went out of it.
    pub(super) fn follow(
        &mut self,
        turnover: &Turnover<Class>,
        classes: &Classes,
        interners: &mut Interners,
        sheet: &mut Sheet,
    ) -> Result<(), CompileError> {
        let new = std::mem::take(&mut self.new);
        for (id, split) in &mut self.splits {
            let predicates = Arc::clone(&split.predicates);
            if new.contains(id) {
                for class in classes.touching(&predicates) {
                    split.show(class, &mut interners.contents, sheet, &mut self.taken)?;
                }
                continue;
            }
            let asks = |class: &&Handle<Class>| {
                let mut holding = class.value().predicates();
                holding.any(|predicate| predicates.binary_search(&predicate).is_ok())
            };
            for class in turnover.gone.iter().filter(asks) {
                split.hide(class, sheet, &mut self.left);
            }
            for class in turnover.new.iter().filter(asks) {
                split.show(class, &mut interners.contents, sheet, &mut self.taken)?;
            }
        }
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn counts(&self) -> Vec<usize> {
        let pending = self.new.len() + self.taken.len() + self.left.len();
        vec![self.stages.len(), self.placed.len(), self.splits.len(), pending]
    }
}

/// One of `abi::to_host`, or 0.
fn to_host_action(store: &Store) -> u32 {
    let mut configurations = store.felix_configurations(&store.facts().node);
    match configurations.find_map(|x| x.endpoint_to_host) {
        Some(EndpointToHost::Accept) => to_host::ACCEPT,
        Some(EndpointToHost::Return) => to_host::RETURN,
        Some(EndpointToHost::Drop) | None => 0,
    }
}

/// The host endpoint of each interface of this host. An interface's own, by its name or an address, comes before one
/// for all; of several the first by name.
fn governing<'a>(store: &'a Store, desired: &Desired) -> BTreeMap<u32, &'a HostEndpoint> {
    let facts = store.facts();
    let of_node = store.host_endpoints().map(AsRef::as_ref);
    let of_node: Vec<&HostEndpoint> = of_node
        .filter(|host: &&HostEndpoint| host.node == facts.node)
        .collect();
    if of_node.is_empty() {
        return BTreeMap::new();
    }
    let for_all = of_node
        .iter()
        .find(|host| host.interface.as_deref() == Some("*"))
        .copied();
    let mut governing: BTreeMap<u32, &HostEndpoint> = for_all.map(|host| (PODS, host)).into_iter().collect();
    for (ifindex, interface) in &store.interfaces().by_ifindex {
        let of_pod = desired.endpoints.contains_key(ifindex)
            || facts
                .interface_prefixes
                .iter()
                .any(|prefix| interface.name.starts_with(prefix));
        if of_pod || interface.name == "lo" {
            continue;
        }
        let own = of_node.iter().copied().find(|host| match &host.interface {
            Some(name) => *name == interface.name,
            None => host
                .expected_ips
                .iter()
                .any(|ip| interface.addresses.contains(ip)),
        });
        if let Some(host) = own.or(for_all) {
            governing.insert(*ifindex, host);
        }
    }
    governing
}

fn sets(host: &HostEndpoint, context: &mut Context<'_>) -> Result<Sets, CompileError> {
    let mut stages = Stages::new(host, context);
    let mut sets = Sets::default();
    for (direction, offset) in [(Direction::Ingress, 0), (Direction::Egress, 1)] {
        let mut set = |stage: usize, template| {
            if let Some(place) = sets.get_mut(stage + offset) {
                *place = template;
            }
        };
        set(host_set::FAILSAFE, stages.failsafes(direction)?);
        for (stage, sphere) in [
            (host_set::UNTRACKED, Sphere::Untracked),
            (host_set::FORWARD, Sphere::Forward),
            (host_set::NORMAL, Sphere::Normal),
        ] {
            set(stage, stages.template(sphere, direction)?);
        }
    }
    sets[host_set::PRE_DNAT] = stages.template(Sphere::PreDnat, Direction::Ingress)?;
    Ok(sets)
}
