//! Every field of a rule, one by one: what it comes to mean.

use super::*;

/// Rules with these fields in an ingress and an egress rule of a policy made by `make`; both come to mean the same.
#[track_caller]
fn check(make: fn(&str) -> String, fields: &str, expected: &str) {
    for direction in ["ingress", "egress"] {
        let text = make(&format!("{direction}: [{{action: Deny, {fields}}}]"));
        let policy = policy(&text);
        let rules = policy.ingress.filter(|rules| !rules.is_empty()).or(policy.egress);
        assert_eq!(
            show(rules.as_ref()),
            [format!("0 Deny {expected}").trim_end()],
            "{text}"
        );
    }
}

#[test]
fn protocols_by_name_and_by_number() {
    for (name, number) in [("TCP", 6), ("UDP", 17), ("SCTP", 132), ("UDPLite", 136)] {
        check(np, &format!("protocol: {name}"), &format!("protocol={number}"));
        check(
            np,
            &format!("notProtocol: {name}"),
            &format!("!protocol={number}"),
        );
        check(np, &format!("protocol: {number}"), &format!("protocol={number}"));
    }
    check(np, "protocol: ICMP", "version=V4 protocol=1");
    check(np, "protocol: ICMPv6", "version=V6 protocol=58");
    check(np, "notProtocol: ICMPv6", "!protocol=58");
    check(np, "protocol: 255", "protocol=255");
    check(np, "protocol: '47'", "protocol=47");
    check(np, "protocol: 47, notProtocol: 48", "protocol=47 !protocol=48");
    check(np, "ipVersion: 4, notProtocol: 1", "version=V4 !protocol=1");
}

#[test]
fn icmp_types_and_codes() {
    check(
        np,
        "protocol: ICMP, icmp: {type: 254, code: 255}",
        "version=V4 protocol=1 icmp=254/255",
    );
    check(
        np,
        "protocol: ICMPv6, icmp: {type: 0}",
        "version=V6 protocol=58 icmp=0/*",
    );
    check(
        np,
        "protocol: ICMP, icmp: {type: 3}, notICMP: {type: 3, code: 4}",
        "version=V4 protocol=1 icmp=3/* !icmp=3/4",
    );
    check(
        np,
        "protocol: 58, notICMP: {type: 1}",
        "version=V6 protocol=58 !icmp=1/*",
    );
}

#[test]
fn ports_are_numbers_ranges_and_names_on_both_sides() {
    for (side, short) in [("source", "src"), ("destination", "dst")] {
        for (ports, expected) in [
            ("ports: [80, '90:99', '443']", "SIDE.ports=80,90-99,443"),
            ("ports: [http, 80, https]", "SIDE.ports=80 SIDE.named=http,https"),
            ("notPorts: [1, http]", "SIDE.!ports=1 SIDE.!named=http"),
            (
                "ports: [http, '1:9'], notPorts: [web, 5]",
                "SIDE.ports=1-9 SIDE.!ports=5 SIDE.named=http SIDE.!named=web",
            ),
            ("ports: [], notPorts: []", ""),
        ] {
            for (protocol, number) in [("TCP", 6), ("UDP", 17), ("132", 132)] {
                check(
                    np,
                    &format!("protocol: {protocol}, {side}: {{{ports}}}"),
                    &format!("protocol={number} {}", expected.replace("SIDE", short)),
                );
            }
        }
        // A name brings its own protocol.
        check(
            np,
            &format!("{side}: {{ports: [http]}}"),
            &format!("{short}.named=http"),
        );
        check(
            np,
            &format!("{side}: {{notPorts: [http]}}"),
            &format!("{short}.!named=http"),
        );
        check(np, &format!("{side}: {{ports: []}}"), "");
        check(
            np,
            &format!("notProtocol: 6, {side}: {{ports: [http]}}"),
            &format!("!protocol=6 {short}.named=http"),
        );
    }
}

