//! Workload endpoints, Felix' settings, pools: every field, and what becomes of wrong ones.

use super::*;

#[test]
fn a_workload_endpoint_with_every_field() {
    let text = calico(
        "WorkloadEndpoint",
        "name: node--1-k8s-web--0-eth0, namespace: shop, labels: {app: web, projectcalico.org/serviceaccount: w}",
        "
orchestrator: k8s
workload: ''
node: node-1
pod: web-0
endpoint: eth0
containerID: '1337'
interfaceName: cali0ef24ba
ipNetworks: [10.0.0.9/32, 'fd00::9/128']
profiles: [kns.shop, ksa.shop.web]
ports:
- {name: http, protocol: TCP, port: 8080, hostPort: 80}
- {protocol: TCP, port: 9, hostPort: 9}
mac: ca:fe:1d:52:bb:e9
serviceAccountName: web
allowSpoofedSourcePrefixes: [192.0.2.0/24]
ipNATs: [{internalIP: 10.0.0.9, externalIP: 192.0.2.1}]
ipv4Gateway: 169.254.1.1
ipv6Gateway: fe80::1
",
    );
    let expected = WorkloadEndpoint {
        name: "node--1-k8s-web--0-eth0".into(),
        interface: "cali0ef24ba".into(),
        pod: Pod {
            namespace: "shop".into(),
            name: "web-0".into(),
            labels: Labels::from([
                ("app".into(), "web".into()),
                ("projectcalico.org/serviceaccount".into(), "w".into()),
            ])
            .into(),
            service_account: "web".into(),
            node: "node-1".into(),
            ips: vec!["10.0.0.9".parse().unwrap(), "fd00::9".parse().unwrap()],
            host_network: false,
            finished: false,
            ports: vec![port("http", 6, 8080)],
            owner: None,
            profiles: Some(vec!["kns.shop".into(), "ksa.shop.web".into()]),
            allowed_sources: vec!["192.0.2.0/24".parse().unwrap()],
        },
    };
    for text in both_groups(&text) {
        assert_eq!(good(&text), [Resource::WorkloadEndpoint(expected.clone())]);
    }
}

#[test]
fn a_workload_endpoint_that_says_little_gets_little() {
    let text = calico(
        "WorkloadEndpoint",
        "name: e, namespace: shop, labels: {projectcalico.org/serviceaccount: w}",
        "interfaceName: cali1\nnode: n1",
    );
    let resources = good(&text);
    let [Resource::WorkloadEndpoint(endpoint)] = resources.as_slice() else {
        panic!("{resources:?}")
    };
    // It is no pod's name, and no profile allows anything.
    assert_eq!(
        (endpoint.pod.name.as_str(), endpoint.pod.service_account.as_str()),
        ("e", "w")
    );
    assert_eq!(endpoint.pod.profiles, Some(vec![]));

    let text = calico(
        "WorkloadEndpoint",
        "name: e, namespace: shop, labels: {pcns.a: b}",
        "orchestrator: openstack\nipNetworks: [10.0.0.0/24]\nipNetwork: x",
    );
    let (resources, problems) = read(&text);
    assert_eq!(
        problems,
        [
            ": label pcns.a is ignored: only namespaces and service accounts give such labels",
            "spec: unknown field \"ipNetwork\"",
            "spec.orchestrator: the endpoint is treated as one of a pod: expected k8s",
            "spec.ipNetworks[0]: \"10.0.0.0/24\" is not an IP address",
            "spec: interfaceName is missing: nothing can be enforced there",
        ]
    );
    let [Resource::WorkloadEndpoint(endpoint)] = resources.as_slice() else {
        panic!("{resources:?}")
    };
    assert!(endpoint.pod.labels.is_empty() && endpoint.pod.ips.is_empty());
}

fn felix(name: &str, spec: &str) -> (FelixConfiguration, Vec<String>) {
    let [api, stored] = both_groups(&calico("FelixConfiguration", &format!("name: {name}"), spec));
    assert_eq!(read(&api), read(&stored));
    let (resources, problems) = read(&api);
    match resources.into_iter().next() {
        Some(Resource::FelixConfiguration(settings)) => (settings, problems),
        other => panic!("{other:?}"),
    }
}

