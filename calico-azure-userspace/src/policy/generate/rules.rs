//! Rules that use every field.

use super::cluster::{PORT_NAMES, SERVICES, namespace, nets};
use super::policies::{label_term, selector};
use super::{Features, Rng};
use crate::model::{Action, Icmp, IpVersion, Peer, PortRange, Rule, ServiceName};
use crate::selector::Selector;

/// A rule's selector: restricted to a namespace, to things without one, or not at all.
fn peer_selector(rng: &mut Rng, own: Option<&str>) -> Selector {
    let term = if rng.chance(20) {
        "all()".to_owned()
    } else {
        label_term(rng)
    };
    let scope = match (rng.below(4), own) {
        (0 | 1, Some(own)) => format!("projectcalico.org/namespace == '{own}'"),
        (2, _) => "!has(projectcalico.org/namespace)".to_owned(),
        (3, _) => "has(projectcalico.org/namespace)".to_owned(),
        _ => return selector(&term),
    };
    selector(&format!("({term}) && {scope}"))
}

pub(super) fn rule(
    rng: &mut Rng,
    features: &Features,
    index: u32,
    ingress: bool,
    kubernetes: bool,
    own: Option<&str>,
) -> Rule {
    let action = match rng.below(100) {
        _ if kubernetes => Action::Allow,
        0..45 => Action::Allow,
        45..70 => Action::Deny,
        70..85 => Action::Pass,
        _ => Action::Log,
    };
    let protocol = rng.maybe(60, |rng| match rng.below(20) {
        0..9 => 6,
        9..12 => 17,
        12 => 132,
        13..15 => 1,
        15..17 => 58,
        17 => 136,
        18 => 47,
        _ => rng.byte(),
    });
    let icmp = matches!(protocol, Some(1 | 58));
    // Without a protocol only a rule that lost a criterion has ports or types; it still means something.
    let ports = matches!(protocol, Some(6 | 17 | 132)) || rng.chance(3);
    let percent = |yes: bool, percent: usize| if yes { percent } else { 1 };
    let far = peer(rng, own, [25, 15, 35, 15]);
    let near = peer(rng, own, [5, 4, 5, 4]);
    let (mut source, mut destination) = if ingress { (far, near) } else { (near, far) };
    if ports {
        destination.ports = rng.maybe(60, port_ranges).unwrap_or_default();
        destination.not_ports = rng.maybe(20, port_ranges).unwrap_or_default();
    }
    if features.source_ports && ports && !kubernetes {
        source.ports = rng.maybe(25, port_ranges).unwrap_or_default();
        source.not_ports = rng.maybe(10, port_ranges).unwrap_or_default();
    }
    if features.named_ports && ports {
        destination.named_ports = rng.maybe(35, port_names).unwrap_or_default();
        if !kubernetes {
            destination.not_named_ports = rng.maybe(12, port_names).unwrap_or_default();
            if features.source_ports {
                source.named_ports = rng.maybe(10, port_names).unwrap_or_default();
                source.not_named_ports = rng.maybe(5, port_names).unwrap_or_default();
            }
        }
    }
    if features.services && !kubernetes && rng.chance(12) {
        let far = if ingress { &mut source } else { &mut destination };
        // The API lets a service stand alone on its side, but what the rest would mean is clear.
        if rng.chance(85) {
            *far = Peer::default();
        }
        far.service = Some(ServiceName {
            namespace: own.map_or_else(|| namespace(rng.below(2)), ToOwned::to_owned),
            name: rng.one_of(SERVICES).to_owned(),
        });
    }
    if kubernetes {
        source.not_selector = None;
        destination.not_selector = None;
    }
    Rule {
        index,
        action,
        ip_version: rng.maybe(10, |rng| rng.one_of([IpVersion::V4, IpVersion::V6])),
        protocol,
        not_protocol: rng.maybe(8, |rng| rng.one_of([1, 6, 17, 58, 47, 132])),
        icmp: rng.maybe(percent(icmp, 60), icmp_criterion),
        not_icmp: rng.maybe(percent(icmp, 25), icmp_criterion),
        source,
        destination,
    }
}

fn peer(rng: &mut Rng, own: Option<&str>, percent: [usize; 4]) -> Peer {
    let [in_nets, in_not_nets, in_selector, in_not_selector] = percent;
    Peer {
        nets: rng.maybe(in_nets, nets).unwrap_or_default(),
        not_nets: rng.maybe(in_not_nets, nets).unwrap_or_default(),
        selector: rng.maybe(in_selector, |rng| peer_selector(rng, own)),
        not_selector: rng.maybe(in_not_selector, |rng| peer_selector(rng, own)),
        ports: Vec::new(),
        not_ports: Vec::new(),
        ..Peer::default()
    }
}

fn icmp_criterion(rng: &mut Rng) -> Icmp {
    // Code alone is not valid in the API, but what it would mean is clear.
    let kind = rng.maybe(92, |rng| rng.one_of([0, 3, 8, 128, 129, 254, 255]));
    Icmp {
        kind,
        code: rng.maybe(40, |rng| rng.one_of([0, 1, 4, 255])),
    }
}

fn port_ranges(rng: &mut Rng) -> Vec<PortRange> {
    let range = |rng: &mut Rng| {
        let edges = [
            0, 1, 80, 81, 255, 256, 257, 443, 511, 512, 1023, 8080, 32767, 65279, 65280, 65534, 65535,
        ];
        let first = if rng.chance(85) {
            rng.one_of(edges)
        } else {
            rng.port()
        };
        let last = match rng.below(4) {
            0 | 1 => first,
            2 => first.saturating_add(u16::from(rng.byte())),
            _ => rng.one_of(edges).max(first),
        };
        PortRange { first, last }
    };
    (0..=rng.below(3)).map(|_| range(rng)).collect()
}

fn port_names(rng: &mut Rng) -> Vec<String> {
    (0..=rng.below(2))
        .map(|_| rng.one_of(PORT_NAMES).to_owned())
        .collect()
}
