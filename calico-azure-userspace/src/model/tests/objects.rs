//! Pods, nodes and the other kinds that policy reads.

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
        labels: [("app".to_owned(), "web".to_owned())].into(),
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
fn nodes_namespaces_and_accounts() {
    let text = "
apiVersion: v1
kind: Node
metadata: {name: node, labels: {a: b}}
spec: {podCIDR: 10.244.1.0/24, podCIDRs: [10.244.1.0/24, 'fd00:1::/64']}
status:
  addresses:
  - {type: InternalIP, address: 10.1.0.4}
  - {type: Hostname, address: n}
  - {type: InternalIP, address: 'fd01::4'}
---
{apiVersion: v1, kind: Node, metadata: {name: m}, spec: {podCIDR: 10.244.2.0/24}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: x, labels: {a: b}}}
---
{apiVersion: v1, kind: ServiceAccount, metadata: {name: w, namespace: x, labels: {c: }}}
---
{apiVersion: v1, kind: ServiceAccount, metadata: {name: z}}
";
    let labels = |key: &str, value: &str| Labels::from([(key.to_owned(), value.to_owned())]);
    let account = |namespace: &str, name: &str, labels| {
        Resource::ServiceAccount(ServiceAccount {
            namespace: namespace.into(),
            name: name.into(),
            labels,
        })
    };
    assert_eq!(
        good(text),
        [
            Resource::Node(Node {
                name: "node".into(),
                labels: labels("a", "b"),
                pod_cidrs: vec!["10.244.1.0/24".parse().unwrap(), "fd00:1::/64".parse().unwrap()],
                internal_ips: vec!["10.1.0.4".parse().unwrap(), "fd01::4".parse().unwrap()],
            }),
            Resource::Node(Node {
                name: "m".into(),
                pod_cidrs: vec!["10.244.2.0/24".parse().unwrap()],
                ..Node::default()
            }),
            Resource::Namespace(Namespace {
                name: "x".into(),
                labels: labels("a", "b")
            }),
            account("x", "w", labels("c", "")),
            account("default", "z", Labels::new()),
        ]
    );
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
    assert_eq!(pod.labels, Labels::from([("c".to_owned(), "1".to_owned())]));
}

#[test]
fn lists_of_any_kind() {
    let list = "
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Namespace, metadata: {name: a}}
- apiVersion: v1
  kind: NamespaceList
  items:
  - {metadata: {name: b}}
  - {apiVersion: v1, kind: Namespace, metadata: {name: c}}
---
{apiVersion: projectcalico.org/v3, kind: TierList, items: [{metadata: {name: t}}]}
---
{apiVersion: v1, kind: List, items: []}
";
    let keys: Vec<String> = good(list)
        .iter()
        .map(|resource| resource.key().to_string())
        .collect();
    assert_eq!(keys, ["Namespace a", "Namespace b", "Namespace c", "Tier t"]);
    let deep = (0..20).fold(
        "{apiVersion: v1, kind: List, items: []}".to_owned(),
        |inner, _| format!("{{apiVersion: v1, kind: List, items: [{inner}]}}"),
    );
    assert!(load(&deep).problems[0].message.contains("nested more than"));
}

