//! ClusterNetworkPolicies and their predecessors that are wrong: none of them opens anything.

use super::cluster::{anp, any, banp, cnp, whole};
use super::places::check;
use super::*;

/// `RULE` once accepting, denying and passing: nothing is left of the first, and the others deny everything. `«…»` is
/// underlined.
#[track_caller]
fn unusable(text: impl Fn(&str) -> String, direction: &str, rule: &str, field: &str, message: &str) {
    for action in ["Accept", "Deny", "Pass"] {
        let marked = text(&format!(
            "{direction}:\n- {{action: {action}, {rule}}}\n- {{action: Deny, {}: [{{namespaces: {{}}}}]}}",
            if direction == "ingress" { "from" } else { "to" }
        ));
        let field = format!("spec.{direction}[0]{field}");
        check(&marked, &field, message);
        let (policy, _) = bad_policy(&marked.replace(['«', '»'], ""));
        let rules = if direction == "ingress" {
            policy.ingress
        } else {
            policy.egress
        };
        let indices: Vec<String> = show(rules.as_ref());
        let last = &indices[indices.len() - 1];
        assert!(last.starts_with("1 Deny "), "{indices:?}");
        let expected: &[&str] = if action == "Accept" { &[] } else { &["0 Deny"] };
        assert_eq!(&indices[..indices.len() - 1], expected, "{action}: {rule}");
    }
}

#[test]
fn a_rule_that_cannot_be_converted_accepts_nothing_and_denies_everything_otherwise() {
    for (rule, field, message) in [
        ("to: [{nodes: «{}»}]", ".to[0].nodes", "nodes cannot be matched"),
        (
            "to: [{domainNames: «[example.com]»}]",
            ".to[0].domainNames",
            "domainNames cannot be matched",
        ),
        (
            "to: [{namespaces: {}}, «{}»]",
            ".to[1]",
            "the peer is empty: expected one of namespaces, pods, networks",
        ),
        ("to: [«{namespaces: }»]", ".to[0]", "the peer is empty"),
        (
            "to: [«{namespaces: {}, networks: [10.0.0.0/8]}»]",
            ".to[0]",
            "the peer is ambiguous: expected only one of",
        ),
        (
            "to: [{networks: [10.0.0.0/8, «10.0.0/8»]}]",
            ".to[0].networks[1]",
            "did you mean 10.0.0.0/8?",
        ),
        (
            "to: [{networks: «[]»}]",
            ".to[0].networks",
            "expected at least one network",
        ),
        (
            "to: [{namespaces: {«matchLabel»: {}}}]",
            ".to[0].namespaces",
            "did you mean \"matchLabels\"?",
        ),
        (
            "to: [{namespaces: {matchLabels: {a: «1»}}}]",
            ".to[0].namespaces.matchLabels",
            "put it in quotes",
        ),
        ("to: [{«pod»: {}}]", ".to[0]", "did you mean \"pods\"?"),
        ("to: «[]»", ".to", "expected at least one entry"),
        ("to: «{}»", ".to", "expected a list"),
        ("to: [{namespaces: {}}], «from»: []", "", "unknown field \"from\""),
        (
            "to: [{namespaces: {}}], «ports»: []",
            "",
            "unknown field \"ports\"",
        ),
        (
            "to: [{namespaces: {}}], protocols: «[]»",
            ".protocols",
            "expected at least one entry",
        ),
        (
            "to: [{namespaces: {}}], protocols: [«{}»]",
            ".protocols[0]",
            "expected exactly one of tcp, udp, sctp",
        ),
        (
            "to: [{namespaces: {}}], protocols: [«{tcp: {}, udp: {}}»]",
            ".protocols[0]",
            "expected exactly one of",
        ),
        (
            "to: [{namespaces: {}}], protocols: [{«icmp»: {}}]",
            ".protocols[0]",
            "unknown field \"icmp\"",
        ),
        (
            "to: [{namespaces: {}}], protocols: [{tcp: {«port»: 80}}]",
            ".protocols[0].tcp",
            "unknown field \"port\"",
        ),
        (
            "to: [{namespaces: {}}], protocols: [{tcp: {destinationPort: «80»}}]",
            ".protocols[0].tcp.destinationPort",
            "expected a mapping, found the number 80",
        ),
        (
            "to: [{namespaces: {}}], protocols: [{tcp: {destinationPort: {number: «0»}}}]",
            ".protocols[0].tcp.destinationPort.number",
            "found 0",
        ),
        (
            "to: [{namespaces: {}}], protocols: [{udp: {destinationPort: {range: «{start: 2, end: 1}»}}}]",
            ".protocols[0].udp.destinationPort.range",
            "the range ends before it begins: start 2, end 1",
        ),
        (
            "to: [{namespaces: {}}], protocols: [{udp: {destinationPort: {range: «{start: 2}»}}}]",
            ".protocols[0].udp.destinationPort.range",
            "end is missing",
        ),
        (
            "to: [{namespaces: {}}], protocols: [{destinationNamedPort: «'80'»}]",
            ".protocols[0].destinationNamedPort",
            "for the number write 80",
        ),
    ] {
        unusable(cnp, "egress", rule, field, message);
    }
    unusable(
        cnp,
        "ingress",
        "from: [{«networks»: [10.0.0.0/8]}]",
        ".from[0]",
        "the fields here are namespaces, pods",
    );
}

