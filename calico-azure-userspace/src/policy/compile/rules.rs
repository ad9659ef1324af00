//! A policy's rules of one direction, with everything resolved that does not depend on the endpoint.

use std::sync::Arc;

use ipnet::IpNet;

use super::CompileError;
use super::intern::{Handle, Interner};
use super::predicate::{Family, PerFamily, Predicate, PredicateHandle};
use super::side::Names;
use super::traffic::Traffic;
use crate::model::{Action, IpVersion, Kind, Peer, Policy, Rule};
use crate::policy::{Direction, RuleRef};
use crate::selector::Selector;

/// The rules. Immutable; a changed policy gets a new body.
#[derive(Debug)]
pub(super) struct Body {
    /// Never used for other content.
    pub(super) id: u64,
    pub(super) policy: Arc<Policy>,
    pub(super) direction: Direction,
    pub(super) rules: Vec<BodyRule>,
    /// Whether a rule asks about the endpoint's own address.
    pub(super) asks_own: bool,
    /// Whether a rule passes on to the next tier.
    pub(super) passes: bool,
}

#[derive(Debug)]
pub(super) struct BodyRule {
    pub(super) action: Action,
    pub(super) index: u32,
    /// `None` for Log, which never decides.
    pub(super) reference: Option<Handle<RuleRef>>,
    /// Whether the rule exists for the family at all.
    pub(super) live: PerFamily<bool>,
    pub(super) traffic: Traffic,
    pub(super) wanted: Vec<PredicateHandle>,
    pub(super) unwanted: Vec<PredicateHandle>,
    /// What the rule asks of the endpoint's own address, and by which names it calls its ports.
    pub(super) own: Option<OwnCriteria>,
}

/// The side of a rule that is the endpoint itself.
#[derive(Debug)]
pub(super) struct OwnCriteria {
    pub(super) side: Peer,
    /// A service limits the port only on this side.
    pub(super) is_destination: bool,
}

/// The interners that bodies draw on.
pub(super) struct BodyContext<'a> {
    pub(super) predicates: &'a mut Interner<Predicate>,
    pub(super) references: &'a mut Interner<RuleRef>,
}

impl Body {
    pub(super) fn new(
        id: u64,
        policy: &Arc<Policy>,
        direction: Direction,
        context: &mut BodyContext<'_>,
    ) -> Result<Self, CompileError> {
        let rules = rules_of(policy, direction).unwrap_or_default();
        let rules: Vec<BodyRule> = rules
            .iter()
            .map(|rule| BodyRule::new(rule, policy, direction, context))
            .collect::<Result<_, _>>()?;
        let asks_own = rules.iter().any(|rule| rule.own.is_some());
        let passes = rules.iter().any(|rule| rule.action == Action::Pass);
        Ok(Self {
            id,
            policy: Arc::clone(policy),
            direction,
            rules,
            asks_own,
            passes,
        })
    }

    /// Whether it is still what the policy says in this direction.
    pub(super) fn is_of(&self, policy: &Arc<Policy>) -> bool {
        Arc::ptr_eq(&self.policy, policy)
            || (self.policy.tier == policy.tier
                && rules_of(&self.policy, self.direction) == rules_of(policy, self.direction))
    }
}

/// `None` if the policy does not govern the direction.
pub(super) fn rules_of(policy: &Policy, direction: Direction) -> Option<&[Rule]> {
    match direction {
        Direction::Ingress => policy.ingress.as_deref(),
        Direction::Egress => policy.egress.as_deref(),
    }
}

