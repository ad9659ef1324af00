//! Facts 11, 13 and 14: host endpoints, and what passes between hosts and pods.

use super::world::*;
use crate::model::{
    EndpointToHost, Failsafe, FelixConfiguration, HostEndpoint, HostRole, Policy, Resource, Rule,
};
use crate::policy::{Event, Store};

type Edit = fn(&mut HostEndpoint);

const OUTSIDE: &str = "203.0.113.1";
const N1: &str = "192.168.0.1";
const N2: &str = "192.168.0.2";
const WEB: &str = "10.0.0.1";
const DB: &str = "10.0.0.2";
/// On `n2`.
const FAR: &str = "10.0.0.4";

/// Governs host endpoints only, in both directions (preDNAT: ingress).
fn of_hosts(name: &str, host: HostRole, rules: Vec<Rule>) -> Resource {
    let both = policy(name, rules);
    Resource::Policy(Policy {
        selector: selector("role == 'host'"),
        egress: both.ingress.clone().filter(|_| host != HostRole::PreDnat),
        host,
        ..both
    })
}

fn settings(name: &str, edit: impl FnOnce(&mut FelixConfiguration)) -> Resource {
    let mut configuration = FelixConfiguration {
        name: name.into(),
        ..FelixConfiguration::default()
    };
    edit(&mut configuration);
    Resource::FelixConfiguration(configuration)
}

fn default_allow(host: &mut HostEndpoint) {
    host.profiles = vec!["projectcalico-default-allow".into()];
}

fn allowed(store: &Store, src: &str, dst: &str) -> bool {
    way(store, src, dst, TCP, 80).starts_with('+')
}

#[test]
fn fact_11_a_host_reaches_its_own_pods_whatever_policies_say() {
    let store = nodes([Resource::Policy(policy("p", vec![deny()])), host(|_| {})]);
    let said = way(&store, N1, WEB, TCP, 80);
    assert_eq!(
        said,
        "+ blue/web host to its own pod: a host reaches its own pods"
    );
    assert!(!allowed(&store, N2, WEB), "another node's host does not");
}

#[test]
fn fact_11_a_pod_reaches_its_host_by_its_egress_policy_and_then_the_action() {
    let to_host = |more: Vec<Resource>| way(&nodes(more), WEB, N1, TCP, 80);
    let action = |name: &str, action| settings(name, |x| x.endpoint_to_host = Some(action));
    let dropped = "- blue/web pod-to-host action: defaultEndpointToHostAction";
    let accepted = "+ blue/web pod-to-host action: defaultEndpointToHostAction";
    assert_eq!(to_host(vec![]), dropped, "the default");
    let accept = || action("default", EndpointToHost::Accept);
    assert_eq!(to_host(vec![accept()]), accepted);
    let closed = Policy {
        ingress: None,
        egress: Some(vec![deny()]),
        ..policy("p", vec![])
    };
    assert_eq!(
        to_host(vec![accept(), Resource::Policy(closed)]),
        "- blue/web pod's egress policy: tier default / GlobalNetworkPolicy p / egress[0]"
    );
    assert!(
        allowed(&nodes([]), WEB, N2),
        "the action is about the pod's own host only"
    );
}

#[test]
fn fact_14_the_action_return_brings_in_no_normal_policy() {
    let returns = || settings("default", |x| x.endpoint_to_host = Some(EndpointToHost::Return));
    let to_host = |more: Vec<Resource>| way(&nodes(more.into_iter().chain([returns()])), WEB, N1, TCP, 80);
    let returned = "+ blue/web pod-to-host action: defaultEndpointToHostAction";
    assert_eq!(to_host(vec![]), returned);
    let passed = "+ host1 pod-to-host action: defaultEndpointToHostAction";
    assert_eq!(to_host(vec![host(|_| {})]), passed);
    let of_role = |role| to_host(vec![host(|_| {}), of_hosts("h", role, vec![deny()])]);
    for role in [HostRole::Normal, HostRole::Forward, HostRole::Untracked] {
        assert_eq!(of_role(role), passed, "{role:?}");
    }
    assert_eq!(
        of_role(HostRole::PreDnat),
        "- host1 pre-DNAT host policy: tier default / GlobalNetworkPolicy h / ingress[0]"
    );
}

