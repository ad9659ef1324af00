//! The owner of all state: what is known, what follows from it, what the kernel holds, what is attached.

mod settle;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use calico_azure_ebpf::abi::host_set;

use super::events::SharedContext;
use super::felix::Felix;
use super::preflight::{Look, Seen, preflight};
use super::problems::Problems;
use super::protect::{self, SharedProtector};
use super::serve::Server;
use super::staged::Staged;
use super::status::{self, Status, StatusEndpoint, StatusPlugin};
use super::vitals::Vitals;
use super::{AgentConfig, AgentError, UnknownInterfaces};
use super::{links, names, programs};
use crate::dataplane::maps::Maps;
use crate::dataplane::{Dataplane, Published};
use crate::model::{Key, Kind, Resource};
use crate::policy::{Change, Compiler, Desired, Event, NodeFacts, Problem, RuleRef};
use crate::sources::Event as Input;
use crate::sources::attachments::Attachment;
use crate::sources::links::Snapshot;

pub(super) struct Core {
    config: AgentConfig,
    dataplane: Dataplane<Maps>,
    protector: SharedProtector,
    compiler: Compiler,
    staged: Staged,
    context: SharedContext,
    links: Option<Snapshot>,
    /// What CNI plug-ins said.
    attachments: Option<Vec<Attachment>>,
    sources_in_sync: bool,
    /// Something happened since the last update of the tables.
    changed: bool,
    /// What changed in the tables since the last apply that got through.
    pending: Change,
    retry: bool,
    /// Of how many inputs it is worked out what follows.
    ahead: u64,
    /// The programs were loaded at the last apply.
    attaches: bool,
    problems: Problems,
    vitals: Arc<Vitals>,
    server: Server,
    felix: Felix,
    /// What the node looked like last.
    seen: Option<Seen>,
    /// A FelixConfiguration is not what it was.
    felix_changed: bool,
    /// Settings that were named in the log as without effect.
    named: BTreeSet<String>,
    status: Status,
    /// What the status file says.
    written: Option<Status>,
}

/// What the owner of all state works with.
pub(super) struct Parts {
    pub(super) protector: SharedProtector,
    pub(super) context: SharedContext,
    pub(super) staged: Staged,
    pub(super) vitals: Arc<Vitals>,
    pub(super) server: Server,
    pub(super) felix: Felix,
    /// The look at the start.
    pub(super) look: Look,
}

impl Core {
    pub(super) fn new(config: AgentConfig, maps: Maps, parts: Parts) -> Result<Self, AgentError> {
        let Parts {
            protector,
            context,
            staged,
            vitals,
            server,
            felix,
            look,
        } = parts;
        let dataplane = Dataplane::open(maps)?;
        let compiler = Compiler::new(dataplane.reserved());
        let status = Status {
            node: config.node.clone(),
            preflight: look,
            ..Status::default()
        };
        Ok(Self {
            config,
            dataplane,
            protector,
            compiler,
            staged,
            context,
            links: None,
            attachments: None,
            sources_in_sync: false,
            changed: true,
            // What an earlier agent left.
            pending: Change::everything(),
            retry: false,
            ahead: 0,
            attaches: false,
            problems: Problems::default(),
            vitals,
            server,
            felix,
            seen: None,
            felix_changed: true,
            named: BTreeSet::new(),
            status,
            written: None,
        })
    }

    pub(super) fn must_retry(&self) -> bool {
        self.retry
    }

    /// Takes in one event of the source of manifests.
    pub(super) fn resource(&mut self, event: Input) {
        self.status.inputs_seen += 1;
        match event {
            Input::Upsert(resource) => self.learn(Event::Upsert(resource)),
            Input::Delete(key) => self.learn(Event::Delete(key)),
            Input::InSync => self.sources_in_sync = true,
            Input::Problems(problems) => {
                let now = problems.iter().map(ToString::to_string).collect();
                let before = std::mem::replace(&mut self.problems.input, now);
                let known: BTreeSet<&String> = before.iter().collect();
                for problem in self.problems.input.iter().filter(|now| !known.contains(now)) {
                    tracing::warn!("{problem}");
                }
            }
        }
    }

