//! What rules, policies and tiers mean, each checked in the reference and in the tables. The numbered facts that are
//! easily got wrong are in `facts_*`.

use super::world::*;
use crate::model::{Action, Icmp, IpVersion, Policy, Resource, Rule, TierDefault};
use crate::policy::{Direction, Store, reference};

#[test]
fn a_policy_without_rules_isolates() {
    assert_eq!(
        ingress(&world([Resource::Policy(policy("p", vec![]))]), "10.0.0.2"),
        END
    );
}

#[test]
fn a_tier_whose_policies_select_others_is_transparent() {
    let other = Policy {
        selector: selector("app == 'db'"),
        ..policy("p", vec![])
    };
    assert_eq!(ingress(&world([Resource::Policy(other)]), "10.0.0.2"), PROFILE);
}

#[test]
fn a_negated_selector_matches_strangers_and_a_selector_of_the_negation_does_not() {
    let not_selector = rule(Action::Allow, |r| {
        r.source.not_selector = Some(selector("app == 'db'"));
    });
    let store = world([Resource::Policy(policy("p", vec![not_selector]))]);
    assert_eq!(
        ingress(&store, "192.0.2.1"),
        format!("+ {}", gnp("p", 0, "default"))
    );
    assert_eq!(ingress(&store, "10.0.0.2"), END);

    let negation = rule(Action::Allow, |r| {
        r.source.selector = Some(selector("!app == 'db'"));
    });
    let store = world([Resource::Policy(policy("p", vec![negation]))]);
    assert_eq!(ingress(&store, "192.0.2.1"), END);
    assert_eq!(
        ingress(&store, "10.0.0.3"),
        format!("+ {}", gnp("p", 0, "default"))
    );
}

#[test]
fn nets_and_selector_of_one_side_must_both_hold() {
    let both = rule(Action::Allow, |r| {
        r.source.selector = Some(selector("has(app)"));
        r.source.nets = vec!["10.0.0.2/31".parse().unwrap(), "10.9.0.0/16".parse().unwrap()];
        r.source.not_nets = vec!["10.0.0.3/32".parse().unwrap()];
    });
    let store = world([Resource::Policy(policy("p", vec![both]))]);
    assert_eq!(
        ingress(&store, "10.0.0.2"),
        format!("+ {}", gnp("p", 0, "default"))
    );
    assert_eq!(ingress(&store, "10.0.0.3"), END, "excluded");
    assert_eq!(ingress(&store, "10.9.0.1"), END, "nobody that the selector knows");
}

#[test]
fn a_name_that_goes_on_with_a_dash_or_dot_comes_before_the_shorter_one() {
    for longer in ["a-b", "a.b"] {
        let store = world([policy("a", vec![allow()]), policy(longer, vec![deny()])].map(Resource::Policy));
        assert_eq!(
            ingress(&store, "10.0.0.2"),
            format!("- {}", gnp(longer, 0, "default"))
        );
    }
    let store = world([policy("a", vec![allow()]), policy("a0", vec![deny()])].map(Resource::Policy));
    assert_eq!(
        ingress(&store, "10.0.0.2"),
        format!("+ {}", gnp("a", 0, "default"))
    );
}

#[test]
fn policies_go_by_order_and_those_without_one_come_last() {
    let ordered = |name: &str, order, rule| Policy {
        order,
        ..policy(name, vec![rule])
    };
    let store = world([ordered("a", None, allow()), ordered("b", Some(1e9), deny())].map(Resource::Policy));
    assert_eq!(
        ingress(&store, "10.0.0.2"),
        format!("- {}", gnp("b", 0, "default"))
    );
    let orders = [ordered("a", Some(0.5), allow()), ordered("b", Some(-0.5), deny())];
    assert_eq!(
        ingress(&world(orders.map(Resource::Policy)), "10.0.0.2"),
        format!("- {}", gnp("b", 0, "default"))
    );
    let zeros = [ordered("b", Some(-0.0), allow()), ordered("a", Some(0.0), deny())];
    assert_eq!(
        ingress(&world(zeros.map(Resource::Policy)), "10.0.0.2"),
        format!("- {}", gnp("a", 0, "default"))
    );
}

#[test]
fn tiers_go_by_order_then_name_and_those_without_order_come_last() {
    let in_tier = |tier: &str, rule| {
        Resource::Policy(Policy {
            tier: tier.into(),
            ..policy(tier, vec![rule])
        })
    };
    let store = world([
        tier("a-late", None, TierDefault::Deny),
        tier("b-tie", Some(5.0), TierDefault::Deny),
        tier("c-tie", Some(5.0), TierDefault::Deny),
        in_tier("a-late", deny()),
        in_tier("c-tie", deny()),
        in_tier("b-tie", allow()),
    ]);
    assert_eq!(
        ingress(&store, "10.0.0.2"),
        format!("+ {}", gnp("b-tie", 0, "b-tie"))
    );
}

