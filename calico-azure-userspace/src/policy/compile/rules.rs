//! A policy's rules of one direction, with everything resolved that does not depend on the endpoint.

use std::sync::Arc;

use ipnet::IpNet;

use super::CompileError;
use super::intern::{Handle, Interner};
use super::predicate::{Family, PerFamily, Predicate, PredicateHandle};
use crate::model::{Action, Icmp, IpVersion, Peer, Policy, PortRange, Rule};
use crate::policy::{Direction, RuleRef};
use crate::selector::Selector;

pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;
pub(super) const SCTP: u8 = 132;
pub(super) const ICMP: u8 = 1;
pub(super) const ICMP6: u8 = 58;

/// Inclusive ranges of ports (or of ICMP `type << 8 | code`), sorted and disjoint.
pub(super) type Ranges = Box<[(u16, u16)]>;

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
    /// What the rule asks of the endpoint's own address.
    pub(super) own: Option<Peer>,
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
        // Ports are always the destination's, whichever side that is.
        let Rule {
            index,
            action,
            ip_version,
            protocol: _,
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
        let reference = (*action != Action::Log).then(|| RuleRef::Rule {
            tier: policy.tier.clone(),
            policy: policy.key.clone(),
            ingress: direction == Direction::Ingress,
            index: *index,
        });
        let mut interned = |nets: &[IpNet], selector: &Option<Selector>| {
            let nets = (!nets.is_empty()).then(|| Predicate::nets(nets));
            let selector = selector.clone().map(Predicate::Selector);
            nets.into_iter()
                .chain(selector)
                .map(|p| context.predicates.intern(p))
                .collect::<Result<_, _>>()
        };
        Ok(Self {
            action: *action,
            index: *index,
            live: PerFamily::new(|family| {
                ip_version.is_none_or(|version| (version == IpVersion::V4) == (family == Family::V4))
                    && lists_govern(source, family)
                    && lists_govern(destination, family)
            }),
            traffic: Traffic::of(rule),
            wanted: interned(&peer.nets, &peer.selector)?,
            unwanted: interned(&peer.not_nets, &peer.not_selector)?,
            own: constrains_address(own).then(|| own.clone()),
            reference: reference.map(|r| context.references.intern(r)).transpose()?,
        })
    }
}

fn constrains_address(peer: &Peer) -> bool {
    let Peer {
        nets,
        not_nets,
        selector,
        not_selector,
        ..
    } = peer;
    !nets.is_empty() || !not_nets.is_empty() || selector.is_some() || not_selector.is_some()
}

/// False if a list has entries but none of the family, or excludes the whole family.
fn lists_govern(peer: &Peer, family: Family) -> bool {
    let mine = |nets: &[IpNet]| nets.is_empty() || nets.iter().any(|net| Family::of(net) == family);
    let excludes_all = |net: &IpNet| Family::of(net) == family && net.prefix_len() == 0;
    mine(&peer.nets) && mine(&peer.not_nets) && !peer.not_nets.iter().any(excludes_all)
}

/// The protocols and ports that a rule is about.
#[derive(Debug)]
pub(super) struct Traffic {
    protocol: Option<u8>,
    not_protocol: Option<u8>,
    /// Of TCP, UDP and SCTP; `None` for all.
    ports: Option<Ranges>,
    /// Whether the rule matches protocols that have no ports.
    portless: bool,
    /// Of ICMP and ICMPv6; `None` for all.
    icmp: Option<Ranges>,
    icmp_only: bool,
}

/// Which part of a protocol's ports.
pub(super) enum Part<'a> {
    Nothing,
    Everything,
    Ranges(&'a [(u16, u16)]),
}

impl Traffic {
    fn of(rule: &Rule) -> Self {
        let Peer { ports, not_ports, .. } = &rule.destination;
        let criterion = |icmp: Option<Icmp>| icmp.filter(|icmp| icmp.kind.is_some() || icmp.code.is_some());
        let (icmp, not_icmp) = (criterion(rule.icmp), criterion(rule.not_icmp));
        let ranges = |list: &[PortRange]| union(list.iter().map(|range| (range.first, range.last)).collect());
        let limited = |only: Option<Ranges>, but: Ranges| match (only, but.is_empty()) {
            (None, true) => None,
            (only, _) => Some(minus(only.as_deref().unwrap_or(&[(0, u16::MAX)]), &but)),
        };
        Self {
            protocol: rule.protocol,
            not_protocol: rule.not_protocol,
            ports: limited((!ports.is_empty()).then(|| ranges(ports)), ranges(not_ports)),
            portless: ports.is_empty(),
            icmp: limited(
                icmp.map(icmp_ranges),
                not_icmp.map(icmp_ranges).unwrap_or_default(),
            ),
            icmp_only: icmp.is_some(),
        }
    }

