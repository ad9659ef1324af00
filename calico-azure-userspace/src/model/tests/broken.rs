//! What is not understood never opens anything.

use proptest::prelude::*;

use super::*;

/// Ingress rules of a NetworkPolicy with the rule's text in place of `RULE` once allowing, once denying.
#[track_caller]
fn check(rule: &str, denies: &str) {
    for (action, expected) in [
        ("Allow", None),
        ("Log", None),
        ("Deny", Some(denies)),
        ("Pass", Some(denies)),
    ] {
        let spec = format!("ingress:\n- {{action: {action}, {rule}}}\n- action: Allow");
        let (policy, errors) = bad_policy(&np(&spec));
        let expected: Vec<String> = expected
            .map(|rest| format!("0 Deny {rest}").trim_end().to_owned())
            .into_iter()
            .chain(["1 Allow".into()])
            .collect();
        assert_eq!(show(policy.ingress.as_ref()), expected, "{action}: {rule}");
        assert!(errors > 0, "{rule}");
    }
}

const OWN: &str = "projectcalico.org/namespace == \"shop\"";

#[test]
fn a_wrong_rule_allows_nothing_and_denies_what_the_rest_of_it_matches() {
    check("sorce: {}", "");
    check("sorce: {}, protocol: TCP", "protocol=6");
    check("protocol: TPC, destination: {ports: [80]}", "dst.ports=80");
    check("protocol: 0", "");
    check("ipVersion: 5, protocol: TCP", "protocol=6");
    check("ipVersion: 4, protocol: ICMPv6", "");
    check("protocol: TCP, icmp: {type: 8}", "protocol=6");
    check("protocol: ICMP, icmp: {code: 8}", "version=V4 protocol=1");
    check("protocol: ICMP, icmp: {type: 255}", "version=V4 protocol=1");
    check(
        "protocol: ICMP, notICMP: {type: 1, code: 256}",
        "version=V4 protocol=1",
    );
    check("protocol: TCP, http: {methods: [GET]}", "protocol=6");
    check("destination: {ports: [80]}", "");
    check("protocol: UDPLite, destination: {ports: [80]}", "protocol=136");
    check("protocol: TCP, source: []", "protocol=6");
}

#[test]
fn a_list_with_a_wrong_entry_does_not_shrink() {
    let tcp = "protocol: TCP";
    check(
        &format!("{tcp}, destination: {{ports: [80, http, 'a b']}}"),
        "protocol=6",
    );
    check(
        &format!("{tcp}, destination: {{ports: [80, 99999]}}"),
        "protocol=6",
    );
    check(&format!("{tcp}, source: {{ports: [80, 0]}}"), "protocol=6");
    check("source: {nets: [10.0.0.0/8, 10.0.0/8]}", "");
    check("source: {nets: 10.0.0.0/8}", "");
    // Less excluded matches more.
    check(
        "source: {notNets: [10.0.0.0/8, 11.0.0/8]}",
        "src.!nets=10.0.0.0/8",
    );
    check(
        &format!("{tcp}, destination: {{notPorts: [80, http, 0]}}"),
        "protocol=6 dst.!ports=80",
    );
    check(
        "source: {nets: [10.0.0.0/8], notNets: [0.0.0.0/0]}",
        "src.nets=10.0.0.0/8",
    );
    check(
        "source: {nets: [10.0.0.0/8]}, destination: {nets: ['fd00::/8']}",
        "",
    );
}

#[test]
fn of_several_selectors_the_good_ones_stay() {
    check("source: {selector: a ==}", &format!("src.sel={OWN}"));
    check(
        "source: {selector: has(a), notSelector: b ==}",
        &format!("src.sel=({OWN} && has(a))"),
    );
    check(
        "source: {selector: has(a), serviceAccounts: {nams: [x]}}",
        &format!("src.sel=({OWN} && has(a))"),
    );
    check(
        "source: {selector: has(a), serviceAccounts: {names: x}}",
        &format!("src.sel=({OWN} && has(a))"),
    );
    check("source: {selector: global()}", &format!("src.sel={OWN}"));
    // Without the selector beside it, a negated one would exclude more.
    check(
        "source: {selector: a ==, notSelector: b == 'c'}",
        &format!("src.sel=({OWN} && !b == \"c\")"),
    );
    check("source: {namespaceSelector: a ==, notSelector: has(b)}", "");
    check("source: {selctor: has(a), notSelector: has(b)}", "");
    // A namespace selector would have lifted the restriction to the own namespace.
    check(
        "source: {selector: has(a), namespaceSelector: b ==}",
        "src.sel=has(a)",
    );
    check(
        "source: {selector: has(a), namespceSelector: has(b)}",
        "src.sel=has(a)",
    );
    check(
        "source: {selector: has(a), namespaceSelector: global() || has(b)}",
        "src.sel=has(a)",
    );
}

