//! One update: from what was touched to what is different in the tables, through everything in between.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use super::bodies::Bodies;
use super::change::Sheet;
use super::claims::{Claims, Moved};
use super::classes::Classes;
use super::counted::Counted;
use super::hosts::Hosts;
use super::output::{Making, Sets};
use super::place::{Context, Placement};
use super::prefixes::Prefixes;
use super::problems::Problems;
use super::select::Selection;
use super::sources::{SourceId, Sources};
use super::touched::Touched;
use super::{CompileError, Interners};
use crate::policy::RuleRef;
use crate::policy::routes::Routes;
use crate::policy::services::Services;
use crate::policy::store::Store;

/// Everything that follows from the store.
#[derive(Debug, Default)]
pub(super) struct Engine {
    pub(super) claims: Claims,
    sources: Sources,
    selection: Selection,
    placement: Placement,
    hosts: Hosts,
    pub(super) bodies: Bodies,
    prefixes: Prefixes,
    classes: Classes,
    pub(super) sets: Sets,
    routes: Routes,
    services: Services,
    names: Counted<RuleRef>,
    pub(super) rules: BTreeMap<u32, RuleRef>,
    pub(super) problems: Problems,
    pub(super) sheet: Sheet,
}

impl Engine {
    /// An engine that knows nothing, in the place of one that stopped half-way.
    pub(super) fn after(old: &Self) -> Self {
        Self {
            bodies: Bodies::after(&old.bodies),
            ..Self::default()
        }
    }

    /// Brings everything in step with the store. After an error nothing here can be relied on.
    pub(super) fn update(
        &mut self,
        store: &Store,
        touched: &Touched,
        interners: &mut Interners,
    ) -> Result<(), CompileError> {
        let Moved {
            local: mut dirty,
            addresses,
        } = self
            .claims
            .update(store, touched, &mut self.sources, &mut self.problems);
        self.route(store, touched, &dirty);
        self.sources.update(store, touched, &mut self.prefixes);
        self.selection
            .update(store, touched, &self.sources, &mut self.problems, &mut dirty);
        self.placement.asking(touched, &mut dirty);
        let mut context = Context {
            store,
            claims: &self.claims,
            sources: &self.sources,
            bodies: &mut self.bodies,
            names: &mut self.names,
            interners,
            problems: &mut self.problems,
            sheet: &mut self.sheet,
        };
        self.placement.place(&dirty, &mut self.selection, &mut context)?;
        self.hosts.place(touched, !dirty.is_empty(), &mut context)?;
        self.placement.taken.append(&mut self.hosts.taken);
        self.placement.left.append(&mut self.hosts.left);

        let mut making = Making {
            bodies: &mut self.bodies,
            names: &mut self.names,
            interners,
            sheet: &mut self.sheet,
        };
        let Placement { taken, left, .. } = &mut self.placement;
        let new = self.sets.recount(taken, left, &self.classes, &mut making)?;
        let asked = self.bodies.turnover(&mut interners.predicates, &mut self.names);
        for predicate in &asked.gone {
            self.sources.forget(store, predicate, &mut self.prefixes);
        }
        for predicate in &asked.new {
            self.sources.ask(store, predicate, &mut self.prefixes);
        }
        let groups = self.sources.settle(store, &mut self.prefixes);
        for address in addresses {
            self.address(address);
        }
        for (group, held_before) in groups {
            self.group(group, held_before);
        }
        self.sources.bury(&mut self.prefixes);

        let Self {
            sources,
            prefixes,
            classes,
            sets,
            hosts,
            bodies,
            names,
            sheet,
            ..
        } = self;
        prefixes.classify(sources, &mut interners.classes, classes, sheet)?;
        let turnover = classes.turnover(&mut interners.classes);
        let known = new.iter().copied().collect();
        sets.follow(&turnover, &known, &mut interners.tables, sheet)?;
        // The near sides of host endpoints have sets by class. They ask about nothing that templates did not.
        hosts.follow(&turnover, classes, interners, sheet)?;
        let mut making = Making {
            bodies,
            names,
            interners,
            sheet,
        };
        let late = sets.recount(&mut hosts.taken, &mut hosts.left, classes, &mut making)?;
        for set in new.into_iter().chain(late) {
            sets.pair(set, classes, &mut interners.tables, sheet)?;
        }
        sets.write(&mut interners.tables, sheet);
        let names = self.names.turnover(&mut interners.references);
        for gone in names.gone {
            self.rules.remove(&gone.id());
            self.sheet.rule(gone.id());
        }
        for new in names.new {
            self.rules.insert(new.id(), new.value().clone());
            self.sheet.rule(new.id());
        }
        Ok(())
    }

