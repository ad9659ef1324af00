//! Facts 1-3 and 7-10: what governs, in which order, and how tiers end.

use super::world::*;
use crate::model::{Action, Kind, Policy, Profile, Resource, Rule, StagedAction, Tier, TierDefault};
use crate::policy::reference::Oracle;
use crate::policy::{Direction, Event, Probe, Store};

fn egress(store: &Store) -> String {
    ask(store, Direction::Egress, "10.0.0.2", TCP, 80)
}

#[test]
fn fact_01_the_end_of_a_tier_drops_in_the_direction_that_is_governed_only() {
    let governing = |types| world(yaml(&calico("GlobalNetworkPolicy", "name: p", types)));
    let store = governing("selector: all(), types: [Egress]");
    assert_eq!(
        [ingress(&store, "10.0.0.2"), egress(&store)],
        [PROFILE.to_owned(), END.to_owned()]
    );
    let store = governing("selector: all(), types: [Ingress]");
    assert_eq!(
        [ingress(&store, "10.0.0.2"), egress(&store)],
        [END.to_owned(), PROFILE.to_owned()]
    );
}

/// A staged policy for everything that denies everything, and what it does.
fn staged(action: StagedAction, name: &str) -> Resource {
    let mut staged = policy(name, vec![deny()]);
    staged.key.kind = Kind::StagedGlobalNetworkPolicy;
    staged.staged = Some(action);
    Resource::Policy(staged)
}

fn pending(store: &Store) -> String {
    let packet = Probe {
        peer: "10.0.0.2".parse().unwrap(),
        own: "10.0.0.1".parse().unwrap(),
        protocol: TCP,
        sport: 40_000,
        dport: 80,
    };
    let pod = store.pod("blue", "web").unwrap();
    let (allow, _, rule) = Oracle::pending(store).decide(pod, Direction::Ingress, &packet);
    format!("{} {rule}", if allow { '+' } else { '-' })
}

#[test]
fn fact_02_a_tier_with_staged_policies_only_is_transparent() {
    let store = world([staged(StagedAction::Set, "p")]);
    assert_eq!(ingress(&store, "10.0.0.2"), PROFILE);
    let preview = "- tier default / StagedGlobalNetworkPolicy p / ingress[0]";
    assert_eq!(pending(&store), preview, "enforced, it would decide");
    for action in [StagedAction::Delete, StagedAction::Learn, StagedAction::Ignore] {
        assert_eq!(pending(&world([staged(action, "p")])), PROFILE, "{action:?}");
    }
}

#[test]
fn fact_02_a_staged_policy_takes_the_place_of_its_enforced_one_when_pending() {
    let enforced = || Resource::Policy(policy("p", vec![allow()]));
    let allowed = format!("+ {}", gnp("p", 0, "default"));
    let preview = "- tier default / StagedGlobalNetworkPolicy p / ingress[0]";
    for (action, expected) in [
        (StagedAction::Set, preview),
        (StagedAction::Delete, PROFILE),
        (StagedAction::Learn, &allowed),
        (StagedAction::Ignore, &allowed),
    ] {
        let store = world([enforced(), staged(action, "p")]);
        assert_eq!(ingress(&store, "10.0.0.2"), allowed);
        assert_eq!(pending(&store), expected, "{action:?}");
        let other = world([enforced(), staged(action, "q")]);
        assert_eq!(pending(&other), allowed, "of another name, {action:?}");
    }
    let before = world([enforced(), staged(StagedAction::Set, "o")]);
    assert!(pending(&before).starts_with('-'), "in its sorted place");
}