#[test]
fn names_of_ports_and_networks_do_not_go_together() {
    let rule = "egress:\n- «action: ACTION\n  to: [{networks: [10.0.0.0/8]}]\n  protocols: [{destinationNamedPort: http}]»\n";
    let text = cnp(&rule.replace("ACTION", "Accept").replace(['«', '»'], ""));
    let (policy, errors) = bad_policy(&text);
    assert_eq!(
        (errors, show(policy.egress.as_ref())),
        (1, vec!["not governed".into()])
    );
    assert!(
        load(&text).problems[0]
            .message
            .contains("networks have no named ports")
    );
    let (policy, _) = bad_policy(&cnp(&rule.replace("ACTION", "Deny").replace(['«', '»'], "")));
    assert_eq!(show(policy.egress.as_ref()), ["0 Deny"]);
}

#[test]
fn ports_of_the_older_kinds_that_are_wrong() {
    for (port, field, message) in [
        (
            "«{}»",
            "",
            "expected exactly one of portNumber, portRange, namedPort",
        ),
        (
            "{portNumber: «{protocol: TCP}»}",
            ".portNumber",
            "port is missing",
        ),
        (
            "{portNumber: {protocol: «tcp», port: 1}}",
            ".portNumber.protocol",
            "did you mean TCP?",
        ),
        (
            "{portRange: «{start: 3, end: 1}»}",
            ".portRange",
            "ends before it begins",
        ),
        (
            "{portRange: {start: 3, end: 5, «port»: 1}}",
            ".portRange",
            "unknown field \"port\"",
        ),
        ("{namedPort: «HTTP»}", ".namedPort", "no name of a port"),
    ] {
        let text = anp(&format!(
            "ingress: [{{action: Pass, from: [{{namespaces: {{}}}}], ports: [{port}]}}]"
        ));
        check(&text, &format!("spec.ingress[0].ports[0]{field}"), message);
        let (policy, _) = bad_policy(&text.replace(['«', '»'], ""));
        assert_eq!(show(policy.ingress.as_ref()), ["0 Deny"], "{port}");
    }
}

#[test]
fn an_action_that_is_not_understood_denies_everything() {
    let rule = |action: &str| format!("ingress: [{{{action}from: [{{namespaces: {{}}}}]}}]");
    for (text, message) in [
        (
            cnp(&rule("action: Allow, ")),
            "expected Accept or Deny or Pass, found \"Allow\"",
        ),
        (cnp(&rule("")), "action is missing"),
        (cnp(&rule("action: Accept, action: Accept, ")), "is given twice"),
        (
            anp(&rule("action: Accept, ")),
            "expected Allow or Deny or Pass, found \"Accept\"",
        ),
        (
            banp(&rule("action: Pass, ")),
            "expected Allow or Deny, found \"Pass\"",
        ),
        (cnp("ingress: [Deny]"), "expected a mapping"),
    ] {
        let (policy, errors) = bad_policy(&text);
        assert_eq!(
            (errors, show(policy.ingress.as_ref())),
            (1, vec!["0 Deny".to_owned()]),
            "{text}"
        );
        let shown = load(&text).problems[0].to_string();
        assert!(shown.contains(message), "{shown}");
    }
}

const RULES: &str = "
ingress:
- {action: Accept, from: [{namespaces: {}}]}
- {action: Pass, from: [{namespaces: {}}], protocols: [{tcp: {destinationPort: {number: 1}}}]}
- {action: Deny, from: [{namespaces: {}}], protocols: [{udp: {destinationPort: {number: 2}}}]}
";

