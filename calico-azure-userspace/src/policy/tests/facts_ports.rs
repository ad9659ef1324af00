//! Fact 16: named ports and services.

use super::world::*;
use crate::model::{
    Action, Backends, Key, Kind, NamedPort, Peer, Pod, PortRange, Resource, Rule, ServiceName, Subset,
};
use crate::policy::{Direction, Event, Store};

const SCTP: u8 = 132;

/// `blue/web` calls TCP 80 and UDP 81 `http`; `blue/db` calls TCP 8080 so, `red/job` UDP 80.
fn named(rules: Vec<Rule>) -> Store {
    governed(Resource::Policy(policy("p", rules)))
}

fn governed(policy: Resource) -> Store {
    let mut store = world([policy]);
    for (namespace, name, ports) in [
        ("blue", "web", vec![(6, 80), (17, 81)]),
        ("blue", "db", vec![(6, 8080)]),
        ("red", "job", vec![(17, 80)]),
    ] {
        let port = |(protocol, port)| NamedPort {
            name: "http".into(),
            protocol,
            port,
        };
        let pod = Pod {
            ports: ports.into_iter().map(port).collect(),
            ..store.pod(namespace, name).unwrap().clone()
        };
        store.apply(Event::Upsert(Resource::Pod(pod)));
    }
    store
}

fn egress_policy(rules: Vec<Rule>) -> Resource {
    let mut governing = policy("p", rules);
    governing.egress = governing.ingress.take();
    Resource::Policy(governing)
}

fn is(store: &Store, direction: Direction, peer: &str, protocol: u8, dport: u16) -> bool {
    ask(store, direction, peer, protocol, dport).starts_with('+')
}

fn ports(edit: impl FnOnce(&mut Peer)) -> Rule {
    rule(Action::Allow, |r| edit(&mut r.destination))
}

#[test]
fn fact_16_a_named_port_needs_the_protocol_and_number_of_the_endpoint_that_has_the_address() {
    let http = || ports(|to| to.named_ports = vec!["http".into()]);
    let store = named(vec![http()]);
    let to_web = |protocol, port| is(&store, Direction::Ingress, "192.0.2.1", protocol, port);
    assert_eq!(
        [
            to_web(TCP, 80),
            to_web(UDP, 81),
            to_web(TCP, 81),
            to_web(UDP, 80),
            to_web(SCTP, 80)
        ],
        [true, true, false, false, false]
    );
    let store = governed(egress_policy(vec![http()]));
    let to = |peer, protocol, port| is(&store, Direction::Egress, peer, protocol, port);
    assert!(to("10.0.0.2", TCP, 8080) && to("10.0.0.3", UDP, 80));
    assert!(!to("10.0.0.2", TCP, 80) && !to("10.0.0.3", TCP, 80) && !to("192.0.2.1", TCP, 80));
}

#[test]
fn fact_16_a_rules_protocol_restricts_a_named_port() {
    let udp = rule(Action::Allow, |r| {
        r.protocol = Some(UDP);
        r.destination.named_ports = vec!["http".into()];
    });
    let store = named(vec![udp]);
    assert!(is(&store, Direction::Ingress, "192.0.2.1", UDP, 81));
    assert!(!is(&store, Direction::Ingress, "192.0.2.1", TCP, 80));
}

#[test]
fn fact_16_numbers_and_names_in_one_list_are_alternatives_under_one_selector() {
    let either = ports(|to| {
        to.ports = vec![PortRange {
            first: 443,
            last: 443,
        }];
        to.named_ports = vec!["http".into()];
        to.selector = Some(selector("app == 'db'"));
    });
    let store = governed(egress_policy(vec![either]));
    let to = |peer, protocol, port| is(&store, Direction::Egress, peer, protocol, port);
    assert!(to("10.0.0.2", TCP, 8080) && to("10.0.0.2", TCP, 443) && to("10.0.0.2", UDP, 443));
    assert!(!to("10.0.0.3", UDP, 80), "it has the name but is not selected");
    assert!(!to("10.0.0.3", TCP, 443), "nor does the number help it");
}

#[test]
fn fact_16_not_ports_by_name_ask_the_endpoint_that_the_selector_matches() {
    let unlike = |selected: Option<&str>| {
        let rule = ports(|to| {
            to.not_named_ports = vec!["http".into()];
            to.selector = selected.map(selector);
        });
        governed(egress_policy(vec![rule]))
    };
    let store = unlike(None);
    let to = |store: &Store, peer, port| is(store, Direction::Egress, peer, TCP, port);
    assert!(!to(&store, "10.0.0.2", 8080));
    assert!(to(&store, "10.0.0.2", 80) && to(&store, "10.0.0.3", 80) && to(&store, "192.0.2.1", 8080));
    let store = unlike(Some("app == 'db'"));
    assert!(!to(&store, "10.0.0.2", 8080) && to(&store, "10.0.0.2", 80) && !to(&store, "10.0.0.3", 8080));
}

