//! ClusterNetworkPolicy, AdminNetworkPolicy, BaselineAdminNetworkPolicy.

use super::places::check;
use super::*;

fn manifest(version: &str, kind: &str, name: &str, spec: &str) -> String {
    let spec: String = spec
        .trim_matches('\n')
        .lines()
        .map(|line| format!("  {line}\n"))
        .collect();
    format!(
        "apiVersion: policy.networking.k8s.io/{version}\nkind: {kind}\nmetadata: {{name: {name}}}\nspec:\n{spec}"
    )
}

const HEAD: &str = "tier: Admin\npriority: 7\nsubject: {namespaces: {}}\n";

/// With [`HEAD`] before it.
fn cnp(rules: &str) -> String {
    whole(&format!("{HEAD}{}", rules.trim_start_matches('\n')))
}

fn whole(spec: &str) -> String {
    manifest("v1alpha2", "ClusterNetworkPolicy", "p", spec)
}

fn anp(rules: &str) -> String {
    let spec = format!(
        "priority: 7\nsubject: {{namespaces: {{}}}}\n{}",
        rules.trim_start_matches('\n')
    );
    manifest("v1alpha1", "AdminNetworkPolicy", "p", &spec)
}

fn banp(rules: &str) -> String {
    let spec = format!(
        "subject: {{namespaces: {{}}}}\n{}",
        rules.trim_start_matches('\n')
    );
    manifest("v1alpha1", "BaselineAdminNetworkPolicy", "default", &spec)
}

/// Pods with labels, in namespaces with labels.
fn of(own: &str, namespace: &str) -> String {
    let pods = "projectcalico.org/orchestrator == \"k8s\" && has(projectcalico.org/namespace)";
    let parts = [own, pods, namespace].into_iter().filter(|part| !part.is_empty());
    format!("({})", parts.collect::<Vec<_>>().join(" && "))
}

fn any() -> String {
    of("", "")
}

#[test]
fn tiers_and_orders() {
    let placed = |text: &str| {
        let policy = policy(text);
        (
            policy.tier,
            policy.order,
            policy.key.to_string(),
            policy.staged,
            policy.host,
        )
    };
    let subject = "subject: {namespaces: {}}";
    for version in ["v1alpha2", "v1beta1"] {
        for (tier, expected, priority) in [("Admin", "kube-admin", 0), ("Baseline", "kube-baseline", 1000)] {
            let spec = format!("tier: {tier}\npriority: {priority}\n{subject}");
            let expected = (
                expected.to_owned(),
                Some(f64::from(priority)),
                "ClusterNetworkPolicy p".to_owned(),
                None,
                HostRole::Normal,
            );
            assert_eq!(
                placed(&manifest(version, "ClusterNetworkPolicy", "p", &spec)),
                expected
            );
        }
    }
    let (tier, order, key, ..) = placed(&anp(""));
    assert_eq!(
        (tier.as_str(), order, key.as_str()),
        ("adminnetworkpolicy", Some(7.0), "AdminNetworkPolicy p")
    );
    let (tier, order, key, ..) = placed(&banp(""));
    assert_eq!(
        (tier.as_str(), order, key.as_str()),
        (
            "baselineadminnetworkpolicy",
            None,
            "BaselineAdminNetworkPolicy default"
        )
    );
    for name in Tier::BUILTIN {
        let tier = Tier::builtin(name).unwrap();
        assert_eq!(
            tier.default_action == TierDefault::Deny,
            name == "default",
            "{name}"
        );
    }
    assert!(
        load(&format!("{}---\n{}", anp(""), banp("")))
            .missing_tiers()
            .is_empty()
    );
}

#[test]
fn subjects_are_pods() {
    let selector = |subject: &str| {
        let text = whole(&format!("tier: Admin\npriority: 1\nsubject: {subject}"));
        policy(&text).selector.canonical().to_owned()
    };
    assert_eq!(selector("{namespaces: {}}"), any());
    assert_eq!(
        selector("{namespaces: {matchLabels: {team: a}}}"),
        of("", "pcns.team == \"a\"")
    );
    assert_eq!(
        selector(
            "{pods: {namespaceSelector: {matchExpressions: [{key: team, operator: Exists}]}, podSelector: {matchLabels: {app: db}}}}"
        ),
        of("app == \"db\"", "has(pcns.team)")
    );
    assert_eq!(selector("{pods: {podSelector: {}}}"), any());
}

