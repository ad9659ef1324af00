//! What the API refuses: each rule of it with its message, its field, and what is enforced instead.

use super::*;

/// One rule in a policy made by `make`, once allowing and once denying: the one message, at the one field below
/// `spec`, and what is left of the Deny (nothing is left of the Allow).
#[track_caller]
fn refused(make: fn(&str) -> String, direction: &str, fields: &str, message: &str, at: &str, denies: &str) {
    for (action, left) in [("Allow", None), ("Deny", Some(format!("0 Deny {denies}")))] {
        let text = make(&format!("{direction}: [{{action: {action}, {fields}}}]"));
        let loaded = load(&text);
        let [problem] = loaded.problems.as_slice() else {
            let shown: String = loaded
                .problems
                .iter()
                .map(|problem| format!("{problem}\n"))
                .collect();
            panic!("expected one problem of {text}, found:\n{shown}")
        };
        assert_eq!(problem.message, message, "{text}");
        assert_eq!(problem.field, Some(format!("spec.{direction}[0]{at}")), "{text}");
        assert_eq!(problem.severity, Severity::Error);
        let policy = policies(loaded.resources).remove(0);
        let rules = if direction == "ingress" {
            policy.ingress
        } else {
            policy.egress
        };
        let left: Vec<String> = left.into_iter().map(|left| left.trim_end().to_owned()).collect();
        assert_eq!(show(rules.as_ref()), left, "{text}");
    }
}

#[test]
fn numbers_of_ports_need_a_protocol_with_ports() {
    let message = "ports need the rule's protocol to be TCP, UDP or SCTP";
    for (side, short) in [("source", "src"), ("destination", "dst")] {
        for key in ["ports", "notPorts"] {
            let at = format!(".{side}.{key}");
            let rule = |protocol: &str, ports: &str| format!("{protocol}{side}: {{{key}: [{ports}]}}");
            for ports in ["80", "'80:90'", "http, 80"] {
                refused(np, "ingress", &rule("", ports), message, &at, "");
                refused(
                    np,
                    "egress",
                    &rule("protocol: 136, ", ports),
                    message,
                    &at,
                    "protocol=136",
                );
                refused(
                    np,
                    "egress",
                    &rule("notProtocol: 17, ", ports),
                    message,
                    &at,
                    "!protocol=17",
                );
            }
            refused(
                np,
                "ingress",
                &rule("protocol: UDPLite, ", "http"),
                message,
                &at,
                "protocol=136",
            );
            refused(
                np,
                "ingress",
                &rule("protocol: ICMP, ", "http"),
                message,
                &at,
                "version=V4 protocol=1",
            );
        }
        // The list that is right stays.
        refused(
            np,
            "ingress",
            &format!("{side}: {{ports: [http], notPorts: [80]}}"),
            message,
            &format!(".{side}.notPorts"),
            &format!("{short}.named=http"),
        );
    }
}

#[test]
fn protocols_and_icmp() {
    let rule = |fields: &str, message: &str, at: &str, denies: &str| {
        refused(np, "ingress", fields, message, at, denies)
    };
    let expected = "expected TCP, UDP, SCTP, ICMP, ICMPv6, UDPLite or a number from 1 to 255, found";
    rule(
        "protocol: 0",
        &format!("{expected} the number 0"),
        ".protocol",
        "",
    );
    rule(
        "notProtocol: 256",
        &format!("{expected} the number 256"),
        ".notProtocol",
        "",
    );
    rule("protocol: GRE", &format!("{expected} \"GRE\""), ".protocol", "");
    rule("ipVersion: 5", "expected 4 or 6, found 5", ".ipVersion", "");
    let other = "the rule's protocol belongs to the other IP version";
    rule("protocol: ICMP, ipVersion: 6", other, ".ipVersion", "");
    rule("protocol: ICMPv6, ipVersion: 4", other, ".ipVersion", "");
    rule(
        "protocol: 58, icmp: {type: 1}, ipVersion: 4",
        other,
        ".ipVersion",
        "",
    );
    for key in ["icmp", "notICMP"] {
        let at = format!(".{key}");
        let icmp = |protocol: &str, fields: &str| format!("{protocol}{key}: {{{fields}}}");
        let needs = "this needs the rule's protocol to be ICMP or ICMPv6";
        rule(&icmp("", "type: 8"), needs, &at, "");
        rule(&icmp("protocol: TCP, ", "type: 8"), needs, &at, "protocol=6");
        let v4 = "version=V4 protocol=1";
        let code = "a code without a type: expected both, or a type alone";
        rule(&icmp("protocol: ICMP, ", "code: 8"), code, &at, v4);
        let kind = "expected an ICMP type from 0 to 254, found";
        rule(
            &icmp("protocol: ICMP, ", "type: 255"),
            &format!("{kind} 255"),
            &format!("{at}.type"),
            v4,
        );
        rule(
            &icmp("protocol: ICMP, ", "type: 256"),
            &format!("{kind} the number 256"),
            &format!("{at}.type"),
            v4,
        );
        rule(
            &icmp("protocol: ICMP, ", "type: 8, code: -1"),
            "expected an ICMP code from 0 to 255, found the number -1",
            &format!("{at}.code"),
            v4,
        );
    }
}