#[test]
fn fact_03_types_left_out_mean_ingress_unless_there_are_egress_rules_only() {
    let np = |rules: &str| {
        let text = calico("NetworkPolicy", "name: p, namespace: blue", rules);
        let raw = text.replace("projectcalico.org/v3", "crd.projectcalico.org/v1");
        [text, raw].map(|text| {
            let store = world(yaml(&text));
            [ingress(&store, "10.0.0.3"), egress(&store)].map(|said| said != PROFILE)
        })
    };
    let both = |governed: [bool; 2]| [governed; 2];
    assert_eq!(np("selector: all()"), both([true, false]), "no rules at all");
    assert_eq!(np("ingress: [{action: Allow}]"), both([true, false]));
    assert_eq!(np("egress: [{action: Deny}]"), both([false, true]));
    assert_eq!(
        np("ingress: [{action: Deny}], egress: [{action: Deny}]"),
        both([true, true])
    );
}

#[test]
fn fact_07_a_dash_b_sorts_before_a_and_no_order_comes_last() {
    let named = |name: &str, more: &str, action: &str| {
        let spec = format!("{more} selector: all(), ingress: [{{action: {action}}}]");
        calico("GlobalNetworkPolicy", &format!("name: {name}"), &spec)
    };
    let store = |a: String, b: String| world(yaml(&(a + &b)));
    let tie = store(named("a", "", "Allow"), named("a-b", "", "Deny"));
    assert_eq!(
        ingress(&tie, "10.0.0.2"),
        format!("- {}", gnp("a-b", 0, "default"))
    );
    let ordered = store(named("a", "", "Allow"), named("z", "order: 1e9,", "Deny"));
    assert_eq!(
        ingress(&ordered, "10.0.0.2"),
        format!("- {}", gnp("z", 0, "default"))
    );
}

#[test]
fn fact_08_a_policy_in_a_tier_that_does_not_exist_is_enforced_last_and_denies() {
    let ghost = calico(
        "GlobalNetworkPolicy",
        "name: g",
        "tier: ghost, order: -5, selector: all(), types: [Ingress]",
    );
    let pass = calico(
        "GlobalNetworkPolicy",
        "name: p",
        "selector: all(), ingress: [{action: Pass, source: {nets: [10.0.0.2/32]}}]",
    );
    // That the tier is missing is reported, so this is not a text in which nothing is wrong.
    let loaded = crate::model::load::parse_text(std::path::Path::new("a.yaml"), &(ghost + &pass));
    let store = world(loaded.resources);
    assert_eq!(ingress(&store, "10.0.0.2"), "- tier ghost / default action");
    assert_eq!(ingress(&store, "10.0.0.3"), END);
}

fn profile(name: &str, ingress: Vec<Rule>) -> Resource {
    Resource::Profile(Profile {
        name: name.into(),
        ingress,
        ..Profile::default()
    })
}

fn with_profiles(names: &[&str], more: Vec<Resource>) -> Store {
    let mut store = world(more);
    let mut pod = store.pod("blue", "web").unwrap().clone();
    pod.profiles = Some(names.iter().map(|name| (*name).to_owned()).collect());
    store.apply(Event::Upsert(Resource::Pod(pod)));
    store
}

#[test]
fn fact_09_pass_after_the_last_tier_leads_to_the_profiles() {
    let pass = || Resource::Policy(policy("p", vec![rule(Action::Pass, |_| {})]));
    assert_eq!(ingress(&world([pass()]), "10.0.0.2"), PROFILE);
    let store = with_profiles(&["gone", "kns.blue"], vec![pass()]);
    assert_eq!(
        ingress(&store, "10.0.0.2"),
        "- profile gone",
        "a missing one denies"
    );
    let store = with_profiles(&[], vec![pass()]);
    assert_eq!(ingress(&store, "10.0.0.2"), "- implicit deny");
    let store = with_profiles(
        &["mute", "projectcalico-default-allow"],
        vec![pass(), profile("mute", vec![])],
    );
    assert_eq!(
        ingress(&store, "10.0.0.2"),
        "+ profile projectcalico-default-allow",
        "one that does not decide leads to the next"
    );
}