#[test]
fn fact_11_a_nodes_own_settings_win_over_those_for_all() {
    let store = nodes([
        settings("default", |x| x.endpoint_to_host = Some(EndpointToHost::Accept)),
        settings("node.n1", |x| x.endpoint_to_host = Some(EndpointToHost::Drop)),
        settings("node.n2", |x| x.failsafe_inbound = Some(Vec::new())),
    ]);
    assert!(!allowed(&store, WEB, N1));
    assert!(allowed(&store, FAR, N2), "what its own leave out is that for all");
}

#[test]
fn fact_13_pre_dnat_and_untracked_policies_never_govern_pods_and_the_others_do() {
    for (role, governs) in [
        (HostRole::PreDnat, false),
        (HostRole::Untracked, false),
        (HostRole::Forward, true),
        (HostRole::Normal, true),
    ] {
        let governing = Policy {
            host: role,
            ..policy("p", vec![deny()])
        };
        let store = world([Resource::Policy(governing)]);
        assert_eq!(ingress(&store, DB).starts_with('-'), governs, "{role:?}");
    }
}

#[test]
fn fact_13_forwarded_traffic_is_allowed_when_no_policy_is_about_it() {
    let closed = [host(|_| {}), of_hosts("h", HostRole::Normal, vec![deny()])];
    let store = nodes(closed.clone());
    assert_eq!(
        way(&store, OUTSIDE, WEB, TCP, 80),
        "+ blue/web pod's ingress policy: profile kns.blue"
    );
    assert!(!allowed(&store, OUTSIDE, N1), "the host itself is closed");
    let rule = rule(crate::model::Action::Allow, |r| {
        r.source.nets = vec!["203.0.113.0/24".parse().unwrap()];
    });
    let store = nodes(
        closed
            .into_iter()
            .chain([of_hosts("f", HostRole::Forward, vec![rule])]),
    );
    assert!(
        !allowed(&store, FAR, WEB),
        "its tier's end counts for what passes through"
    );
    assert!(allowed(&store, OUTSIDE, WEB));
}

#[test]
fn fact_13_the_ends_of_pre_dnat_and_untracked_tiers_do_not_count() {
    for role in [HostRole::PreDnat, HostRole::Untracked] {
        let none = nodes([host(default_allow), of_hosts("h", role, vec![])]);
        assert_eq!(
            way(&none, OUTSIDE, N1, TCP, 80),
            "+ host1 host policy: profile projectcalico-default-allow",
            "{role:?}"
        );
        let denied = nodes([host(default_allow), of_hosts("h", role, vec![deny()])]);
        assert!(
            !allowed(&denied, OUTSIDE, N1) && !allowed(&denied, OUTSIDE, WEB),
            "{role:?}"
        );
        // What they allow no later policy of the host sees; the pod's own does.
        let closed = of_hosts("n", HostRole::Forward, vec![deny()]);
        let only_ingress = |resource| match resource {
            Resource::Policy(policy) => Resource::Policy(Policy {
                egress: None,
                ..policy
            }),
            other => other,
        };
        let open = nodes([
            host(|_| {}),
            of_hosts("h", role, vec![allow()]),
            only_ingress(closed),
        ]);
        assert!(
            allowed(&open, OUTSIDE, N1) && allowed(&open, OUTSIDE, WEB),
            "{role:?}"
        );
    }
}

#[test]
fn fact_13_pre_dnat_policies_see_the_destination_before_translation() {
    let flow = |dst: &str| crate::policy::reference::Flow {
        src: OUTSIDE.parse().unwrap(),
        dst: dst.parse().unwrap(),
        protocol: TCP,
        sport: 40_000,
        dport: 80,
    };
    let closed = rule(crate::model::Action::Deny, |r| {
        r.destination.nets = vec!["192.168.0.1/32".parse().unwrap()];
    });
    let store = nodes([host(|_| {}), of_hosts("h", HostRole::PreDnat, vec![closed])]);
    let oracle = crate::policy::reference::Oracle::new(&store);
    assert!(oracle.path(&flow(WEB)).allow);
    let translated = oracle.path_translated(&flow(N1), &flow(WEB));
    let denied = translated.denied_at().unwrap();
    assert_eq!(denied.stage, crate::policy::reference::Stage::PreDnat);
}

