//! Facts 4-6, 15, 17 and 18: whom selectors, namespaces and nets mean.

use super::world::*;
use crate::model::{HostEndpoint, Labels, Pod, Profile, Resource, ServiceAccount};
use crate::policy::{Event, Store};

const ALLOWED: &str = "+ tier default / NetworkPolicy blue/p / ingress[0]";
const GLOBALLY: &str = "+ tier default / GlobalNetworkPolicy p / ingress[0]";

/// A policy of namespace `blue` that allows from `source`.
fn allows_from(source: &str) -> Vec<Resource> {
    let spec = format!("selector: all(), ingress: [{{action: Allow, source: {{{source}}}}}]");
    yaml(&calico("NetworkPolicy", "name: p, namespace: blue", &spec))
}

fn globally_from(source: &str) -> Vec<Resource> {
    let spec = format!("selector: all(), ingress: [{{action: Allow, source: {{{source}}}}}]");
    yaml(&calico("GlobalNetworkPolicy", "name: p", &spec))
}

/// Which of the peers are let in.
fn let_in<'p>(store: &Store, peers: &[&'p str]) -> Vec<&'p str> {
    let allowed = |peer: &&str| match ingress(store, peer).as_str() {
        ALLOWED | GLOBALLY => true,
        END => false,
        said => panic!("{peer}: {said}"),
    };
    peers.iter().copied().filter(|peer| allowed(peer)).collect()
}

#[test]
fn fact_04_not_selector_matches_strangers_and_a_negated_selector_does_not() {
    let peers = ["10.0.0.2", "10.0.0.3", "192.0.2.1"];
    let unlike = |source| let_in(&world(globally_from(source)), &peers);
    assert_eq!(unlike("notSelector: \"app == 'db'\""), ["10.0.0.3", "192.0.2.1"]);
    assert_eq!(unlike("selector: \"!app == 'db'\""), ["10.0.0.3"]);
    assert_eq!(unlike("selector: \"app != 'db'\""), ["10.0.0.3"]);
    assert_eq!(
        unlike("selector: has(app), notSelector: \"app == 'db'\""),
        ["10.0.0.3"]
    );
}

#[test]
fn fact_05_a_rule_looks_into_its_own_namespace_only_if_it_selects() {
    let peers = ["10.0.0.2", "10.0.0.3", "192.0.2.1"];
    let from = |source| let_in(&world(allows_from(source)), &peers);
    assert_eq!(from("nets: [0.0.0.0/0]"), peers, "nets are not restricted");
    assert_eq!(from("notNets: [10.0.0.2/32]"), ["10.0.0.3", "192.0.2.1"]);
    assert_eq!(from("selector: all()"), ["10.0.0.2"]);
    assert_eq!(from("selector: has(app)"), ["10.0.0.2"]);
    assert_eq!(from("serviceAccounts: {names: [default]}"), ["10.0.0.2"]);
    assert_eq!(
        from("notSelector: \"app == 'web'\""),
        ["10.0.0.2"],
        "not of its namespace, not let in"
    );
    assert_eq!(from("namespaceSelector: all()"), ["10.0.0.2", "10.0.0.3"]);
    assert_eq!(
        from("selector: has(app), namespaceSelector: \"team == 'sun'\""),
        ["10.0.0.3"]
    );
}

#[test]
fn fact_06_global_means_what_has_no_namespace() {
    let more = || {
        [
            network_set(None, &[("app", "ext")], &["192.0.2.0/24"]),
            host(|host| {
                host.labels = labels(&[("app", "host")]);
            }),
        ]
    };
    let peers = ["10.0.0.2", "192.0.2.1", "192.168.0.1", "203.0.113.1"];
    let from = |source| let_in(&world(allows_from(source).into_iter().chain(more())), &peers);
    let without = ["192.0.2.1", "192.168.0.1"];
    assert_eq!(from("selector: has(app), namespaceSelector: global()"), without);
    assert_eq!(from("namespaceSelector: global()"), without);
    assert_eq!(from("namespaceSelector: all()"), ["10.0.0.2"]);
    let globally = let_in(
        &world(globally_from("selector: has(app)").into_iter().chain(more())),
        &peers,
    );
    assert_eq!(globally, ["10.0.0.2", "192.0.2.1", "192.168.0.1"], "both");
}

