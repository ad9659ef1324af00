//! Criteria about the endpoint's own address, resolved while compiling so that the kernel need not ask.

use std::cell::OnceCell;
use std::net::IpAddr;

use ipnet::IpNet;

use super::predicate::{Family, PerFamily};
use super::rules::BodyRule;
use super::sets::Own;
use crate::model::{Action, Peer};
use crate::policy::labels::EffectiveLabels;
use crate::policy::store::Store;
use crate::policy::topology::Endpoint;
use crate::selector::Selector;

/// The addresses of one endpoint, and what else has them.
pub(super) struct OwnSide<'a> {
    store: &'a Store,
    endpoint: &'a Endpoint<'a>,
    members: Vec<(IpAddr, OnceCell<Vec<EffectiveLabels<'a>>>)>,
}

impl<'a> OwnSide<'a> {
    pub(super) fn new(store: &'a Store, endpoint: &'a Endpoint<'a>) -> Self {
        let members = endpoint
            .addresses
            .iter()
            .map(|address| (*address, OnceCell::new()))
            .collect();
        Self {
            store,
            endpoint,
            members,
        }
    }

    /// What the rule's own side comes to, and whether addresses of one family differ in it.
    pub(super) fn resolve(&self, rule: &BodyRule) -> (PerFamily<Own>, bool) {
        let Some(criteria) = &rule.own else {
            return (PerFamily::default(), false);
        };
        let mut ambiguous = false;
        let own = PerFamily::new(|family| {
            let of_family = self
                .members
                .iter()
                .filter(|(ip, _)| ip.is_ipv4() == (family == Family::V4));
            let answers: Vec<bool> = of_family
                .map(|(ip, members)| self.hold(criteria, *ip, members))
                .collect();
            match (answers.contains(&true), answers.contains(&false)) {
                (true, false) => return Own::Holds,
                (false, true) => return Own::Fails,
                (true, true) => ambiguous = true,
                // No address of the family that we know of, so no packet of it that we could be sure about.
                (false, false) => {}
            }
            match rule.action {
                Action::Allow | Action::Log => Own::Fails,
                Action::Deny | Action::Pass => Own::Denies,
            }
        });
        (own, ambiguous)
    }

    fn hold(&self, criteria: &Peer, address: IpAddr, members: &OnceCell<Vec<EffectiveLabels<'a>>>) -> bool {
        let within = |nets: &[IpNet]| nets.iter().any(|net| net.contains(&address));
        let is_member = |selector: &Selector| {
            let members = members.get_or_init(|| self.labels_of(address));
            members.iter().any(|labels| selector.matches(labels))
        };
        (criteria.nets.is_empty() || within(&criteria.nets))
            && !within(&criteria.not_nets)
            && criteria.selector.as_ref().is_none_or(is_member)
            && !criteria.not_selector.as_ref().is_some_and(is_member)
    }

    /// Labels of everything that has the address: the pod, and network sets around it.
    fn labels_of(&self, address: IpAddr) -> Vec<EffectiveLabels<'a>> {
        let sets = self
            .store
            .network_sets()
            .filter(|set| set.nets.iter().any(|net| net.contains(&address)));
        std::iter::once(EffectiveLabels::of_pod(self.store, self.endpoint.pod))
            .chain(sets.map(|set| EffectiveLabels::of_network_set(self.store, set)))
            .collect()
    }
}
