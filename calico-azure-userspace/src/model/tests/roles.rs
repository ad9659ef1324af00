//! What a policy does besides governing pods: at host endpoints, staged, as a copy.

use super::*;

const RULES: &str = "\ningress: [{action: Allow}, {action: Deny, protocol: TCP}]";

#[test]
fn the_role_at_host_endpoints() {
    for (spec, role) in [
        ("order: 1", HostRole::Normal),
        (
            "applyOnForward: false\ndoNotTrack: false\npreDNAT: false",
            HostRole::Normal,
        ),
        ("applyOnForward: true", HostRole::Forward),
        ("applyOnForward: true\npreDNAT: true", HostRole::PreDnat),
        (
            "applyOnForward: true\npreDNAT: true\ntypes: [Ingress]\negress: []",
            HostRole::PreDnat,
        ),
        ("applyOnForward: true\ndoNotTrack: true", HostRole::Untracked),
    ] {
        for make in [gnp, |spec: &str| {
            calico("StagedGlobalNetworkPolicy", "name: p", spec)
        }] {
            let policy = policy(&make(&format!("{spec}{RULES}")));
            assert_eq!(policy.host, role, "{spec}");
            assert_eq!(
                show(policy.ingress.as_ref()),
                ["0 Allow", "1 Deny protocol=6"],
                "{spec}"
            );
        }
    }
    assert_eq!(policy(&np("order: 1")).host, HostRole::Normal);
    let both = policy(&gnp(
        "applyOnForward: true\ndoNotTrack: true\nnamespaceSelector: ''\ningress: [{action: Allow}]\negress: [{action: Deny}]",
    ));
    assert_eq!(
        (show(both.ingress.as_ref()), show(both.egress.as_ref())),
        (vec!["0 Allow".to_owned()], vec!["0 Deny".to_owned()])
    );
}

#[test]
fn an_unclear_role_governs_everything_it_may_have_meant_and_allows_nothing() {
    let needs = |key: &str| (format!("{key} needs applyOnForward: true"), format!("spec.{key}"));
    let exclude = (
        "preDNAT and doNotTrack exclude each other".to_owned(),
        "spec.preDNAT".to_owned(),
    );
    let pair = |message: &str, field: &str| (message.to_owned(), field.to_owned());
    for (spec, problems) in [
        ("doNotTrack: true", vec![needs("doNotTrack")]),
        ("preDNAT: true\napplyOnForward: false", vec![needs("preDNAT")]),
        (
            "preDNAT: true\ndoNotTrack: true\napplyOnForward: true",
            vec![exclude.clone()],
        ),
        (
            "preDNAT: true\ndoNotTrack: true",
            vec![needs("doNotTrack"), needs("preDNAT"), exclude],
        ),
        (
            "preDNAT: true\napplyOnForward: true\ntypes: [Ingress, Egress]",
            vec![pair("a preDNAT policy cannot have the type Egress", "spec.types")],
        ),
        (
            "preDNAT: true\napplyOnForward: true\negress: [{action: Allow}]",
            vec![pair("a preDNAT policy cannot have egress rules", "spec.egress")],
        ),
        (
            "preDNAT: 1\napplyOnForward: true",
            vec![pair("expected true or false, found the number 1", "spec.preDNAT")],
        ),
        (
            "doNotTrack: true\napplyOnForwrd: true",
            vec![
                pair("unknown field \"applyOnForwrd\"", "spec"),
                needs("doNotTrack"),
            ],
        ),
        (
            "doNotTrak: true",
            vec![pair("unknown field \"doNotTrak\"", "spec")],
        ),
    ] {
        let loaded = load(&gnp(&format!("{spec}{RULES}")));
        let found: Vec<_> = loaded
            .problems
            .iter()
            .map(|problem| (problem.message.clone(), problem.field.clone().unwrap_or_default()))
            .collect();
        assert_eq!(found, problems, "{spec}");
        let policy = policies(loaded.resources).remove(0);
        assert_eq!(policy.host, HostRole::Forward, "{spec}");
        assert_eq!(show(policy.ingress.as_ref()), ["1 Deny protocol=6"], "{spec}");
        // A field that nobody knows may have been the missing list.
        let is_known = problems
            .iter()
            .all(|(message, _)| !message.starts_with("unknown field"));
        let egress: &[&str] = if is_known { &[] } else { &["0 Deny"] };
        assert_eq!(show(policy.egress.as_ref()), egress, "{spec}");
    }
    // A clear role stays when something else is wrong.
    let (policy, _) = bad_policy(&gnp(&format!(
        "preDNAT: true\napplyOnForward: true\norder: x\ntypes: [Ingress]{RULES}"
    )));
    assert_eq!(policy.host, HostRole::PreDnat);
    assert_eq!(show(policy.ingress.as_ref()), ["1 Deny protocol=6"]);
    let (policy, _) = bad_policy(&gnp("[]"));
    assert_eq!(policy.host, HostRole::Forward);
}

