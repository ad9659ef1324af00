//! Facts 19 and 20 as far as policy decides them, and the smaller traps.

use super::world::*;
use crate::model::load::parse_text;
use crate::model::{Action, FelixConfiguration, Pod, PortRange, Resource};
use crate::policy::reference::Oracle;
use crate::policy::topology::{Topology, interface_name};
use crate::policy::{Direction, Event, Store};
use crate::selector::{MAX_LABEL, Selector};

fn problems(spec: &str) -> usize {
    let text = calico("GlobalNetworkPolicy", "name: p", spec);
    parse_text(std::path::Path::new("a.yaml"), &text).problems.len()
}

#[test]
fn fact_19_an_interfaces_name_is_the_hash_of_namespace_and_pod_else_its_host_route_tells() {
    let store = world([]);
    let web = store.pod("blue", "web").unwrap();
    // echo -n blue.web | sha1sum
    assert_eq!(interface_name("azv", web), format!("azv{}", &BLUE_WEB[..11]));
    let topology = Topology::of(&store);
    let found = topology
        .endpoints
        .iter()
        .find(|endpoint| endpoint.pod.name == "web");
    assert_eq!(
        found.unwrap().ifindex,
        Some(1),
        "veth1, by the route to its address"
    );
}

const BLUE_WEB: &str = "adfd4e7a9f7eff80777695df4c43948e946bb5d6";

#[test]
fn fact_19_a_finished_pod_gives_its_address_back() {
    for phase in ["Succeeded", "Failed"] {
        let done = format!(
            "---
apiVersion: v1
kind: Pod
metadata: {{name: a-done, namespace: blue, labels: {{app: done}}}}
spec: {{nodeName: n1, containers: []}}
status: {{phase: {phase}, podIPs: [{{ip: 10.0.0.2}}]}}
"
        );
        let policy = "selector: all(), ingress: [{action: Deny, source: {selector: \"app == 'done'\"}}, {action: Allow}]";
        let store = world(yaml(&(done + &calico("GlobalNetworkPolicy", "name: p", policy))));
        assert_eq!(
            ingress(&store, "10.0.0.2"),
            format!("+ {}", gnp("p", 1, "default")),
            "{phase}: the address is blue/db's"
        );
    }
}

#[test]
fn fact_20_a_pod_with_source_prefixes_is_isolated_while_spoofing_is_disabled() {
    let mut store = nodes([]);
    let spoofing = |any| {
        Event::Upsert(Resource::FelixConfiguration(FelixConfiguration {
            name: "default".into(),
            source_spoofing: Some(any),
            ..FelixConfiguration::default()
        }))
    };
    let web = Pod {
        allowed_sources: vec!["192.0.2.0/24".parse().unwrap()],
        ..store.pod("blue", "web").unwrap().clone()
    };
    store.apply(Event::Upsert(Resource::Pod(web.clone())));
    let isolated = "allowedSourcePrefixes without workloadSourceSpoofing: Any";
    let may = |store: &Store, source: &str| Oracle::new(store).may_send_from(&web, source.parse().unwrap());
    for any in [None, Some(false)] {
        any.into_iter().for_each(|any| {
            store.apply(spoofing(any));
        });
        assert_eq!(
            way(&store, "10.0.0.2", "10.0.0.1", TCP, 80),
            format!("- blue/web pod's ingress policy: {isolated}")
        );
        assert_eq!(
            way(&store, "10.0.0.1", "203.0.113.1", TCP, 80),
            format!("- blue/web pod's egress policy: {isolated}")
        );
        assert!(!may(&store, "10.0.0.1") && !may(&store, "192.0.2.1"));
    }
    store.apply(spoofing(true));
    assert!(way(&store, "10.0.0.2", "10.0.0.1", TCP, 80).starts_with('+'));
    assert!(may(&store, "10.0.0.1") && may(&store, "192.0.2.1") && !may(&store, "198.51.100.1"));
}

#[test]
fn trap_a_newline_in_a_selector_is_an_error() {
    assert!(Selector::parse("has(a) &&\thas(b)").is_ok());
    assert!(Selector::parse("has(a) &&\n has(b)").is_err());
}