    /// Protocols that the rule treats differently from those that no rule names.
    pub(super) fn named(&self) -> impl Iterator<Item = u8> {
        let with_ports: &[u8] = if self.ports.is_some() && self.protocol.is_none() {
            &[TCP, UDP, SCTP]
        } else {
            &[]
        };
        let with_types: &[u8] = if self.icmp.is_some() && self.protocol.is_none() {
            &[ICMP, ICMP6]
        } else {
            &[]
        };
        self.protocol
            .into_iter()
            .chain(self.not_protocol)
            .chain(with_ports.iter().chain(with_types).copied())
    }

    /// What the rule matches of a protocol, or (`None`) of all protocols that no rule names.
    pub(super) fn part(&self, protocol: Option<u8>) -> Part<'_> {
        if self.protocol.is_some_and(|wanted| protocol != Some(wanted))
            || self
                .not_protocol
                .is_some_and(|unwanted| protocol == Some(unwanted))
        {
            return Part::Nothing;
        }
        let ranges = match protocol {
            Some(TCP | UDP | SCTP) if !self.icmp_only => &self.ports,
            Some(ICMP | ICMP6) if self.portless => &self.icmp,
            _ if self.icmp_only || !self.portless => return Part::Nothing,
            _ => &None,
        };
        ranges.as_deref().map_or(Part::Everything, Part::Ranges)
    }
}

fn icmp_ranges(icmp: Icmp) -> Ranges {
    let word = |kind: u8, code: u8| u16::from_be_bytes([kind, code]);
    match (icmp.kind, icmp.code) {
        (Some(kind), Some(code)) => Box::new([(word(kind, code), word(kind, code))]),
        (Some(kind), None) => Box::new([(word(kind, 0), word(kind, u8::MAX))]),
        (None, Some(code)) => (0..=u8::MAX)
            .map(|kind| (word(kind, code), word(kind, code)))
            .collect(),
        (None, None) => Box::new([(0, u16::MAX)]),
    }
}

fn union(mut ranges: Vec<(u16, u16)>) -> Ranges {
    ranges.retain(|(first, last)| first <= last);
    ranges.sort_unstable();
    let mut merged: Vec<(u16, u16)> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match merged.last_mut() {
            Some(previous) if u32::from(first) <= u32::from(previous.1) + 1 => {
                previous.1 = previous.1.max(last);
            }
            _ => merged.push((first, last)),
        }
    }
    merged.into()
}

/// Both sorted and disjoint.
fn minus(from: &[(u16, u16)], what: &[(u16, u16)]) -> Ranges {
    let mut left = Vec::new();
    for (first, last) in from {
        let mut next = u32::from(*first);
        for (start, end) in what.iter().filter(|(start, end)| start <= last && end >= first) {
            push(&mut left, next, u32::from(*start));
            next = u32::from(*end) + 1;
        }
        push(&mut left, next, u32::from(*last) + 1);
    }
    left.into()
}

/// Appends the range from `start` to before `end`, if there is any.
fn push(ranges: &mut Vec<(u16, u16)>, start: u32, end: u32) {
    if start < end
        && let (Ok(first), Ok(last)) = (u16::try_from(start), u16::try_from(end - 1))
    {
        ranges.push((first, last));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_merged_and_empty_ones_dropped() {
        let merged = union(vec![
            (80, 90),
            (5, 4),
            (91, 100),
            (1, 1),
            (95, 97),
            (u16::MAX, u16::MAX),
        ]);
        assert_eq!(*merged, [(1, 1), (80, 100), (u16::MAX, u16::MAX)]);
    }

    #[test]
    fn subtraction_at_the_edges() {
        let all = [(0, u16::MAX)];
        assert_eq!(*minus(&all, &[(0, 0), (u16::MAX, u16::MAX)]), [(1, u16::MAX - 1)]);
        assert_eq!(*minus(&all, &all), []);
        assert_eq!(*minus(&[(10, 20), (30, 40)], &[(15, 35)]), [(10, 14), (36, 40)]);
        assert_eq!(*minus(&[(10, 20)], &[(1, 9), (21, 22)]), [(10, 20)]);
    }
}