#[test]
fn fact_14_an_automatic_host_endpoint_blocks_nothing_until_a_policy_selects_it() {
    let store = nodes([host(default_allow)]);
    for (src, dst) in [
        (OUTSIDE, N1),
        (N1, OUTSIDE),
        (OUTSIDE, WEB),
        (WEB, OUTSIDE),
        (FAR, N1),
    ] {
        assert!(allowed(&store, src, dst), "{src} to {dst}");
    }
    let store = nodes([host(default_allow), of_hosts("h", HostRole::Normal, vec![])]);
    assert!(!allowed(&store, OUTSIDE, N1) && !allowed(&store, N1, OUTSIDE));
}

#[test]
fn fact_14_a_host_endpoint_with_neither_policy_nor_profile_denies_what_is_the_hosts() {
    let store = nodes([host(|_| {})]);
    let denied = "- host1 host policy: implicit deny";
    assert_eq!(way(&store, OUTSIDE, N1, TCP, 80), denied);
    assert_eq!(way(&store, N1, OUTSIDE, TCP, 80), denied);
    assert!(
        allowed(&store, OUTSIDE, WEB) && allowed(&store, WEB, OUTSIDE),
        "not what it forwards"
    );
    let none = nodes([]);
    assert!(
        allowed(&none, OUTSIDE, N1) && allowed(&none, N1, OUTSIDE),
        "none at all restricts nothing"
    );
}

#[test]
fn fact_14_normal_policies_of_all_interfaces_do_not_see_pods_traffic() {
    let store = nodes([host(|_| {}), of_hosts("h", HostRole::Normal, vec![deny()])]);
    assert!(allowed(&store, WEB, DB) && allowed(&store, WEB, FAR) && allowed(&store, FAR, WEB));
    let forward = nodes([host(|_| {}), of_hosts("h", HostRole::Forward, vec![deny()])]);
    assert!(!allowed(&forward, WEB, DB), "those with applyOnForward do");
}

#[test]
fn fact_14_a_named_host_endpoint_beats_one_for_all_interfaces_and_the_first_name_wins() {
    let other = |name: &str, edit: Edit| {
        host(|host| {
            host.name = name.into();
            edit(host);
        })
    };
    let by_address: Edit = |host| host.interface = None;
    let by_name: Edit = |host| {
        host.interface = Some("eth0".into());
        host.expected_ips.clear();
    };
    let elsewhere: Edit = |host| host.node = "n2".into();
    let at = |others: &[(&str, Edit)]| {
        let others = others.iter().map(|(name, edit)| other(name, *edit));
        let store = nodes(others.chain([host(|_| {})]));
        way(&store, OUTSIDE, N1, TCP, 80)
    };
    assert_eq!(at(&[("z", by_address)]), "- z host policy: implicit deny");
    assert_eq!(
        at(&[("z", by_name), ("y", by_address)]),
        "- y host policy: implicit deny"
    );
    assert_eq!(at(&[("a", |_| {})]), "- a host policy: implicit deny");
    assert_eq!(at(&[("a", elsewhere)]), "- host1 host policy: implicit deny");

    let store = nodes([other("z", by_name), host(|_| {})]);
    let oracle = crate::policy::reference::Oracle::new(&store);
    let named = |interface| {
        oracle
            .host_endpoint("n1", Some(interface), &[])
            .unwrap()
            .name
            .as_str()
    };
    assert_eq!(["eth0", "eth1"].map(named), ["z", "host1"]);
}

#[test]
fn fact_14_failsafe_ports_stay_open_for_the_host_only_whatever_policy_says() {
    let closed = || {
        let untracked = of_hosts("u", HostRole::Untracked, vec![deny()]);
        [host(|_| {}), untracked]
    };
    let store = nodes(closed());
    let failsafe = |protocol, ports: &[u16], inbound: bool| {
        let (src, dst) = if inbound { (OUTSIDE, N1) } else { (N1, OUTSIDE) };
        ports
            .iter()
            .all(|port| way(&store, src, dst, protocol, *port).starts_with('+'))
    };
    assert!(failsafe(
        TCP,
        &[22, 179, 2379, 2380, 5473, 6443, 6666, 6667],
        true
    ));
    assert!(failsafe(UDP, &[68], true) && failsafe(UDP, &[53, 67], false));
    assert!(failsafe(TCP, &[179, 2379, 2380, 5473, 6443, 6666, 6667], false));
    for (protocol, port, inbound) in [
        (TCP, 22, false),
        (TCP, 68, true),
        (TCP, 53, false),
        (UDP, 22, true),
        (UDP, 53, true),
    ] {
        assert!(!failsafe(protocol, &[port], inbound), "{protocol} {port}");
    }
    assert!(
        !way(&store, OUTSIDE, WEB, TCP, 22).starts_with('+'),
        "not for what passes through"
    );
}

