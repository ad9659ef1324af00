//! Services and their backends.

use super::places::check;
use super::*;

fn object(version: &str, kind: &str, metadata: &str, rest: &str) -> String {
    format!("apiVersion: {version}\nkind: {kind}\nmetadata: {{name: web, namespace: shop{metadata}}}\n{rest}")
}

fn service(spec: &str) -> Service {
    let resources = good(&object("v1", "Service", "", &format!("spec: {spec}\n")));
    let [Resource::Service(service)] = resources.as_slice() else {
        panic!("{resources:?}")
    };
    service.clone()
}

fn ips(ips: &[IpAddr]) -> String {
    ips.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

#[test]
fn a_whole_service() {
    let text = object(
        "v1",
        "Service",
        "",
        "spec:
  type: LoadBalancer
  selector: {app: web}
  clusterIP: 10.0.0.1
  clusterIPs: [10.0.0.1, 'fd00::1']
  externalIPs: [192.0.2.1]
  ports:
  - {name: http, port: 80, targetPort: http, nodePort: 30080}
  - {name: dns, port: 53, protocol: UDP, targetPort: 5353}
  - {port: 9, protocol: SCTP}
status: {loadBalancer: {ingress: [{ip: 192.0.2.2}, {hostname: web.example}]}}
",
    );
    let port = |name: Option<&str>, protocol, port, target, node_port| ServicePort {
        name: name.map(str::to_owned),
        protocol,
        port,
        target,
        node_port,
    };
    let expected = Service {
        namespace: "shop".into(),
        name: "web".into(),
        selector: Some(Labels::from([("app".into(), "web".into())])),
        cluster_ips: vec!["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()],
        external_ips: vec!["192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap()],
        ports: vec![
            port(Some("http"), 6, 80, TargetPort::Name("http".into()), Some(30080)),
            port(Some("dns"), 17, 53, TargetPort::Number(5353), None),
            port(None, 132, 9, TargetPort::Number(9), None),
        ],
    };
    assert_eq!(good(&text), [Resource::Service(expected)]);
}

#[test]
fn addresses_and_selectors_that_are_not_there() {
    assert_eq!(service("{ports: [{port: 1}]}").selector, None);
    assert_eq!(service("{selector: {}}").selector, None);
    for headless in [
        "{clusterIP: None}",
        "{clusterIP: None, clusterIPs: [None]}",
        "{clusterIP: ''}",
        "{}",
    ] {
        assert_eq!(ips(&service(headless).cluster_ips), "", "{headless}");
    }
    assert_eq!(ips(&service("{clusterIP: 10.0.0.1}").cluster_ips), "10.0.0.1");
    let zero = service("{ports: [{port: 80, targetPort: 0, nodePort: 0}, {port: 81, targetPort: ''}]}");
    let targets: Vec<_> = zero
        .ports
        .iter()
        .map(|port| (&port.target, port.node_port))
        .collect();
    assert_eq!(
        targets,
        [(&TargetPort::Number(80), None), (&TargetPort::Number(81), None)]
    );
}

#[test]
fn a_name_in_dns_is_no_service_to_policy() {
    let loaded = load(&object(
        "v1",
        "Service",
        "",
        "spec: {type: ExternalName, externalName: example.com}\n",
    ));
    assert!(loaded.resources.is_empty() && loaded.problems.is_empty());
    assert_eq!(loaded.ignored, ["Service shop/web (v1)"]);
}

#[test]
fn what_is_wrong_with_a_service_is_left_out() {
    for (spec, field, message) in [
        ("{clusterIP: «10.0.0»}", "spec.clusterIP", "not an IP address"),
        ("{clusterIPs: [«x»]}", "spec.clusterIPs[0]", "not an IP address"),
        ("{ports: [«{name: a}»]}", "spec.ports[0]", "port is missing"),
        (
            "{ports: [{port: «99999»}]}",
            "spec.ports[0].port",
            "from 1 to 65535",
        ),
        (
            "{ports: [{port: 1, protocol: «tcp»}]}",
            "spec.ports[0].protocol",
            "did you mean TCP?",
        ),
        (
            "{ports: [{port: 1, targetPort: «A»}]}",
            "spec.ports[0].targetPort",
            "no name of a port",
        ),
        ("{ports: «{}»}", "spec.ports", "expected a list"),
        ("{selector: «app»}", "spec.selector", "expected a mapping"),
    ] {
        let text = object("v1", "Service", "", &format!("spec: {spec}\n"));
        check(&text, field, message);
        let loaded = load(&text.replace(['«', '»'], ""));
        let [Resource::Service(service)] = loaded.resources.as_slice() else {
            panic!("no service")
        };
        assert!(service.ports.is_empty() && service.cluster_ips.is_empty());
    }
}

fn backends(text: &str) -> (String, Vec<String>) {
    let resources = good(text);
    let [Resource::Backends(backends)] = resources.as_slice() else {
        panic!("{resources:?}")
    };
    let subsets = backends.subsets.iter();
    (
        format!("{} of {}", backends.key, backends.service),
        subsets
            .map(|subset| format!("{} {:?}", ips(&subset.addresses), subset.ports))
            .collect(),
    )
}

const OF: &str = ", labels: {kubernetes.io/service-name: shopfront}";

#[test]
fn slices_hold_ready_and_other_endpoints() {
    for version in ["discovery.k8s.io/v1", "discovery.k8s.io/v1beta1"] {
        let text = object(
            version,
            "EndpointSlice",
            OF,
            "addressType: IPv4
endpoints:
- {addresses: [10.0.0.1], conditions: {ready: true}}
- {addresses: [10.0.0.2, 10.0.0.3], conditions: {ready: false, serving: false, terminating: true}}
- {conditions: {}}
ports:
- {name: a, port: 80}
- {name: b, port: 53, protocol: UDP}
- {name: c}
- {name: d, port: }
",
        );
        assert_eq!(
            backends(&text),
            (
                "EndpointSlice shop/web of shopfront".into(),
                vec!["10.0.0.1 10.0.0.2 10.0.0.3 [(6, 80), (17, 53)]".into()]
            )
        );
    }
    let bare = object(
        "discovery.k8s.io/v1",
        "EndpointSlice",
        OF,
        "addressType: IPv6\nports: \n",
    );
    assert_eq!(backends(&bare).1, [" []"]);
}

#[test]
fn slices_of_no_service_or_of_names_are_ignored() {
    for (metadata, rest) in [
        ("", "addressType: IPv4\n"),
        (
            ", labels: {kubernetes.io/service-name: ''}",
            "addressType: IPv4\n",
        ),
        (OF, "addressType: FQDN\nendpoints: [{addresses: [example.com]}]\n"),
    ] {
        let loaded = load(&object("discovery.k8s.io/v1", "EndpointSlice", metadata, rest));
        assert!(loaded.resources.is_empty() && loaded.problems.is_empty());
        assert_eq!(loaded.ignored, ["EndpointSlice shop/web (discovery.k8s.io/v1)"]);
    }
}

#[test]
fn endpoints_are_those_of_the_service_of_the_name() {
    let text = object(
        "v1",
        "Endpoints",
        "",
        "subsets:
- addresses: [{ip: 10.0.0.1}]
  notReadyAddresses: [{ip: 10.0.0.2}]
  ports: [{port: 80}]
- {addresses: [{ip: 10.0.0.3}], ports: [{port: 9, protocol: SCTP}]}
- {}
",
    );
    assert_eq!(
        backends(&text),
        (
            "Endpoints shop/web of web".into(),
            vec![
                "10.0.0.1 10.0.0.2 [(6, 80)]".into(),
                "10.0.0.3 [(132, 9)]".into(),
                " []".into()
            ]
        )
    );
    assert_eq!(backends(&object("v1", "Endpoints", "", "")).1, [""; 0]);
}

#[test]
fn what_is_wrong_with_backends_is_left_out() {
    let slice = |rest: &str| object("discovery.k8s.io/v1", "EndpointSlice", OF, rest);
    check(
        &slice("endpoints: [{addresses: [10.0.0.1, «x»]}]\n"),
        "endpoints[0].addresses[1]",
        "not an IP address",
    );
    check(
        &slice("ports: [{port: «a»}, {port: 1}]\n"),
        "ports[0].port",
        "from 1 to 65535",
    );
    let endpoints = |rest: &str| object("v1", "Endpoints", "", rest);
    check(&endpoints("subsets: [«x»]\n"), "subsets[0]", "expected a mapping");
    check(
        &endpoints("subsets: [{notReadyAddresses: [{ip: «x»}], ports: [{port: 1}]}]\n"),
        "subsets[0].notReadyAddresses[0].ip",
        "not an IP address",
    );
    let loaded = load(&slice("endpoints: [{addresses: [10.0.0.1, x]}]\n"));
    let [Resource::Backends(found)] = loaded.resources.as_slice() else {
        panic!("no slice")
    };
    assert_eq!(ips(&found.subsets[0].addresses), "10.0.0.1");
}
