//! Pods.

use super::places::check;
use super::*;

fn pod(metadata: &str, rest: &str) -> Pod {
    let text = format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: a, namespace: b{metadata}}}\n{rest}");
    let resources = good(&text);
    let [Resource::Pod(pod)] = resources.as_slice() else {
        panic!("{resources:?}")
    };
    pod.clone()
}

#[test]
fn pods() {
    let whole = pod(
        ", labels: {app: web}, uid: x",
        "spec:\n  nodeName: node\n  serviceAccountName: s\n  containers: [{name: c, ports: [{containerPort: 80}]}]\n\
         status: {phase: Running, podIP: 10.0.0.1, podIPs: [{ip: 10.0.0.1}, {ip: 'fd00::1'}]}\n",
    );
    let expected = Pod {
        namespace: "b".into(),
        name: "a".into(),
        labels: Labels::from([("app".to_owned(), "web".to_owned())]).into(),
        service_account: "s".into(),
        node: "node".into(),
        ips: vec!["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()],
        host_network: false,
        finished: false,
        ..Pod::default()
    };
    assert_eq!(whole, expected);
    let bare = pod("", "");
    assert_eq!(
        (bare.service_account.as_str(), bare.node.as_str(), bare.ips.len()),
        ("default", "", 0)
    );
    assert_eq!(pod("", "spec: {serviceAccount: old}").service_account, "old");
    assert!(pod("", "spec: {hostNetwork: true}").host_network);
    let labels = bare.own_labels();
    assert_eq!(
        labels.get("projectcalico.org/namespace").map(String::as_str),
        Some("b")
    );
    assert_eq!(
        labels.get("projectcalico.org/orchestrator").map(String::as_str),
        Some("k8s")
    );
    assert_eq!(
        labels.get("projectcalico.org/serviceaccount").map(String::as_str),
        Some("default")
    );
}

#[test]
fn pod_addresses_come_from_the_first_source_that_has_any() {
    let annotations = ", annotations: {cni.projectcalico.org/podIPs: '10.0.0.3/32,fd00::3/128', cni.projectcalico.org/podIP: 10.0.0.4/32}";
    let ips = |metadata: &str, status: &str| {
        let pod = pod(metadata, &format!("status: {status}"));
        pod.ips
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(
        ips(annotations, "{podIP: 10.0.0.1, podIPs: [{ip: 10.0.0.2}]}"),
        "10.0.0.2"
    );
    assert_eq!(ips(annotations, "{podIP: 10.0.0.1, podIPs: []}"), "10.0.0.1");
    assert_eq!(ips(annotations, "{}"), "10.0.0.3 fd00::3");
    let aws =
        ", annotations: {vpc.amazonaws.com/pod-ips: '10.0.0.5, fd00::5', cni.projectcalico.org/podIP: ''}";
    assert_eq!(ips(aws, "{}"), "10.0.0.5 fd00::5");
    let both = aws.replace("podIP: ''", "podIP: 10.0.0.4/32");
    assert_eq!(ips(&both, "{}"), "10.0.0.4");
    assert_eq!(
        ips(", annotations: {cni.projectcalico.org/podIP: 10.0.0.4/32}", "{}"),
        "10.0.0.4"
    );
    assert_eq!(ips(", annotations: {cni.projectcalico.org/podIP: ''}", "{}"), "");
}

#[test]
fn finished_pods_gave_their_address_back() {
    let finished =
        |metadata: &str, phase: &str| pod(metadata, &format!("status: {{phase: {phase}}}")).finished;
    assert!(finished("", "Succeeded") && finished("", "Failed"));
    assert!(!finished("", "Running") && !finished("", "Unknown"));
    let deleted = ", deletionTimestamp: '2026-01-01T00:00:00Z'";
    assert!(!finished(deleted, "Running"));
    assert!(finished(
        &format!("{deleted}, annotations: {{cni.projectcalico.org/podIP: ''}}"),
        "Running"
    ));
    assert!(!finished(
        &format!("{deleted}, annotations: {{cni.projectcalico.org/podIP: 10.0.0.1/32}}"),
        "Running"
    ));
    assert!(!finished(
        ", annotations: {cni.projectcalico.org/podIP: ''}",
        "Running"
    ));
}

#[test]
fn what_is_wrong_with_one_field_of_a_pod_does_not_concern_the_others() {
    let loaded = load(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: a, namespace: b, labels: {c: 1, pcns.d: e}}\n\
         spec: {nodeName: node, hostNetwork: maybe}\nstatus: {podIPs: [{ip: 10.0.0}, {ip: 10.0.0.1}, {}]}\n",
    );
    let fields: Vec<_> = loaded
        .problems
        .iter()
        .map(|problem| problem.field.clone().unwrap_or_default())
        .collect();
    let expected = [
        "metadata.labels",
        "",
        "spec.hostNetwork",
        "status.podIPs[0].ip",
        "status.podIPs[2]",
    ];
    assert_eq!(
        fields.iter().collect::<std::collections::BTreeSet<_>>(),
        expected.map(String::from).iter().collect()
    );
    let [Resource::Pod(pod)] = loaded.resources.as_slice() else {
        panic!("no pod")
    };
    assert_eq!(
        (pod.node.as_str(), pod.ips.len(), pod.host_network),
        ("node", 1, false)
    );
    assert_eq!(
        pod.labels,
        Labels::from([("c".to_owned(), "1".to_owned())]).into()
    );
}

#[test]
fn ports_that_have_names() {
    let pod = pod(
        "",
        "spec:
  initContainers:
  - {name: i, ports: [{name: init, containerPort: 1}]}
  containers:
  - name: c
    ports:
    - {name: web, containerPort: 80}
    - {name: dns, containerPort: 53, protocol: UDP}
    - {name: sig, containerPort: 9, protocol: SCTP, hostPort: 9}
    - {containerPort: 81, hostPort: 81}
  - {name: d}
  - {name: e, ports: }
",
    );
    let ports: Vec<_> = pod
        .ports
        .iter()
        .map(|port| (port.name.as_str(), port.protocol, port.port))
        .collect();
    assert_eq!(
        ports,
        [("web", 6, 80), ("dns", 17, 53), ("sig", 132, 9), ("init", 6, 1)]
    );
}

#[test]
fn ports_that_are_wrong_are_left_out() {
    let pod = |port: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: a}}\nspec: {{containers: [{{ports: [{{name: ok, containerPort: 1}}, {port}]}}]}}\n"
        )
    };
    for (port, field, message) in [
        ("{name: «Web», containerPort: 80}", ".name", "no name of a port"),
        ("«{name: web}»", "", "containerPort is missing"),
        ("{name: web, containerPort: «0»}", ".containerPort", "found 0"),
        (
            "{name: web, containerPort: «http»}",
            ".containerPort",
            "expected a port number from 1 to 65535",
        ),
        (
            "{name: web, containerPort: 80, protocol: «ICMP»}",
            ".protocol",
            "expected TCP or UDP or SCTP",
        ),
        ("«web»", "", "expected a mapping"),
    ] {
        check(
            &pod(port),
            &format!("spec.containers[0].ports[1]{field}"),
            message,
        );
        let loaded = load(&pod(port).replace(['«', '»'], ""));
        let [Resource::Pod(pod)] = loaded.resources.as_slice() else {
            panic!("no pod")
        };
        assert_eq!(pod.ports.len(), 1);
    }
}

