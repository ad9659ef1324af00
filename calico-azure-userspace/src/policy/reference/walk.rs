//! Tiers, policies and rules in their order.

use super::order::{compare_policies, tiers};
use super::{Oracle, Point, TraceStep, Verdict};
use crate::model::{Action, HostRole, Key, Policy, Rule, TierDefault};
use crate::policy::labels::EffectiveLabels;
use crate::policy::{Direction, Probe, RuleRef};

/// Which policies are asked.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Sphere {
    /// Those that govern a pod.
    Pod,
    /// A host endpoint's, about what the host itself sends or gets.
    Normal,
    /// A host endpoint's, about what passes through it.
    Forward,
    PreDnat,
    Untracked,
}

impl Sphere {
    fn has(self, role: HostRole) -> bool {
        match self {
            Self::Pod | Self::Normal => matches!(role, HostRole::Normal | HostRole::Forward),
            Self::Forward => role == HostRole::Forward,
            Self::PreDnat => role == HostRole::PreDnat,
            Self::Untracked => role == HostRole::Untracked,
        }
    }
}

/// What an evaluation leaves behind besides its result.
pub(super) struct Tape {
    pub(super) log: bool,
    steps: Option<Vec<TraceStep>>,
}

impl Tape {
    pub(super) fn recording() -> Self {
        Self {
            log: false,
            steps: Some(Vec::new()),
        }
    }

    pub(super) fn silent() -> Self {
        Self {
            log: false,
            steps: None,
        }
    }

    pub(super) fn note(&mut self, step: impl FnOnce() -> TraceStep) {
        if let Some(steps) = &mut self.steps {
            steps.push(step());
        }
    }

    pub(super) fn logged(&self) -> bool {
        self.log
    }

    pub(super) fn verdict(self, allow: bool, rule: RuleRef) -> Verdict {
        Verdict {
            allow,
            log: self.log,
            rule,
            trace: self.steps.unwrap_or_default(),
        }
    }
}

impl<'a> Oracle<'a> {
    /// `None`: no tier decided.
    pub(super) fn tiers(
        &self,
        sphere: Sphere,
        labels: &EffectiveLabels<'_>,
        direction: Direction,
        packet: &Probe,
        tape: &mut Tape,
    ) -> Option<(bool, RuleRef)> {
        for tier in tiers(self.store, &self.policies) {
            let policies = self.policies_of(tier, sphere, labels, direction);
            if policies.is_empty() {
                self.at(Point::TierTransparent, ());
                continue;
            }
            self.at(Point::TierEntered, ());
            tape.note(|| TraceStep::Tier {
                tier: tier.to_owned(),
            });
            match self.policies(&policies, direction, packet, tape) {
                Some(End::Final(allow, policy, index)) => {
                    let rule = RuleRef::Rule {
                        tier: tier.to_owned(),
                        policy: policy.clone(),
                        ingress: direction == Direction::Ingress,
                        index,
                    };
                    return Some((allow, rule));
                }
                Some(End::Pass) => continue,
                None => {}
            }
            if matches!(sphere, Sphere::Untracked | Sphere::PreDnat) {
                self.at(Point::TierEndIgnored, ());
                continue;
            }
            let action = match self.store.tier(tier) {
                Some(tier) => tier.default_action,
                None => self.at(Point::TierMissing, TierDefault::Deny),
            };
            tape.note(|| TraceStep::TierDefault {
                tier: tier.to_owned(),
                action,
            });
            match action {
                TierDefault::Pass => self.at(Point::TierPassesByDefault, ()),
                TierDefault::Deny => {
                    let tier = tier.to_owned();
                    return self.at(
                        Point::TierDeniesByDefault,
                        Some((false, RuleRef::TierDefault { tier })),
                    );
                }
            }
        }
        None
    }

    /// The tier's policies that govern the endpoint in the direction, in their order.
    fn policies_of(
        &self,
        tier: &str,
        sphere: Sphere,
        labels: &EffectiveLabels<'_>,
        direction: Direction,
    ) -> Vec<(&'a Policy, &'a [Rule])> {
        let mut governing = Vec::new();
        for policy in self.policies.iter().filter(|policy| policy.tier == tier) {
            let rules = match direction {
                Direction::Ingress => policy.ingress.as_deref(),
                Direction::Egress => policy.egress.as_deref(),
            };
            if !sphere.has(policy.host) {
                self.at(Point::PolicyOtherRole, ());
            } else if sphere != Sphere::Pod && policy.key.namespace.is_some() {
                self.at(Point::PolicyNamespacedAtHost, ());
            } else if !policy.selector.matches(labels) {
                self.at(Point::PolicyNotSelecting, ());
            } else if let Some(rules) = rules {
                governing.push((*policy, rules));
            } else {
                self.at(Point::PolicyOtherDirection, ());
            }
        }
        governing.sort_by(|(a, _), (b, _)| compare_policies(a, b));
        governing
    }

    fn policies(
        &self,
        policies: &[(&'a Policy, &[Rule])],
        direction: Direction,
        packet: &Probe,
        tape: &mut Tape,
    ) -> Option<End<'a>> {
        for (policy, rules) in policies {
            tape.note(|| TraceStep::Policy {
                policy: policy.key.clone(),
            });
            match self.first_match(&policy.key, rules, direction, packet, tape) {
                Some((Action::Allow, index)) => {
                    return self.at(Point::RuleAllows, Some(End::Final(true, &policy.key, index)));
                }
                Some((Action::Deny, index)) => {
                    return self.at(Point::RuleDenies, Some(End::Final(false, &policy.key, index)));
                }
                Some((Action::Pass, _)) => return self.at(Point::RulePasses, Some(End::Pass)),
                Some((Action::Log, _)) | None => self.at(Point::PolicyUndecided, ()),
            }
        }
        None
    }

    /// The first rule that matches and is no `Log`.
    pub(super) fn first_match(
        &self,
        owner: &Key,
        rules: &[Rule],
        direction: Direction,
        packet: &Probe,
        tape: &mut Tape,
    ) -> Option<(Action, u32)> {
        for rule in rules {
            let (policy, index, action) = (|| owner.clone(), rule.index, rule.action);
            match self.matches(rule, direction, packet) {
                Err(criterion) => tape.note(|| TraceStep::Missed {
                    policy: policy(),
                    index,
                    criterion,
                }),
                Ok(()) => {
                    tape.note(|| TraceStep::Matched {
                        policy: policy(),
                        index,
                        action,
                    });
                    if action != Action::Log {
                        return Some((action, index));
                    }
                    self.at(Point::RuleLogs, ());
                    tape.log = true;
                }
            }
        }
        None
    }
}

/// How a tier's policies ended.
enum End<'k> {
    Final(bool, &'k Key, u32),
    Pass,
}