#[test]
fn of_a_field_given_twice_neither_counts() {
    check("protocol: TCP, protocol: UDP", "");
    check("source: {nets: [10.0.0.0/8], nets: [11.0.0.0/8]}", "");
    check(
        "source: {selector: has(a), namespaceSelector: has(b), namespaceSelector: has(c)}",
        "src.sel=has(a)",
    );
}

#[test]
fn an_action_that_is_not_understood_denies() {
    for action in [
        "",
        "action: allow, ",
        "action: {}, ",
        "action: Allow, action: Deny, ",
    ] {
        let (policy, errors) = bad_policy(&np(&format!("ingress: [{{{action}protocol: TCP}}]")));
        assert_eq!(
            (show(policy.ingress.as_ref()), errors),
            (vec!["0 Deny protocol=6".to_owned()], 1),
            "{action}"
        );
    }
    let (policy, _) = bad_policy(&np("ingress: [Allow]"));
    assert_eq!(show(policy.ingress.as_ref()), ["0 Deny"]);
}

const RULES: &str = "
ingress: [{action: Allow}, {action: Deny, protocol: TCP}, {action: Log}, {action: Pass}]";
const DISTRUSTED: [&str; 2] = ["1 Deny protocol=6", "3 Deny"];

#[test]
fn a_wrong_policy_allows_nothing() {
    let own = format!("(has(a) && {OWN})");
    for (spec, selector, egress) in [
        ("selector: has(a)\nodrer: 1", own.as_str(), true),
        ("selector: has(a)\nodrer: 1\ntypes: [Ingress]", &own, false),
        ("selector: has(a)\norder: first", &own, true),
        ("selector: has(a)\ntier: [x]", &own, true),
        ("selector: has(a)\ntypes: [Ingress, Egres]", &own, true),
        ("selector: has(a)\ntypes: Ingress", &own, true),
        ("selector: has(a)\ntypes: [Ingress]\ntypes: [Ingress]", &own, true),
        (
            "selector: has(a)\nperformanceHints: [Quick]\ntypes: [Ingress]",
            &own,
            false,
        ),
        ("selector: has(a)\nnamespaceSelector: has(b)", &own, true),
        ("selector: has(a)\ndoNotTrack: true", &own, true),
        ("selector: a ==", OWN, true),
        ("selector: global()", OWN, true),
        ("selector: has(a)\nserviceAccountSelector: x", OWN, true),
        ("selector: has(a)\nselector: has(b)", OWN, true),
        ("selector: {matchLabels: {a: b}}\ntypes: [Ingress]", OWN, false),
    ] {
        let (policy, errors) = bad_policy(&np(&format!("{spec}{RULES}")));
        assert_eq!(errors, 1, "{spec}");
        assert_eq!(policy.selector.canonical(), selector, "{spec}");
        assert_eq!(show(policy.ingress.as_ref()), DISTRUSTED, "{spec}");
        assert_eq!(policy.egress.is_some(), egress, "{spec}");
    }
    let (policy, _) = bad_policy(&gnp(&format!("selector: a ==\nnamespaceSelector: has(b){RULES}")));
    assert_eq!(policy.selector.canonical(), "all()");
    let (policy, _) = bad_policy(&gnp(&format!("namespaceSelector: global(){RULES}")));
    assert_eq!(policy.selector.canonical(), "all()");
}

#[test]
fn denies_do_not_come_later_than_they_were_meant_to() {
    for (spec, tier, order) in [
        ("order: first", "default", f64::NEG_INFINITY),
        ("order: 5\ntier: [x]", Tier::UNKNOWN, 5.0),
        ("order: 5\ntire: x", Tier::UNKNOWN, 5.0),
        ("odrer: 5\ntier: x", "x", f64::NEG_INFINITY),
        ("order: 5\ntier: x\ntype: [Ingress]", "x", 5.0),
        ("order: 5\ntypes: Ingress", "default", 5.0),
        ("[]", Tier::UNKNOWN, f64::NEG_INFINITY),
    ] {
        let text = calico("NetworkPolicy", "name: p, namespace: shop", spec);
        let (policy, _) = bad_policy(&text);
        assert_eq!(
            (policy.tier.as_str(), policy.order),
            (tier, Some(order)),
            "{spec}"
        );
    }
}