#[test]
fn networks() {
    let rule = |fields: &str, message: &str, at: &str, denies: &str| {
        refused(gnp, "egress", fields, message, at, denies)
    };
    let both = "a rule cannot have both IPv4 and IPv6 networks";
    rule("source: {nets: [10.0.0.0/8, 'fd00::/8']}", both, "", "");
    rule(
        "source: {nets: [10.0.0.0/8], notNets: ['fd00::/8']}",
        both,
        "",
        "",
    );
    rule(
        "source: {notNets: [10.0.0.0/8]}, destination: {nets: ['fd00::/8']}",
        both,
        "",
        "",
    );
    for all in ["0.0.0.0/0", "::/0"] {
        rule(
            &format!("destination: {{notNets: ['{all}']}}"),
            &format!("{all} excludes every address, so the rule would match nothing"),
            ".destination.notNets[0]",
            "",
        );
    }
}

#[test]
fn services_stand_alone_and_on_the_right_side() {
    let place = "services are matched as the source of ingress rules and the destination of egress rules";
    let good = "services: {name: web, namespace: x}";
    refused(
        gnp,
        "ingress",
        &format!("destination: {{{good}}}"),
        place,
        ".destination.services",
        "",
    );
    refused(
        gnp,
        "egress",
        &format!("source: {{{good}}}"),
        place,
        ".source.services",
        "",
    );
    for (key, value, left) in [
        ("selector", "has(a)", "SIDE.sel=has(a)"),
        ("notSelector", "has(a)", "SIDE.!sel=has(a)"),
        ("namespaceSelector", "has(a)", "SIDE.sel=has(pcns.a)"),
        ("nets", "[10.0.0.0/8]", "SIDE.nets=10.0.0.0/8"),
        ("notNets", "[10.0.0.0/8]", "SIDE.!nets=10.0.0.0/8"),
        ("serviceAccounts", "{selector: has(a)}", "SIDE.sel=has(pcsa.a)"),
    ] {
        let message = format!("services cannot be combined with {key}");
        for (direction, side, short) in [("ingress", "source", "src"), ("egress", "destination", "dst")] {
            refused(
                gnp,
                direction,
                &format!("{side}: {{{good}, {key}: {value}}}"),
                &message,
                &format!(".{side}.services"),
                &left.replace("SIDE", short),
            );
        }
    }
    for (key, left) in [("ports", "dst.ports=80"), ("notPorts", "dst.!ports=80")] {
        refused(
            gnp,
            "egress",
            &format!("protocol: TCP, destination: {{{good}, {key}: [80]}}"),
            &format!("services cannot be combined with {key}"),
            ".destination.services",
            &format!("protocol=6 {left}"),
        );
    }
    let nowhere = "the service's namespace is missing: only a NetworkPolicy has one of its own";
    for namespace in ["", ", namespace: ''"] {
        let rule = format!("source: {{services: {{name: web{namespace}}}}}");
        refused(gnp, "ingress", &rule, nowhere, ".source.services", "");
    }
    let nameless = "name is missing: expected the name of a service";
    refused(
        np,
        "ingress",
        "source: {services: {name: ''}}",
        nameless,
        ".source.services",
        "",
    );
    refused(
        np,
        "ingress",
        "source: {services: {}}",
        nameless,
        ".source.services",
        "",
    );
    let unknown = "unknown field \"port\"";
    refused(
        np,
        "ingress",
        "source: {services: {name: a, port: 1}}",
        unknown,
        ".source.services",
        "",
    );
}

#[test]
fn http_is_never_matched_and_its_own_limits_are_named() {
    let message = "HTTP requests cannot be matched";
    let loaded = load(&np(
        "ingress: [{action: Allow, protocol: TCP, http: {methods: [GET], paths: [{exact: /}]}}]",
    ));
    let [problem] = loaded.problems.as_slice() else {
        panic!("{:?}", loaded.problems)
    };
    assert_eq!(
        (problem.message.as_str(), problem.field.as_deref()),
        (message, Some("spec.ingress[0].http"))
    );
    assert_eq!(show(policies(loaded.resources)[0].ingress.as_ref()), [""; 0]);
    let many = "GET, ".repeat(21);
    for (rule, second, field, left) in [
        (
            "action: Deny, http: {}",
            "http needs the action Allow",
            "",
            &["0 Deny"][..],
        ),
        ("action: Log, http: {}", "http needs the action Allow", "", &[]),
        (
            "action: Allow, protocol: UDP, http: {}",
            "http needs the rule's protocol to be TCP",
            "",
            &[],
        ),
        (
            &format!("action: Allow, http: {{methods: [{many}]}}"),
            "the list has 21 entries; the API takes 20",
            ".methods",
            &[],
        ),
        (
            &format!("action: Allow, http: {{paths: [{many}]}}"),
            "the list has 21 entries; the API takes 20",
            ".paths",
            &[],
        ),
    ] {
        let loaded = load(&np(&format!("ingress: [{{{rule}}}]")));
        let found: Vec<_> = loaded
            .problems
            .iter()
            .map(|problem| {
                (
                    problem.message.as_str(),
                    problem.field.clone().unwrap_or_default(),
                )
            })
            .collect();
        let at = |field| format!("spec.ingress[0].http{field}");
        assert_eq!(found, [(message, at("")), (second, at(field))], "{rule}");
        assert_eq!(
            show(policies(loaded.resources)[0].ingress.as_ref()),
            left,
            "{rule}"
        );
    }
    let loaded = load(&np("egress: [{action: Allow, http: {}}]"));
    assert_eq!(loaded.problems[1].message, "http is for ingress rules");
}

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
        if i % 2 == 0 {
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