#[test]
fn other_kinds_are_counted_and_policy_of_other_kinds_pointed_out() {
    let object = |version: &str, kind: &str| {
        let loaded = load(&format!(
            "{{apiVersion: {version}, kind: {kind}, metadata: {{name: a, namespace: b}}}}"
        ));
        assert!(loaded.resources.is_empty());
        assert_eq!(loaded.ignored, [format!("{kind} b/a ({version})")]);
        loaded
            .problems
            .iter()
            .map(|problem| format!("{problem}\n"))
            .collect::<String>()
    };
    for (version, kind) in [
        ("apps/v1", "Deployment"),
        ("v1", "Service"),
        ("projectcalico.org/v3", "BGPPeer"),
        ("crd.projectcalico.org/v1", "IPAMBlock"),
        ("networking.k8s.io/v1", "Ingress"),
    ] {
        assert_eq!(object(version, kind), "");
    }
    for (version, kind, help) in [
        (
            "projectcalico.org/v3",
            "RemoteClusterConfiguration",
            "not enforced",
        ),
        (
            "projectcalico.org/v3",
            "StagedNetworkPolcy",
            "did you mean StagedNetworkPolicy?",
        ),
        (
            "projectcalico.org/v3",
            "GlobalNetworkPolcy",
            "did you mean GlobalNetworkPolicy?",
        ),
        (
            "projectcalico.org/v1",
            "NetworkPolicy",
            "expected projectcalico.org/v3",
        ),
        (
            "extensions/v1beta1",
            "NetworkPolicy",
            "set apiVersion: networking.k8s.io/v1",
        ),
        (
            "policy.networking.k8s.io/v1alpha2",
            "ClusterNetworkPolicy",
            "not enforced",
        ),
        ("cilium.io/v2", "CiliumNetworkPolicy", "not enforced"),
    ] {
        let shown = object(version, kind);
        assert!(
            shown.starts_with("warning: ") && shown.contains(help),
            "{version} {kind}: {shown}"
        );
    }
}

#[test]
fn what_is_no_object_is_an_error() {
    for (text, unreadable) in [
        ("kind: Pod\n", false),
        ("apiVersion: v1\n", false),
        ("apiVersion: v1\nkind:\n", false),
        ("replicas: 3\n", false),
        ("just words\n", true),
        ("- a\n", true),
        ("a: {", true),
        ("{apiVersion: v1, kind: List, items: [x]}", false),
    ] {
        let loaded = load(text);
        assert!(
            loaded.resources.is_empty() && !loaded.problems.is_empty(),
            "{text}"
        );
        assert_eq!(loaded.unreadable, unreadable, "{text}");
    }
    assert!(good("").is_empty() && good("# nothing\n---\n").is_empty());
}

#[test]
fn of_duplicates_the_first_counts_and_both_places_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let namespace = |label: &str| {
        format!("\n{{apiVersion: v1, kind: Namespace, metadata: {{name: a, labels: {{x: {label}}}}}}}\n")
    };
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    write("1.yaml", &namespace("first"));
    std::fs::create_dir(dir.path().join("2")).unwrap();
    write(
        "2/b.yml",
        &format!("---\n{}---\n{}", namespace("second"), namespace("third")),
    );
    write("2/ignored.txt", "not: [yaml");
    let paths = [dir.path().to_owned(), dir.path().join("1.yaml")];
    let loaded = load::load_paths(&paths);
    let [Resource::Namespace(found)] = loaded.resources.as_slice() else {
        panic!("{:?}", loaded.resources)
    };
    assert_eq!(found.labels.get("x").map(String::as_str), Some("first"));
    let messages: Vec<_> = loaded.problems.iter().map(ToString::to_string).collect();
    assert_eq!(messages.len(), 2, "{messages:?}");
    for (message, line) in messages.iter().zip([3, 6]) {
        let places = message.contains("1.yaml:2 as well") && message.contains(&format!("b.yml:{line}"));
        assert!(places, "{message}");
    }
    // A Kubernetes policy and a Calico one may share a name.
    assert_eq!(
        good(&format!("{}---\n{}", np("order: 1"), knp("podSelector: {}"))).len(),
        2
    );
}

#[test]
fn paths_that_hold_nothing_are_errors() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("missing");
    for path in [dir.path().to_owned(), missing] {
        let loaded = load::load_paths(std::slice::from_ref(&path));
        assert!(
            loaded.unreadable && loaded.problems.len() == 1,
            "{}",
            path.display()
        );
    }
    std::fs::write(dir.path().join("a.yaml"), b"a: \xff").unwrap();
    let loaded = load::load_paths(&[dir.path().to_owned()]);
    assert!(
        loaded.unreadable && loaded.problems[0].message.contains("line 1 is not"),
        "{}",
        loaded.problems[0]
    );
}

