//! ClusterNetworkPolicy, AdminNetworkPolicy, BaselineAdminNetworkPolicy.

use super::*;

pub(super) fn manifest(version: &str, kind: &str, name: &str, spec: &str) -> String {
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
pub(super) fn cnp(rules: &str) -> String {
    whole(&format!("{HEAD}{}", rules.trim_start_matches('\n')))
}

pub(super) fn whole(spec: &str) -> String {
    manifest("v1alpha2", "ClusterNetworkPolicy", "p", spec)
}

pub(super) fn anp(rules: &str) -> String {
    let spec = format!(
        "priority: 7\nsubject: {{namespaces: {{}}}}\n{}",
        rules.trim_start_matches('\n')
    );
    manifest("v1alpha1", "AdminNetworkPolicy", "p", &spec)
}

pub(super) fn banp(rules: &str) -> String {
    let spec = format!(
        "subject: {{namespaces: {{}}}}\n{}",
        rules.trim_start_matches('\n')
    );
    manifest("v1alpha1", "BaselineAdminNetworkPolicy", "default", &spec)
}

/// Pods with labels, in namespaces with labels.
pub(super) fn of(own: &str, namespace: &str) -> String {
    let pods = "projectcalico.org/orchestrator == \"k8s\" && has(projectcalico.org/namespace)";
    let parts = [own, pods, namespace].into_iter().filter(|part| !part.is_empty());
    format!("({})", parts.collect::<Vec<_>>().join(" && "))
}

pub(super) fn any() -> String {
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
            name == "default" || name == Tier::UNKNOWN,
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
