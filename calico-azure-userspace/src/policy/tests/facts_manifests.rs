//! The facts whose trap lies in how an object is read: manifests in, verdicts out.

use super::world::*;
use crate::policy::reference::Oracle;
use crate::policy::{Direction, Probe, Store};

const OUTSIDE: &str = "203.0.113.1";
const N1: &str = "192.168.0.1";
const WEB: &str = "10.0.0.1";

/// What would be decided about TCP port 80 from `blue/db` to `blue/web` if staged policies were enforced.
fn pending(store: &Store) -> String {
    let packet = Probe {
        peer: "10.0.0.2".parse().unwrap(),
        own: WEB.parse().unwrap(),
        protocol: TCP,
        sport: 40_000,
        dport: 80,
    };
    let pod = store.pod("blue", "web").unwrap();
    let (allow, _, rule) = Oracle::pending(store).decide(pod, Direction::Ingress, &packet);
    format!("{} {rule}", if allow { '+' } else { '-' })
}

#[test]
fn fact_02_staged_policies_of_every_kind_are_previews_and_set_is_the_default() {
    let staged = |kind: &str, metadata: &str, spec: &str| yaml(&calico(kind, metadata, spec));
    let all = "selector: all(), types: [Ingress]";
    for (resources, name) in [
        (
            staged("StagedGlobalNetworkPolicy", "name: p", all),
            "tier default / default action",
        ),
        (
            staged("StagedNetworkPolicy", "name: p, namespace: blue", all),
            "tier default / default action",
        ),
        (
            staged(
                "StagedKubernetesNetworkPolicy",
                "name: p, namespace: blue",
                "podSelector: {}",
            ),
            "tier default / default action",
        ),
    ] {
        let store = world(resources);
        assert_eq!(ingress(&store, "10.0.0.2"), PROFILE);
        assert_eq!(pending(&store), format!("- {name}"));
    }
    let enforced = calico(
        "NetworkPolicy",
        "name: p, namespace: blue",
        "selector: all(), ingress: [{action: Deny}]",
    );
    let delete = calico(
        "StagedNetworkPolicy",
        "name: p, namespace: blue",
        "stagedAction: Delete",
    );
    let store = world(yaml(&(enforced + &delete)));
    assert_eq!(
        ingress(&store, "10.0.0.2"),
        "- tier default / NetworkPolicy blue/p / ingress[0]"
    );
    assert_eq!(pending(&store), PROFILE);
}

#[test]
fn fact_09_a_profile_object_decides_after_the_tiers() {
    let profile = "---
apiVersion: projectcalico.org/v3
kind: Profile
metadata: {name: kns.blue}
spec: {ingress: [{action: Pass, source: {nets: [10.0.0.3/32]}}, {action: Allow}], labelsToApply: {tone: low}}
";
    let store = world(yaml(profile));
    assert_eq!(ingress(&store, "10.0.0.2"), "+ profile kns.blue / ingress[1]");
    assert_eq!(ingress(&store, "10.0.0.3"), "- profile kns.blue / ingress[0]");
}

const HOST: &str = "---
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: n1-auto-hep, labels: {role: host, projectcalico.org/created-by: calico-kube-controllers}}
spec: {node: n1, interfaceName: \"*\", expectedIPs: [192.168.0.1], profiles: [projectcalico-default-allow]}
";

#[test]
fn fact_11_default_endpoint_to_host_action_is_drop_unless_felix_is_told() {
    let to_host = |spec: &str| {
        let settings = calico("FelixConfiguration", "name: default", spec);
        way(&nodes(yaml(&settings)), WEB, N1, TCP, 80).starts_with('+')
    };
    assert!(!to_host("ipv6Support: false"));
    assert!(!to_host("defaultEndpointToHostAction: Drop"));
    assert!(to_host("defaultEndpointToHostAction: Accept"));
    assert!(
        to_host("defaultEndpointToHostAction: Return"),
        "there is no host endpoint"
    );
}

fn with_host_policy(spec: &str) -> Store {
    let policy = calico("GlobalNetworkPolicy", "name: h", spec);
    nodes(yaml(&(HOST.to_owned() + &policy)))
}

fn open(store: &Store, src: &str, dst: &str) -> bool {
    way(store, src, dst, TCP, 80).starts_with('+')
}

#[test]
fn fact_13_apply_on_forward_is_what_makes_a_policy_see_forwarded_traffic() {
    let rules = "selector: \"role == 'host'\", ingress: [{action: Deny}]";
    let normal = with_host_policy(rules);
    assert!(!open(&normal, OUTSIDE, N1) && open(&normal, OUTSIDE, WEB));
    let forward = with_host_policy(&format!("{rules}, applyOnForward: true"));
    assert!(!open(&forward, OUTSIDE, N1) && !open(&forward, OUTSIDE, WEB));
    assert!(open(&forward, N1, OUTSIDE), "it governs ingress only");
    for flag in ["preDNAT", "doNotTrack"] {
        let early = with_host_policy(&format!("{rules}, applyOnForward: true, {flag}: true"));
        assert!(
            !open(&early, OUTSIDE, N1) && !open(&early, OUTSIDE, WEB),
            "{flag}"
        );
        assert!(
            way(&early, OUTSIDE, N1, TCP, 22).starts_with('+'),
            "{flag}: failsafe"
        );
    }
}

#[test]
fn fact_13_a_pre_dnat_policy_for_all_endpoints_leaves_pods_alone() {
    let policy = "selector: all(), applyOnForward: true, preDNAT: true, ingress: [{action: Deny}]";
    let store = world(yaml(&calico("GlobalNetworkPolicy", "name: p", policy)));
    assert_eq!(ingress(&store, "10.0.0.2"), PROFILE);
}

#[test]
fn fact_14_an_automatic_host_endpoint_blocks_nothing_by_itself() {
    let store = nodes(yaml(HOST));
    assert!(open(&store, OUTSIDE, N1) && open(&store, N1, OUTSIDE) && open(&store, OUTSIDE, WEB));
    let bare = HOST.replace(", profiles: [projectcalico-default-allow]", "");
    let store = nodes(yaml(&bare));
    assert!(!open(&store, OUTSIDE, N1) && !open(&store, N1, OUTSIDE) && open(&store, OUTSIDE, WEB));
}

#[test]
fn fact_14_failsafe_ports_in_felix_configuration_replace_the_default_ones() {
    let bare = HOST.replace(", profiles: [projectcalico-default-allow]", "");
    let settings = |spec: &str| {
        let settings = calico("FelixConfiguration", "name: default", spec);
        nodes(yaml(&(bare.clone() + &settings)))
    };
    let inbound = |store: &Store, port| way(store, OUTSIDE, N1, TCP, port).starts_with('+');
    let listed = settings("failsafeInboundHostPorts: [{protocol: TCP, port: 2222, net: 203.0.113.0/24}]");
    assert!(inbound(&listed, 2222) && !inbound(&listed, 22));
    let none = settings("failsafeInboundHostPorts: []");
    assert!(!inbound(&none, 22));
    let unsaid = settings("defaultEndpointToHostAction: Accept");
    assert!(inbound(&unsaid, 22));
}