#[test]
fn directories_are_read_in_order_through_links_and_without_hidden_entries() {
    use std::os::unix::fs::symlink;
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    for name in ["..2026", "sub", ".git"] {
        std::fs::create_dir(at(name)).unwrap();
    }
    for name in [
        "..2026/c.yaml",
        "b.json",
        "sub/a.yml",
        ".git/d.yaml",
        ".e.yaml",
        "f.yaml~",
    ] {
        std::fs::write(at(name), "").unwrap();
    }
    symlink("..2026", at("..data")).unwrap();
    symlink("..data/c.yaml", at("c.yaml")).unwrap();
    symlink(".", at("sub/loop")).unwrap();
    symlink("..", at("up")).unwrap();
    symlink("nowhere", at("g.yaml")).unwrap();
    let found = load::manifests(&at("sub")).unwrap();
    assert_eq!(found, [at("sub/a.yml")]);
    std::fs::remove_file(at("up")).unwrap();
    let found = load::manifests(dir.path()).unwrap();
    assert_eq!(found, ["b.json", "c.yaml", "g.yaml", "sub/a.yml"].map(at));
    assert!(load::load_file(&at("g.yaml")).unreadable);
    assert!(load::manifests(&at("missing")).is_err());
}

#[test]
fn a_long_text_is_read_in_parts_as_if_it_were_one() {
    let words = format!("# {}\n", "x".repeat(78)).repeat(600);
    let name = |i: usize| format!("n{}", i % 90);
    let object = |i: usize| {
        format!(
            "---\napiVersion: v1\nkind: Namespace\nmetadata: {{name: {}}}\n{words}",
            name(i)
        )
    };
    let text: String = (0..100).map(object).collect();
    let loaded = load(&text);
    let names: Vec<String> = loaded
        .resources
        .iter()
        .map(|resource| resource.key().name)
        .collect();
    assert_eq!(names, (0..90).map(name).collect::<Vec<_>>());
    let lines: Vec<u32> = loaded.origins.iter().map(|origin| origin.line).collect();
    assert_eq!(lines, (0..90).map(|i| 2 + 604 * i).collect::<Vec<_>>());
    let duplicates: Vec<_> = loaded.problems.iter().map(|problem| problem.line).collect();
    assert_eq!(
        duplicates,
        (90..100).map(|i| Some(2 + 604 * i)).collect::<Vec<_>>()
    );
    // What is not YAML ends it, wherever that is.
    for broken in [5, 50, 99] {
        let at = text.match_indices("metadata").nth(broken).unwrap().0;
        let loaded = load(&format!("{}{{{}", &text[..at], &text[at..]));
        assert!(loaded.unreadable);
        assert_eq!(loaded.resources.len(), broken.min(90));
    }
}
#[test]
fn probe() {
    for text in [
        "\u{feff}apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n",
        "apiVersion: v1\r\nkind: Namespace\r\nmetadata:\r\n  name: a\r\n---\r\napiVersion: v1\r\nkind: Namespace\r\nmetadata:\r\n  name: b\r\n",
        "{\"apiVersion\":\"v1\",\"kind\":\"Namespace\",\"metadata\":{\"name\":\"a\"}}\n{\"apiVersion\":\"v1\",\"kind\":\"Namespace\",\"metadata\":{\"name\":\"b\"}}\n",
        "{\n\t\"apiVersion\": \"v1\",\n\t\"kind\": \"Namespace\",\n\t\"metadata\": {\n\t\t\"name\": \"a\"\n\t}\n}\n",
        "{\"apiVersion\":\"v1\",\"kind\":\"Namespace\",\"metadata\":{\"name\":\"a\",\"labels\":{\"a\":\"x\\/y\\u00e9\\ud83d\\ude00\"}}}",
        "{\"apiVersion\":\"v1\",\"kind\":\"Namespace\",\"metadata\":{\"name\":\"a\"}}\u{0}",
        "{\"apiVersion\":\"v1\",\"kind\":\"Namespace\",\"metadata\":\n{\"name\"\n:\n\"a\"}}",
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: {{ .Values.x }}}\n",
        "{{- if .Values.x }}\napiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n{{- end }}\n",
        "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: a\n  labels:\n    {{- include \"x\" . | nindent 4 }}\n",
        "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: a\n  name: b\n",
    ] {
        let l = load(text);
        println!("=== {text:?}\n{:?}", l.resources);
        for p in &l.problems {
            println!("{p}");
        }
    }
}
