//! Nodes and the other kinds without fields of their own, kinds that are not read, and what is no object.

use super::*;

#[test]
fn nodes_namespaces_and_accounts() {
    let text = r#"
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
apiVersion: v1
kind: Node
metadata:
  name: m
  annotations:
    flannel.alpha.coreos.com/backend-type: vxlan
    flannel.alpha.coreos.com/backend-data: '{"VNI":1,"VtepMAC":"02:00:00:00:00:0A"}'
    flannel.alpha.coreos.com/backend-v6-data: nothing
    flannel.alpha.coreos.com/public-ip: 10.1.0.5
    flannel.alpha.coreos.com/public-ipv6: ''
spec: {podCIDR: 10.244.2.0/24, providerID: 'azure:///m'}
---
{apiVersion: v1, kind: Namespace, metadata: {name: x, labels: {a: b}}}
---
{apiVersion: v1, kind: ServiceAccount, metadata: {name: w, namespace: x, labels: {c: }}}
---
{apiVersion: v1, kind: ServiceAccount, metadata: {name: z}}
"#;
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
                ..Node::default()
            }),
            Resource::Node(Node {
                name: "m".into(),
                pod_cidrs: vec!["10.244.2.0/24".parse().unwrap()],
                provider_id: "azure:///m".into(),
                flannel_backend: "vxlan".into(),
                tunnel_ips: vec!["10.1.0.5".parse().unwrap()],
                tunnel_macs: vec!["02:00:00:00:00:0a".into()],
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
        ("v1", "ConfigMap"),
        ("v1", "Secret"),
        ("route.openshift.io/v1", "Route"),
        ("gateway.networking.k8s.io/v1", "HTTPRoute"),
        ("rbac.authorization.k8s.io/v1", "Role"),
        ("apiextensions.k8s.io/v1", "CustomResourceDefinition"),
        ("apps/v1", "ControllerRevision"),
        ("projectcalico.org/v3", "BGPPeer"),
        ("crd.projectcalico.org/v1", "IPAMBlock"),
        ("networking.k8s.io/v1", "Ingress"),
        ("networking.k8s.io/v1", "IngressClass"),
    ] {
        assert_eq!(object(version, kind), "", "{version} {kind}");
    }
    for (version, kind) in [
        ("cilium.io/v2", "CiliumNetworkPolicy"),
        ("crd.antrea.io/v1beta1", "ClusterNetworkPolicy"),
        ("crd.antrea.io/v1beta1", "Tier"),
    ] {
        let shown = object(version, kind);
        let expected = format!("warning: {kind} b/a: {kind} of \"{version}\" is not enforced\n");
        assert!(shown.starts_with(&expected), "{shown}");
    }
    // A policy that was meant.
    for (version, kind, message) in [
        (
            "projectcalico.org/v3",
            "RemoteClusterConfiguration",
            "kind: projectcalico.org/v3 has no kind \"RemoteClusterConfiguration\": it is not enforced",
        ),
        (
            "projectcalico.org/v3",
            "StagedNetworkPolcy",
            "did you mean StagedNetworkPolicy?",
        ),
        (
            "crd.projectcalico.org/v1",
            "GlobalNetworkPolcy",
            "did you mean GlobalNetworkPolicy?",
        ),
        (
            "projectcalico.org/v1",
            "NetworkPolicy",
            "apiVersion: NetworkPolicy of \"projectcalico.org/v1\" is not enforced: expected apiVersion \
             projectcalico.org/v3 or crd.projectcalico.org/v1",
        ),
        (
            "extensions/v1beta1",
            "NetworkPolicy",
            "set apiVersion: networking.k8s.io/v1",
        ),
        ("v1", "NetworkPolicy", "set apiVersion: networking.k8s.io/v1"),
        (
            "networking.k8s.io/v1",
            "NetworkPolcy",
            "did you mean NetworkPolicy?",
        ),
        (
            "networking.k8s.io/v1",
            "Policy",
            "the kinds that are enforced are NetworkPolicy\n",
        ),
        (
            "networking.k8s.io/v1beta1",
            "NetworkPolicy",
            "set apiVersion: networking.k8s.io/v1",
        ),
        (
            "networking.k8s.io/v1",
            "GlobalNetworkPolicy",
            "set apiVersion: projectcalico.org/v3",
        ),
        (
            "policy.networking.k8s.io/v1alpha1",
            "ClusterNetworkPolicy",
            "expected apiVersion policy.networking.k8s.io/v1alpha2 or policy.networking.k8s.io/v1beta1",
        ),
        (
            "policy.networking.k8s.io/v1alpha2",
            "AdminNetworkPolicy",
            "set apiVersion: policy.networking.k8s.io/v1alpha1",
        ),
        (
            "policy.networking.k8s.io/v1alpha2",
            "ClusterNetworkPolcy",
            "did you mean ClusterNetworkPolicy?",
        ),
    ] {
        let shown = object(version, kind);
        assert!(
            shown.starts_with("error: ") && shown.contains(message),
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
