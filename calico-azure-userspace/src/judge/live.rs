//! What a running agent's tables decide, without any manifest.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use calico_azure_ebpf::abi::Reason;
use calico_azure_ebpf::verdict::fabric;

use super::answer::reason;
use super::engine::JudgeError;
use super::way::{Packet, normal};
use crate::dataplane::live::is_own_host;
use crate::policy::reference::{Flow, Stage};
use crate::policy::{Desired, Direction, Probe, lookup};

/// One node's tables, and names for what is in them.
#[derive(Debug)]
pub struct LiveTables {
    node: String,
    desired: Desired,
    rules: BTreeMap<u32, String>,
    by_name: HashMap<String, u32>,
    by_address: HashMap<IpAddr, u32>,
}

/// What a node's tables say of a packet at one of its pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveStep {
    pub stage: Stage,
    /// `namespace/name`.
    pub at: String,
    pub reason: &'static str,
    pub allow: bool,
    pub rule: Option<String>,
    /// Ids that were looked up; `None` if policy was not asked.
    pub found: Option<lookup::Compiled>,
}

impl LiveTables {
    /// `rules` names rule ids.
    #[must_use]
    pub fn new(node: String, desired: Desired, rules: BTreeMap<u32, String>) -> Self {
        let endpoints = || desired.endpoints.iter();
        let by_address = endpoints().flat_map(|(ifindex, endpoint)| {
            let own = endpoint.addresses.iter();
            own.map(move |address| (*address, *ifindex))
        });
        let by_address = by_address.collect();
        let by_name = endpoints().map(|(ifindex, endpoint)| (endpoint.pod.clone(), *ifindex));
        Self {
            by_name: by_name.collect(),
            by_address,
            node,
            desired,
            rules,
        }
    }

    /// The node's name.
    #[must_use]
    pub fn node(&self) -> &str {
        &self.node
    }

    /// Addresses of a pod of this node.
    #[must_use]
    pub fn addresses(&self, pod: &str) -> Option<&[IpAddr]> {
        let endpoint = self.desired.endpoints.get(self.by_name.get(pod)?)?;
        Some(&endpoint.addresses)
    }

    /// Names of this node's pods.
    pub fn pods(&self) -> impl Iterator<Item = &str> {
        self.desired
            .endpoints
            .values()
            .map(|endpoint| endpoint.pod.as_str())
    }

    /// The pod of this node that has the address.
    #[must_use]
    pub fn owner(&self, address: IpAddr) -> Option<&str> {
        let ifindex = self.by_address.get(&address)?;
        self.desired
            .endpoints
            .get(ifindex)
            .map(|endpoint| endpoint.pod.as_str())
    }

    /// Whether a rule that decides is not among those named.
    #[must_use]
    pub fn lacks_name(&self, steps: &[LiveStep]) -> bool {
        let rules = steps.iter().filter_map(|step| step.found).map(|found| found.rule);
        rules
            .into_iter()
            .any(|rule| rule != 0 && !self.rules.contains_key(&rule))
    }

    /// What the pods of this node say of a packet on its way; empty if neither end is one, or both are the same.
    #[must_use]
    pub fn steps(&self, flow: &Flow) -> Vec<LiveStep> {
        let flow = normal(*flow);
        let [src, dst] = [flow.src, flow.dst].map(|address| self.by_address.get(&address).copied());
        if src.is_some() && src == dst {
            return Vec::new();
        }
        let egress = src.map(|ifindex| self.at(ifindex, Direction::Egress, &flow));
        let ingress = dst.map(|ifindex| {
            if is_own_host(&self.desired, flow.src) {
                return LiveStep {
                    stage: Stage::HostToPod,
                    at: self.name(ifindex),
                    reason: Reason::FromHost.as_str(),
                    allow: true,
                    rule: None,
                    found: None,
                };
            }
            self.at(ifindex, Direction::Ingress, &flow)
        });
        egress.into_iter().chain(ingress).collect()
    }

    /// What becomes of the packet as far as this node's pods decide.
    ///
    /// # Errors
    /// If they do not.
    pub fn answer(&self, packet: &Packet) -> Result<LiveStep, JudgeError> {
        let Flow { src, dst, .. } = packet.flow;
        let error = |message: String| Err(JudgeError::Packet(message));
        if src.is_ipv4() != dst.is_ipv4() {
            return error(format!(
                "src {src} and dst {dst}: expected addresses of one family"
            ));
        }
        let node = &self.node;
        if let Some((direction, name)) = &packet.at {
            return match self.by_name.get(name) {
                Some(ifindex) => Ok(self.at(*ifindex, *direction, &normal(packet.flow))),
                None => error(format!("endpoint: {name} is no pod of node {node}")),
            };
        }
        let steps = self.steps(&packet.flow);
        let denied = steps.iter().position(|step| !step.allow);
        let decides = denied.or(steps.len().checked_sub(1));
        if let Some(step) = decides.and_then(|place| steps.into_iter().nth(place)) {
            return Ok(step);
        }
        match self.owner(src) {
            Some(pod) => Ok(LiveStep {
                stage: Stage::PodEgress,
                at: pod.to_owned(),
                reason: reason::WITHIN_POD,
                allow: true,
                rule: None,
                found: None,
            }),
            None => error(format!("neither {src} nor {dst} is a pod of node {node}")),
        }
    }

    fn name(&self, ifindex: u32) -> String {
        let endpoint = self.desired.endpoints.get(&ifindex);
        endpoint.map(|endpoint| endpoint.pod.clone()).unwrap_or_default()
    }

    /// Why nothing begins between a pod and an address of the node's podCIDR that no pod has.
    fn stranger(&self, direction: Direction, packet: &Probe) -> Option<Reason> {
        let reason = match direction {
            Direction::Egress => Reason::NoSuchWorkload,
            Direction::Ingress => Reason::UnknownSource,
        };
        fabric::is_nobodys(lookup::route_of(&self.desired, packet.peer)).then_some(reason)
    }

    fn at(&self, ifindex: u32, direction: Direction, flow: &Flow) -> LiveStep {
        let packet: Probe = flow.probe(direction);
        let stage = match direction {
            Direction::Ingress => Stage::PodIngress,
            Direction::Egress => Stage::PodEgress,
        };
        let own = self.by_address.get(&packet.own) == Some(&ifindex);
        let spoofed = (direction == Direction::Egress && !own).then(|| super::engine::unowned(&packet));
        let spoofed = spoofed.or_else(|| super::engine::forbidden(direction, &packet));
        let found = lookup::verdict(&self.desired, ifindex, direction, &packet);
        let reason = spoofed.unwrap_or(match found.set {
            // The interface is known, and nothing more.
            0 if found.reason == Reason::TableMissing => Reason::NotReady,
            _ if found.reason.passes() => self.stranger(direction, &packet).unwrap_or(found.reason),
            _ => found.reason,
        });
        let rule = (found.rule != 0).then(|| {
            let named = self.rules.get(&found.rule).cloned();
            named.unwrap_or_else(|| format!("rule {} (the agent has not told its name)", found.rule))
        });
        LiveStep {
            stage,
            at: self.name(ifindex),
            reason: reason.as_str(),
            allow: reason.passes(),
            rule: rule.filter(|_| spoofed.is_none()),
            found: spoofed.is_none().then_some(found),
        }
    }
}
