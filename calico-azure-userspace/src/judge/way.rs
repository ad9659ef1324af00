//! The way of a packet: who has a say, in order, up to the first that denies.

use super::answer::{Answer, reason};
use super::cluster::{Cluster, Place};
use super::engine::{Engine, JudgeError};
use crate::policy::reference::{Flow, Stage};
use crate::policy::{Direction, RuleRef};

/// The first packet of a flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    pub flow: Flow,
    /// Only this endpoint's policy in that direction, by `namespace/name`; else the whole way.
    pub at: Option<(Direction, String)>,
}

/// A part of the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    pub stage: Stage,
    /// `namespace/name` of the pod, or the host endpoint's name.
    pub at: String,
    pub answer: Answer,
}

/// A cluster and an engine.
pub struct Judge<'c, 'a, E> {
    cluster: &'c Cluster<'a>,
    engine: E,
}

impl<'c, 'a, E: Engine> Judge<'c, 'a, E> {
    /// The engine must have been made for the cluster.
    pub fn new(cluster: &'c Cluster<'a>, engine: E) -> Self {
        Self { cluster, engine }
    }

    /// What becomes of the packet: the answer of the first that denied, else of the last that was asked.
    ///
    /// # Errors
    /// [`JudgeError`].
    pub fn answer(&mut self, packet: &Packet) -> Result<Answer, JudgeError> {
        let flow = normal(packet.flow);
        if flow.src.is_ipv4() != flow.dst.is_ipv4() {
            let Flow { src, dst, .. } = flow;
            let message = format!("src {src} and dst {dst}: expected addresses of one family");
            return Err(JudgeError::Packet(message));
        }
        let answer = match &packet.at {
            Some((direction, name)) => match self.cluster.named(name) {
                Some(pod) => self.ask(pod, *direction, &flow),
                None => Err(JudgeError::Packet(format!(
                    "endpoint: {name} is no pod that policy applies to"
                ))),
            },
            None => self.whole(&flow),
        };
        self.engine.forget_flows()?;
        answer
    }

    /// What everybody on the way says, also after one that denied; empty if nobody is asked.
    ///
    /// # Errors
    /// [`JudgeError`].
    pub fn steps(&mut self, flow: &Flow) -> Result<Vec<Step>, JudgeError> {
        let flow = normal(*flow);
        let legs = self.cluster.oracle.path(&flow).legs;
        let mut steps = Vec::with_capacity(legs.len());
        for leg in legs {
            let of_pod = direction(leg.stage).zip(self.cluster.named(&leg.at));
            let answer = match of_pod {
                Some((direction, pod)) => self.ask(pod, direction, &flow)?,
                None => Answer::of_rule(leg.verdict.allow, leg.verdict.rule),
            };
            let (stage, at) = (leg.stage, leg.at);
            steps.push(Step { stage, at, answer });
        }
        self.engine.forget_flows()?;
        Ok(steps)
    }

    fn whole(&mut self, flow: &Flow) -> Result<Answer, JudgeError> {
        let cluster = self.cluster;
        let (src, dst) = (cluster.place(flow.src), cluster.place(flow.dst));
        if src == dst && matches!(src, Place::Pod(_)) {
            return Ok(cluster.unasked(flow));
        }
        if cluster.hosts || src == Place::Special || dst == Place::Special {
            let steps = self.steps(flow)?;
            let denied = steps.iter().position(|step| !step.answer.allow);
            let decides = denied.or(steps.len().checked_sub(1));
            let answer = decides.and_then(|place| steps.into_iter().nth(place));
            return Ok(answer.map_or_else(|| cluster.unasked(flow), |step| step.answer));
        }
        let mut answer = Answer::bare(true, reason::OUTSIDE);
        for (place, direction) in [(src, Direction::Egress), (dst, Direction::Ingress)] {
            if let Place::Pod(pod) = place {
                answer = self.ask(pod, direction, flow)?;
                if !answer.allow {
                    break;
                }
            }
        }
        Ok(answer)
    }

    fn ask(&mut self, pod: usize, direction: Direction, flow: &Flow) -> Result<Answer, JudgeError> {
        if self.cluster.member(pod).is_some_and(|member| member.isolated) {
            return Ok(Answer::of_rule(false, RuleRef::Isolated));
        }
        let said = self
            .engine
            .judge(self.cluster, pod, direction, &flow.probe(direction))?;
        Ok(Answer {
            allow: said.reason.passes(),
            reason: said.reason.as_str(),
            rule: said.rule,
        })
    }
}

/// Ports are 0 where there are none.
pub(super) fn normal(flow: Flow) -> Flow {
    match flow.protocol {
        // TCP, UDP, SCTP, UDPLite.
        6 | 17 | 132 | 136 => flow,
        // ICMP and ICMPv6 have types and codes, as if they were destination ports.
        1 | 58 => Flow { sport: 0, ..flow },
        _ => Flow {
            sport: 0,
            dport: 0,
            ..flow
        },
    }
}

fn direction(stage: Stage) -> Option<Direction> {
    match stage {
        Stage::PodEgress => Some(Direction::Egress),
        Stage::PodIngress => Some(Direction::Ingress),
        _ => None,
    }
}
