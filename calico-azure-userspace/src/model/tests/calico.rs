//! Calico's own kinds: what their fields come to mean.

use super::*;

#[track_caller]
fn selects(text: &str, expected: &str) {
    assert_eq!(policy(text).selector.canonical(), expected, "{text}");
}

#[test]
fn scopes_are_folded_into_the_policy_selector() {
    let own = "projectcalico.org/namespace == \"shop\"";
    selects(&np("order: 1"), own);
    selects(&np("selector: ''"), own);
    selects(&np("selector: all()"), own);
    selects(&np("selector: a == 'b'"), &format!("(a == \"b\" && {own})"));
    selects(
        &np("selector: a == 'b' || has(c)"),
        &format!("((a == \"b\" || has(c)) && {own})"),
    );
    selects(
        &np("serviceAccountSelector: role == 'x' && !all()"),
        &format!("({own} && pcsa.role == \"x\" && !has(projectcalico.org/serviceaccount))"),
    );
    selects(&gnp("order: 1"), "all()");
    selects(
        &gnp("namespaceSelector: all()"),
        "has(projectcalico.org/namespace)",
    );
    selects(
        &gnp("serviceAccountSelector: all()"),
        "has(projectcalico.org/serviceaccount)",
    );
    selects(
        &gnp("selector: has(a)\nnamespaceSelector: x in {'y'}"),
        "(has(a) && pcns.x in {\"y\"})",
    );
}

/// The peer of an ingress rule's source.
#[track_caller]
fn source(text: &str) -> String {
    let policy = policy(text);
    let shown = show(policy.ingress.as_ref()).join("; ");
    shown.trim_start_matches("0 Allow").trim_start().to_owned()
}

fn ingress(peer: &str) -> String {
    format!("ingress:\n- action: Allow\n  source: {{{peer}}}")
}

#[test]
fn a_namespaced_rule_looks_into_its_own_namespace_if_it_selects_anything() {
    let own = "projectcalico.org/namespace == \"shop\"";
    for (peer, expected) in [
        ("selector: has(a)", format!("src.sel=({own} && has(a))")),
        ("notSelector: has(a)", format!("src.sel=({own} && !has(a))")),
        (
            "serviceAccounts: {names: [x]}",
            format!("src.sel=({own} && projectcalico.org/serviceaccount in {{\"x\"}})"),
        ),
        (
            "serviceAccounts: {selector: has(a)}",
            format!("src.sel=({own} && has(pcsa.a))"),
        ),
        ("serviceAccounts: {}", format!("src.sel={own}")),
        ("nets: [10.0.0.0/8]", "src.nets=10.0.0.0/8".to_owned()),
        ("notNets: [10.0.0.0/8]", "src.!nets=10.0.0.0/8".to_owned()),
        ("selector: ''", String::new()),
    ] {
        assert_eq!(source(&np(&ingress(peer))), expected, "{peer}");
    }
}

#[test]
fn a_namespace_selector_replaces_the_own_namespace() {
    for (peer, expected) in [
        (
            "namespaceSelector: all()",
            "src.sel=has(projectcalico.org/namespace)",
        ),
        (
            "namespaceSelector: global()",
            "src.sel=!has(projectcalico.org/namespace)",
        ),
        ("namespaceSelector: a == 'b'", "src.sel=pcns.a == \"b\""),
        (
            "namespaceSelector: a == 'b', selector: has(c)",
            "src.sel=(pcns.a == \"b\" && has(c))",
        ),
        (
            "namespaceSelector: global(), notSelector: has(c)",
            "src.sel=(!has(projectcalico.org/namespace) && !has(c))",
        ),
    ] {
        assert_eq!(source(&np(&ingress(peer))), expected, "{peer}");
        assert_eq!(source(&gnp(&ingress(peer))), expected, "{peer}");
    }
}

#[test]
fn a_global_rule_is_not_restricted() {
    for (peer, expected) in [
        ("selector: has(a)", "src.sel=has(a)"),
        ("selector: all()", "src.sel=all()"),
        // Alone it is a negated set, which addresses that nobody knows are outside of.
        ("notSelector: has(a)", "src.!sel=has(a)"),
        (
            "selector: has(b), notSelector: has(a)",
            "src.sel=(has(b) && !has(a))",
        ),
        (
            "serviceAccounts: {names: [z, x], selector: has(a)}",
            "src.sel=(projectcalico.org/serviceaccount in {\"x\", \"z\"} && has(pcsa.a))",
        ),
    ] {
        assert_eq!(source(&gnp(&ingress(peer))), expected, "{peer}");
    }
}

#[test]
fn performance_hints_change_nothing() {
    let (hints, none) = (
        "performanceHints: [AssumeNeededOnEveryNode]\n",
        "performanceHints: []\n",
    );
    for make in [np, gnp] {
        let plain = policy(&make("ingress: [{action: Allow}]"));
        assert_eq!(
            policy(&make(&format!("{hints}ingress: [{{action: Allow}}]"))),
            plain
        );
        assert_eq!(
            policy(&make(&format!("{none}ingress: [{{action: Allow}}]"))),
            plain
        );
    }
}

#[test]
fn types_follow_from_the_rules_that_are_there() {
    let governs = |spec: &str| {
        let policy = policy(&np(spec));
        (policy.ingress.is_some(), policy.egress.is_some())
    };
    let (ingress, egress) = ("ingress: [{action: Deny}]", "egress: [{action: Deny}]");
    assert_eq!(governs("order: 1"), (true, false));
    assert_eq!(governs(ingress), (true, false));
    assert_eq!(governs(egress), (false, true));
    assert_eq!(governs(&format!("{ingress}\n{egress}")), (true, true));
    assert_eq!(governs("types: []"), (true, false));
    assert_eq!(governs("types: [Egress]"), (false, true));
    assert_eq!(governs("types: [Ingress, Egress]"), (true, true));
    assert_eq!(governs("ingress: []\negress: []"), (true, false));
}

