//! One stage of a host endpoint: tiers, policies and profiles in order, before the near side's address is known.

use std::sync::Arc;

use super::super::CompileError;
use super::super::bodies::Source;
use super::super::intern::Handle;
use super::super::place::Context;
use super::super::profiles::{self, Found, SetProfile};
use super::super::rules::{Body, BodyContext, rules_of};
use super::super::sets::{SetContent, SetEnd, SetPolicy, SetTier};
use super::failsafe;
use crate::model::{HostEndpoint, HostRole, Policy, TierDefault};
use crate::policy::Direction;
use crate::policy::labels::EffectiveLabels;
use crate::policy::order::{policy_place, tier_default, tier_place};

/// What a stage has, with nothing said about the endpoint's own side.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in super::super) struct Template(pub(super) SetContent);

/// A stage that has policies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sphere {
    Untracked,
    PreDnat,
    Forward,
    Normal,
}

impl Sphere {
    fn has(self, role: HostRole) -> bool {
        matches!(
            (self, role),
            (Self::Untracked, HostRole::Untracked)
                | (Self::PreDnat, HostRole::PreDnat)
                | (Self::Forward | Self::Normal, HostRole::Forward)
                | (Self::Normal, HostRole::Normal)
        )
    }
}

/// The stages of one host endpoint.
pub(super) struct Stages<'s, 'c> {
    host: &'s HostEndpoint,
    /// Policies that select it, in no order.
    selecting: Vec<&'c Arc<Policy>>,
    context: &'s mut Context<'c>,
}

impl<'s, 'c> Stages<'s, 'c> {
    pub(super) fn new(host: &'s HostEndpoint, context: &'s mut Context<'c>) -> Self {
        let store = context.store;
        let labels = EffectiveLabels::of_host_endpoint(store, host);
        let selecting = store.policies().filter(|policy| {
            policy.staged.is_none() && policy.key.namespace.is_none() && policy.selector.matches(&labels)
        });
        Self {
            host,
            selecting: selecting.collect(),
            context,
        }
    }

    pub(super) fn failsafes(
        &mut self,
        direction: Direction,
    ) -> Result<Option<Handle<Template>>, CompileError> {
        let Some(policy) = failsafe::policy(self.context.store, direction) else {
            return Ok(None);
        };
        let body = self.body(Source::Failsafes, &Arc::new(policy), direction)?;
        let tier = SetTier {
            name: String::new(),
            default: TierDefault::Pass,
            policies: vec![policy_of(&body)],
        };
        self.intern(vec![tier], None, SetEnd::GoOn).map(Some)
    }

    /// `None` if no policy has a say in the stage; the last one always has a set.
    pub(super) fn template(
        &mut self,
        sphere: Sphere,
        direction: Direction,
    ) -> Result<Option<Handle<Template>>, CompileError> {
        let store = self.context.store;
        let mut governing: Vec<_> = self
            .selecting
            .iter()
            .filter(|policy| sphere.has(policy.host) && rules_of(policy, direction).is_some())
            .map(|policy| (tier_place(store, &policy.tier), policy_place(policy), *policy))
            .collect();
        if governing.is_empty() && sphere != Sphere::Normal {
            return Ok(None);
        }
        governing.sort_unstable_by(|a, b| (&a.0, &a.1).cmp(&(&b.0, &b.1)));
        let mut open = true;
        let mut tiers = Vec::new();
        for tier in governing.chunk_by(|a, b| a.0 == b.0) {
            let Some(((_, _, name), ..)) = tier.first() else {
                continue;
            };
            let default = match sphere {
                Sphere::Untracked | Sphere::PreDnat => TierDefault::Pass,
                Sphere::Forward | Sphere::Normal => tier_default(store, name),
            };
            let mut closed = default == TierDefault::Deny;
            let mut policies = Vec::with_capacity(tier.len());
            for (_, _, policy) in tier {
                let body = self.body(Source::OfHost(policy.key.clone()), policy, direction)?;
                closed &= !body.passes;
                policies.push(policy_of(&body));
            }
            open &= !closed;
            tiers.push(SetTier {
                name: (*name).to_owned(),
                default,
                policies,
            });
        }
        let (profiles, end) = match sphere {
            Sphere::Normal if open => (Some(self.profiles(direction)?), SetEnd::Deny),
            Sphere::Normal => (None, SetEnd::Deny),
            Sphere::Forward => (None, SetEnd::Forward),
            Sphere::Untracked | Sphere::PreDnat => (None, SetEnd::GoOn),
        };
        self.intern(tiers, profiles, end).map(Some)
    }

    fn intern(
        &mut self,
        tiers: Vec<SetTier>,
        profiles: Option<Box<[SetProfile]>>,
        end: SetEnd,
    ) -> Result<Handle<Template>, CompileError> {
        let content = SetContent { tiers, profiles, end };
        self.context.interners.templates.intern(Template(content))
    }

    fn profiles(&mut self, direction: Direction) -> Result<Box<[SetProfile]>, CompileError> {
        let found = profiles::of_names(self.context.store, self.host.profiles.clone());
        let compiled = found.into_iter().map(|found| match found {
            Found::All { name, allows } => Ok(SetProfile::All { name, allows }),
            Found::Object(profile) => {
                let policy = Arc::new(profiles::as_policy(profile));
                let name = profile.name.clone();
                let body = self.body(Source::Profile(name.clone()), &policy, direction)?;
                let rules = policy_of(&body);
                Ok(SetProfile::Rules { name, rules })
            }
        });
        compiled.collect()
    }

    fn body(
        &mut self,
        source: Source,
        policy: &Arc<Policy>,
        direction: Direction,
    ) -> Result<Arc<Body>, CompileError> {
        let Context {
            bodies,
            names,
            interners,
            ..
        } = &mut *self.context;
        let mut context = BodyContext {
            predicates: &mut interners.predicates,
            references: &mut interners.references,
        };
        bodies.of(source, policy, direction, &mut context, names)
    }
}

fn policy_of(body: &Body) -> SetPolicy {
    SetPolicy {
        body: body.id,
        own: None,
    }
}