#[test]
fn a_policy_whose_place_or_subject_is_not_understood_only_denies() {
    let any = any();
    let distrusted = [
        format!("1 Deny protocol=6 src.sel={any} dst.ports=1"),
        format!("2 Deny protocol=17 src.sel={any} dst.ports=2"),
    ];
    let everyone = "projectcalico.org/orchestrator == \"k8s\"";
    let (tier, priority, subject) = ("tier: Baseline", "priority: 1", "subject: {namespaces: {}}");
    for (head, in_tier, order, selector, field, message) in [
        (
            ["tier: «Admins»", priority, subject],
            "kube-admin",
            f64::NEG_INFINITY,
            any.as_str(),
            "spec.tier",
            "did you mean Admin?",
        ),
        (
            [tier, "priority: «first»", subject],
            "kube-baseline",
            f64::NEG_INFINITY,
            &any,
            "spec.priority",
            "from 0 to 1000",
        ),
        (
            [tier, priority, "subject: «{}»"],
            "kube-baseline",
            1.0,
            everyone,
            "spec.subject",
            "the subject is empty",
        ),
        (
            [
                tier,
                priority,
                "subject: «{namespaces: {}, pods: {podSelector: {}}}»",
            ],
            "kube-baseline",
            1.0,
            everyone,
            "spec.subject",
            "the subject is ambiguous: expected only one of namespaces, pods",
        ),
        (
            [tier, priority, "subject: {namespaces: {matchLabels: «x»}}"],
            "kube-baseline",
            1.0,
            everyone,
            "spec.subject.namespaces.matchLabels",
            "expected a mapping",
        ),
    ] {
        let text = whole(&format!("{}{RULES}", head.join("\n")));
        check(&text, field, message);
        let (policy, _) = bad_policy(&text.replace(['«', '»'], ""));
        assert_eq!(
            (policy.tier.as_str(), policy.order),
            (in_tier, Some(order)),
            "{text}"
        );
        assert_eq!(policy.selector.canonical(), selector, "{text}");
        assert_eq!(show(policy.ingress.as_ref()), distrusted, "{text}");
        assert_eq!(policy.egress, None);
    }
    for missing in ["tier", "priority", "subject"] {
        let head: String = [tier, priority, subject]
            .iter()
            .filter(|line| !line.starts_with(missing))
            .map(|line| format!("{line}\n"))
            .collect();
        let text = whole(&format!("{head}{RULES}"));
        let (policy, errors) = bad_policy(&text);
        assert_eq!(
            (errors, show(policy.ingress.as_ref())),
            (1, distrusted.to_vec()),
            "{missing}"
        );
        assert_eq!(load(&text).problems[0].message, format!("{missing} is missing"));
    }
    let (policy, errors) = bad_policy(&format!("{}more: 1\n", cnp(RULES)));
    assert_eq!((errors, show(policy.ingress.as_ref())), (1, distrusted.to_vec()));
}

#[test]
fn rules_that_may_be_missing_are_denies_of_everything() {
    let head =
        "apiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\nmetadata: {name: p}\n";
    for text in [
        head.to_owned(),
        format!("{head}spec:\n"),
        format!("{head}spec: []\n"),
        cnp(&format!("{}egres: []\n", &RULES[1..])),
        cnp(&format!("{}ingress: []\n", &RULES[1..])),
    ] {
        let (policy, errors) = bad_policy(&text);
        assert_eq!(errors, 1, "{text}");
        assert_eq!(
            (show(policy.ingress.as_ref()), show(policy.egress.as_ref())),
            (vec!["0 Deny".into()], vec!["0 Deny".into()]),
            "{text}"
        );
    }
    let (policy, errors) = bad_policy(&cnp(
        "ingress: {}\negress: [{action: Accept, to: [{namespaces: {}}]}]",
    ));
    assert_eq!(
        (errors, show(policy.ingress.as_ref())),
        (1, vec!["0 Deny".into()])
    );
    assert_eq!(
        show(policy.egress.as_ref()),
        [format!("0 Allow dst.sel={}", any())]
    );
}

