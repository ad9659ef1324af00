//! What is clear but not what the API takes: it is an error, and enforced all the same. Tiers that nobody can move.

use super::*;

/// One error, and everything is enforced as written.
#[track_caller]
fn more_than_the_api_takes(text: &str, message: &str, field: &str) -> Policy {
    let mut loaded = load(text);
    let [problem] = loaded.problems.as_slice() else {
        panic!("{:?}", loaded.problems)
    };
    assert_eq!(problem.message, message);
    assert_eq!(
        (problem.field.as_deref(), problem.severity),
        (Some(field), Severity::Error)
    );
    policies(std::mem::take(&mut loaded.resources)).remove(0)
}

#[test]
fn lists_that_are_too_long_are_enforced() {
    let list =
        |length: u32, item: &dyn Fn(u32) -> String| (0..length).map(item).collect::<Vec<_>>().join(", ");
    let net = |i: u32| format!("10.{}.{}.0/24", i / 256, i % 256);
    let port = |i: u32| {
        if i.is_multiple_of(2) {
            (i + 1).to_string()
        } else {
            format!("p{i}")
        }
    };
    for key in ["nets", "notNets"] {
        let rule = |n| {
            gnp(&format!(
                "ingress: [{{action: Allow, source: {{{key}: [{}]}}}}]",
                list(n, &net)
            ))
        };
        policy(&rule(256));
        let message = "the list has 257 entries; the API takes 256";
        let policy = more_than_the_api_takes(&rule(257), message, &format!("spec.ingress[0].source.{key}"));
        let peer = &policy.ingress.unwrap()[0].source;
        assert_eq!(peer.nets.len() + peer.not_nets.len(), 257);
    }
    for (side, key) in [("source", "ports"), ("destination", "notPorts")] {
        let rule = |n| {
            let ports = list(n, &port);
            gnp(&format!(
                "egress: [{{action: Allow, protocol: TCP, {side}: {{{key}: [{ports}]}}}}]"
            ))
        };
        policy(&rule(50));
        let message = "the list has 51 entries; the API takes 50";
        let policy = more_than_the_api_takes(&rule(51), message, &format!("spec.egress[0].{side}.{key}"));
        let rule = &policy.egress.unwrap()[0];
        let count: usize = [&rule.source, &rule.destination]
            .iter()
            .map(|x| x.ports.len() + x.not_ports.len() + x.named_ports.len() + x.not_named_ports.len())
            .sum();
        assert_eq!(count, 51);
    }
    let rules = |n| np(&format!("egress: [{}]", "{action: Allow}, ".repeat(n)));
    policy(&rules(1024));
    let message = "there are 1025 rules in this direction; the API takes 1024";
    let policy = more_than_the_api_takes(&rules(1025), message, "spec.egress");
    assert_eq!(policy.egress.unwrap().len(), 1025);
}

#[test]
fn selectors_that_are_too_long_are_enforced() {
    let selector = |length: usize| format!("a == '{}'", "x".repeat(length - 7));
    let message = "the selector has 1025 characters; the API takes 1024";
    for (text, field) in [
        ("selector: \"SELECTOR\"", "spec.selector"),
        ("namespaceSelector: \"SELECTOR\"", "spec.namespaceSelector"),
        (
            "serviceAccountSelector: \"SELECTOR\"",
            "spec.serviceAccountSelector",
        ),
        (
            "ingress: [{action: Allow, source: {notSelector: \"SELECTOR\"}}]",
            "spec.ingress[0].source.notSelector",
        ),
        (
            "ingress: [{action: Allow, source: {serviceAccounts: {selector: \"SELECTOR\"}}}]",
            "spec.ingress[0].source.serviceAccounts.selector",
        ),
    ] {
        policy(&gnp(&text.replace("SELECTOR", &selector(1024))));
        let long = more_than_the_api_takes(&gnp(&text.replace("SELECTOR", &selector(1025))), message, field);
        assert!(format!("{long:?}").contains(&"x".repeat(1018)), "{field}");
    }
}

#[test]
fn names_of_tiers_are_short_and_have_no_dots() {
    let longest = "t".repeat(63);
    policy(&np(&format!("tier: {longest}")));
    for name in [format!("{longest}t"), "a.b".to_owned()] {
        let shown = format!("{name:.60}");
        let ellipsis = if name.len() > 60 { "\"…" } else { "\"" };
        let message =
            format!("\"{shown}{ellipsis} is no tier: the name of one has at most 63 characters and no dots");
        let policy = more_than_the_api_takes(
            &np(&format!("tier: {name}\ningress: [{{action: Allow}}]")),
            &message,
            "spec.tier",
        );
        assert_eq!(
            (policy.tier, show(policy.ingress.as_ref())),
            (name.clone(), vec!["0 Allow".to_owned()])
        );
        let loaded = load(&calico("Tier", &format!("name: {name}"), "order: 1"));
        let [problem] = loaded.problems.as_slice() else {
            panic!("{:?}", loaded.problems)
        };
        assert_eq!(
            problem.message,
            "a tier's name has at most 63 characters and no dots"
        );
        assert_eq!(problem.field.as_deref(), Some("metadata.name"));
        assert_eq!(loaded.resources[0].key().name, name);
    }
}

#[test]
fn the_tiers_that_calico_makes_stay_where_they_are() {
    for (name, order, action) in [
        ("kube-admin", "1000", "Pass"),
        ("default", "1000000", "Deny"),
        ("kube-baseline", "10000000", "Pass"),
    ] {
        let builtin = || Resource::Tier(Tier::builtin(name).unwrap());
        for spec in [
            format!("order: {order}\ndefaultAction: {action}"),
            format!("order: {order}"),
            "{}".to_owned(),
        ] {
            assert_eq!(
                good(&calico("Tier", &format!("name: {name}"), &spec)),
                [builtin()],
                "{spec}"
            );
        }
        let other = if action == "Pass" { "Deny" } else { "Pass" };
        let loaded = load(&calico(
            "Tier",
            &format!("name: {name}"),
            &format!("order: 5\ndefaultAction: {other}"),
        ));
        let found: Vec<_> = loaded
            .problems
            .iter()
            .map(|problem| (problem.message.clone(), problem.field.clone().unwrap_or_default()))
            .collect();
        assert_eq!(
            found,
            [
                (
                    format!("the order of tier {name} is always {order}"),
                    "spec.order".to_owned()
                ),
                (
                    format!("the default action of tier {name} is always {action}"),
                    "spec.defaultAction".to_owned()
                ),
            ]
        );
        // The stricter of the two.
        let strict = Tier {
            default_action: TierDefault::Deny,
            ..Tier::builtin(name).unwrap()
        };
        assert_eq!(loaded.resources, [Resource::Tier(strict)]);
    }
    let (Resource::Tier(last), _) = (
        load(&calico("Tier", "name: kube-admin", "order: x"))
            .resources
            .remove(0),
        (),
    ) else {
        panic!("no tier")
    };
    assert_eq!(last.order, Some(1000.0));
}