#[test]
fn trap_a_negation_binds_the_whole_comparison() {
    let not = Selector::parse("!app == 'db'").unwrap();
    assert!(not.matches(&labels(&[("app", "web")])) && not.matches(&labels(&[])));
    assert!(!not.matches(&labels(&[("app", "db")])));
}

#[test]
fn trap_a_label_in_a_selector_may_have_512_characters() {
    let has = |length| Selector::parse(&format!("has({})", "a".repeat(length)));
    assert!(has(MAX_LABEL).is_ok() && has(MAX_LABEL + 1).is_err());
    assert_eq!(MAX_LABEL, 512);
}

#[test]
fn trap_icmpv6_and_udplite_are_protocols_and_a_number_may_stand_for_any() {
    let protocol = |name: &str| {
        let spec = format!("selector: all(), ingress: [{{action: Allow, protocol: {name}}}]");
        let store = world(yaml(&calico("GlobalNetworkPolicy", "name: p", &spec)));
        let numbers = [1, 6, 17, 47, 58, 132, 136].into_iter();
        let peer = if name == "ICMPv6" { "fd00::2" } else { "10.0.0.2" };
        let allowed = |number: &u8| ask(&store, Direction::Ingress, peer, *number, 0).starts_with('+');
        numbers.filter(allowed).collect::<Vec<_>>()
    };
    for (name, number) in [
        ("ICMPv6", 58),
        ("ICMP", 1),
        ("UDPLite", 136),
        ("SCTP", 132),
        ("47", 47),
    ] {
        assert_eq!(protocol(name), [number], "{name}");
    }
}

#[test]
fn trap_ports_go_with_tcp_udp_and_sctp_only_by_name_or_number() {
    let ports = |protocol: &str| {
        problems(&format!(
            "selector: all(), ingress: [{{action: Allow, {protocol} destination: {{ports: [80]}}}}]"
        ))
    };
    for fine in ["TCP", "UDP", "SCTP", "6", "17", "132"] {
        assert_eq!(ports(&format!("protocol: {fine},")), 0, "{fine}");
    }
    for wrong in ["UDPLite", "ICMP", "47", "136"] {
        assert_eq!(ports(&format!("protocol: {wrong},")), 1, "{wrong}");
    }
    assert_eq!(ports(""), 1, "no protocol");
}

#[test]
fn trap_sctp_ports_are_matched_and_udplite_has_none() {
    let port = |protocol| {
        let rule = rule(Action::Allow, |r| {
            r.protocol = Some(protocol);
            r.destination.ports = vec![PortRange { first: 80, last: 80 }];
        });
        let store = world([Resource::Policy(policy("p", vec![rule]))]);
        [80, 81].map(|port| ask(&store, Direction::Ingress, "10.0.0.2", protocol, port).starts_with('+'))
    };
    assert_eq!(port(132), [true, false]);
    assert_eq!(port(136), [false, false]);
}

#[test]
fn trap_orders_may_be_fractions_and_negative() {
    let ordered = |name: &str, order: &str, action: &str| {
        let spec = format!("order: {order}, selector: all(), ingress: [{{action: {action}}}]");
        calico("GlobalNetworkPolicy", &format!("name: {name}"), &spec)
    };
    let first = |a: &str, b: &str| {
        let store = world(yaml(&(ordered("a", a, "Allow") + &ordered("b", b, "Deny"))));
        if ingress(&store, "10.0.0.2").starts_with('+') {
            "a"
        } else {
            "b"
        }
    };
    assert_eq!(first("10.5", "10.25"), "b");
    assert_eq!(first("-10", "-10.5"), "b");
    assert_eq!(first("-1", "0"), "a");
    assert_eq!(first("1e3", "1000"), "a", "the same, so the names decide");
}

#[test]
fn trap_log_consumes_no_verdict() {
    let spec = "selector: all(), ingress: [{action: Log}, {action: Allow, source: {nets: [10.0.0.2/32]}}]";
    let store = world(yaml(&calico("GlobalNetworkPolicy", "name: p", spec)));
    assert_eq!(
        ingress(&store, "10.0.0.2"),
        format!("+! {}", gnp("p", 1, "default"))
    );
    assert_eq!(ingress(&store, "10.0.0.3"), END.replace('-', "-!"));
}
