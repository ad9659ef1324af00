//! Host endpoints and profiles: every field, and what becomes of wrong ones.

use super::*;

#[test]
fn a_host_endpoint_with_every_field() {
    let text = calico(
        "HostEndpoint",
        "name: h, labels: {role: web}",
        "
node: node-1
interfaceName: eth0
expectedIPs: [10.0.0.4, 'fd00::4']
profiles: [a, b]
ports:
- {name: ssh, protocol: TCP, port: 22}
- {name: dns, protocol: UDP, port: 53}
",
    );
    let expected = HostEndpoint {
        name: "h".into(),
        labels: labels("role", "web"),
        node: "node-1".into(),
        interface: Some("eth0".into()),
        expected_ips: vec!["10.0.0.4".parse().unwrap(), "fd00::4".parse().unwrap()],
        profiles: vec!["a".into(), "b".into()],
        ports: vec![port("ssh", 6, 22), port("dns", 17, 53)],
    };
    for text in both_groups(&text) {
        assert_eq!(good(&text), [Resource::HostEndpoint(expected.clone())]);
    }
    let all = calico("HostEndpoint", "name: h", "node: n1\ninterfaceName: '*'");
    let [Resource::HostEndpoint(all)] = &good(&all)[..] else {
        panic!()
    };
    assert_eq!(all.interface.as_deref(), Some("*"));
    let by_address = calico("HostEndpoint", "name: h", "node: n1\nexpectedIPs: [10.0.0.4]");
    let [Resource::HostEndpoint(by_address)] = &good(&by_address)[..] else {
        panic!()
    };
    assert_eq!(
        (by_address.interface.as_ref(), by_address.expected_ips.len()),
        (None, 1)
    );
}

#[test]
fn labels_of_the_older_group_may_be_in_an_annotation() {
    let metadata =
        "name: h, labels: {a: b}, annotations: {projectcalico.org/metadata: '{\"labels\":{\"c\":\"d\"}}'}";
    let text = calico("HostEndpoint", metadata, "node: n1\ninterfaceName: eth0");
    let count = |text: &str| match &good(text)[..] {
        [Resource::HostEndpoint(endpoint)] => endpoint.labels.len(),
        other => panic!("{other:?}"),
    };
    let [api, stored] = both_groups(&text);
    assert_eq!((count(&api), count(&stored)), (1, 2));
}

#[test]
fn a_wrong_host_endpoint_keeps_what_is_right() {
    let endpoint = |spec: &str| {
        let (resources, problems) = read(&calico("HostEndpoint", "name: h", spec));
        match resources.into_iter().next() {
            Some(Resource::HostEndpoint(endpoint)) => (endpoint, problems),
            other => panic!("{other:?}"),
        }
    };
    for (spec, problem) in [
        (
            "interfaceName: eth0",
            "spec: node is missing: the endpoint is nowhere",
        ),
        (
            "node: n1",
            "spec: the endpoint has no interface: expected interfaceName or expectedIPs",
        ),
        (
            "node: n1\ninterfaceName: much-too-long-for-linux",
            "spec.interfaceName: \"much-too-long-for-linux\" is no interface: expected up to 15 characters, or \"*\" for all of the host's",
        ),
        (
            "node: n1\ninterfaceName: ''",
            "spec.interfaceName: \"\" is no interface: expected up to 15 characters, or \"*\" for all of the host's",
        ),
        (
            "node: n1\ninterfaceName: a/b",
            "spec.interfaceName: \"a/b\" is no interface: expected up to 15 characters, or \"*\" for all of the host's",
        ),
    ] {
        let (endpoint, problems) = endpoint(spec);
        assert_eq!(problems, [problem], "{spec}");
        assert_eq!(endpoint.name, "h");
    }
    let (kept, problems) = endpoint(
        "node: n1\ninterfaceName: eth0\nexpectedIPs: [10.0.0.4, 10.0.0.0/24]\nprofiles: [a, {}]\nports:\n\
         - {name: ssh, protocol: TCP, port: 22}\n- {name: ping, protocol: ICMP, port: 1}\nprofile: x",
    );
    assert_eq!(
        problems,
        [
            "spec: unknown field \"profile\"",
            "spec.expectedIPs[1]: \"10.0.0.0/24\" is not an IP address",
            "spec.profiles[1]: expected a string, found a mapping",
            "spec.ports[1].protocol: a port's protocol is TCP, UDP or SCTP",
        ]
    );
    assert_eq!(
        (kept.expected_ips.len(), kept.profiles.len(), kept.ports.len()),
        (1, 1, 1)
    );
    let (resources, problems) =
        read("{apiVersion: projectcalico.org/v3, kind: HostEndpoint, metadata: {name: h}}");
    assert_eq!(problems, [": spec is missing: the endpoint is nowhere"]);
    assert_eq!(resources.len(), 1);
}

#[test]
fn profiles() {
    let text = calico(
        "Profile",
        "name: p",
        "
labelsToApply: {a: b}
ingress:
- action: Allow
  source: {services: {name: s, namespace: n1}}
- {action: Deny, protocol: TCP, destination: {ports: [80, http]}}
egress:
- action: Log
- {action: Allow, destination: {namespaceSelector: has(x)}}
",
    );
    for text in both_groups(&text) {
        let resources = good(&text);
        let [Resource::Profile(profile)] = resources.as_slice() else {
            panic!("{resources:?}")
        };
        assert_eq!(
            (profile.name.as_str(), &profile.labels_to_apply),
            ("p", &labels("a", "b"))
        );
        assert_eq!(
            show(Some(&profile.ingress)),
            [
                "0 Allow src.svc=n1/s",
                "1 Deny protocol=6 dst.ports=80 dst.named=http"
            ]
        );
        assert_eq!(
            show(Some(&profile.egress)),
            ["0 Log", "1 Allow dst.sel=has(pcns.x)"]
        );
    }
    assert_eq!(
        good("{apiVersion: projectcalico.org/v3, kind: Profile, metadata: {name: p}}"),
        [Resource::Profile(Profile {
            name: "p".into(),
            ..Profile::default()
        })]
    );
}

#[test]
fn a_wrong_profile_allows_nothing() {
    let rules = "ingress: [{action: Allow}, {action: Deny, protocol: TCP}]\negress: [{action: Allow}]";
    for wrong in [
        "labels: {a: b}",
        "labelsToApply: [a]",
        "labelsToApply: {}\nlabelsToApply: {}",
    ] {
        let (resources, problems) = read(&calico("Profile", "name: p", &format!("{wrong}\n{rules}")));
        let [Resource::Profile(profile)] = resources.as_slice() else {
            panic!("{resources:?}")
        };
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert_eq!(show(Some(&profile.ingress)), ["1 Deny protocol=6"], "{wrong}");
        assert_eq!(show(Some(&profile.egress)), [""; 0], "{wrong}");
    }
    let own_service = "ingress: [{action: Allow, source: {services: {name: s}}}]";
    let (resources, problems) = read(&calico("Profile", "name: p", own_service));
    assert!(problems.len() == 1 && problems[0].contains("the service's namespace is missing"));
    assert!(matches!(resources.as_slice(), [Resource::Profile(profile)] if profile.ingress.is_empty()));
}
