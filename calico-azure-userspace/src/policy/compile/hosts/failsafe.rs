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