#[test]
fn fact_09_pass_in_a_profile_denies_and_log_there_only_logs() {
    let rules = |action| {
        let second = Rule { index: 1, ..allow() };
        let store = with_profiles(&["own"], vec![profile("own", vec![rule(action, |_| {}), second])]);
        ingress(&store, "10.0.0.2")
    };
    assert_eq!(rules(Action::Pass), "- profile own / ingress[0]");
    assert_eq!(rules(Action::Deny), "- profile own / ingress[0]");
    assert_eq!(rules(Action::Log), "+! profile own / ingress[1]");
}

#[test]
fn fact_09_a_pod_without_policies_is_open_only_because_of_its_namespace() {
    let mut store = world([]);
    assert_eq!(ingress(&store, "10.0.0.2"), PROFILE);
    let namespace = Resource::Namespace(crate::model::Namespace {
        name: "blue".into(),
        ..Default::default()
    });
    store.apply(Event::Delete(namespace.key()));
    assert_eq!(ingress(&store, "10.0.0.2"), "- profile kns.blue");
}

#[test]
fn fact_10_the_built_in_tiers_are_there_in_their_order_without_objects() {
    let orders = ["kube-admin", "default", "kube-baseline"].map(|name| Tier::builtin(name).unwrap());
    assert!(orders.is_sorted_by_key(|tier| tier.order));
    let in_tier = |tier: &str, rules| {
        Resource::Policy(Policy {
            tier: tier.into(),
            ..policy(tier, rules)
        })
    };
    let from = |last: &str, action| {
        let net = format!("10.0.0.{last}/32").parse().unwrap();
        rule(action, |r| r.source.nets = vec![net])
    };
    // Each knows one address; what none knows, the tier in the middle denies.
    let store = world([
        in_tier(
            "kube-baseline",
            vec![from("2", Action::Allow), from("3", Action::Allow)],
        ),
        in_tier("default", vec![from("3", Action::Pass)]),
        in_tier("kube-admin", vec![from("2", Action::Deny)]),
    ]);
    assert_eq!(
        ingress(&store, "10.0.0.2"),
        format!("- {}", gnp("kube-admin", 0, "kube-admin"))
    );
    assert_eq!(
        ingress(&store, "10.0.0.3"),
        format!("+ {}", gnp("kube-baseline", 1, "kube-baseline"))
    );
    assert_eq!(ingress(&store, "10.0.0.9"), END);
}

#[test]
fn fact_10_a_kubernetes_policy_comes_before_a_calico_policy_without_order() {
    let kubernetes = "---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: z, namespace: blue}
spec: {podSelector: {}, ingress: [{}]}
";
    let calico = |order: &str| {
        let spec = format!("{order} selector: all(), ingress: [{{action: Deny}}]");
        calico("NetworkPolicy", "name: a, namespace: blue", &spec)
    };
    let store = |order| world(yaml(&(kubernetes.to_owned() + &calico(order))));
    let allowed = "+ tier default / KubernetesNetworkPolicy blue/z / ingress[0]";
    assert_eq!(ingress(&store(""), "10.0.0.2"), allowed);
    assert_eq!(ingress(&store("order: 1001,"), "10.0.0.2"), allowed);
    let denied = "- tier default / NetworkPolicy blue/a / ingress[0]";
    assert_eq!(ingress(&store("order: 999.5,"), "10.0.0.2"), denied);
}

#[test]
fn fact_10_a_tier_object_replaces_the_built_in_one() {
    let last = tier("default", Some(2e7), TierDefault::Pass);
    let baseline = Policy {
        tier: "kube-baseline".into(),
        ..policy("b", vec![deny()])
    };
    let store = world([
        last,
        Resource::Policy(baseline),
        Resource::Policy(policy("p", vec![allow()])),
    ]);
    assert_eq!(
        ingress(&store, "10.0.0.2"),
        format!("- {}", gnp("b", 0, "kube-baseline"))
    );
}