#[test]
fn rules_that_may_be_missing_are_a_deny_of_everything() {
    let all = vec!["0 Deny".to_owned()];
    for (spec, ingress, egress) in [
        (
            "ingress: {}\negress: [{action: Deny, protocol: TCP}]",
            &all,
            vec!["0 Deny protocol=6".to_owned()],
        ),
        ("types: [Ingress, Egress]\nigress: []", &all, all.clone()),
        (
            "types: [Ingress, Egress]\nigress: []\ningress: [{action: Allow}]",
            &vec![],
            all.clone(),
        ),
        (
            "types: [Ingress, Egress]\norder: x\ningress: [{action: Allow}]",
            &vec![],
            vec![],
        ),
    ] {
        let (policy, _) = bad_policy(&np(spec));
        assert_eq!(
            (show(policy.ingress.as_ref()), show(policy.egress.as_ref())),
            (ingress.clone(), egress),
            "{spec}"
        );
    }
}

#[test]
fn a_policy_without_a_usable_spec_isolates_its_scope() {
    let head =
        "apiVersion: projectcalico.org/v3\nkind: NetworkPolicy\nmetadata: {name: p, namespace: shop}\n";
    for spec in ["", "spec:", "spec: []", "spec: yes"] {
        let (policy, errors) = bad_policy(&format!("{head}{spec}"));
        assert_eq!(errors, 1, "{spec}");
        assert_eq!(policy.selector.canonical(), OWN);
        assert_eq!(
            (show(policy.ingress.as_ref()), show(policy.egress.as_ref())),
            (vec!["0 Deny".into()], vec!["0 Deny".into()])
        );
    }
    let (policy, errors) = bad_policy(&format!(
        "{head}specs: {{}}\nspec: {{ingress: [{{action: Allow}}]}}"
    ));
    assert_eq!((errors, show(policy.ingress.as_ref())), (1, vec![]));
}

#[test]
fn a_policy_without_a_name_is_enforced_all_the_same() {
    let named = np("ingress: [{action: Deny}]");
    for metadata in [
        "{namespace: shop}",
        "{namespace: shop, generateName: p-}",
        "{namespace: shop, name: [x]}",
    ] {
        let (policy, errors) = bad_policy(&named.replace("{name: p, namespace: shop}", metadata));
        assert_eq!((errors, policy.key.name.as_str()), (1, "a.yaml:1"), "{metadata}");
        assert_eq!(show(policy.ingress.as_ref()), ["0 Deny"]);
    }
    let (policy, errors) = bad_policy(&named.replace("name: p", "name: My Policy"));
    assert_eq!((errors, policy.key.name.as_str()), (1, "My Policy"));
}

#[test]
fn what_is_clear_but_more_than_the_api_takes_is_an_error_and_enforced() {
    let long = format!("selector: has({})", "a".repeat(500)) + &" || has(bbbbbbbbb)".repeat(40);
    let (policy, errors) = bad_policy(&np(&format!("{long}\ningress: [{{action: Allow}}]")));
    assert_eq!(
        (errors, show(policy.ingress.as_ref())),
        (1, vec!["0 Allow".to_owned()])
    );
    let nets: Vec<String> = (0..257)
        .map(|i| format!("10.{}.{}.0/24", i / 256, i % 256))
        .collect();
    let (policy, errors) = bad_policy(&np(&format!(
        "ingress: [{{action: Allow, source: {{nets: [{}]}}}}]",
        nets.join(", ")
    )));
    assert_eq!(
        (errors, policy.ingress.map(|rules| rules[0].source.nets.len())),
        (1, Some(257))
    );
    let rules = "{action: Deny}, ".repeat(1025);
    let (policy, errors) = bad_policy(&np(&format!("ingress: [{rules}]")));
    assert_eq!((errors, policy.ingress.map(|rules| rules.len())), (1, Some(1025)));
}

const WHOLE: &str = "apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: p, namespace: shop}
spec:
  order: 10
  selector: app == 'db'
  types: [Ingress, Egress]
  ingress:
  - action: Deny
    protocol: TCP
    source: {nets: [10.0.0.0/8], notNets: [10.1.0.0/16]}
    destination: {ports: [80, '90:99', http], notPorts: [95, web]}
  - action: Deny
    source: {selector: has(a), namespaceSelector: has(b)}
  - action: Deny
    ipVersion: 6
  - action: Deny
    protocol: UDP
    source: {services: {name: web, namespace: front}, ports: [53]}
  - action: Deny
    source: {selector: has(a), notSelector: has(b)}
---
apiVersion: v1
kind: Pod
metadata: {name: a, namespace: b, labels: {c: d}}
spec: {nodeName: node}
status: {podIPs: [{ip: 10.0.0.1}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: p, namespace: shop}
spec:
  podSelector: {matchLabels: {app: db}}
  ingress:
  - from: [{podSelector: {}}, {ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}}]
    ports: [{protocol: TCP, port: 80, endPort: 90}]
