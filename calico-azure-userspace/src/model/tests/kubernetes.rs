//! Kubernetes NetworkPolicies: their conversion.

use super::*;

const PODS: &str = "projectcalico.org/orchestrator == \"k8s\"";
const OWN: &str = "projectcalico.org/namespace == \"shop\"";

#[test]
fn selects_pods_of_its_namespace_in_the_default_tier() {
    let empty = policy(&knp("podSelector: {}"));
    assert_eq!((empty.tier.as_str(), empty.order), ("default", Some(1000.0)));
    assert_eq!(empty.key.to_string(), "KubernetesNetworkPolicy shop/p");
    assert_eq!(empty.selector.canonical(), format!("({PODS} && {OWN})"));
    let labels = policy(&knp("
podSelector:
  matchLabels: {app: db, empty: ''}
  matchExpressions:
  - {key: a, operator: In, values: [x, w]}
  - {key: b.io/c, operator: NotIn, values: [z]}
  - {key: d, operator: Exists}
  - {key: e, operator: DoesNotExist, values: []}
"));
    let own =
        "app == \"db\" && empty == \"\" && a in {\"w\", \"x\"} && b.io/c not in {\"z\"} && has(d) && !has(e)";
    assert_eq!(labels.selector.canonical(), format!("({own} && {PODS} && {OWN})"));
}

#[test]
fn policy_types_follow_from_the_rules_that_are_there() {
    let governs = |spec: &str| {
        let policy = policy(&knp(spec));
        (policy.ingress.is_some(), policy.egress.is_some())
    };
    assert_eq!(governs("podSelector: {}"), (true, false));
    assert_eq!(governs("ingress: [{}]"), (true, false));
    assert_eq!(governs("egress: [{}]"), (true, true));
    assert_eq!(governs("egress: []"), (true, false));
    assert_eq!(governs("policyTypes: [Egress]"), (false, true));
    assert_eq!(governs("policyTypes: [Ingress, Egress]"), (true, true));
}

#[track_caller]
fn ingress(rules: &str) -> Vec<String> {
    show(policy(&knp(rules)).ingress.as_ref())
}

#[test]
fn a_rule_becomes_one_for_each_protocol_and_peer() {
    let shown = ingress(
        "
ingress:
- {}
- from:
  - podSelector: {matchLabels: {app: web}}
  - ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}
  ports:
  - {port: 443}
  - {port: 80, protocol: TCP}
  - {port: 81, endPort: 90}
  - {port: 53, protocol: UDP}
",
    );
    let web = format!("src.sel=(app == \"web\" && {PODS} && {OWN})");
    let block = "src.nets=10.0.0.0/8 src.!nets=10.1.0.0/16";
    assert_eq!(
        shown,
        [
            "0 Allow".to_owned(),
            format!("1 Allow protocol=6 {web} dst.ports=80-90,443"),
            format!("1 Allow protocol=6 {block} dst.ports=80-90,443"),
            format!("1 Allow protocol=17 {web} dst.ports=53"),
            format!("1 Allow protocol=17 {block} dst.ports=53"),
        ]
    );
}

#[test]
fn peers_by_namespace() {
    let named = "kubernetes.io/metadata.name";
    let shown = ingress(&format!(
        "
ingress:
- from: [{{namespaceSelector: {{}}}}]
- from: [{{podSelector: {{}}}}]
- from:
  - namespaceSelector: {{matchLabels: {{{named}: ops}}}}
    podSelector: {{matchLabels: {{app: web}}}}
"
    ));
    let any = format!("{PODS} && has(projectcalico.org/namespace)");
    assert_eq!(
        shown,
        [
            format!("0 Allow src.sel=({any})"),
            format!("1 Allow src.sel=({PODS} && {OWN})"),
            format!("2 Allow src.sel=(app == \"web\" && {any} && pcns.{named} == \"ops\")"),
        ]
    );
}

#[test]
fn lists_that_are_empty_do_not_restrict() {
    assert_eq!(ingress("ingress: [{from: [], ports: []}]"), ["0 Allow"]);
    assert_eq!(ingress("ingress: [{from: , ports: }]"), ["0 Allow"]);
    // A protocol without a port is all its ports, whatever else is listed.
    assert_eq!(
        ingress("ingress: [{ports: [{protocol: UDP}, {protocol: UDP, port: 1}]}]"),
        ["0 Allow protocol=17"]
    );
    assert_eq!(ingress("ingress: [{ports: [{}]}]"), ["0 Allow protocol=6"]);
}

#[test]
fn egress_constrains_the_destination() {
    let policy = policy(&knp("
policyTypes: [Egress]
egress:
- to: [{ipBlock: {cidr: 'fd00::/8'}}]
  ports: [{protocol: SCTP, port: 7}]
"));
    assert_eq!(
        show(policy.egress.as_ref()),
        ["0 Allow protocol=132 dst.nets=fd00::/8 dst.ports=7"]
    );
    assert_eq!(policy.ingress, None);
}

#[test]
fn ports_with_names_have_a_protocol_and_stand_beside_numbers() {
    let spec = "
policyTypes: [Ingress, Egress]
RULES:
- ports:
  - {port: http}
  - {port: 8080}
  - {port: dns, protocol: UDP}
  - {port: metrics, protocol: TCP}
  - {port: http, protocol: TCP}
- ports: [{port: web}, {protocol: TCP}]
";
    let rules = [
        "0 Allow protocol=6 dst.ports=8080 dst.named=http,metrics",
        "0 Allow protocol=17 dst.named=dns",
        "1 Allow protocol=6",
    ];
    assert_eq!(ingress(&spec.replace("RULES", "ingress")), rules);
    let egress = policy(&knp(&spec.replace("RULES", "egress")));
    assert_eq!(show(egress.egress.as_ref()), rules);
}

#[test]
fn of_several_protocols_and_peers_each_pair_is_a_rule() {
    let shown = ingress(
        "
ingress:
- from: [{ipBlock: {cidr: 10.0.0.0/8}}, {ipBlock: {cidr: 'fd00::/8', except: ['fd00::/16', 'fd01::/16']}}]
  ports: [{protocol: SCTP, port: 1, endPort: 3}, {protocol: SCTP, port: 4}, {protocol: UDP, port: 65535}]
",
    );
    let (v4, v6) = (
        "src.nets=10.0.0.0/8",
        "src.nets=fd00::/8 src.!nets=fd00::/16,fd01::/16",
    );
    assert_eq!(
        shown,
        [
            format!("0 Allow protocol=17 {v4} dst.ports=65535"),
            format!("0 Allow protocol=17 {v6} dst.ports=65535"),
            format!("0 Allow protocol=132 {v4} dst.ports=1-4"),
            format!("0 Allow protocol=132 {v6} dst.ports=1-4"),
        ]
    );
}

#[test]
fn a_rule_that_cannot_be_converted_is_dropped_and_the_rest_kept() {
    let (policy, errors) = bad_policy(&knp("
ingress:
- ports: [{port: '80'}]
- from: [{}]
- from: [{podSelector: {}, ipBlock: {cidr: 10.0.0.0/8}}]
- from: [{ipBlock: {cidr: 10.0.0.0/8, except: [11.0.0.0/16]}}]
- ports: [{port: 80, endPort: 79}]
- ports: [{endPort: 79}]
- ports: [{protocol: ICMP}]
- form: []
-
- from: [{podSelector: {matchExpressions: [{key: a, operator: In}]}}]
- from: [{podSelector: {matchLabels: {'a b': c}}}]
- ports: [{port: 80}]
"));
    assert_eq!(errors, 11);
    assert_eq!(
        show(policy.ingress.as_ref()),
        ["11 Allow protocol=6 dst.ports=80"]
    );
}

#[test]
fn a_policy_that_is_not_understood_allows_nothing() {
    for (spec, ingress, egress) in [
        // Which direction the misspelt field meant is anybody's guess.
        ("egres: []\ningress: [{}]", true, true),
        ("policyTypes: [Ingres]\ningress: [{}]", true, true),
        ("policyTypes: [Ingress]\nfoo: 1\ningress: [{}]", true, false),
        ("ingress: {}", true, true),
    ] {
        let (policy, errors) = bad_policy(&knp(spec));
        assert_eq!(errors, 1, "{spec}");
        assert_eq!(
            policy.ingress.as_ref().map(Vec::len),
            ingress.then_some(0),
            "{spec}"
        );
        assert_eq!(
            policy.egress.as_ref().map(Vec::len),
            egress.then_some(0),
            "{spec}"
        );
    }
    // Both together would select less.
    let (policy, errors) = bad_policy(&knp("podSelector: {matchLabels: {a: b, a: c}}\ningress: [{}]"));
    assert_eq!(
        (errors, policy.selector.canonical()),
        (1, format!("({PODS} && {OWN})").as_str())
    );
    assert_eq!(show(policy.ingress.as_ref()), [""; 0]);
    let (policy, errors) = bad_policy(&knp("podSelector: {matchLabels: {a: true}}\ningress: [{}]"));
    assert_eq!(
        (errors, policy.selector.canonical()),
        (1, format!("({PODS} && {OWN})").as_str())
    );
    assert_eq!(show(policy.ingress.as_ref()), [""; 0]);
}