    /// Takes in what the node's links look like now.
    pub(super) fn links(&mut self, snapshot: Snapshot) {
        self.status.inputs_seen += 1;
        let attachments = self.attachments.as_deref().unwrap_or_default();
        let names = self.config.link_names(&self.felix);
        let interfaces = links::interfaces(&names, &snapshot, attachments);
        let facts = NodeFacts {
            node: self.config.node.clone(),
            host_ips: snapshot.host_ips.iter().copied().collect(),
            interface_prefixes: self.felix.interface_prefixes.clone(),
            allowed_sources: self.config.allowed_sources.clone(),
            ignores_pod_cidrs: self.ignores_pod_cidrs(),
            settings: self.config.policy.clone(),
        };
        self.learn(Event::Interfaces(interfaces));
        self.learn(Event::Node(facts));
        self.links = Some(snapshot);
    }

    /// Takes in what CNI plug-ins say of pods' interfaces now.
    pub(super) fn attachments(&mut self, said: Vec<Attachment>) {
        self.status.inputs_seen += 1;
        self.attachments = Some(said);
        self.look_again();
    }

    /// The programs are loaded: what was kept from being attached no longer is.
    pub(super) fn loaded(&mut self) {
        self.changed = true;
    }

    /// Takes in how the chained CNI plug-in fares.
    pub(super) fn plugin(&mut self, plugin: StatusPlugin) {
        if let Some(problem) = &plugin.problem {
            tracing::warn!("{problem}");
        }
        self.problems.plugin.clone_from(&plugin.problem);
        self.status.cni_plugin = Some(plugin);
    }

    /// Takes in what the node looks like now.
    pub(super) fn seen(&mut self, seen: Seen) {
        self.seen = Some(seen);
        self.judge_node();
    }

    /// What is in the way on the node.
    fn judge_node(&mut self) {
        // Without the node's object less can be said, and that would look like an end of what the last look found.
        let Some(seen) = self.seen.as_ref().filter(|_| self.sources_in_sync) else {
            return;
        };
        let mut nodes = self.compiler.store().nodes();
        let node = nodes.find(|node| node.name == self.config.node);
        let options = self.config.preflight(&self.felix, node);
        self.status
            .preflight
            .renew(preflight(seen, &options), &seen.unread);
    }

    /// The links are what they were, and what is known of them is not.
    fn look_again(&mut self) {
        if let Some(snapshot) = self.links.take() {
            self.links(snapshot);
        }
    }

    fn learn(&mut self, event: Event) {
        self.felix_changed |= match &event {
            Event::Upsert(resource) => matches!(resource, Resource::FelixConfiguration(_)),
            Event::Delete(key) => key.kind == Kind::FelixConfiguration,
            Event::Interfaces(_) | Event::Node(_) => false,
        };
        let wanted = self.staged.wants(&event).then(|| event.clone());
        self.changed |= self.compiler.apply(event);
        if let Some(event) = wanted {
            self.staged.see(self.compiler.store(), &event);
        }
    }

    /// Brings the kernel in step with what is known, if that is complete.
    pub(super) fn step(&mut self, begun: Instant) {
        if !self.sources_in_sync || self.links.is_none() || self.attachments.is_none() {
            self.get_ahead();
            self.write_status();
            return;
        }
        if !self.changed && !self.retry {
            self.write_status();
            return;
        }
        self.retry = false;
        self.settle_networking();
        if std::mem::take(&mut self.felix_changed) {
            self.settle_felix();
        }
        self.staged.update();
        match self.apply(begun) {
            Ok(()) => {
                self.problems.apply = None;
                self.status.applies += 1;
                self.status.ready = self.attaches && !self.retry;
            }
            Err(error) => {
                tracing::error!(%error, "apply failed; the verdicts in force stay in force");
                self.problems.apply = Some(error);
                self.vitals.publish(|seen| seen.failures += 1);
                self.status.ready = false;
                self.retry = true;
            }
        }
        self.status.epoch = self.dataplane.image().config.epoch;
        self.write_status();
    }