#[test]
fn rules_that_no_type_covers_are_pointed_out() {
    let loaded = load(&np("types: [Ingress]\negress: [{action: Allow}]"));
    let problem = &loaded.problems[0];
    assert_eq!((problem.severity, problem.line), (Severity::Warning, Some(6)));
    assert!(problem.message.contains("do not name Egress"), "{problem}");
    assert_eq!(policies(loaded.resources)[0].egress, None);
}

#[test]
fn every_criterion_of_a_rule_is_read() {
    let policy = policy(&gnp("
tier: security
order: -10.5
egress:
- action: Deny
  metadata: {annotations: {a: b}}
  protocol: TCP
  source: {nets: [10.0.0.0/8], notNets: [10.1.0.0/16]}
  destination: {ports: [80, '443', '8000:8999'], notPorts: [8080]}
- {action: Pass, notProtocol: 47}
- {action: Log, ipVersion: 6, protocol: 6}
- {action: Allow, protocol: ICMP, icmp: {type: 8, code: 0}}
- {action: Allow, protocol: ICMPv6, notICMP: {type: 128}}
- {action: Allow, protocol: 58}
- {action: Allow, protocol: 1, icmp: {type: 3}}
- {action: Allow, protocol: icmp, icmp: {}}
"));
    assert_eq!((policy.tier.as_str(), policy.order), ("security", Some(-10.5)));
    assert_eq!(
        show(policy.egress.as_ref()),
        [
            "0 Deny protocol=6 src.nets=10.0.0.0/8 src.!nets=10.1.0.0/16 dst.ports=80,443,8000-8999 dst.!ports=8080",
            "1 Pass !protocol=47",
            "2 Log version=V6 protocol=6",
            "3 Allow version=V4 protocol=1 icmp=8/0",
            "4 Allow version=V6 protocol=58 !icmp=128/*",
            "5 Allow protocol=58",
            "6 Allow version=V4 protocol=1 icmp=3/*",
            "7 Allow version=V4 protocol=1",
        ]
    );
    assert_eq!(policy.ingress, None);
}

#[test]
fn networks_with_host_bits_are_masked_and_pointed_out() {
    let loaded = load(&gnp(&ingress("nets: [10.1.2.3/8, 10.9.9.9]")));
    let shown = loaded
        .problems
        .iter()
        .map(ToString::to_string)
        .collect::<String>();
    assert!(
        loaded.problems.len() == 1 && shown.starts_with("warning: "),
        "{shown}"
    );
    assert!(shown.contains("write 10.0.0.0/8, or 10.1.2.3/32"), "{shown}");
    let policies = policies(loaded.resources);
    assert_eq!(
        show(policies[0].ingress.as_ref()),
        ["0 Allow src.nets=10.0.0.0/8,10.9.9.9/32"]
    );
}

#[test]
fn the_older_group_prefixes_names_with_the_tier() {
    let crd = |text: String| text.replace("projectcalico.org/v3", "crd.projectcalico.org/v1");
    let name = |text: &str| policy(text).key.name;
    assert_eq!(
        name(&crd(np("order: 1")).replace("name: p", "name: default.p")),
        "p"
    );
    assert_eq!(
        name(&crd(np("tier: x")).replace("name: p", "name: default.p")),
        "default.p"
    );
    assert_eq!(
        name(&crd(np("order: 1")).replace("name: p", "name: default.")),
        "default."
    );
    assert_eq!(
        name(&np("order: 1").replace("name: p", "name: default.p")),
        "default.p"
    );
}

#[test]
fn network_sets_and_tiers() {
    let text = "
apiVersion: projectcalico.org/v3
kind: GlobalNetworkSet
metadata: {name: g, labels: {a: b}}
spec: {nets: [198.51.100.0/24, 203.0.113.7]}
---
apiVersion: crd.projectcalico.org/v1
kind: NetworkSet
metadata:
  name: m
  namespace: shop
  annotations:
    projectcalico.org/metadata: '{\"labels\":{\"c\":\"d\"},\"uid\":\"x\"}'
---
apiVersion: projectcalico.org/v3
kind: Tier
metadata: {name: security}
spec: {order: 10, defaultAction: Pass}
---
apiVersion: projectcalico.org/v3
kind: Tier
metadata: {name: last}
";
    let labels = |key: &str, value: &str| Labels::from([(key.to_owned(), value.to_owned())]);
    let nets = vec![
        "198.51.100.0/24".parse().unwrap(),
        "203.0.113.7/32".parse().unwrap(),
    ];
    let tier = |name: &str, order, default_action| {
        Resource::Tier(Tier {
            name: name.into(),
            order,
            default_action,
        })
    };
    assert_eq!(
        good(text),
        [
            Resource::NetworkSet(NetworkSet {
                namespace: None,
                name: "g".into(),
                labels: labels("a", "b"),
                nets
            }),
            Resource::NetworkSet(NetworkSet {
                namespace: Some("shop".into()),
                name: "m".into(),
                labels: labels("c", "d"),
                nets: Vec::new(),
            }),
            tier("security", Some(10.0), TierDefault::Pass),
            tier("last", None, TierDefault::Deny),
        ]
    );
}
