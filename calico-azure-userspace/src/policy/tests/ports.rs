//! Ports with names and services, in the tables.

use std::net::IpAddr;

use calico_azure_ebpf::abi::Reason;

use super::world::{TCP, UDP, labels, pod, policy, rule, selector, world};
use crate::model::{
    Action, Backends, HostEndpoint, Key, Kind, NamedPort, Peer, Pod, Policy, PortRange, Resource, Rule,
    ServiceName, Subset,
};
use crate::policy::{Compiler, Direction, Event, Output, Probe, lookup};

const ICMP: u8 = 1;
const UDPLITE: u8 = 136;
const NONE: [u16; 0] = [];

pub(super) fn with_ports(namespace: &str, name: &str, last: u8, ports: &[(&str, u8, u16)]) -> Resource {
    let Resource::Pod(base) = pod(namespace, name, last) else {
        unreachable!("it makes a pod")
    };
    Resource::Pod(Pod {
        ports: ports
            .iter()
            .map(|(name, protocol, port)| NamedPort {
                name: (*name).into(),
                protocol: *protocol,
                port: *port,
            })
            .collect(),
        ..base
    })
}

/// `http` is another port on each of the three pods, `dns` one of two protocols.
fn pods() -> [Resource; 3] {
    [
        with_ports(
            "blue",
            "web",
            1,
            &[("http", TCP, 8080), ("dns", UDP, 53), ("dns", TCP, 5353)],
        ),
        with_ports("blue", "db", 2, &[("http", TCP, 80), ("dns", UDP, 1053)]),
        with_ports("red", "job", 3, &[("http", TCP, 9000)]),
    ]
}