#[test]
fn settings_that_change_what_policy_means() {
    let spec = "
bpfEnabled: true
reportingInterval: 0s
defaultEndpointToHostAction: Return
interfacePrefix: cali, azv
workloadSourceSpoofing: Any
failsafeInboundHostPorts:
- {protocol: TCP, port: 22}
- {protocol: udp, port: 68, net: 10.0.0.0/8}
- {protocol: tcp, port: 179, net: ''}
failsafeOutboundHostPorts: []
";
    let failsafe = |protocol, port, net: Option<&str>| Failsafe {
        protocol,
        port,
        net: net.map(|net| net.parse().unwrap()),
    };
    let expected = FelixConfiguration {
        name: "default".into(),
        endpoint_to_host: Some(EndpointToHost::Return),
        interface_prefixes: Some(vec!["cali".into(), "azv".into()]),
        source_spoofing: Some(true),
        failsafe_inbound: Some(vec![
            failsafe(6, 22, None),
            failsafe(17, 68, Some("10.0.0.0/8")),
            failsafe(6, 179, None),
        ]),
        failsafe_outbound: Some(vec![]),
        ..FelixConfiguration::default()
    };
    let (read, problems) = felix("default", spec);
    assert_eq!(
        (
            FelixConfiguration {
                all: Default::default(),
                ..read
            },
            problems
        ),
        (expected, vec![])
    );
    let nothing = FelixConfiguration {
        name: "node.a.b".into(),
        ..FelixConfiguration::default()
    };
    let without_text = |spec| FelixConfiguration {
        all: Default::default(),
        ..felix("node.a.b", spec).0
    };
    assert_eq!(without_text("logSeverityScreen: Info"), nothing);
    assert_eq!(without_text("defaultEndpointToHostAction: ''"), nothing);
    let text = "healthPort: 9100\nhealthEnabled: true\nbpfConntrackTimeouts: {udpTimeout: 30s}\nexternalNodesList: [a]";
    let all = felix("default", text).0.all;
    let all: Vec<(&str, &str)> = all
        .iter()
        .map(|(key, text)| (key.as_str(), text.as_str()))
        .collect();
    assert_eq!(
        all,
        [
            ("bpfconntracktimeouts.udptimeout", "30s"),
            ("externalnodeslist", ""),
            ("healthenabled", "true"),
            ("healthport", "9100")
        ]
    );
    for (text, action) in [
        ("Drop", EndpointToHost::Drop),
        ("ACCEPT", EndpointToHost::Accept),
        ("return", EndpointToHost::Return),
    ] {
        let (settings, problems) = felix("default", &format!("defaultEndpointToHostAction: {text}"));
        assert_eq!(
            (settings.endpoint_to_host, problems),
            (Some(action), vec![]),
            "{text}"
        );
    }
    let (settings, _) = felix("default", "workloadSourceSpoofing: Disabled");
    assert_eq!(settings.source_spoofing, Some(false));
    let (_, problems) = felix("other", "{}");
    assert_eq!(
        problems,
        ["metadata.name: no node reads the settings of \"other\""]
    );
}

#[test]
fn a_setting_that_is_not_understood_is_the_stricter_one() {
    let (settings, problems) = felix(
        "default",
        "
defaultEndpointToHostAction: Acept
workloadSourceSpoofing: 'yes'
interfacePrefix: ' , '
failsafeInboundHostPorts:
- {protocol: TCP, port: 22}
- {protocol: TCP, port: 0}
- {protocol: TCP}
- {protocol: TCP, port: 23, nets: x}
- {protocol: ICMP, port: 8}
failsafeOutboundHostPorts: none
",
    );
    assert_eq!(
        problems,
        [
            "spec.defaultEndpointToHostAction: expected Drop or Accept or Return, found \"Acept\"",
            "spec.workloadSourceSpoofing: expected Any or Disabled, found \"yes\"",
            "spec.interfacePrefix: expected prefixes of interface names, like \"cali,azv\"",
            "spec.failsafeInboundHostPorts[1].port: expected a port number from 1 to 65535, found 0",
            "spec.failsafeInboundHostPorts[2]: expected protocol and port",
            "spec.failsafeInboundHostPorts[3]: unknown field \"nets\"",
            "spec.failsafeInboundHostPorts[4].protocol: a failsafe port's protocol is TCP, UDP or SCTP",
            "spec.failsafeOutboundHostPorts: expected a list, found \"none\"",
        ]
    );
    assert_eq!(settings.endpoint_to_host, Some(EndpointToHost::Drop));
    assert_eq!(settings.source_spoofing, Some(false));
    assert_eq!(settings.interface_prefixes, None);
    assert_eq!(settings.failsafe_inbound.map(|list| list.len()), Some(1));
    assert_eq!(settings.failsafe_outbound, None);
    let (settings, problems) = felix("default", "[]");
    assert_eq!(problems.len(), 1);
    assert_eq!(
        (settings.endpoint_to_host, settings.source_spoofing),
        (Some(EndpointToHost::Drop), Some(false))
    );
}

#[test]
fn pools() {
    let text = calico(
        "IPPool",
        "name: p",
        "cidr: 10.244.0.0/16\nipipMode: Never\nvxlanMode: Never\nblockSize: 26\nnatOutgoing: true\ndisabled: true\nnodeSelector: all()",
    );
    let pool = IpPool {
        name: "p".into(),
        cidr: "10.244.0.0/16".parse().unwrap(),
        disabled: true,
        nat_outgoing: true,
    };
    for text in both_groups(&text) {
        assert_eq!(good(&text), [Resource::IpPool(pool.clone())]);
    }
    let bare = IpPool {
        disabled: false,
        nat_outgoing: false,
        ..pool
    };
    assert_eq!(
        good(&calico("IPPool", "name: p", "cidr: 10.244.0.0/16")),
        [Resource::IpPool(bare)]
    );
    for (spec, problem) in [
        ("disabled: true", "spec: cidr is missing"),
        (
            "cidr: 10.244",
            "spec.cidr: expected a string, found the number 10.244",
        ),
        (
            "cidr: pods",
            "spec.cidr: \"pods\" is not a network: expected an address and a prefix length, like 10.0.0.0/8",
        ),
    ] {
        assert_eq!(
            read(&calico("IPPool", "name: p", spec)),
            (vec![], vec![problem.to_owned()])
        );
    }
}
