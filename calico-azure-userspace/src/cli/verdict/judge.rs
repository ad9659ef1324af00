//! The engines that judge a packet, all of the same manifests.

use std::collections::HashMap;

use calico_azure_ebpf::abi::Reason;
use clap::ValueEnum;

use super::packet::{Packet, PodName};
use crate::analysis;
use crate::policy::reference::{Flow, Leg, Oracle, PathVerdict, Stage};
use crate::policy::topology::{Topology, pod_name};
use crate::policy::{CompileError, Compiler, Direction, Output, RuleRef, Store, lookup};

/// How a packet is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Engine {
    /// Rule by rule, from the manifests.
    Reference,
    /// By the tables that the kernel gets.
    Compiled,
}

/// The verdict and what decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) allow: bool,
    /// A reason code of the programs, or the host's stage.
    pub(crate) reason: String,
    pub(crate) rule: Option<RuleRef>,
}

/// A packet that nobody can judge.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum JudgeError {
    #[error("endpoint: there is no pod {0}/{1} among the manifests that is an endpoint")]
    NoPod(String, String),
}

/// All engines over one set of manifests.
pub(crate) struct Judge<'a> {
    store: &'a Store,
    oracle: Oracle<'a>,
    output: Output,
    /// Interfaces of the compiled endpoints.
    interfaces: HashMap<String, u32>,
}

impl<'a> Judge<'a> {
    pub(crate) fn new(store: &'a Store) -> Result<Self, CompileError> {
        let topology = Topology::of(store);
        let output = Compiler::default().compile(&analysis::on_one_node(store, &topology))?;
        let endpoints = output.desired.endpoints.iter();
        let interfaces = endpoints
            .map(|(ifindex, endpoint)| (endpoint.pod.clone(), *ifindex))
            .collect();
        Ok(Self {
            store,
            oracle: Oracle::new(store),
            output,
            interfaces,
        })
    }

    pub(crate) fn oracle(&self) -> &Oracle<'a> {
        &self.oracle
    }

    /// # Errors
    /// If the packet names an endpoint that is none.
    pub(crate) fn answer(&self, engine: Engine, packet: &Packet) -> Result<Answer, JudgeError> {
        match &packet.at {
            Some((direction, pod)) => self.endpoint(engine, packet, *direction, pod),
            None => Ok(match engine {
                Engine::Reference => of_path(&self.oracle.path(&packet.flow)),
                Engine::Compiled => self.compiled_path(&packet.flow),
            }),
        }
    }

    fn endpoint(
        &self,
        engine: Engine,
        packet: &Packet,
        direction: Direction,
        (namespace, name): &PodName,
    ) -> Result<Answer, JudgeError> {
        let none = || JudgeError::NoPod(namespace.clone(), name.clone());
        let pod = self.store.pod(namespace, name).ok_or_else(none)?;
        let isolated = self
            .oracle
            .topology()
            .isolated
            .iter()
            .any(|other| other.name == pod.name && other.namespace == pod.namespace);
        if isolated {
            return Ok(Answer {
                allow: false,
                reason: Reason::NoEndpoint.as_str().to_owned(),
                rule: Some(RuleRef::Isolated),
            });
        }
        match engine {
            Engine::Reference => {
                let endpoints = &self.oracle.topology().endpoints;
                if !endpoints.iter().any(|endpoint| **endpoint.pod == *pod) {
                    return Err(none());
                }
                let (allow, _, rule) = self.oracle.decide(pod, direction, &packet.flow.probe(direction));
                Ok(by_policy(allow, Some(rule)))
            }
            Engine::Compiled => self
                .compiled(&pod_name(pod), direction, &packet.flow)
                .ok_or_else(none),
        }
    }

    /// What the tables say; `None` if the pod is behind no interface.
    fn compiled(&self, pod: &str, direction: Direction, flow: &Flow) -> Option<Answer> {
        let ifindex = *self.interfaces.get(pod)?;
        let verdict = lookup::verdict(&self.output.desired, ifindex, direction, &flow.probe(direction));
        Some(Answer {
            allow: verdict.reason.passes(),
            reason: verdict.reason.as_str().to_owned(),
            rule: self.output.rules.get(&verdict.rule).cloned(),
        })
    }

    /// The way as the reference sees it, with pods judged by the tables. (Host endpoints have none.)
    fn compiled_path(&self, flow: &Flow) -> Answer {
        let path = self.oracle.path(flow);
        let legs = path.legs.iter().map(|leg| {
            let direction = match leg.stage {
                Stage::PodEgress => Direction::Egress,
                Stage::PodIngress => Direction::Ingress,
                _ => return of_leg(leg),
            };
            self.compiled(&leg.at, direction, flow)
                .unwrap_or_else(|| of_leg(leg))
        });
        last(legs.collect(), path.allow)
    }
}

fn by_policy(allow: bool, rule: Option<RuleRef>) -> Answer {
    let reason = if allow {
        Reason::PolicyAllow
    } else {
        Reason::PolicyDeny
    };
    Answer {
        allow,
        reason: reason.as_str().to_owned(),
        rule,
    }
}

fn of_leg(leg: &Leg) -> Answer {
    let answer = by_policy(leg.verdict.allow, Some(leg.verdict.rule.clone()));
    if leg.verdict.rule == RuleRef::Isolated {
        let reason = Reason::NoEndpoint.as_str().to_owned();
        return Answer { reason, ..answer };
    }
    answer
}

fn of_path(path: &PathVerdict) -> Answer {
    last(path.legs.iter().map(of_leg).collect(), path.allow)
}

/// The stage that denied, else the last that allowed.
fn last(legs: Vec<Answer>, allow: bool) -> Answer {
    let denied = legs
        .iter()
        .position(|answer| !answer.allow)
        .unwrap_or(legs.len().saturating_sub(1));
    legs.into_iter().nth(denied).unwrap_or(Answer {
        allow,
        reason: "no-policy".to_owned(),
        rule: None,
    })
}