pub(super) fn named(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

pub(super) fn range(first: u16, last: u16) -> PortRange {
    PortRange { first, last }
}

pub(super) fn to(edit: impl FnOnce(&mut Peer)) -> Rule {
    rule(Action::Allow, |rule| edit(&mut rule.destination))
}

pub(super) fn from(edit: impl FnOnce(&mut Peer)) -> Rule {
    rule(Action::Allow, |rule| edit(&mut rule.source))
}

pub(super) fn egress(rules: Vec<Rule>) -> Resource {
    Resource::Policy(Policy {
        egress: policy("p", rules).ingress,
        ingress: None,
        ..policy("p", Vec::new())
    })
}

pub(super) fn ingress(rules: Vec<Rule>) -> Resource {
    Resource::Policy(policy("p", rules))
}

pub(super) fn compile(more: impl IntoIterator<Item = Resource>) -> Output {
    let more: Vec<Resource> = pods().into_iter().chain(more).collect();
    Compiler::default().compile(&world(more)).unwrap()
}

pub(super) fn packet(peer: &str, protocol: u8, sport: u16, dport: u16) -> Probe {
    let peer: IpAddr = peer.parse().unwrap();
    let own = if peer.is_ipv4() { "10.0.0.1" } else { "fd00::1" };
    Probe {
        peer,
        own: own.parse().unwrap(),
        protocol,
        sport,
        dport,
    }
}

/// What the tables say about a packet of `blue/web`.
pub(super) fn decide(output: &Output, direction: Direction, packet: &Probe) -> bool {
    let compiled = lookup::verdict(&output.desired, 1, direction, packet);
    assert!(
        matches!(compiled.reason, Reason::PolicyAllow | Reason::PolicyDeny)
            && output.rules.contains_key(&compiled.rule),
        "{compiled:?}"
    );
    compiled.reason.passes()
}

/// The destination ports that pass, of all there are.
fn open_to(output: &Output, direction: Direction, peer: &str, protocol: u8) -> Vec<u16> {
    let passes = |port: &u16| decide(output, direction, &packet(peer, protocol, 40_000, *port));
    (0..=u16::MAX).filter(passes).collect()
}

pub(super) const DB: [&str; 2] = ["10.0.0.2", "fd00::2"];
pub(super) const JOB: [&str; 2] = ["10.0.0.3", "fd00::3"];
pub(super) const STRANGER: [&str; 2] = ["203.0.113.9", "2001:db8::9"];

#[test]
fn a_name_is_a_port_of_the_endpoint_itself_when_it_receives() {
    let output = compile([ingress(vec![to(|side| {
        side.named_ports = named(&["http", "dns"]);
    })])]);
    for peer in [DB[0], STRANGER[1]] {
        assert_eq!(open_to(&output, Direction::Ingress, peer, TCP), [5353, 8080]);
        assert_eq!(open_to(&output, Direction::Ingress, peer, UDP), [53]);
        assert_eq!(open_to(&output, Direction::Ingress, peer, ICMP), NONE);
        assert_eq!(open_to(&output, Direction::Ingress, peer, UDPLITE), NONE);
    }
}

#[test]
fn a_name_is_a_port_of_each_peer_when_the_endpoint_sends() {
    let output = compile([egress(vec![to(|side| side.named_ports = named(&["http"]))])]);
    for (peers, expected) in [(DB, &[80][..]), (JOB, &[9000]), (STRANGER, &[])] {
        for peer in peers {
            assert_eq!(open_to(&output, Direction::Egress, peer, TCP), expected);
            assert_eq!(open_to(&output, Direction::Egress, peer, UDP), NONE);
        }
    }
}

#[test]
fn numbers_and_names_of_one_list_are_alternatives_and_exclusions_take_away() {
    let list = to(|side| {
        side.ports = vec![range(70, 75), range(9000, 9000)];
        side.named_ports = named(&["http", "dns"]);
        side.not_ports = vec![range(71, 71)];
        side.not_named_ports = named(&["http"]);
    });
    let output = compile([egress(vec![Rule {
        protocol: Some(TCP),
        ..list
    }])]);
    let numbers = [70, 72, 73, 74, 75];
    assert_eq!(
        open_to(&output, Direction::Egress, DB[0], TCP),
        [&numbers[..], &[9000]].concat()
    );
    assert_eq!(open_to(&output, Direction::Egress, JOB[1], TCP), numbers);
    assert_eq!(
        open_to(&output, Direction::Egress, STRANGER[0], TCP),
        [&numbers[..], &[9000]].concat()
    );
    assert_eq!(open_to(&output, Direction::Egress, DB[0], UDP), NONE);
}

#[test]
fn an_exclusion_by_name_alone_leaves_every_other_port_and_protocol() {
    for rules in [
        ingress(vec![to(|side| side.not_named_ports = named(&["http"]))]),
        egress(vec![to(|side| side.not_named_ports = named(&["http"]))]),
    ] {
        let direction = match &rules {
            Resource::Policy(policy) if policy.egress.is_some() => Direction::Egress,
            _ => Direction::Ingress,
        };
        let closed = if direction == Direction::Ingress { 8080 } else { 80 };
        let output = compile([rules]);
        let open = open_to(&output, direction, DB[0], TCP);
        assert_eq!(open.len(), 65_535);
        assert!(!open.contains(&closed));
        assert_eq!(open_to(&output, direction, DB[0], UDP).len(), 65_536);
        assert!(decide(&output, direction, &packet(DB[0], UDPLITE, 0, 0)));
    }
}

#[test]
fn a_sides_selector_limits_whose_names_count() {
    let output = compile([egress(vec![
        to(|side| {
            side.selector = Some(selector("app == 'db'"));
            side.named_ports = named(&["http"]);
        }),
        // Its numbers are for those that match, too; the exclusion is of their names only.
        to(|side| {
            side.selector = Some(selector("app == 'job'"));
            side.ports = vec![range(7, 7), range(9000, 9000)];
            side.not_named_ports = named(&["http"]);
        }),
    ])]);
    assert_eq!(open_to(&output, Direction::Egress, DB[0], TCP), [80]);
    assert_eq!(open_to(&output, Direction::Egress, JOB[0], TCP), [7]);
    assert_eq!(open_to(&output, Direction::Egress, STRANGER[0], TCP), NONE);
}

#[test]
fn an_own_name_counts_only_if_the_endpoint_matches_the_sides_selector() {
    for (text, expected) in [("app == 'web'", &[8080][..]), ("app == 'db'", &[])] {
        let output = compile([ingress(vec![to(|side| {
            side.selector = Some(selector(text));
            side.named_ports = named(&["http"]);
        })])]);
        assert_eq!(open_to(&output, Direction::Ingress, STRANGER[0], TCP), expected);
    }
}

#[test]
fn a_host_endpoint_has_named_ports_at_its_expected_addresses() {
    let host = |labels_of: &[(&str, &str)]| {
        Resource::HostEndpoint(HostEndpoint {
            name: "h".into(),
            labels: labels(labels_of),
            node: "n2".into(),
            expected_ips: vec!["203.0.113.9".parse().unwrap()],
            ports: vec![NamedPort {
                name: "ssh".into(),
                protocol: TCP,
                port: 2222,
            }],
            ..HostEndpoint::default()
        })
    };
    let rules = || {
        egress(vec![to(|side| {
            side.selector = Some(selector("role == 'host'"));
            side.named_ports = named(&["ssh"]);
        })])
    };
    let output = compile([host(&[("role", "host")]), rules()]);
    assert_eq!(open_to(&output, Direction::Egress, STRANGER[0], TCP), [2222]);
    let output = compile([host(&[]), rules()]);
    assert_eq!(open_to(&output, Direction::Egress, STRANGER[0], TCP), NONE);
}

fn backends(kind: Kind, name: &str, address: &str, ports: &[(u8, u16)]) -> Resource {
    Resource::Backends(Backends {
        key: Key {
            kind,
            namespace: Some("red".into()),
            name: name.into(),
        },
        service: "api".into(),
        subsets: vec![Subset {
            addresses: vec![address.parse().unwrap()],
            ports: ports.to_vec(),
        }],
    })
}

fn service(side: &mut Peer) {
    side.service = Some(ServiceName {
        namespace: "red".into(),
        name: "api".into(),
    });
}

#[test]
fn a_service_is_its_backends_addresses_and_ports_for_who_sends_and_addresses_for_who_receives() {
    let slices = || {
        [
            backends(
                Kind::EndpointSlice,
                "api-1",
                "10.0.0.3",
                &[(TCP, 9000), (UDP, 53)],
            ),
            backends(Kind::EndpointSlice, "api-2", "203.0.113.9", &[(TCP, 443)]),
            // A service that has slices is not asked for older objects.
            backends(Kind::Endpoints, "api", "10.0.0.2", &[(TCP, 5432)]),
        ]
    };
    let output = compile(slices().into_iter().chain([egress(vec![to(service)])]));
    assert_eq!(open_to(&output, Direction::Egress, JOB[0], TCP), [9000]);
    assert_eq!(open_to(&output, Direction::Egress, JOB[0], UDP), [53]);
    assert_eq!(open_to(&output, Direction::Egress, STRANGER[0], TCP), [443]);
    for (peer, protocol) in [
        (DB[0], TCP),
        (JOB[1], TCP),
        (JOB[0], ICMP),
        (STRANGER[0], UDPLITE),
    ] {
        assert_eq!(open_to(&output, Direction::Egress, peer, protocol), NONE);
    }
    let output = compile(slices().into_iter().chain([ingress(vec![from(service)])]));
    for (peer, expected) in [(JOB[0], 65_536), (STRANGER[0], 65_536), (DB[0], 0), (JOB[1], 0)] {
        assert_eq!(open_to(&output, Direction::Ingress, peer, TCP).len(), expected);
        assert_eq!(
            open_to(&output, Direction::Ingress, peer, UDPLITE).len(),
            expected
        );
    }
    let old = backends(Kind::Endpoints, "api", "10.0.0.2", &[(TCP, 5432)]);
    let output = compile([old, egress(vec![to(service)])]);
    assert_eq!(open_to(&output, Direction::Egress, DB[0], TCP), [5432]);
}

#[test]
fn a_service_on_the_endpoints_own_side_is_resolved_for_it() {
    let mine = || backends(Kind::EndpointSlice, "api-1", "10.0.0.1", &[(TCP, 8443)]);
    let output = compile([mine(), ingress(vec![to(service)])]);
    assert_eq!(open_to(&output, Direction::Ingress, STRANGER[0], TCP), [8443]);
    // It has no backend in the other family.
    assert_eq!(open_to(&output, Direction::Ingress, STRANGER[1], TCP), NONE);
    let output = compile([mine(), egress(vec![from(service)])]);
    assert_eq!(
        open_to(&output, Direction::Egress, STRANGER[0], TCP).len(),
        65_536
    );
    assert_eq!(open_to(&output, Direction::Egress, STRANGER[1], TCP), NONE);
}

#[test]
fn a_peers_new_port_number_is_a_new_class_and_no_new_rule() {
    let rules = egress(vec![to(|side| side.named_ports = named(&["http"]))]);
    let mut store = world(pods().into_iter().chain([rules]));
    let mut compiler = Compiler::default();
    let old = compiler.compile(&store).unwrap();
    store.apply(Event::Upsert(with_ports("blue", "db", 2, &[("http", TCP, 81)])));
    let new = compiler.compile(&store).unwrap();
    assert_eq!(open_to(&new, Direction::Egress, DB[0], TCP), [81]);
    assert_eq!((&old.rules, &old.sets), (&new.rules, &new.sets));
    assert_eq!(old.desired.endpoints, new.desired.endpoints);
    let class = |output: &Output| lookup::class_of(&output.desired, DB[0].parse().unwrap());
    assert_ne!(class(&old), class(&new));
}

#[test]
fn endpoints_share_a_set_if_their_names_come_to_the_same() {
    let same = [
        with_ports("blue", "web", 1, &[("http", TCP, 80), ("other", TCP, 1)]),
        with_ports("red", "job", 3, &[("http", TCP, 80), ("http", TCP, 80)]),
        ingress(vec![to(|side| side.named_ports = named(&["http"]))]),
    ];
    let output = compile(same);
    let set = |ifindex| output.desired.endpoints[&ifindex].ingress;
    assert_eq!([set(1), set(1)], [set(2), set(3)]);
    let output = compile([ingress(vec![to(|side| side.named_ports = named(&["http"]))])]);
    let set = |ifindex| output.desired.endpoints[&ifindex].ingress;
    assert!(set(1) != set(2) && set(2) != set(3) && set(1) != set(3));
}