#[test]
fn fact_16_source_ports_have_names_too() {
    let from = rule(Action::Allow, |r| r.source.named_ports = vec!["http".into()]);
    let store = named(vec![from]);
    let path = |src: &str, protocol, sport| {
        let flow = crate::policy::reference::Flow {
            src: src.parse().unwrap(),
            dst: "10.0.0.1".parse().unwrap(),
            protocol,
            sport,
            dport: 9,
        };
        crate::policy::reference::path(&store, &flow).allow
    };
    assert!(path("10.0.0.2", TCP, 8080) && path("10.0.0.3", UDP, 80));
    assert!(!path("10.0.0.2", TCP, 80) && !path("10.0.0.2", UDP, 8080) && !path("192.0.2.1", TCP, 8080));
}

#[test]
fn fact_16_host_endpoints_give_names_at_their_expected_addresses() {
    let mut store = governed(egress_policy(vec![ports(|to| {
        to.named_ports = vec!["node".into()];
    })]));
    store.apply(Event::Upsert(host(|host| {
        host.ports = vec![NamedPort {
            name: "node".into(),
            protocol: TCP,
            port: 9100,
        }];
    })));
    let to = |peer, port| is(&store, Direction::Egress, peer, TCP, port);
    assert!(to("192.168.0.1", 9100));
    assert!(!to("192.168.0.1", 9101) && !to("10.0.0.2", 9100));
}

/// `blue/db` and a stranger on TCP 8080 and UDP 53, in a slice or in Endpoints.
fn backends(kind: Kind, name: &str, subsets: bool) -> Resource {
    let subset = Subset {
        addresses: vec!["10.0.0.2".parse().unwrap(), "192.0.2.7".parse().unwrap()],
        ports: vec![(TCP, 8080), (UDP, 53)],
    };
    Resource::Backends(Backends {
        key: Key {
            kind,
            namespace: Some("blue".into()),
            name: name.into(),
        },
        service: "svc".into(),
        subsets: subsets.then_some(subset).into_iter().collect(),
    })
}

fn of_service(name: &str) -> Option<ServiceName> {
    Some(ServiceName {
        namespace: "blue".into(),
        name: name.into(),
    })
}

#[test]
fn fact_16_a_service_as_destination_is_its_backends_addresses_protocols_and_target_ports() {
    let mut store = governed(egress_policy(vec![ports(|to| to.service = of_service("svc"))]));
    let to = |store: &Store, peer, protocol, port| is(store, Direction::Egress, peer, protocol, port);
    assert!(!to(&store, "10.0.0.2", TCP, 8080), "nobody knows the service yet");
    store.apply(Event::Upsert(backends(Kind::EndpointSlice, "svc-1", true)));
    assert!(to(&store, "10.0.0.2", TCP, 8080) && to(&store, "192.0.2.7", UDP, 53));
    assert!(!to(&store, "10.0.0.2", UDP, 8080) && !to(&store, "10.0.0.2", TCP, 53));
    assert!(!to(&store, "10.0.0.3", TCP, 8080));
}

#[test]
fn fact_16_a_service_as_source_is_its_backends_addresses_whatever_the_port() {
    let from = rule(Action::Allow, |r| r.source.service = of_service("svc"));
    let mut store = named(vec![from]);
    store.apply(Event::Upsert(backends(Kind::EndpointSlice, "svc-1", true)));
    let from = |peer| is(&store, Direction::Ingress, peer, 47, 0);
    assert_eq!(
        ["10.0.0.2", "192.0.2.7", "10.0.0.3"].map(from),
        [true, true, false]
    );
}

#[test]
fn fact_16_endpoints_count_only_for_a_service_without_slices() {
    let rules = || egress_policy(vec![ports(|to| to.service = of_service("svc"))]);
    let mut store = governed(rules());
    store.apply(Event::Upsert(backends(Kind::Endpoints, "svc", true)));
    assert!(is(&store, Direction::Egress, "10.0.0.2", TCP, 8080));
    store.apply(Event::Upsert(backends(Kind::EndpointSlice, "svc-1", false)));
    assert!(
        !is(&store, Direction::Egress, "10.0.0.2", TCP, 8080),
        "an empty slice says: none"
    );
}
