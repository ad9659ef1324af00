//! What is known of the network and of Felix's settings, brought in step before the tables are. Only `core` uses this.

use super::super::felix::Felix;
use super::super::{networking, protect};
use super::Core;

impl Core {
    /// Which network this is may show only when this node's object or a pod's interface is there.
    pub(super) fn settle_networking(&mut self) {
        let Some(snapshot) = &self.links else { return };
        let store = self.compiler.store();
        let node = store.nodes().find(|node| node.name == self.config.node);
        let names = self.config.link_names(&self.felix);
        let found = networking::find(&self.config.networking, &names, snapshot, node);
        if self.status.networking.as_ref() == Some(&found) {
            return;
        }
        let ignored = self.ignores_pod_cidrs();
        tracing::info!(networking = found.networking.name(), evidence = ?found.evidence, "this node's network");
        for problem in &found.problems {
            let networking::Problem { text, fix, .. } = problem;
            if !self.problems.networking.contains(text) {
                tracing::warn!(?fix, "{text}");
            }
        }
        self.problems.networking = found
            .problems
            .iter()
            .map(|problem| problem.text.clone())
            .collect();
        self.status.networking = Some(found);
        self.judge_node();
        if ignored != self.ignores_pod_cidrs() {
            self.look_again();
        }
    }

    pub(super) fn ignores_pod_cidrs(&self) -> bool {
        self.status
            .networking
            .as_ref()
            .is_some_and(|found| found.ignores_pod_cidrs)
    }

    /// Brings Felix's settings in step with what is known of them.
    pub(super) fn settle_felix(&mut self) {
        let store = self.compiler.store();
        let named = Felix::without_effect(store.felix_configurations(&self.config.node));
        for setting in named.difference(&self.named) {
            tracing::info!("FelixConfiguration: {setting} has no effect here");
        }
        let (felix, problems) = Felix::of(&self.config.told, store.felix_configurations(&self.config.node));
        self.named.extend(named);
        for problem in problems
            .iter()
            .filter(|problem| !self.problems.settings.contains(problem))
        {
            tracing::warn!("{problem}");
        }
        self.problems.settings = problems;
        if felix == self.felix {
            return;
        }
        let before = std::mem::replace(&mut self.felix, felix);
        tracing::info!("FelixConfiguration changed the agent's settings");
        self.server.listen(&self.felix.health, &self.felix.metrics);
        if before.log != self.felix.log
            && let Err(error) = (self.config.set_log.0)(&self.felix.log)
        {
            tracing::error!(%error, "cannot change what is logged");
        }
        if before.interface_prefixes != self.felix.interface_prefixes {
            protect::set_prefixes(&self.protector, &self.felix.interface_prefixes);
            // Facts name them, too.
            self.look_again();
        }
    }
}
