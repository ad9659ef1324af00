//! The reference's trace as people read it: rules as they are written, each once.

use super::report::{Traced, word};
use crate::model::{Action, Key, Kind, TierDefault};
use crate::policy::reference::{Criterion, TraceStep};
use crate::policy::{Direction, Store};

/// The steps of one stage.
pub(super) fn of(store: &Store, direction: Direction, steps: &[TraceStep]) -> Vec<Traced> {
    let mut traced: Vec<Traced> = Vec::new();
    let mut owner: Option<(&Key, u32)> = None;
    for step in steps {
        let rule = match step {
            TraceStep::Missed { policy, index, .. } | TraceStep::Matched { policy, index, .. } => {
                Some((policy, *index))
            }
            _ => None,
        };
        // A rule of Kubernetes may stand for several.
        let again = rule.is_some() && rule == owner;
        owner = rule;
        if again
            && let Some(Traced::Rule {
                matched,
                failed,
                action,
                ..
            }) = traced.last_mut()
        {
            match step {
                TraceStep::Missed { criterion, .. } => note(failed, *criterion),
                TraceStep::Matched { action: does, .. } => {
                    *matched = true;
                    failed.clear();
                    *action = name(*does).to_owned();
                }
                _ => {}
            }
            continue;
        }
        traced.push(one(store, direction, step));
    }
    traced
}

fn note(failed: &mut Vec<&'static str>, criterion: Criterion) {
    if !failed.contains(&criterion.as_str()) {
        failed.push(criterion.as_str());
    }
}

fn one(store: &Store, direction: Direction, step: &TraceStep) -> Traced {
    let place = match direction {
        Direction::Ingress => "ingress",
        Direction::Egress => "egress",
    };
    match step {
        TraceStep::Stage { stage } => Traced::Stage {
            name: stage.to_string(),
        },
        TraceStep::Tier { tier } => Traced::Tier { tier: tier.clone() },
        TraceStep::Policy { policy } => Traced::Policy {
            policy: shown(policy),
        },
        TraceStep::Missed {
            policy,
            index,
            criterion,
        } => Traced::Rule {
            rule: format!("{}{place}[{index}]", of_profile(policy)),
            action: action_of(store, policy, direction, *index)
                .map_or("?", name)
                .to_owned(),
            matched: false,
            failed: vec![criterion.as_str()],
        },
        TraceStep::Matched {
            policy,
            index,
            action,
        } => Traced::Rule {
            rule: format!("{}{place}[{index}]", of_profile(policy)),
            action: name(*action).to_owned(),
            matched: true,
            failed: Vec::new(),
        },
        TraceStep::TierDefault { tier, action } => Traced::Default {
            tier: tier.clone(),
            action: match action {
                TierDefault::Deny => "deny",
                TierDefault::Pass => "pass",
            },
        },
        TraceStep::Profile { name, allow } => Traced::Profile {
            profile: name.clone(),
            action: word(*allow),
        },
    }
}

/// As manifests call it.
pub(super) fn shown(key: &Key) -> String {
    match &key.namespace {
        Some(namespace) => format!("{} {namespace}/{}", key.kind.written(), key.name),
        None => format!("{} {}", key.kind.written(), key.name),
    }
}

fn of_profile(key: &Key) -> String {
    if key.kind == Kind::Profile {
        format!("Profile {} ", key.name)
    } else {
        String::new()
    }
}

fn name(action: Action) -> &'static str {
    match action {
        Action::Allow => "allow",
        Action::Deny => "deny",
        Action::Pass => "pass",
        Action::Log => "log",
    }
}

fn action_of(store: &Store, key: &Key, direction: Direction, index: u32) -> Option<Action> {
    let profile = store.profile(&key.name).filter(|_| key.kind == Kind::Profile);
    let policy = store.policies().find(|policy| policy.key == *key);
    let rules = match (profile, policy, direction) {
        (Some(profile), _, Direction::Ingress) => Some(&profile.ingress),
        (Some(profile), _, Direction::Egress) => Some(&profile.egress),
        (None, Some(policy), Direction::Ingress) => policy.ingress.as_ref(),
        (None, Some(policy), Direction::Egress) => policy.egress.as_ref(),
        (None, None, _) => None,
    };
    let rule = rules?.iter().find(|rule| rule.index == index)?;
    Some(rule.action)
}
