//! Policy sets: all that decides one direction of an endpoint, in order, shared by every endpoint it is the same for.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::bodies::Bodies;
use super::intern::{Handle, Interner};
use super::predicate::{Family, Held, PerFamily};
use super::profiles::SetProfile;
use super::rules::{Body, BodyRule};
use super::side::{Asked, OwnPorts};
use super::{CompileError, SetInfo, TierInfo};
use crate::model::{Action, TierDefault};
use crate::policy::RuleRef;

/// What a set is. Two endpoints with equal content share the set.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct SetContent {
    /// Those with a policy for the endpoint, in order.
    pub(super) tiers: Vec<SetTier>,
    /// What decides after them. `None` if no packet gets that far, so that endpoints of several namespaces may share
    /// the set.
    pub(super) profiles: Option<Box<[SetProfile]>>,
    pub(super) end: SetEnd,
}

/// What becomes of what nothing in a set decided.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) enum SetEnd {
    /// It is denied.
    #[default]
    Deny,
    /// It is forwarded traffic of a host endpoint: allowed.
    Forward,
    /// The next stage of the host endpoint decides.
    GoOn,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct SetTier {
    pub(super) name: String,
    pub(super) default: TierDefault,
    pub(super) policies: Vec<SetPolicy>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct SetPolicy {
    /// [`Body::id`].
    pub(super) body: u64,
    /// One for each rule; `None` if no rule asks about the endpoint's own address.
    pub(super) own: Option<Box<[PerFamily<Own>]>>,
}

/// What a rule's criteria about the endpoint itself come to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Own {
    pub(super) address: OwnAddress,
    pub(super) ports: OwnPorts,
}

/// What its criteria about the endpoint's own address come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) enum OwnAddress {
    /// They hold.
    #[default]
    Holds,
    /// They do not hold, or an Allow's or Log's cannot be told.
    Fails,
    /// A Deny's or Pass's cannot be told: closed is safe.
    Denies,
}

/// A set, ready to be painted for any peer class.
#[derive(Debug)]
pub(super) struct Set {
    pub(super) handle: Handle<SetContent>,
    pub(super) rules: Vec<SetRule>,
    /// The last ends the profiles.
    pub(super) tiers: Vec<TierEnd>,
    /// Rules by the rarest predicate that they want.
    pub(super) by_predicate: HashMap<u32, Vec<usize>>,
    /// Rules that want none.
    pub(super) unconditional: Vec<usize>,
    /// Every predicate that matters to a rule, ascending.
    pub(super) predicates: Vec<u32>,
    /// Protocols that rules treat differently from others.
    pub(super) protocols: Vec<u8>,
    /// Rules that ask about the source port.
    pub(super) by_source: Vec<usize>,
    /// Keep the ids in [`Decision`]s alive.
    references: Vec<Handle<RuleRef>>,
}

/// What ends an evaluation, save for the log flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Decision {
    pub(super) allow: bool,
    /// The next stage of the host endpoint decides; there is no rule.
    pub(super) goes_on: bool,
    pub(super) rule: u32,
}

impl Decision {
    const GO_ON: Self = Self {
        allow: false,
        goes_on: true,
        rule: 0,
    };

    fn of(allow: bool, rule: u32) -> Self {
        Self {
            allow,
            goes_on: false,
            rule,
        }
    }
}

#[derive(Debug)]
pub(super) struct TierEnd {
    /// Place of the first rule of the next tier.
    pub(super) end: usize,
    /// `None`: what the tier did not decide passes on.
    pub(super) default: Option<Decision>,
}

#[derive(Debug)]
pub(super) struct SetRule {
    body: Arc<Body>,
    index: usize,
    own: PerFamily<Own>,
}

/// What a rule does with what it matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    Decide(Decision),
    Pass,
    Log,
}

/// A rule that is for some peers, whatever their packets.
#[derive(Clone, Copy, Debug)]
pub(super) struct Match<'a> {
    pub(super) rule: &'a BodyRule,
    pub(super) effect: Effect,
    pub(super) asked: Asked<'a>,
}

impl SetContent {
    /// Of all policies and profiles in it, each as often as it is there.
    pub(super) fn bodies(&self) -> impl Iterator<Item = u64> {
        let policies = self.tiers.iter().flat_map(|tier| &tier.policies);
        let profiles = self
            .profiles
            .iter()
            .flatten()
            .filter_map(|profile| match profile {
                SetProfile::Rules { rules, .. } => Some(rules),
                SetProfile::All { .. } => None,
            });
        policies.chain(profiles).map(|policy| policy.body)
    }
}

impl SetRule {
    pub(super) fn get(&self) -> Option<&BodyRule> {
        self.body.rules.get(self.index)
    }

