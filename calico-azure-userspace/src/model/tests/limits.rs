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
        refused(np, "ingress", fields, message, at, denies);
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
        refused(gnp, "egress", fields, message, at, denies);
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