    /// Works out what follows from the beginning of a long list while the rest of it is read.
    fn get_ahead(&mut self) {
        const ENOUGH: u64 = 8192;
        let seen = self.status.inputs_seen;
        // What the node itself is, all else depends on.
        if self.links.is_none() || seen < self.ahead + ENOUGH {
            return;
        }
        self.ahead = seen;
        // What is wrong shows when the list is complete: by itself the beginning means nothing.
        if let Ok(change) = self.compiler.update()
            && !self.pending.everything
        {
            self.pending.merge(change);
        }
    }

    fn apply(&mut self, begun: Instant) -> Result<(), String> {
        let published = self.publish().map_err(|error| error.to_string())?;
        let (in_force, flipped) = (begun.elapsed(), published.flipped());
        if self.status.applies == 0 {
            self.status.cold_start_us = micros(self.vitals.elapsed());
        }
        // New pods do not wait for the clearing up.
        self.finish();
        let applied = self
            .dataplane
            .settle(published)
            .map_err(|error| error.to_string())?;
        let rules = self.pending.everything || !self.pending.rules.is_empty();
        if rules {
            self.write_names();
        }
        self.pending = Change::default();
        // Only now may ids that the kernel has forgotten be given out again.
        self.compiler.applied();
        self.status.last_apply_us = micros(applied.total);
        self.publish_figures(applied.total, rules);
        if flipped {
            self.status.last_change_us = micros(in_force);
        }
        self.status.last_operations = applied.operations;
        Ok(())
    }

    /// Puts in force what is known.
    fn publish(&mut self) -> Result<Published, Box<dyn std::error::Error>> {
        let change = self.compiler.update()?;
        self.changed = false;
        self.pending.merge(change);
        {
            // The first packet that a new rule decides must find the rule's name.
            let mut context = self.context.write().unwrap_or_else(PoisonError::into_inner);
            let rules = self.compiler.rules();
            if self.pending.everything {
                context
                    .rules
                    .extend(rules.iter().map(|(id, rule)| (*id, rule.clone())));
            }
            let new = self
                .pending
                .rules
                .iter()
                .filter_map(|id| Some((*id, rules.get(id)?.clone())));
            context.rules.extend(new);
        }
        let tunnel_port = self
            .status
            .networking
            .as_ref()
            .map_or(0, |found| found.tunnel_port);
        let names = self.config.link_names(&self.felix);
        let bridged = |snapshot: &Snapshot| !names.bridges(snapshot).is_empty();
        let bridged = self.links.as_ref().is_some_and(bridged);
        let open = self.leaves_unknown_open();
        let settings = self.config.settings(&self.felix, tunnel_port, bridged, open);
        Ok(self
            .dataplane
            .publish(self.compiler.desired(), &self.pending, settings)?)
    }

    /// Whether interfaces of pods that nobody knows are open. Not while there is a pod that is to have no policy and no traffic: it is as
    /// little of an endpoint.
    fn leaves_unknown_open(&self) -> bool {
        self.config.unknown_interfaces == UnknownInterfaces::Allow && self.isolated().is_none()
    }

    fn isolated(&self) -> Option<&Problem> {
        let mut problems = self.compiler.problems();
        problems.find(|problem| matches!(problem, Problem::SourcePrefixesRefused { .. }))
    }