    fn route(&mut self, store: &Store, touched: &Touched, local: &BTreeSet<super::claims::PodName>) {
        if touched.facts {
            self.routes.facts(store);
        }
        for name in &touched.nodes {
            self.routes.node(name, store.node(name));
        }
        for name in local {
            // Nothing is at an address before it has an interface, and so our programs.
            let there = self.claims.local(name).filter(|(ifindex, _)| ifindex.is_some());
            let addresses = there.map(|(_, addresses)| addresses).unwrap_or_default();
            self.routes.pod(name, &addresses);
        }
        for (net, bits) in self.routes.turnover() {
            self.sheet.route(net, bits);
        }
        if touched.facts || touched.nodes.contains(&store.facts().node) {
            self.services.hosts(store);
        }
        for name in &touched.service_objects {
            self.services.service(name.clone(), store.service(name));
        }
        for (at, is_one) in self.services.turnover() {
            self.sheet.service(at, is_one);
        }
    }

    /// An address has the source that its owner is in, if anything holds for that.
    fn address(&mut self, address: std::net::IpAddr) {
        let net = IpNet::from(address);
        let group = self.claims.owner(address).map(|endpoint| endpoint.group);
        let group = group.filter(|group| !self.sources.held(*group).is_empty());
        let attached = self.prefixes.sources(net).iter().copied();
        let attached = attached.filter(|source| self.sources.is_group(*source));
        let attached: Vec<SourceId> = attached.collect();
        for old in attached.iter().filter(|old| Some(**old) != group) {
            self.prefixes.detach(net, *old);
        }
        match group {
            Some(group) if !attached.contains(&group) => self.prefixes.attach(net, group),
            Some(_) => self.prefixes.touch(net),
            None => {}
        }
    }

    /// Something else holds for a group.
    fn group(&mut self, group: SourceId, held_before: bool) {
        let holds = !self.sources.held(group).is_empty();
        let addresses = self
            .sources
            .pods(group)
            .flat_map(|pod| self.claims.addresses(pod));
        for address in addresses {
            let net = IpNet::from(address);
            match (held_before, holds) {
                (_, false) => self.prefixes.detach(net, group),
                (false, true) => self.prefixes.attach(net, group),
                (true, true) => self.prefixes.touch(net),
            }
        }
    }

    /// How much of each thing there is, to see that nothing is left behind.
    #[cfg(test)]
    pub(super) fn counts(&self) -> Vec<(&'static str, Vec<usize>)> {
        vec![
            ("claims", self.claims.counts()),
            ("sources", self.sources.counts()),
            ("selection", self.selection.counts()),
            ("placement", self.placement.counts()),
            ("hosts", self.hosts.counts()),
            ("bodies", self.bodies.counts()),
            ("prefixes", self.prefixes.counts()),
            ("classes", self.classes.counts()),
            ("sets", self.sets.counts()),
            ("routes", self.routes.counts()),
            ("services", self.services.counts()),
            ("names", vec![self.names.len(), self.rules.len()]),
            ("problems", vec![self.problems.iter().count()]),
        ]
    }
}