    /// `None` if the rule is not for this family of this endpoint, or not for these predicates.
    pub(super) fn effect<'a>(&'a self, family: Family, holding: &'a [Held]) -> Option<Match<'a>> {
        let rule = self.get()?;
        let holds = |predicate: u32| holding.binary_search(&Held::of(predicate)).is_ok();
        let Own { address, ports } = self.own.get(family);
        if !*rule.live.get(family)
            || *address == OwnAddress::Fails
            || !rule.wanted.iter().all(|predicate| holds(predicate.id()))
            || rule.unwanted.iter().any(|predicate| holds(predicate.id()))
        {
            return None;
        }
        let decide = |allow| {
            rule.reference
                .as_ref()
                .map(|r| Effect::Decide(Decision::of(allow, r.id())))
        };
        let effect = match (rule.action, address) {
            (Action::Log, _) => Effect::Log,
            (Action::Pass, OwnAddress::Holds) => Effect::Pass,
            (Action::Allow, OwnAddress::Holds) => decide(true)?,
            _ => decide(false)?,
        };
        let asked = Asked { holding, own: ports };
        Some(Match { rule, effect, asked })
    }
}

impl Set {
    pub(super) fn new(
        handle: Handle<SetContent>,
        bodies: &Bodies,
        references: &mut Interner<RuleRef>,
    ) -> Result<Self, CompileError> {
        let content = handle.value();
        let mut held = Vec::new();
        let mut decision = |allow, reference| {
            let reference = references.intern(reference)?;
            let rule = reference.id();
            held.push(reference);
            Ok::<_, CompileError>(Decision::of(allow, rule))
        };
        let mut rules: Vec<SetRule> = Vec::new();
        let mut tiers = Vec::with_capacity(content.tiers.len() + 1);
        let mut add = |policy: &SetPolicy| {
            let Some(body) = bodies.get(policy.body) else {
                return rules.len();
            };
            rules.extend((0..body.rules.len()).map(|index| {
                let own = policy.own.as_ref().and_then(|own| own.get(index));
                SetRule {
                    body: Arc::clone(body),
                    index,
                    own: own.cloned().unwrap_or_default(),
                }
            }));
            rules.len()
        };
        let mut end = 0;
        for SetTier {
            name,
            default,
            policies,
        } in &content.tiers
        {
            for policy in policies {
                end = add(policy);
            }
            let tier = name.clone();
            let default = match default {
                TierDefault::Deny => Some(decision(false, RuleRef::TierDefault { tier })?),
                TierDefault::Pass => None,
            };
            tiers.push(TierEnd { end, default });
        }
        let mut last = (false, RuleRef::Implicit);
        for profile in content.profiles.iter().flatten() {
            match profile {
                SetProfile::Rules { rules, .. } => end = add(rules),
                SetProfile::All { name, allows } => {
                    last = (*allows, RuleRef::Profile { name: name.clone() });
                }
            }
        }
        let (allow, reference) = match content.end {
            SetEnd::Forward => (true, RuleRef::Forwarded),
            SetEnd::Deny | SetEnd::GoOn => last,
        };
        let default = Some(match content.end {
            SetEnd::GoOn => Decision::GO_ON,
            SetEnd::Deny | SetEnd::Forward => decision(allow, reference)?,
        });
        tiers.push(TierEnd { end, default });

        let mut set = Self {
            handle,
            rules,
            tiers,
            by_predicate: HashMap::new(),
            unconditional: Vec::new(),
            predicates: Vec::new(),
            protocols: Vec::new(),
            by_source: Vec::new(),
            references: held,
        };
        set.index();
        Ok(set)
    }

    fn index(&mut self) {
        let mut uses: HashMap<u32, usize> = HashMap::new();
        let mut protocols = BTreeSet::new();
        for rule in self.rules.iter().filter_map(SetRule::get) {
            for predicate in rule.predicates() {
                *uses.entry(predicate.id()).or_default() += 1;
            }
            protocols.extend(rule.traffic.named());
        }
        self.protocols = protocols.into_iter().collect();
        for (place, rule) in self.rules.iter().enumerate() {
            if rule.get().is_some_and(|rule| rule.traffic.asks_source()) {
                self.by_source.push(place);
            }
            let wanted = rule
                .get()
                .into_iter()
                .flat_map(|rule| &rule.wanted)
                .map(Handle::id);
            match wanted.min_by_key(|id| (uses.get(id), *id)) {
                Some(rarest) => self.by_predicate.entry(rarest).or_default().push(place),
                None => self.unconditional.push(place),
            }
        }
        self.predicates = uses.into_keys().collect();
        self.predicates.sort_unstable();
    }

    /// The part of what holds that matters to the set. Classes that differ in the rest have one table.
    pub(super) fn relevant(&self, holding: &[Held]) -> Box<[Held]> {
        let matters = |held: &&Held| self.predicates.binary_search(&held.predicate()).is_ok();
        holding.iter().filter(matters).copied().collect()
    }

    /// What may decide besides rules.
    pub(super) fn references(&self) -> &[Handle<RuleRef>] {
        &self.references
    }

    /// What the set is made of, for people.
    pub(super) fn info(&self, bodies: &Bodies) -> SetInfo {
        let content = self.handle.value();
        let tiers = content.tiers.iter().map(|tier| TierInfo {
            tier: tier.name.clone(),
            default: tier.default,
            policies: tier
                .policies
                .iter()
                .filter_map(|policy| bodies.get(policy.body))
                .map(|body| body.policy.key.clone())
                .collect(),
        });
        SetInfo {
            tiers: tiers.collect(),
            profile: content.profile_names(),
            rules: self.rules.len(),
        }
    }
}