#[test]
fn pass_in_the_last_tier_leads_to_the_profile() {
    let pass = policy("p", vec![rule(Action::Pass, |_| {}), deny()]);
    let store = world([
        Resource::Policy(pass),
        Resource::Policy(policy("q", vec![deny()])),
    ]);
    assert_eq!(ingress(&store, "10.0.0.2"), PROFILE);
}

#[test]
fn a_tier_that_passes_by_default_leads_to_the_next() {
    let first = Policy {
        tier: "first".into(),
        ..policy("f", vec![])
    };
    let first_tier = |action| tier("first", Some(1.0), action);
    let last = Resource::Policy(policy("p", vec![allow()]));
    let store = world([
        Resource::Policy(first.clone()),
        last.clone(),
        first_tier(TierDefault::Pass),
    ]);
    assert_eq!(
        ingress(&store, "10.0.0.2"),
        format!("+ {}", gnp("p", 0, "default"))
    );
    let store = world([Resource::Policy(first), last, first_tier(TierDefault::Deny)]);
    assert_eq!(ingress(&store, "10.0.0.2"), "- tier first / default action");
}

#[test]
fn log_decides_nothing_and_is_remembered_across_tiers() {
    let log = rule(Action::Log, |r| {
        r.source.nets = vec!["10.0.0.2/32".parse().unwrap()];
    });
    let first = Policy {
        tier: "first".into(),
        ..policy("f", vec![log, rule(Action::Pass, |_| {})])
    };
    let store = world([
        Resource::Policy(first),
        Resource::Policy(policy("p", vec![allow()])),
        tier("first", Some(1.0), TierDefault::Deny),
    ]);
    assert_eq!(
        ingress(&store, "10.0.0.2"),
        format!("+! {}", gnp("p", 0, "default"))
    );
    assert_eq!(
        ingress(&store, "10.0.0.3"),
        format!("+ {}", gnp("p", 0, "default"))
    );
}

#[test]
fn a_list_without_the_packets_family_takes_the_rule_out_even_if_negated() {
    for edit in [
        (|r: &mut Rule| r.source.not_nets = vec!["fd00::/64".parse().unwrap()]) as fn(&mut Rule),
        |r| r.source.nets = vec!["fd00::2/128".parse().unwrap()],
        |r| r.destination.nets = vec!["fd00::/8".parse().unwrap()],
        |r| r.ip_version = Some(IpVersion::V6),
    ] {
        let store = world([Resource::Policy(policy("p", vec![rule(Action::Allow, edit)]))]);
        assert_eq!(ingress(&store, "10.0.0.2"), END);
    }
    let not_v6 = rule(Action::Allow, |r| {
        r.source.not_nets = vec!["fd00::/64".parse().unwrap()];
    });
    let store = world([Resource::Policy(policy("p", vec![not_v6]))]);
    assert_eq!(
        ingress(&store, "2001:db8::1"),
        format!("+ {}", gnp("p", 0, "default"))
    );
    assert_eq!(ingress(&store, "fd00::2"), END);
}

#[test]
fn a_negated_catch_all_drops_the_rule_for_its_family() {
    let nothing = rule(Action::Allow, |r| {
        r.source.not_nets = vec!["0.0.0.0/0".parse().unwrap(), "fd00::/64".parse().unwrap()];
    });
    let store = world([Resource::Policy(policy("p", vec![nothing]))]);
    assert_eq!(ingress(&store, "10.0.0.2"), END);
    assert_eq!(
        ingress(&store, "2001:db8::1"),
        format!("+ {}", gnp("p", 0, "default"))
    );
}

#[test]
fn network_sets_inherit_from_their_namespace_and_their_own_labels_win() {
    let of_team = |team: &str| {
        let wanted = selector(&format!("pcns.team == '{team}' && app == 'ext'"));
        let allow = rule(Action::Allow, |r| r.source.selector = Some(wanted));
        Resource::Policy(policy("p", vec![allow]))
    };
    let matched = format!("+ {}", gnp("p", 0, "default"));
    let plain = network_set(Some("blue"), &[("app", "ext")], &["192.0.2.0/24"]);
    assert_eq!(
        ingress(&world([plain.clone(), of_team("sea")]), "192.0.2.9"),
        matched
    );
    assert_eq!(ingress(&world([plain, of_team("sun")]), "192.0.2.9"), END);
    let own = network_set(
        Some("blue"),
        &[("app", "ext"), ("pcns.team", "sun")],
        &["192.0.2.0/24"],
    );
    assert_eq!(ingress(&world([own, of_team("sun")]), "192.0.2.9"), matched);
    let global = network_set(None, &[("app", "ext")], &["192.0.2.0/24"]);
    assert_eq!(ingress(&world([global, of_team("sea")]), "192.0.2.9"), END);
}