#[test]
fn fact_06_a_policy_for_all_namespaces_leaves_host_endpoints_alone() {
    let governed = |spec: &str| {
        let spec = format!("{spec} types: [Ingress]");
        let policies = yaml(&calico("GlobalNetworkPolicy", "name: p", &spec));
        let open = host(|host| host.profiles = vec!["projectcalico-default-allow".into()]);
        let store = nodes(policies.into_iter().chain([open]));
        way(&store, "203.0.113.1", "192.168.0.1", TCP, 80)
    };
    let ended = "- host1 host policy: tier default / default action";
    let open = "+ host1 host policy: profile projectcalico-default-allow";
    assert_eq!(governed(""), ended);
    assert_eq!(governed("selector: all(),"), ended);
    assert_eq!(governed("namespaceSelector: all(),"), open);
    assert_eq!(governed("serviceAccountSelector: all(),"), open);
}

#[test]
fn fact_15_selectors_know_a_host_endpoint_by_its_expected_addresses_only() {
    let from = |edit: fn(&mut HostEndpoint)| {
        let policies = globally_from("selector: \"role == 'host'\"");
        let store = nodes(policies.into_iter().chain([host(edit)]));
        let_in(&store, &["192.168.0.1", "192.168.0.2"])
    };
    assert_eq!(from(|_| {}), ["192.168.0.1"]);
    let nobody: [&str; 0] = [];
    assert_eq!(
        from(|host| host.expected_ips.clear()),
        nobody,
        "though it is the node's address"
    );
    assert_eq!(from(|host| host.labels.clear()), nobody);
}

#[test]
fn fact_15_a_host_endpoint_inherits_labels_from_its_profiles() {
    let profile = Resource::Profile(Profile {
        name: "edge".into(),
        labels_to_apply: labels(&[("role", "edge"), ("zone", "z")]),
        ..Profile::default()
    });
    let host = host(|host| host.profiles = vec!["edge".into()]);
    let from = |selector: &str| {
        let policies = globally_from(&format!("selector: \"{selector}\""));
        let store = nodes(policies.into_iter().chain([host.clone(), profile.clone()]));
        !let_in(&store, &["192.168.0.1"]).is_empty()
    };
    assert!(from("zone == 'z'"));
    assert!(from("role == 'host'") && !from("role == 'edge'"), "its own wins");
}

#[test]
fn fact_15_network_sets_may_carry_inherited_labels_and_pods_may_not() {
    let forged = "---
apiVersion: v1
kind: Pod
metadata: {name: forger, namespace: red, labels: {pcns.team: sea, pcsa.role: front, app: x}}
spec: {nodeName: n1, serviceAccountName: default, containers: []}
status: {phase: Running, podIPs: [{ip: 10.0.0.7}]}
---
apiVersion: projectcalico.org/v3
kind: NetworkSet
metadata: {name: s, namespace: red, labels: {pcns.team: sea}}
spec: {nets: [192.0.2.0/24]}
---
apiVersion: projectcalico.org/v3
kind: NetworkSet
metadata: {name: t, namespace: blue}
spec: {nets: [198.51.100.0/24]}
";
    let peers = ["10.0.0.2", "10.0.0.7", "192.0.2.1", "198.51.100.1"];
    let loaded = crate::model::load::parse_text(std::path::Path::new("a.yaml"), forged);
    assert_eq!(loaded.problems.len(), 2, "the pod's labels are reported");
    let from = |source| {
        let more = loaded.resources.iter().cloned();
        let_in(&world(globally_from(source).into_iter().chain(more)), &peers)
    };
    assert_eq!(
        from("namespaceSelector: \"team == 'sea'\""),
        ["10.0.0.2", "192.0.2.1", "198.51.100.1"]
    );
    let nobody: [&str; 0] = [];
    assert_eq!(from("serviceAccounts: {selector: \"role == 'front'\"}"), nobody);
}