#[test]
fn what_is_clear_but_not_what_the_api_takes_is_an_error_and_enforced() {
    let any = any();
    let accept = |rest: &str| {
        cnp(&format!(
            "ingress: [{{action: Accept, from: [{{namespaces: {{}}}}]{rest}}}]"
        ))
    };
    for (text, message, rule) in [
        (
            accept(", protocols: [{tcp: {}}]"),
            "destinationPort is missing",
            "protocol=6 ",
        ),
        (
            accept(", protocols: [{tcp: {destinationPort: {range: {start: 5, end: 5}}}}]"),
            "the range is one port: 5",
            "protocol=6 ",
        ),
        (
            accept(&format!(", name: {}", "x".repeat(101))),
            "at most 100 characters",
            "",
        ),
        (
            accept("").replace("priority: 7", "priority: 1001"),
            "expected a number from 0 to 1000, found 1001",
            "",
        ),
    ] {
        let (policy, errors) = bad_policy(&text);
        assert_eq!(errors, 1, "{text}");
        let shown = show(policy.ingress.as_ref());
        assert!(
            shown[0].starts_with(&format!("0 Allow {rule}src.sel={any}")),
            "{shown:?}"
        );
        let shown = load(&text).problems[0].to_string();
        assert!(shown.contains(message), "{shown}");
    }
    let many = |rule: &str, number: usize| vec![rule; number].join(", ");
    let rule = "{action: Deny, from: [{namespaces: {}}]}";
    for (text, count, most) in [
        (cnp(&format!("ingress: [{}]", many(rule, 26))), 26, 25),
        (anp(&format!("ingress: [{}]", many(rule, 101))), 101, 100),
        (
            cnp(&format!(
                "ingress: [{{action: Deny, from: [{}]}}]",
                many("{namespaces: {}}", 26)
            )),
            26,
            25,
        ),
    ] {
        let (policy, errors) = bad_policy(&text);
        assert_eq!(
            (errors, policy.ingress.map(|rules| rules.len())),
            (1, Some(count))
        );
        let message = format!("the list has {count} entries; the API takes {most}");
        assert_eq!(load(&text).problems[0].message, message);
    }
    let other = banp("").replace("name: default", "name: other");
    let (policy, errors) = bad_policy(&other);
    assert_eq!((errors, policy.key.name.as_str()), (1, "other"));
    check(
        &other.replace("other", "«other»"),
        "metadata.name",
        "the API takes only one BaselineAdminNetworkPolicy",
    );
}

#[test]
fn they_belong_to_no_namespace() {
    let text = cnp("").replace("name: p", "name: p, namespace: «x»");
    check(
        &text,
        "metadata.namespace",
        "ClusterNetworkPolicy belongs to no namespace; \"x\" is ignored",
    );
}

const WHOLE: &str = "
ingress:
- {name: a, action: Accept, from: [{pods: {namespaceSelector: {}, podSelector: {matchLabels: {app: web}}}}]}
- {action: Deny, from: [{namespaces: {matchExpressions: [{key: a, operator: In, values: [b]}]}}]}
- {action: Pass, from: [{namespaces: {}}], protocols: [{tcp: {destinationPort: {range: {start: 1, end: 9}}}}]}
egress:
- {action: Deny, to: [{networks: [10.0.0.0/8]}], protocols: [{udp: {destinationPort: {number: 53}}}]}
- {action: Accept, to: [{namespaces: {}}], protocols: [{destinationNamedPort: http}]}
";

#[test]
fn a_misspelt_key_opens_nothing_and_loses_no_deny() {
    let spec = cnp(WHOLE);
    let whole = policy(&spec);
    let start = spec.find("spec:").unwrap();
    let keys = spec
        .match_indices(": ")
        .map(|(at, _)| at)
        .filter(|at| *at > start);
    for at in keys {
        let text = format!("{}x{}", &spec[..at], &spec[at..]);
        // A label of another name is no mistake.
        if spec[..at].ends_with("{app") {
            continue;
        }
        let (broken, errors) = bad_policy(&text);
        assert!(errors > 0, "{text}");
        let selects_more = broken.selector == whole.selector
            || broken
                .selector
                .canonical()
                .starts_with("projectcalico.org/orchestrator");
        assert!(selects_more, "{text}");
        for (after, before) in [(&broken.ingress, &whole.ingress), (&broken.egress, &whole.egress)] {
            let (after, before) = (
                after.iter().flatten().collect::<Vec<_>>(),
                before.iter().flatten().collect::<Vec<_>>(),
            );
            let same = |a: &Rule, b: &Rule| {
                (&a.source, &a.destination, a.protocol, a.index)
                    == (&b.source, &b.destination, b.protocol, b.index)
            };
            for rule in &after {
                let was = before
                    .iter()
                    .any(|other| same(rule, other) && rule.action == other.action);
                assert!(was || rule.action == Action::Deny, "{text}");
            }
            for rule in before.iter().filter(|rule| rule.action == Action::Deny) {
                let denied = |other: &&&Rule| {
                    other.action == Action::Deny
                        && (same(rule, other) || *show_rule(other) == format!("{} Deny", other.index))
                };
                assert!(after.iter().any(|other| denied(&other)), "{text}");
            }
        }
    }
}