#[test]
fn the_owner_is_the_one_that_controls() {
    let owners = |owners: &str| pod(&format!(", ownerReferences: {owners}"), "").owner;
    assert_eq!(
        owners(
            "[{kind: Node, name: n}, {apiVersion: apps/v1, kind: ReplicaSet, name: web-1, controller: true}]"
        ),
        Some(("ReplicaSet".into(), "web-1".into()))
    );
    assert_eq!(owners("[{kind: Node, name: n, controller: false}]"), None);
    assert_eq!(owners("[]"), None);
}

#[test]
fn sources_that_a_pod_may_send_from() {
    let sources = |json: &str| {
        let annotation = format!(", annotations: {{cni.projectcalico.org/allowedSourcePrefixes: '{json}'}}");
        let sources: Vec<String> = pod(&annotation, "")
            .allowed_sources
            .iter()
            .map(ToString::to_string)
            .collect();
        sources.join(" ")
    };
    assert_eq!(sources("[]"), "");
    assert_eq!(
        sources("[\"10.0.0.0/8\", \"10.1.2.3/16\", \"fd00::1\"]"),
        "10.0.0.0/8 10.1.0.0/16 fd00::1/128"
    );
    let annotated = |json: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: a, annotations: {{cni.projectcalico.org/allowedSourcePrefixes: {json}}}}}\n"
        )
    };
    for (json, message) in [
        ("«10.0.0.0/8»", "\"10.0.0.0/8\" is no list of networks"),
        ("«'{}'»", "write a JSON list of networks"),
        ("«'[1]'»", "is no list of networks"),
        ("«'[\"10.0.0.0/33\"]'»", "\"10.0.0.0/33\" is not a network"),
    ] {
        check(&annotated(json), "metadata.annotations", message);
    }
}
