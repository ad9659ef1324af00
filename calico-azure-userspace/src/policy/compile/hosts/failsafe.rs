//! Failsafe ports as the rules of a policy, so that they cost what rules cost.

use ipnet::IpNet;

use crate::model::{Action, Failsafe, HostRole, Key, Kind, Peer, Policy, PortRange, Rule};
use crate::policy::Direction;
use crate::policy::store::Store;
use crate::selector::Selector;

const TCP: u8 = 6;
const UDP: u8 = 17;

/// Ports that both lists have: BGP, etcd, Typha, the API server.
const COMMON: [(u8, u16); 7] = [
    (TCP, 179),
    (TCP, 2379),
    (TCP, 2380),
    (TCP, 5473),
    (TCP, 6443),
    (TCP, 6666),
    (TCP, 6667),
];
/// SSH, and answers to the host's DHCP client.
const INBOUND: [(u8, u16); 2] = [(TCP, 22), (UDP, 68)];
/// DNS and DHCP.
const OUTBOUND: [(u8, u16); 2] = [(UDP, 53), (UDP, 67)];

/// The failsafes of this node in one direction; `None` if there are none.
pub(super) fn policy(store: &Store, direction: Direction) -> Option<Policy> {
    let mut configurations = store.felix_configurations(&store.facts().node);
    let (configured, own) = match direction {
        Direction::Ingress => (
            configurations.find_map(|x| x.failsafe_inbound.as_deref()),
            INBOUND,
        ),
        Direction::Egress => (
            configurations.find_map(|x| x.failsafe_outbound.as_deref()),
            OUTBOUND,
        ),
    };
    let failsafes: Vec<(u8, u16, Option<IpNet>)> = match configured {
        Some(list) => list
            .iter()
            .map(|Failsafe { protocol, port, net }| (*protocol, *port, *net))
            .collect(),
        None => own
            .iter()
            .chain(&COMMON)
            .map(|(protocol, port)| (*protocol, *port, None))
            .collect(),
    };
    let rules: Vec<Rule> = (0..)
        .zip(failsafes)
        .map(|(index, failsafe)| rule(index, direction, failsafe))
        .collect();
    let rules = Some(rules).filter(|rules| !rules.is_empty())?;
    let (ingress, egress) = match direction {
        Direction::Ingress => (Some(rules), None),
        Direction::Egress => (None, Some(rules)),
    };
    Some(Policy {
        key: Key {
            kind: Kind::FelixConfiguration,
            namespace: None,
            name: "failsafes".into(),
        },
        tier: String::new(),
        order: None,
        selector: Selector::all(),
        ingress,
        egress,
        staged: None,
        host: HostRole::Normal,
    })
}

/// `abi::Config::alike_from`: what comes in may answer what a failsafe port lets out, and then that port is its source's.
pub(super) fn alike_from(store: &Store) -> u16 {
    let by_source = |rule: &Rule| {
        let source = &rule.source;
        let by_number = !source.ports.is_empty() || !source.not_ports.is_empty();
        by_number || !source.named_ports.is_empty() || !source.not_named_ports.is_empty()
    };
    let mut untracked = store
        .policies()
        .filter(|policy| policy.host == HostRole::Untracked);
    if untracked.any(|policy| policy.ingress.iter().flatten().any(by_source)) {
        return 0;
    }
    let outbound = policy(store, Direction::Egress);
    let rules = outbound
        .iter()
        .filter_map(|policy| policy.egress.as_ref())
        .flatten();
    let ports = rules.flat_map(|rule| &rule.destination.ports);
    // Without failsafe ports, only protocols without ports have port 0.
    let highest = ports.map(|range| range.last).max().unwrap_or(0);
    highest.checked_add(1).unwrap_or(0)
}

fn rule(index: u32, direction: Direction, (protocol, port, net): (u8, u16, Option<IpNet>)) -> Rule {
    let mut source = Peer::default();
    let mut destination = Peer {
        ports: vec![PortRange {
            first: port,
            last: port,
        }],
        ..Peer::default()
    };
    let peer = match direction {
        Direction::Ingress => &mut source,
        Direction::Egress => &mut destination,
    };
    peer.nets.extend(net);
    Rule {
        index,
        action: Action::Allow,
        ip_version: None,
        protocol: Some(protocol),
        not_protocol: None,
        icmp: None,
        not_icmp: None,
        source,
        destination,
    }
}
