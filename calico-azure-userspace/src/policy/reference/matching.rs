//! Whether one rule matches one packet, criterion by criterion; only the reference uses it.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use super::Oracle;
use crate::model::{Icmp, IpVersion, Peer, PortRange, Rule};
use crate::policy::{Direction, Probe};
use crate::selector::Selector;

/// A criterion of a rule, as the API names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Criterion {
    IpVersion,
    /// A list of CIDRs has none of the packet's family (or excludes all of it), so the rule is not for that family.
    Family,
    Protocol,
    NotProtocol,
    Icmp,
    NotIcmp,
    DestinationPorts,
    DestinationNotPorts,
    SourceNets,
    SourceNotNets,
    SourceSelector,
    SourceNotSelector,
    DestinationNets,
    DestinationNotNets,
    DestinationSelector,
    DestinationNotSelector,
}

impl Criterion {
    /// The field's name in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::IpVersion => "ipVersion",
            Self::Family => "family of nets or notNets",
            Self::Protocol => "protocol",
            Self::NotProtocol => "notProtocol",
            Self::Icmp => "icmp",
            Self::NotIcmp => "notICMP",
            Self::DestinationPorts => "destination.ports",
            Self::DestinationNotPorts => "destination.notPorts",
            Self::SourceNets => "source.nets",
            Self::SourceNotNets => "source.notNets",
            Self::SourceSelector => "source.selector",
            Self::SourceNotSelector => "source.notSelector",
            Self::DestinationNets => "destination.nets",
            Self::DestinationNotNets => "destination.notNets",
            Self::DestinationSelector => "destination.selector",
            Self::DestinationNotSelector => "destination.notSelector",
        }
    }
}

impl fmt::Display for Criterion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

const TCP: u8 = 6;
const UDP: u8 = 17;
const SCTP: u8 = 132;
const ICMP: u8 = 1;
const ICMP6: u8 = 58;

impl Oracle<'_> {
    /// The first criterion of the rule that the packet fails; `None` if it matches.
    pub(super) fn first_miss(&self, rule: &Rule, direction: Direction, packet: &Probe) -> Option<Criterion> {
        let (source, destination) = match direction {
            Direction::Ingress => (packet.peer, packet.own),
            Direction::Egress => (packet.own, packet.peer),
        };
        let version = if packet.peer.is_ipv4() {
            IpVersion::V4
        } else {
            IpVersion::V6
        };
        if rule.ip_version.is_some_and(|wanted| wanted != version) {
            return Some(Criterion::IpVersion);
        }
        if !governs_family(&rule.source, version) || !governs_family(&rule.destination, version) {
            return Some(Criterion::Family);
        }
        if rule.protocol.is_some_and(|protocol| protocol != packet.protocol) {
            return Some(Criterion::Protocol);
        }
        if rule.not_protocol == Some(packet.protocol) {
            return Some(Criterion::NotProtocol);
        }
        if rule
            .icmp
            .is_some_and(|icmp| is_criterion(icmp) && !is_icmp(icmp, packet))
        {
            return Some(Criterion::Icmp);
        }
        if rule
            .not_icmp
            .is_some_and(|icmp| is_criterion(icmp) && is_icmp(icmp, packet))
        {
            return Some(Criterion::NotIcmp);
        }
        if !rule.destination.ports.is_empty() && !in_ports(&rule.destination.ports, packet) {
            return Some(Criterion::DestinationPorts);
        }
        if in_ports(&rule.destination.not_ports, packet) {
            return Some(Criterion::DestinationNotPorts);
        }
        self.peer_miss(
            &rule.source,
            source,
            [
                Criterion::SourceNets,
                Criterion::SourceNotNets,
                Criterion::SourceSelector,
                Criterion::SourceNotSelector,
            ],
        )
        .or_else(|| {
            self.peer_miss(
                &rule.destination,
                destination,
                [
                    Criterion::DestinationNets,
                    Criterion::DestinationNotNets,
                    Criterion::DestinationSelector,
                    Criterion::DestinationNotSelector,
                ],
            )
        })
    }

    fn peer_miss(&self, peer: &Peer, address: IpAddr, names: [Criterion; 4]) -> Option<Criterion> {
        let [nets, not_nets, selector, not_selector] = names;
        if !peer.nets.is_empty() && !in_nets(&peer.nets, address) {
            return Some(nets);
        }
        if in_nets(&peer.not_nets, address) {
            return Some(not_nets);
        }
        if peer
            .selector
            .as_ref()
            .is_some_and(|wanted| !self.is_member(wanted, address))
        {
            return Some(selector);
        }
        if peer
            .not_selector
            .as_ref()
            .is_some_and(|unwanted| self.is_member(unwanted, address))
        {
            return Some(not_selector);
        }
        None
    }

    /// Whether the address belongs to a pod, or lies in a network set, that the selector matches.
    fn is_member(&self, selector: &Selector, address: IpAddr) -> bool {
        let mut endpoints = self.topology.endpoints.iter().zip(&self.endpoint_labels);
        let mut sets = self.store.network_sets().zip(&self.set_labels);
        endpoints.any(|(endpoint, labels)| endpoint.addresses.contains(&address) && selector.matches(labels))
            || sets.any(|(set, labels)| in_nets(&set.nets, address) && selector.matches(labels))
    }
}

/// A list that has entries but none of the packet's family takes the rule out of that family, also if it is a
/// negated list; and so does a negated list that excludes the whole family.
fn governs_family(peer: &Peer, version: IpVersion) -> bool {
    let of_family = |net: &&IpNet| matches!(net, IpNet::V4(_)) == (version == IpVersion::V4);
    let emptied = |nets: &[IpNet]| !nets.is_empty() && nets.iter().filter(of_family).count() == 0;
    let everything = peer
        .not_nets
        .iter()
        .filter(of_family)
        .any(|net| net.prefix_len() == 0);
    !emptied(&peer.nets) && !emptied(&peer.not_nets) && !everything
}

fn in_nets(nets: &[IpNet], address: IpAddr) -> bool {
    nets.iter().any(|net| net.contains(&address))
}

/// Only these carry ports that policy looks at.
fn in_ports(ports: &[PortRange], packet: &Probe) -> bool {
    matches!(packet.protocol, TCP | UDP | SCTP)
        && ports
            .iter()
            .any(|range| range.first <= packet.dport && packet.dport <= range.last)
}

/// `icmp: {}` says nothing.
fn is_criterion(icmp: Icmp) -> bool {
    icmp.kind.is_some() || icmp.code.is_some()
}

fn is_icmp(icmp: Icmp, packet: &Probe) -> bool {
    let [kind, code] = packet.dport.to_be_bytes();
    matches!(packet.protocol, ICMP | ICMP6)
        && icmp.kind.is_none_or(|wanted| wanted == kind)
        && icmp.code.is_none_or(|wanted| wanted == code)
}