#[test]
fn fact_17_kubernetes_selectors_mean_pods_only() {
    let kubernetes = |peer: &str| {
        let text = format!(
            "apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: p, namespace: blue}}
spec: {{podSelector: {{}}, ingress: [{{from: [{peer}]}}]}}
"
        );
        let set = network_set(Some("blue"), &[("app", "db")], &["192.0.2.0/24"]);
        let store = world(yaml(&text).into_iter().chain([set]));
        ["10.0.0.2", "192.0.2.1"].map(|peer| ingress(&store, peer).starts_with('+'))
    };
    assert_eq!(
        kubernetes("{podSelector: {matchLabels: {app: db}}}"),
        [true, false]
    );
    assert_eq!(kubernetes("{podSelector: {}}"), [true, false]);
    assert_eq!(kubernetes("{namespaceSelector: {}}"), [true, false]);
    assert_eq!(kubernetes("{ipBlock: {cidr: 192.0.2.0/24}}"), [false, true]);
}

#[test]
fn fact_17_own_labels_shadow_inherited_ones_and_the_first_profile_wins() {
    let tone = |value: &str| labels(&[("tone", value), ("pcns.team", value)]);
    let profile = |name: &str| {
        Resource::Profile(Profile {
            name: name.into(),
            labels_to_apply: tone(name),
            ..Profile::default()
        })
    };
    let account = Resource::ServiceAccount(ServiceAccount {
        namespace: "blue".into(),
        name: "default".into(),
        labels: labels(&[("tone", "account")]),
    });
    let heard = |names: Option<&[&str]>, own: Labels, selector: &str| {
        let policies = globally_from(&format!("selector: \"{selector}\""));
        let more = [profile("one"), profile("two"), account.clone()];
        let mut store = world(policies.into_iter().chain(more));
        let db = store.pod("blue", "db").unwrap();
        let db = Pod {
            profiles: names.map(|names| names.iter().map(|name| (*name).to_owned()).collect()),
            labels: own.into(),
            ..db.clone()
        };
        store.apply(Event::Upsert(Resource::Pod(db)));
        !let_in(&store, &["10.0.0.2"]).is_empty()
    };
    let none = Labels::new;
    assert!(heard(Some(&["one", "two"]), none(), "tone == 'one'"));
    assert!(heard(Some(&["two", "one"]), none(), "tone == 'two'"));
    assert!(heard(
        Some(&["one"]),
        labels(&[("tone", "own")]),
        "tone == 'own' && pcns.team == 'one'"
    ));
    assert!(heard(Some(&["kns.blue", "one"]), none(), "pcns.team == 'sea'"));
    assert!(heard(
        None,
        none(),
        "pcsa.tone == 'account' && pcns.team == 'sea'"
    ));
    assert!(
        heard(Some(&["one"]), none(), "!has(pcsa.tone)"),
        "it names no account"
    );
}

#[test]
fn fact_18_a_list_without_the_packets_family_takes_the_rule_out_of_it() {
    let peers = ["10.0.0.2", "fd00::2", "2001:db8::1"];
    let from = |source| let_in(&world(globally_from(source)), &peers);
    assert_eq!(from("notNets: [\"fd00::/64\"]"), ["2001:db8::1"]);
    assert_eq!(
        from("notNets: [10.0.0.0/30]"),
        [""; 0],
        "nor does it hold for IPv6"
    );
    assert_eq!(from("nets: [\"::/0\"]"), ["fd00::2", "2001:db8::1"]);
}

#[test]
fn fact_18_a_negated_catch_all_drops_the_rule() {
    // A manifest that says so is invalid, so it is reported; whatever of it gets here must not open anything.
    let everything = rule(crate::model::Action::Allow, |r| {
        r.source.not_nets = vec!["0.0.0.0/0".parse().unwrap()];
    });
    let store = world([Resource::Policy(policy("p", vec![everything]))]);
    assert_eq!(let_in(&store, &["10.0.0.2", "fd00::2"]), [""; 0]);
    let spec = "selector: all(), ingress: [{action: Allow, source: {notNets: [0.0.0.0/0]}}]";
    let text = calico("GlobalNetworkPolicy", "name: p", spec);
    let loaded = crate::model::load::parse_text(std::path::Path::new("a.yaml"), &text);
    assert_eq!(loaded.problems.len(), 1, "{:?}", loaded.problems);
    assert_eq!(
        let_in(&world(loaded.resources), &["10.0.0.2", "fd00::2"]),
        [""; 0]
    );
}