impl BodyRule {
    fn new(
        rule: &Rule,
        policy: &Policy,
        direction: Direction,
        context: &mut BodyContext<'_>,
    ) -> Result<Self, CompileError> {
        let Rule {
            index,
            action,
            ip_version,
            protocol,
            not_protocol: _,
            icmp: _,
            not_icmp: _,
            source,
            destination,
        } = rule;
        let (peer, own) = match direction {
            Direction::Ingress => (source, destination),
            Direction::Egress => (destination, source),
        };
        let peer_is_destination = direction == Direction::Egress;
        let ingress = direction == Direction::Ingress;
        let reference = match (action, policy.key.kind) {
            (Action::Log, _) => None,
            (_, Kind::Profile) => Some(RuleRef::ProfileRule {
                name: policy.key.name.clone(),
                ingress,
                index: *index,
            }),
            (_, Kind::FelixConfiguration) => Some(RuleRef::Failsafe { ingress }),
            _ => Some(RuleRef::Rule {
                tier: policy.tier.clone(),
                policy: policy.key.clone(),
                ingress,
                index: *index,
            }),
        };
        let mut interned = |nets: &[IpNet], selector: &Option<Selector>| {
            let nets = (!nets.is_empty()).then(|| Predicate::nets(nets));
            let selector = selector.clone().map(Predicate::Selector);
            nets.into_iter()
                .chain(selector)
                .map(|p| context.predicates.intern(p))
                .collect::<Result<Vec<_>, _>>()
        };
        let mut wanted = interned(&peer.nets, &peer.selector)?;
        let unwanted = interned(&peer.not_nets, &peer.not_selector)?;
        let mut named = |names: &[String]| {
            let predicate = |name: &String| Predicate::NamedPort {
                selector: peer.selector.clone(),
                name: name.clone(),
                protocol: *protocol,
            };
            names
                .iter()
                .map(|name| context.predicates.intern(predicate(name)))
                .collect::<Result<Vec<_>, _>>()
        };
        let (listed, excluded) = (named(&peer.named_ports)?, named(&peer.not_named_ports)?);
        // If one name is all there is, nobody matters who has no such port.
        if let ([name], true) = (listed.as_slice(), peer.ports.is_empty()) {
            wanted.push(name.clone());
        }
        let service = peer.service.clone().map(Predicate::Service);
        let service = service.map(|p| context.predicates.intern(p)).transpose()?;
        wanted.extend(service.clone());
        let service = service.filter(|_| peer_is_destination);

        let of_peer = if listed.is_empty() && excluded.is_empty() && service.is_none() {
            Names::None
        } else {
            Names::Peer {
                listed,
                excluded,
                service,
            }
        };
        let own_service = own.service.is_some() && !peer_is_destination;
        let of_own = if own.named_ports.is_empty() && own.not_named_ports.is_empty() && !own_service {
            Names::None
        } else {
            Names::Own {
                listed: !own.named_ports.is_empty(),
                service: own_service,
            }
        };
        let (of_source, of_destination) = match direction {
            Direction::Ingress => (of_peer, of_own),
            Direction::Egress => (of_own, of_peer),
        };
        Ok(Self {
            action: *action,
            index: *index,
            live: PerFamily::new(|family| {
                ip_version.is_none_or(|version| (version == IpVersion::V4) == (family == Family::V4))
                    && lists_govern(source, family)
                    && lists_govern(destination, family)
            }),
            traffic: Traffic::new(rule, of_source, of_destination),
            wanted,
            unwanted,
            own: depends_on_address(own).then(|| OwnCriteria {
                side: own.clone(),
                is_destination: !peer_is_destination,
            }),
            reference: reference.map(|r| context.references.intern(r)).transpose()?,
        })
    }

    /// Everything that the rule asks of its peer.
    pub(super) fn predicates(&self) -> impl Iterator<Item = &PredicateHandle> {
        self.wanted
            .iter()
            .chain(&self.unwanted)
            .chain(self.traffic.predicates())
    }
}

fn depends_on_address(side: &Peer) -> bool {
    let Peer {
        nets,
        not_nets,
        selector,
        not_selector,
        ports: _,
        not_ports: _,
        named_ports,
        not_named_ports,
        service,
    } = side;
    let addresses = !nets.is_empty() || !not_nets.is_empty() || selector.is_some() || not_selector.is_some();
    addresses || !named_ports.is_empty() || !not_named_ports.is_empty() || service.is_some()
}

/// False if a list has entries but none of the family, or excludes the whole family.
fn lists_govern(peer: &Peer, family: Family) -> bool {
    let mine = |nets: &[IpNet]| nets.is_empty() || nets.iter().any(|net| Family::of(net) == family);
    let excludes_all = |net: &IpNet| Family::of(net) == family && net.prefix_len() == 0;
    mine(&peer.nets) && mine(&peer.not_nets) && !peer.not_nets.iter().any(excludes_all)
}