---
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: p}
spec:
  tier: Admin
  priority: 1
  subject: {pods: {namespaceSelector: {}, podSelector: {}}}
  egress:
  - {name: a, action: Deny, to: [{networks: [10.0.0.0/8]}], protocols: [{udp: {destinationPort: {number: 53}}}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: a, namespace: b, labels: {kubernetes.io/service-name: c}}
endpoints: [{addresses: [10.0.0.1]}]
ports: [{port: 80}]
---
{\"apiVersion\": \"v1\", \"kind\": \"Service\", \"metadata\": {\"name\": \"c\"}, \"spec\": {\"ports\": [{\"port\": 1}]}}
---
{apiVersion: apps/v1, kind: Deployment, metadata: {name: d}, spec: {replicas: 0, template: {metadata: {labels: {e: f}}}}}
";

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Whatever is cut out of a manifest or put into it, it is read without panic, problems can be shown, and
    /// their places are in the text.
    #[test]
    fn any_text_is_read_and_every_problem_has_a_place(
        cut in 0..WHOLE.len(), length in 0..12_usize, insert in "[\\PC\n\"'{}\\[\\]:&*!|>#,-]{0,8}",
    ) {
        let end = (cut + length).min(WHOLE.len());
        let text = format!("{}{insert}{}", &WHOLE[..cut], &WHOLE[end..]);
        let loaded = load(&text);
        let lines = text.split('\n').count() + 1;
        for problem in &loaded.problems {
            prop_assert!(problem.to_string().contains("a.yaml"));
            prop_assert!(problem.line.is_none_or(|line| (1..=lines).contains(&(line as usize))));
        }
        if loaded.unreadable {
            prop_assert!(loaded.problems.iter().any(|problem| problem.severity == Severity::Error));
        }
    }

    /// A key that is misspelt anywhere in a policy's spec leaves a policy with only Deny rules that denies at
    /// least what it denied.
    #[test]
    fn a_misspelt_key_loses_no_deny(index in 0..40_usize) {
        let spec = WHOLE.split("---").next().unwrap_or_default();
        let keys: Vec<usize> = spec.match_indices(": ").map(|(at, _)| at).filter(|at| *at > spec.find("spec").unwrap()).collect();
        let Some(at) = keys.get(index % keys.len()) else { return Ok(()) };
        // Inside the selector's text there is none.
        let text = format!("{}x{}", &spec[..*at], &spec[*at..]);
        let (whole, (policy, errors)) = (policy(spec), bad_policy(&text));
        prop_assert!(errors > 0, "{text}");
        for rule in whole.ingress.iter().flatten() {
            let after = policy.ingress.iter().flatten().find(|other| other.index == rule.index);
            let Some(after) = after else { return Err(TestCaseError::fail(format!("no rule {} in {text}", rule.index))) };
            prop_assert_eq!(after.action, Action::Deny);
            prop_assert!(wider(&after.source, &rule.source) && wider(&after.destination, &rule.destination), "{}", text);
            prop_assert!(after.protocol.is_none_or(|protocol| Some(protocol) == rule.protocol));
            prop_assert!(after.ip_version.is_none_or(|version| Some(version) == rule.ip_version));
        }
        prop_assert!(whole.egress.is_none() || policy.egress.is_some());
    }
}

/// Whether each criterion is gone or as it was (selectors of the test are conjunctions, printed as such).
fn wider(after: &Peer, before: &Peer) -> bool {
    let gone_or_same = |after: &[_], before: &[_]| after.is_empty() || after == before;
    let selector = after.selector.as_ref().is_none_or(|after| {
        let parts = after
            .canonical()
            .trim_matches(['(', ')'])
            .split(" && ")
            .map(str::to_owned)
            .collect::<Vec<_>>();
        let before = before
            .selector
            .as_ref()
            .map(|before| before.canonical().to_owned())
            .unwrap_or_default();
        parts
            .iter()
            .all(|part| before.contains(part.trim_matches(['(', ')'])))
    });
    let ports = |peer: &Peer| (peer.ports.clone(), peer.named_ports.clone());
    gone_or_same(&after.nets, &before.nets)
        && gone_or_same(&after.not_nets, &before.not_nets)
        && (ports(after) == Default::default() || ports(after) == ports(before))
        && after
            .not_ports
            .iter()
            .all(|range| before.not_ports.contains(range))
        && after
            .not_named_ports
            .iter()
            .all(|name| before.not_named_ports.contains(name))
        && (after.service.is_none() || after.service == before.service)
        && (after.not_selector.is_none() || after.not_selector == before.not_selector)
        && selector
}
