//! Profiles, in the tables.

use super::ports::{DB, ingress, named, packet, range, to};
use super::world::{TCP, allow, pod, world};
use crate::model::{Action, Pod, Profile, Resource, Rule};
use crate::policy::{Compiler, Direction, Store, lookup};

fn profile(name: &str, ingress: Vec<Rule>) -> Resource {
    Resource::Profile(Profile {
        name: name.into(),
        ingress: (0..)
            .zip(ingress)
            .map(|(index, rule)| Rule { index, ..rule })
            .collect(),
        ..Profile::default()
    })
}

/// What decides about a packet to `blue/web` from the pod `db`, if `web` has these profiles.
fn by_profiles(profiles: Option<&[&str]>, more: impl IntoIterator<Item = Resource>, dport: u16) -> String {
    let Resource::Pod(web) = pod("blue", "web", 1) else {
        unreachable!("it makes a pod")
    };
    let web = Resource::Pod(Pod {
        profiles: profiles.map(named),
        ..web
    });
    let store: Store = world([web].into_iter().chain(more));
    let output = Compiler::default().compile(&store).unwrap();
    let compiled = lookup::verdict(
        &output.desired,
        1,
        Direction::Ingress,
        &packet(DB[0], TCP, 40_000, dport),
    );
    let sign = if compiled.reason.passes() { '+' } else { '-' };
    format!("{sign} {}", output.rules[&compiled.rule])
}

#[test]
fn profiles_decide_in_their_order_and_what_none_decides_is_denied() {
    let web = |port| to(|side| side.ports = vec![range(port, port)]);
    let objects = || {
        let passing = Rule {
            action: Action::Pass,
            ..web(83)
        };
        [
            profile("one", vec![web(81)]),
            profile("two", vec![deny_port(81), web(82), passing]),
        ]
    };
    let ask = |profiles: &[&str], port| by_profiles(Some(profiles), objects(), port);
    assert_eq!(ask(&["one", "two"], 81), "+ profile one / ingress[0]");
    assert_eq!(ask(&["two", "one"], 81), "- profile two / ingress[0]");
    assert_eq!(ask(&["one", "two"], 82), "+ profile two / ingress[1]");
    assert_eq!(
        ask(&["two", "kns.blue"], 83),
        "- profile two / ingress[2]",
        "Pass denies"
    );
    assert_eq!(ask(&["one", "two"], 84), "- implicit deny");
    assert_eq!(ask(&[], 81), "- implicit deny");
    assert_eq!(ask(&["one", "gone", "two"], 81), "+ profile one / ingress[0]");
    assert_eq!(ask(&["one", "gone", "two"], 82), "- profile gone");
    assert_eq!(ask(&["one", "kns.blue"], 90), "+ profile kns.blue");
    assert_eq!(
        ask(&["projectcalico-default-allow"], 90),
        "+ profile projectcalico-default-allow"
    );
    assert_eq!(ask(&["ksa.blue.nobody"], 90), "- profile ksa.blue.nobody");
    assert_eq!(by_profiles(None, objects(), 90), "+ profile kns.blue");
    // An object stands in the place of what is built in.
    assert_eq!(
        by_profiles(None, [profile("kns.blue", vec![web(7)])], 7),
        "+ profile kns.blue / ingress[0]"
    );
}

fn deny_port(port: u16) -> Rule {
    Rule {
        action: Action::Deny,
        ..to(|side| side.ports = vec![range(port, port)])
    }
}

#[test]
fn a_tier_that_denies_everything_leaves_nothing_to_profiles() {
    let objects = [profile("one", vec![allow()]), ingress(vec![deny_port(81)])];
    let store: Store = world(objects);
    let output = Compiler::default().compile(&store).unwrap();
    let info = &output.sets[&output.desired.endpoints[&1].ingress];
    assert_eq!(info.profile, None);
}