#[test]
fn fact_14_failsafe_ports_are_configured_for_all_nodes_or_one_and_may_name_a_net() {
    let ssh = |net: Option<&str>| Failsafe {
        protocol: TCP,
        port: 22,
        net: net.map(|net| net.parse().unwrap()),
    };
    let mut store = nodes([
        host(|_| {}),
        settings("default", |x| {
            x.failsafe_inbound = Some(vec![ssh(Some("203.0.113.0/30"))]);
        }),
    ]);
    let opens = |store: &Store, src, port| way(store, src, N1, TCP, port).starts_with('+');
    assert!(opens(&store, OUTSIDE, 22) && !opens(&store, "203.0.113.9", 22));
    assert!(!opens(&store, OUTSIDE, 6443), "the list replaces the default one");
    store.apply(Event::Upsert(settings("node.n1", |x| {
        x.failsafe_inbound = Some(vec![]);
    })));
    assert!(!opens(&store, OUTSIDE, 22));
}

#[test]
fn fact_14_namespaced_policies_never_govern_a_host_endpoint() {
    let mut namespaced = policy("p", vec![allow()]);
    namespaced.key.kind = crate::model::Kind::NetworkPolicy;
    namespaced.key.namespace = Some("blue".into());
    let store = nodes([host(|_| {}), Resource::Policy(namespaced)]);
    assert_eq!(
        way(&store, OUTSIDE, N1, TCP, 80),
        "- host1 host policy: implicit deny"
    );
}

#[test]
fn the_way_between_two_nodes_passes_both_hosts_and_both_pods() {
    let second = host(|host| {
        host.name = "host2".into();
        host.node = "n2".into();
        host.expected_ips = vec![N2.parse().unwrap()];
    });
    let forward = of_hosts("f", HostRole::Forward, vec![allow()]);
    let store = nodes([host(default_allow), second, forward]);
    let oracle = crate::policy::reference::Oracle::new(&store);
    let legs = |src: &str, dst: &str| {
        let flow = crate::policy::reference::Flow {
            src: src.parse().unwrap(),
            dst: dst.parse().unwrap(),
            protocol: TCP,
            sport: 40_000,
            dport: 80,
        };
        let path = oracle.path(&flow);
        let legs = path.legs.iter().map(|leg| format!("{}: {}", leg.at, leg.stage));
        legs.collect::<Vec<_>>()
    };
    assert_eq!(
        legs(WEB, FAR),
        [
            "host1: forward host policy",
            "blue/web: pod's egress policy",
            "host1: forward host policy",
            "host2: forward host policy",
            "host2: forward host policy",
            "red/far: pod's ingress policy",
        ]
    );
    assert_eq!(legs(N1, N2), ["host1: host policy", "host2: host policy"]);
    assert_eq!(legs(OUTSIDE, N1), ["host1: host policy"]);
    assert_eq!(legs(N1, N1), [""; 0]);
    assert_eq!(legs(WEB, WEB), [""; 0]);
}

#[test]
fn a_host_endpoint_is_asked_in_the_direction_of_its_own_host() {
    let incoming = Policy {
        selector: selector("role == 'host'"),
        egress: None,
        ..policy("p", vec![allow()])
    };
    let store = nodes([host(default_allow), Resource::Policy(incoming)]);
    assert_eq!(
        way(&store, OUTSIDE, N1, TCP, 80),
        "+ host1 host policy: tier default / GlobalNetworkPolicy p / ingress[0]"
    );
    assert_eq!(
        way(&store, N1, OUTSIDE, TCP, 80),
        "+ host1 host policy: profile projectcalico-default-allow"
    );
}