#[test]
fn directions_without_rules_are_not_governed() {
    let governs = |rules: &str| {
        let policy = policy(&cnp(rules));
        (policy.ingress.is_some(), policy.egress.is_some())
    };
    let from = "ingress: [{action: Deny, from: [{namespaces: {}}]}]";
    let to = "egress: [{action: Pass, to: [{namespaces: {}}]}]";
    assert_eq!(governs(""), (false, false));
    assert_eq!(governs("ingress: []\negress: "), (false, false));
    assert_eq!(governs(from), (true, false));
    assert_eq!(governs(to), (false, true));
    assert_eq!(governs(&format!("{from}\n{to}")), (true, true));
}

#[test]
fn rules_of_a_cluster_policy() {
    let policy = policy(&cnp("
ingress:
- name: first
  action: Accept
  from:
  - namespaces: {matchLabels: {team: a}}
  - pods: {namespaceSelector: {}, podSelector: {matchLabels: {app: web}}}
  protocols:
  - tcp: {destinationPort: {number: 80}}
  - tcp: {destinationPort: {range: {start: 90, end: 99}}}
  - udp: {destinationPort: {number: 53}}
  - destinationNamedPort: http
  - destinationNamedPort: dns
- {action: Deny, from: [{namespaces: {}}]}
egress:
- action: Pass
  to: [{namespaces: {}}]
  protocols: [{sctp: {destinationPort: {number: 9}}}]
- action: Accept
  to: [{networks: [10.0.0.0/8, 'fd00::/8']}, {networks: [192.0.2.0/24]}]
  protocols: [{udp: {destinationPort: {number: 53}}}]
"));
    let (team, web) = (of("", "pcns.team == \"a\""), of("app == \"web\"", ""));
    let any = any();
    assert_eq!(
        show(policy.ingress.as_ref()),
        [
            format!("0 Allow src.sel={team} dst.named=dns,http"),
            format!("0 Allow src.sel={web} dst.named=dns,http"),
            format!("0 Allow protocol=6 src.sel={team} dst.ports=80,90-99"),
            format!("0 Allow protocol=6 src.sel={web} dst.ports=80,90-99"),
            format!("0 Allow protocol=17 src.sel={team} dst.ports=53"),
            format!("0 Allow protocol=17 src.sel={web} dst.ports=53"),
            format!("1 Deny src.sel={any}"),
        ]
    );
    assert_eq!(
        show(policy.egress.as_ref()),
        [
            format!("0 Pass protocol=132 dst.sel={any} dst.ports=9"),
            "1 Allow protocol=17 dst.nets=10.0.0.0/8,fd00::/8 dst.ports=53".into(),
            "1 Allow protocol=17 dst.nets=192.0.2.0/24 dst.ports=53".into(),
        ]
    );
}

const OLDER: &str = "
ingress:
- action: Allow
  from: [{namespaces: {}}]
  ports:
  - portNumber: {protocol: TCP, port: 80}
  - portNumber: {port: 81}
  - portRange: {protocol: UDP, start: 90, end: 99}
  - portRange: {start: 1000, end: 2000}
  - namedPort: http
egress:
- {name: web, action: Deny, to: [{networks: [0.0.0.0/0]}]}
";

#[test]
fn rules_of_the_older_kinds() {
    let any = any();
    for text in [anp(OLDER), banp(OLDER)] {
        let policy = policy(&text);
        assert_eq!(
            show(policy.ingress.as_ref()),
            [
                format!("0 Allow src.sel={any} dst.named=http"),
                format!("0 Allow protocol=6 src.sel={any} dst.ports=80-81,1000-2000"),
                format!("0 Allow protocol=17 src.sel={any} dst.ports=90-99"),
            ]
        );
        assert_eq!(show(policy.egress.as_ref()), ["0 Deny dst.nets=0.0.0.0/0"]);
    }
    let pass = policy(&anp(
        "ingress: [{action: Pass, from: [{pods: {namespaceSelector: {}, podSelector: {}}}]}]",
    ));
    assert_eq!(show(pass.ingress.as_ref()), [format!("0 Pass src.sel={any}")]);
}

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
        (
            "to: [{pods: «{namespaceSelector: {}}»}]",
            ".to[0].pods",
            "podSelector is missing",
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
            1.0,
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
