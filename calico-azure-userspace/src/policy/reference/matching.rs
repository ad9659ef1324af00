//! Whether one rule matches one packet, criterion by criterion; only the reference uses it.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use super::members::Side;
use super::{Branch, Oracle};
use crate::model::{Icmp, IpVersion, Peer, Rule};
use crate::policy::{Direction, Probe};

macro_rules! criteria {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// A criterion of a rule.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Criterion { $($(#[$doc])* $name,)* }

        impl Criterion {
            /// All, in the order in which they are looked at.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The field's name in the API.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

criteria! {
    IpVersion = "ipVersion",
    /// A list of CIDRs has none of the packet's family (or excludes all of it), so the rule is not for that family.
    Family = "family of nets or notNets",
    Protocol = "protocol",
    NotProtocol = "notProtocol",
    Icmp = "icmp",
    NotIcmp = "notICMP",
    SourcePorts = "source.ports",
    SourceNotPorts = "source.notPorts",
    SourceNets = "source.nets",
    SourceNotNets = "source.notNets",
    SourceSelector = "source.selector",
    SourceNotSelector = "source.notSelector",
    SourceService = "source.services",
    DestinationPorts = "destination.ports",
    DestinationNotPorts = "destination.notPorts",
    DestinationNets = "destination.nets",
    DestinationNotNets = "destination.notNets",
    DestinationSelector = "destination.selector",
    DestinationNotSelector = "destination.notSelector",
    DestinationService = "destination.services",
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
    /// Whether the rule matches; else the first of its criteria that the packet fails.
    pub(super) fn matches(&self, rule: &Rule, direction: Direction, packet: &Probe) -> Result<(), Criterion> {
        let (source, destination) = match direction {
            Direction::Ingress => (packet.peer, packet.own),
            Direction::Egress => (packet.own, packet.peer),
        };
        let version = if packet.peer.is_ipv4() {
            IpVersion::V4
        } else {
            IpVersion::V6
        };
        let families = [&rule.source, &rule.destination].map(|peer| governs_family(peer, version));
        let family = families.into_iter().flatten().reduce(|a, b| a && b);
        let icmp = |icmp: &Option<Icmp>| {
            let asked = icmp.filter(|icmp| icmp.kind.is_some() || icmp.code.is_some());
            asked.map(|icmp| is_icmp(icmp, packet))
        };
        self.ask(
            Criterion::IpVersion,
            rule.ip_version.map(|wanted| wanted == version),
        )?;
        self.ask(Criterion::Family, family)?;
        let is_protocol = |protocol| protocol == packet.protocol;
        self.ask(Criterion::Protocol, rule.protocol.map(is_protocol))?;
        let not_protocol = rule.not_protocol.map(is_protocol);
        self.ask(Criterion::NotProtocol, not_protocol.map(|is| !is))?;
        self.ask(Criterion::Icmp, icmp(&rule.icmp))?;
        self.ask(Criterion::NotIcmp, icmp(&rule.not_icmp).map(|is| !is))?;

        let side = |address, port| Side {
            address,
            protocol: packet.protocol,
            port: matches!(packet.protocol, TCP | UDP | SCTP).then_some(port),
        };
        self.source(&rule.source, side(source, packet.sport))?;
        self.destination(&rule.destination, side(destination, packet.dport))
    }

    fn source(&self, peer: &Peer, side: Side) -> Result<(), Criterion> {
        let [ports, not_ports] = self.ports(peer, side);
        self.ask(Criterion::SourcePorts, ports)?;
        self.ask(Criterion::SourceNotPorts, not_ports)?;
        let [nets, not_nets] = nets(peer, side.address);
        self.ask(Criterion::SourceNets, nets)?;
        self.ask(Criterion::SourceNotNets, not_nets)?;
        let [selector, not_selector] = self.selectors(peer, side.address);
        self.ask(Criterion::SourceSelector, selector)?;
        self.ask(Criterion::SourceNotSelector, not_selector)?;
        let service = peer.service.as_ref();
        let service = service.map(|service| self.is_backend(service, side, false));
        self.ask(Criterion::SourceService, service)
    }

    fn destination(&self, peer: &Peer, side: Side) -> Result<(), Criterion> {
        let [ports, not_ports] = self.ports(peer, side);
        self.ask(Criterion::DestinationPorts, ports)?;
        self.ask(Criterion::DestinationNotPorts, not_ports)?;
        let [nets, not_nets] = nets(peer, side.address);
        self.ask(Criterion::DestinationNets, nets)?;
        self.ask(Criterion::DestinationNotNets, not_nets)?;
        let [selector, not_selector] = self.selectors(peer, side.address);
        self.ask(Criterion::DestinationSelector, selector)?;
        self.ask(Criterion::DestinationNotSelector, not_selector)?;
        let service = peer.service.as_ref();
        let service = service.map(|service| self.is_backend(service, side, true));
        self.ask(Criterion::DestinationService, service)
    }

    /// `None`: the rule does not ask.
    fn ask(&self, criterion: Criterion, holds: Option<bool>) -> Result<(), Criterion> {
        let Some(holds) = holds else { return Ok(()) };
        self.coverage.take(Branch::Criterion(criterion, holds));
        if holds { Ok(()) } else { Err(criterion) }
    }

    fn ports(&self, peer: &Peer, side: Side) -> [Option<bool>; 2] {
        let Peer {
            ports,
            not_ports,
            named_ports,
            not_named_ports,
            ..
        } = peer;
        let selector = peer.selector.as_ref();
        let asked = !ports.is_empty() || !named_ports.is_empty();
        let not_asked = !not_ports.is_empty() || !not_named_ports.is_empty();
        [
            asked.then(|| self.is_port(ports, named_ports, selector, side)),
            not_asked.then(|| !self.is_port(not_ports, not_named_ports, selector, side)),
        ]
    }

    fn selectors(&self, peer: &Peer, address: IpAddr) -> [Option<bool>; 2] {
        let is = |selector| self.is_member(selector, address);
        let not_selector = peer.not_selector.as_ref().map(is);
        [peer.selector.as_ref().map(is), not_selector.map(|is| !is)]
    }
}

fn nets(peer: &Peer, address: IpAddr) -> [Option<bool>; 2] {
    let Peer { nets, not_nets, .. } = peer;
    [
        (!nets.is_empty()).then(|| in_nets(nets, address)),
        (!not_nets.is_empty()).then(|| !in_nets(not_nets, address)),
    ]
}

pub(super) fn in_nets(nets: &[IpNet], address: IpAddr) -> bool {
    nets.iter().any(|net| net.contains(&address))
}

/// A list that has entries but none of the packet's family takes the rule out of that family, also if it is a
/// negated list; and so does a negated list that excludes the whole family. `None` if there is no list.
fn governs_family(peer: &Peer, version: IpVersion) -> Option<bool> {
    let of_family = |net: &&IpNet| matches!(net, IpNet::V4(_)) == (version == IpVersion::V4);
    let emptied = |nets: &[IpNet]| !nets.is_empty() && nets.iter().filter(of_family).count() == 0;
    let mut excluded = peer.not_nets.iter().filter(of_family);
    let everything = excluded.any(|net| net.prefix_len() == 0);
    let asked = !peer.nets.is_empty() || !peer.not_nets.is_empty();
    asked.then(|| !emptied(&peer.nets) && !emptied(&peer.not_nets) && !everything)
}

fn is_icmp(icmp: Icmp, packet: &Probe) -> bool {
    let [kind, code] = packet.dport.to_be_bytes();
    matches!(packet.protocol, ICMP | ICMP6)
        && icmp.kind.is_none_or(|wanted| wanted == kind)
        && icmp.code.is_none_or(|wanted| wanted == code)
}