#[test]
fn networks_and_selectors_on_both_sides() {
    for (side, short) in [("source", "src"), ("destination", "dst")] {
        for (peer, expected) in [
            ("nets: [10.0.0.0/8, 1.2.3.4]", "SIDE.nets=10.0.0.0/8,1.2.3.4/32"),
            ("nets: ['fd00::/8']", "SIDE.nets=fd00::/8"),
            ("notNets: [10.0.0.0/8]", "SIDE.!nets=10.0.0.0/8"),
            (
                "nets: [0.0.0.0/0], selector: has(a)",
                "SIDE.nets=0.0.0.0/0 SIDE.sel=has(a)",
            ),
            ("selector: has(a)", "SIDE.sel=has(a)"),
            ("notSelector: has(a)", "SIDE.!sel=has(a)"),
            (
                "namespaceSelector: all()",
                "SIDE.sel=has(projectcalico.org/namespace)",
            ),
            (
                "namespaceSelector: global()",
                "SIDE.sel=!has(projectcalico.org/namespace)",
            ),
            (
                "serviceAccounts: {names: [b, a]}",
                "SIDE.sel=projectcalico.org/serviceaccount in {\"a\", \"b\"}",
            ),
            ("serviceAccounts: {selector: has(a)}", "SIDE.sel=has(pcsa.a)"),
        ] {
            check(
                gnp,
                &format!("{side}: {{{peer}}}"),
                &expected.replace("SIDE", short),
            );
        }
    }
}

#[test]
fn annotations_of_a_rule_mean_nothing() {
    check(np, "metadata: {annotations: {a: b}}", "");
}

/// A service where it may be.
#[track_caller]
fn service(make: fn(&str) -> String, peer: &str, expected: &str) {
    for (direction, side, short) in [("ingress", "source", "src"), ("egress", "destination", "dst")] {
        let rule = format!("{direction}: [{{action: Allow, protocol: TCP, {side}: {{{peer}}}}}]");
        let policy = policy(&make(&rule));
        let rules = policy.ingress.filter(|rules| !rules.is_empty()).or(policy.egress);
        let expected = format!("0 Allow protocol=6 {}", expected.replace("SIDE", short));
        assert_eq!(show(rules.as_ref()), [expected], "{rule}");
    }
}

#[test]
fn services_are_the_other_side() {
    service(np, "services: {name: web, namespace: x}", "SIDE.svc=x/web");
    service(gnp, "services: {name: web, namespace: x}", "SIDE.svc=x/web");
    // Of the policy's own namespace, as documented.
    service(np, "services: {name: web}", "SIDE.svc=shop/web");
    service(np, "services: {name: web, namespace: ''}", "SIDE.svc=shop/web");
    // What says nothing excludes nothing.
    service(
        np,
        "services: {name: web}, selector: '', nets: []",
        "SIDE.svc=shop/web",
    );
    let with_ports =
        np("ingress: [{action: Allow, protocol: TCP, source: {services: {name: web}, ports: [80]}}]");
    assert_eq!(
        show(policy(&with_ports).ingress.as_ref()),
        ["0 Allow protocol=6 src.ports=80 src.svc=shop/web"]
    );
}

#[test]
fn every_kind_of_policy_and_profile_has_the_same_rules() {
    let rules = "ingress: [{action: Pass, protocol: TCP, destination: {ports: [http]}}]";
    for (kind, metadata) in [
        ("NetworkPolicy", "name: p, namespace: shop"),
        ("GlobalNetworkPolicy", "name: p"),
        ("StagedNetworkPolicy", "name: p, namespace: shop"),
        ("StagedGlobalNetworkPolicy", "name: p"),
        ("Profile", "name: p"),
    ] {
        for group in ["projectcalico.org/v3", "crd.projectcalico.org/v1"] {
            let text = calico(kind, metadata, rules).replace("projectcalico.org/v3", group);
            let resources = good(&text);
            let ingress = match resources.as_slice() {
                [Resource::Policy(policy)] => policy.ingress.as_ref(),
                [Resource::Profile(profile)] => Some(&profile.ingress),
                other => panic!("{other:?}"),
            };
            assert_eq!(show(ingress), ["0 Pass protocol=6 dst.named=http"], "{text}");
            assert_eq!(resources[0].key().kind.as_str(), kind);
        }
    }
}