#[test]
fn staged_kinds_say_what_they_would_do() {
    let staged = |kind: &str, metadata: &str, spec: &str| policy(&calico(kind, metadata, spec));
    for (kind, metadata) in [
        ("StagedNetworkPolicy", "name: p, namespace: shop"),
        ("StagedGlobalNetworkPolicy", "name: p"),
        ("StagedKubernetesNetworkPolicy", "name: p, namespace: shop"),
    ] {
        for (spec, action) in [
            ("ingress: []", StagedAction::Set),
            ("stagedAction: Set", StagedAction::Set),
            ("stagedAction: Delete", StagedAction::Delete),
            ("stagedAction: Learn", StagedAction::Learn),
            ("stagedAction: Ignore", StagedAction::Ignore),
        ] {
            let policy = staged(kind, metadata, spec);
            assert_eq!(policy.staged, Some(action), "{kind}: {spec}");
            assert_eq!(policy.key.kind.as_str(), kind);
        }
    }
    assert_eq!(policy(&np("order: 1")).staged, None);
    assert_eq!(policy(&gnp("order: 1")).staged, None);
    assert_eq!(policy(&knp("podSelector: {}")).staged, None);
}

#[test]
fn a_staged_policy_means_what_the_enforced_one_means() {
    let spec =
        "tier: t\norder: 3\nselector: has(a)\nserviceAccountSelector: has(s)\negress: [{action: Deny}]";
    let enforced = policy(&np(spec));
    let staged = policy(&np(spec).replace("kind: NetworkPolicy", "kind: StagedNetworkPolicy"));
    let as_enforced = Policy {
        key: enforced.key.clone(),
        staged: None,
        ..staged
    };
    assert_eq!(as_enforced, enforced);

    let spec =
        "podSelector: {matchLabels: {a: b}}\npolicyTypes: [Ingress, Egress]\ningress:\n- ports: [{port: 80}]";
    let enforced = policy(&knp(spec));
    let text = calico(
        "StagedKubernetesNetworkPolicy",
        "name: p, namespace: shop",
        &format!("{spec}\nstagedAction: Set"),
    );
    let staged = policy(&text);
    assert_eq!(staged.key.kind.enforced(), Some(enforced.key.kind));
    let as_enforced = Policy {
        key: enforced.key.clone(),
        staged: None,
        ..staged
    };
    assert_eq!(as_enforced, enforced);
}

#[test]
fn a_wrong_staged_action_promises_nothing() {
    let rules = "ingress: [{action: Allow}]";
    let text = calico(
        "StagedNetworkPolicy",
        "name: p, namespace: shop",
        &format!("stagedAction: Remove\n{rules}"),
    );
    let (policy, errors) = bad_policy(&text);
    assert_eq!((errors, policy.staged), (1, Some(StagedAction::Set)));
    assert_eq!(show(policy.ingress.as_ref()), [""; 0]);
    for action in ["stagedAction: Remove", "stagedAction: Set\nstagedAction: Delete"] {
        let text = calico(
            "StagedKubernetesNetworkPolicy",
            "name: p, namespace: shop",
            &format!("{action}\npodSelector: {{}}\ningress: [{{}}]"),
        );
        let (policy, errors) = bad_policy(&text);
        assert_eq!((errors, policy.staged), (1, Some(StagedAction::Set)), "{action}");
        assert_eq!(show(policy.ingress.as_ref()), [""; 0], "{action}");
    }
    // Only staged kinds have one.
    let (_, errors) = bad_policy(&np("stagedAction: Set"));
    assert_eq!(errors, 1);
}

#[test]
fn the_older_group_prefixes_names_of_staged_kinds_too() {
    let text = calico("StagedGlobalNetworkPolicy", "name: default.p", "order: 1");
    assert_eq!(policy(&text).key.name, "default.p");
    let stored = text.replace("projectcalico.org/v3", "crd.projectcalico.org/v1");
    assert_eq!(policy(&stored).key.name, "p");
    let in_tier = stored.replace("order: 1", "tier: t").replace("default.p", "t.p");
    assert_eq!(policy(&in_tier).key.name, "t.p");
}

#[test]
fn copies_of_kubernetes_policies_are_left_out() {
    for group in ["projectcalico.org/v3", "crd.projectcalico.org/v1"] {
        for kind in ["NetworkPolicy", "StagedNetworkPolicy"] {
            let text = calico(
                kind,
                "name: knp.default.web, namespace: shop",
                "ingress: [{action: Allow}]",
            )
            .replace("projectcalico.org/v3", group);
            let loaded = load(&text);
            assert_eq!(loaded.resources, []);
            assert_eq!(loaded.ignored, [format!("{kind} shop/knp.default.web ({group})")]);
            let [problem] = loaded.problems.as_slice() else {
                panic!("{:?}", loaded.problems)
            };
            assert_eq!(problem.severity, Severity::Warning);
            assert!(
                problem.message.contains("copy of a Kubernetes NetworkPolicy"),
                "{problem}"
            );
        }
    }
    // Kubernetes' own may be called so.
    assert_eq!(
        policy(&knp("podSelector: {}").replace("name: p", "name: knp.default.p"))
            .key
            .name,
        "knp.default.p"
    );
}