#[test]
fn a_network_set_may_hold_everything_and_a_pod_inside_it_too() {
    let any = rule(Action::Allow, |r| {
        r.source.selector = Some(selector("app == 'ext'"));
    });
    let store = world([
        network_set(None, &[("app", "ext")], &["0.0.0.0/0", "10.0.0.0/8"]),
        Resource::Policy(policy("p", vec![any])),
    ]);
    for peer in ["0.0.0.0", "255.255.255.255", "10.0.0.2"] {
        assert_eq!(ingress(&store, peer), format!("+ {}", gnp("p", 0, "default")));
    }
    assert_eq!(ingress(&store, "fd00::2"), END);
}

#[test]
fn icmp_is_matched_by_type_and_code_in_both_directions_of_the_criterion() {
    let icmp = |edit: fn(&mut Rule)| {
        let rule = rule(Action::Allow, |r| {
            r.protocol = Some(1);
            edit(r);
        });
        world([Resource::Policy(policy("p", vec![rule]))])
    };
    let is = |store: &Store, kind: u8, code: u8| {
        let dport = u16::from_be_bytes([kind, code]);
        ask(store, Direction::Ingress, "10.0.0.2", 1, dport).starts_with('+')
    };
    let echo = icmp(|r| {
        r.icmp = Some(Icmp {
            kind: Some(8),
            code: None,
        });
    });
    assert_eq!(
        [
            is(&echo, 8, 0),
            is(&echo, 8, 255),
            is(&echo, 7, 255),
            is(&echo, 9, 0)
        ],
        [true, true, false, false]
    );
    let code = icmp(|r| {
        r.icmp = Some(Icmp {
            kind: Some(3),
            code: Some(4),
        });
    });
    assert_eq!(
        [is(&code, 3, 4), is(&code, 3, 3), is(&code, 4, 4)],
        [true, false, false]
    );
    let other = icmp(|r| {
        r.not_icmp = Some(Icmp {
            kind: Some(3),
            code: Some(4),
        });
    });
    assert_eq!(
        [is(&other, 3, 4), is(&other, 3, 5), is(&other, 4, 4)],
        [false, true, true]
    );
    assert_eq!(ask(&other, Direction::Ingress, "10.0.0.2", TCP, 80), END);
}

#[test]
fn a_rule_about_the_pods_own_address_is_resolved_for_the_pod() {
    let own = |net: &str| {
        let rule = rule(Action::Allow, |r| r.destination.nets = vec![net.parse().unwrap()]);
        world([Resource::Policy(policy("p", vec![rule]))])
    };
    assert_eq!(
        ingress(&own("10.0.0.1/32"), "192.0.2.1"),
        format!("+ {}", gnp("p", 0, "default"))
    );
    assert_eq!(ingress(&own("10.0.0.2/32"), "192.0.2.1"), END);
    let selected = rule(Action::Allow, |r| {
        r.destination.selector = Some(selector("app == 'web'"));
    });
    let store = world([Resource::Policy(policy("p", vec![selected]))]);
    assert_eq!(
        ingress(&store, "192.0.2.1"),
        format!("+ {}", gnp("p", 0, "default"))
    );
}

#[test]
fn a_flow_needs_the_senders_egress_and_the_receivers_ingress() {
    let closed = Policy {
        selector: selector("app == 'db'"),
        ..policy("p", vec![])
    };
    let store = world([Resource::Policy(closed)]);
    let path = |src: &str, dst: &str| {
        let (src, dst) = (src.parse().unwrap(), dst.parse().unwrap());
        reference::path(
            &store,
            &reference::Flow {
                src,
                dst,
                protocol: TCP,
                sport: 0,
                dport: 80,
            },
        )
    };
    let to_db = path("10.0.0.1", "10.0.0.2");
    assert!(!to_db.allow);
    assert!(to_db.egress.unwrap().1.allow);
    assert_eq!(
        to_db.ingress.unwrap().1.rule.to_string(),
        "tier default / default action"
    );
    assert!(path("10.0.0.2", "10.0.0.1").allow);
    let outside = path("10.0.0.2", "192.0.2.1");
    assert!(outside.allow && outside.ingress.is_none());
    assert!(path("10.0.0.2", "10.0.0.2").allow, "a pod may talk to itself");
}