    /// Attaches what the kernel now has complete state for, and publishes names.
    fn finish(&mut self) {
        self.problems.policy = self.compiler.problems().map(ToString::to_string).collect();
        if self.config.unknown_interfaces == UnknownInterfaces::Allow && self.isolated().is_some() {
            let why = "--unknown-interfaces allow has no effect while a pod asks for source prefixes that it may not have: it would be open";
            self.problems.policy.push(why.to_owned());
        }
        let names: BTreeMap<u32, String> = self
            .links
            .iter()
            .flat_map(|snapshot| &snapshot.links)
            .map(|(ifindex, link)| (*ifindex, link.name.clone()))
            .collect();
        let Desired { endpoints, hosts, .. } = self.compiler.desired();
        let untracked = hosts
            .iter()
            .filter(|(_, host)| host.sets[host_set::UNTRACKED] != 0);
        let untracked: BTreeSet<u32> = untracked.map(|(ifindex, _)| *ifindex).collect();
        {
            let mut context = self.context.write().unwrap_or_else(PoisonError::into_inner);
            context.endpoints = endpoints
                .iter()
                .map(|(ifindex, endpoint)| (*ifindex, endpoint.pod.clone()))
                .collect();
            context.interfaces.clone_from(&names);
            let rules = self.compiler.rules();
            if self.pending.everything {
                context.rules.clone_from(rules);
            }
            for gone in self.pending.rules.iter().filter(|id| !rules.contains_key(id)) {
                context.rules.remove(gone);
            }
        }
        if let Some(snapshot) = &self.links {
            let endpoints = endpoints.keys().copied();
            let removed = protect::with(&self.protector, |protector| {
                protector.release(snapshot, endpoints);
                protector.hasten(snapshot, &untracked);
                self.retry |= !protector.failures().is_empty();
                protector.remove_other_layouts()
            });
            // Programs that are still being loaded say when they are there.
            self.attaches = removed.is_some();
            if !self.attaches {
                programs::hurry();
            }
            let removed = removed.unwrap_or(Ok(()));
            self.problems.layouts = removed.err().map(|error| error.to_string());
        }
        self.status.endpoints = endpoints
            .iter()
            .map(|(ifindex, endpoint)| StatusEndpoint {
                pod: endpoint.pod.clone(),
                interface: names.get(ifindex).cloned().unwrap_or_default(),
                ifindex: *ifindex,
                addresses: endpoint.addresses.clone(),
            })
            .collect();
    }

    fn write_names(&self) {
        if let Err(error) = names::write(&self.config, self.compiler.rules()) {
            tracing::error!(%error, "cannot write the file of rules' names");
        }
    }

    /// Figures that only an apply changes.
    fn publish_figures(&self, took: Duration, rules_changed: bool) {
        let policies = rules_changed.then(|| {
            let rules = self.compiler.rules().values();
            rules
                .filter_map(RuleRef::policy)
                .collect::<BTreeSet<&Key>>()
                .len()
        });
        let (cluster, tables) = (self.compiler.store().sizes(), self.dataplane.image().sizes());
        self.vitals.publish(|seen| {
            seen.apply_seconds = took.as_secs_f64();
            seen.active_policies = policies.unwrap_or(seen.active_policies);
            seen.cluster = cluster;
            seen.tables = tables.into();
        });
    }

    pub(super) fn write_status(&mut self) {
        let now = protect::with(&self.protector, |p| (p.attached(), p.failures()));
        let (attached, failures) = now.unwrap_or_default();
        let failed = failures.len();
        self.status.attached = attached;
        self.status
            .interface_prefixes
            .clone_from(&self.felix.interface_prefixes);
        self.status.problems = self.problems.all();
        self.status.problems.extend(failures);
        self.vitals.publish(|seen| {
            seen.status.clone_from(&self.status);
            seen.in_sync = self.sources_in_sync;
            seen.failed_endpoints = failed;
        });
        // A status that says the same again need not be written.
        if self.written.as_ref() == Some(&self.status) {
            return;
        }
        self.written = Some(self.status.clone());
        if let Err(error) = status::write(&self.config, &self.status) {
            tracing::error!(%error, "cannot write the status file");
        }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
