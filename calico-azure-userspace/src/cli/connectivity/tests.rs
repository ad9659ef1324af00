//! The command on small manifests.

use std::fs;

use serde_json::{Value, json};

use super::*;
use crate::cli::{ERROR, FINDING, OK};

const CLUSTER: &str = "
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: db, namespace: shop}
spec:
  replicas: 0
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec:
      containers: [{name: db, ports: [{name: sql, containerPort: 5432}]}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: db, namespace: shop}
spec:
  podSelector: {matchLabels: {app: db}}
  policyTypes: [Ingress, Egress]
  ingress:
    - from: [{podSelector: {matchLabels: {app: web}}}]
      ports: [{port: sql}]
---
";

struct Ran {
    code: u8,
    out: String,
    err: String,
}

fn run(text: &str, edit: impl FnOnce(&mut ConnectivityArgs)) -> Ran {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a.yaml"), text).unwrap();
    let mut args = ConnectivityArgs {
        paths: vec![dir.path().to_owned()],
        output: Output::Json,
        from: Vec::new(),
        to: Vec::new(),
        namespace: Vec::new(),
        pending: false,
    };
    edit(&mut args);
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let code = args.print(&mut out, &mut err).unwrap_or(ERROR);
    Ran {
        code,
        out: String::from_utf8(out).unwrap(),
        err: String::from_utf8(err).unwrap(),
    }
}

fn pairs(text: &str) -> Value {
    let ran = run(text, |_| {});
    assert_eq!(ran.code, OK, "{}", ran.err);
    serde_json::from_str(&ran.out).unwrap()
}

fn tcp(ports: &[&str]) -> Value {
    json!([{"protocol": "TCP", "ports": ports}])
}

#[test]
fn pods_workloads_and_the_world_outside() {
    let web = json!({"pod": "shop/web"});
    let db = json!({"workload": "shop/db", "kind": "Deployment"});
    let all = json!({"cidr": "0.0.0.0/0"});
    let expected = json!([
        {"src": web, "dst": db, "connections": tcp(&["5432"])},
        {"src": web, "dst": all, "connections": "all"},
        {"src": all, "dst": web, "connections": "all"},
    ]);
    assert_eq!(pairs(CLUSTER), expected);
}

#[test]
fn ranges_are_the_fewest_that_say_it() {
    let policy = "
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: web}
spec:
  selector: app == 'web'
  types: [Ingress, Egress]
  ingress:
    - {action: Allow, protocol: TCP, source: {nets: [10.0.0.0/9, 10.128.0.0/9], notNets: [10.0.0.0/10]}, destination: {ports: [80, '443:450', 81]}}
    - {action: Allow, protocol: ICMP, icmp: {type: 8}, source: {nets: [192.0.2.1/32]}}
";
    let web = json!({"pod": "shop/web"});
    let expected = json!([
        {"src": {"cidr": "10.64.0.0/10"}, "dst": web, "connections": tcp(&["80-81", "443-450"])},
        {"src": {"cidr": "10.128.0.0/9"}, "dst": web, "connections": tcp(&["80-81", "443-450"])},
        {"src": {"cidr": "192.0.2.1/32"}, "dst": web, "connections": [{"protocol": "ICMP", "types": ["8"]}]},
    ]);
    let mut found = pairs(&format!("{CLUSTER}{policy}"));
    // The database may not talk to anybody, and nobody to it but what the policy says.
    let list = found.as_array_mut().unwrap();
    list.retain(|pair| pair["dst"] == web);
    assert_eq!(found, expected);
}

#[test]
fn services_without_slices_get_the_backends_that_they_select() {
    let rest = "
apiVersion: v1
kind: Service
metadata: {name: db, namespace: shop}
spec: {selector: {app: db}, ports: [{port: 80, targetPort: sql}]}
---
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: web, namespace: shop}
spec:
  selector: app == 'web'
  types: [Egress]
  egress: [{action: Allow, destination: {services: {name: db, namespace: shop}}}]
";
    let text = format!("{CLUSTER}{rest}");
    let ran = run(&text, |args| args.from = vec!["shop/web".into()]);
    let found: Value = serde_json::from_str(&ran.out).unwrap();
    let db = json!({"workload": "shop/db", "kind": "Deployment"});
    let expected = json!([{"src": {"pod": "shop/web"}, "dst": db, "connections": tcp(&["5432"])}]);
    assert_eq!(found, expected, "{}", ran.err);
}

#[test]
fn staged_policies_count_if_asked() {
    let staged = "
apiVersion: projectcalico.org/v3
kind: StagedGlobalNetworkPolicy
metadata: {name: none}
spec: {selector: app == 'web', types: [Ingress, Egress]}
";
    let text = format!("{CLUSTER}{staged}");
    let count = |pending| {
        let ran = run(&text, |args| args.pending = pending);
        serde_json::from_str::<Vec<Value>>(&ran.out).unwrap().len()
    };
    assert_eq!((count(false), count(true)), (3, 0));
}

#[test]
fn a_host_is_a_node_with_host_endpoints() {
    let host = "
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: n1-all}
spec: {node: n1, interfaceName: '*', expectedIPs: [10.9.0.1]}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: host}
spec:
  selector: '!has(projectcalico.org/orchestrator)'
  types: [Ingress]
  ingress: [{action: Allow, protocol: UDP, source: {selector: app == 'web'}, destination: {ports: [53]}}]
";
    let text = format!("{CLUSTER}{host}");
    let ran = run(&text, |args| args.to = vec!["n1".into()]);
    let found: Value = serde_json::from_str(&ran.out).unwrap();
    let failsafe = ["22", "179", "2379-2380", "5473", "6443", "6666-6667"];
    let of =
        |udp: &[&str]| json!([{"protocol": "TCP", "ports": failsafe}, {"protocol": "UDP", "ports": udp}]);
    let expected = json!([
        {"src": {"pod": "shop/web"}, "dst": {"host": "n1"}, "connections": of(&["53", "68"])},
        {"src": {"cidr": "0.0.0.0/0"}, "dst": {"host": "n1"}, "connections": of(&["68"])},
    ]);
    assert_eq!(found, expected, "{}", ran.err);
}

#[test]
fn ipv6_is_there_if_something_has_to_do_with_it() {
    let policy = "
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: web}
spec:
  selector: app == 'web'
  types: [Egress]
  egress: [{action: Allow, destination: {nets: ['2001:db8::/32']}}]
";
    let ran = run(&format!("{CLUSTER}{policy}"), |args| {
        args.from = vec!["shop/web".into()];
    });
    let found: Value = serde_json::from_str(&ran.out).unwrap();
    let expected =
        json!([{"src": {"pod": "shop/web"}, "dst": {"cidr": "2001:db8::/32"}, "connections": "all"}]);
    assert_eq!(found, expected);
}

#[test]
fn what_is_assumed_and_what_is_odd_goes_to_stderr() {
    let rest = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: lost, namespace: shop}
spec: {podSelector: {matchLabels: {app: wbe}}}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: front, namespace: shop}
";
    let ran = run(&format!("{CLUSTER}{rest}"), |_| {});
    for expected in [
        "note: no Namespace object for shop: taken to have no label but kubernetes.io/metadata.name\n",
        "note: 2 pods without an address: ",
        "warning: policies that select nothing among the inputs: KubernetesNetworkPolicy shop/lost\n",
        "note: not about policy, and so ignored: Ingress shop/front (networking.k8s.io/v1)\n",
    ] {
        assert!(ran.err.contains(expected), "{expected}\n{}", ran.err);
    }
    assert_eq!(ran.code, OK);
}

#[test]
fn exit_codes_and_invalid_objects() {
    let broken = CLUSTER.replace("port: sql", "port: 'no port'");
    let ran = run(&broken, |_| {});
    assert_eq!(ran.code, FINDING, "{}", ran.err);
    let found: Vec<Value> = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(found.len(), 2, "the rule is closed: {}", ran.out);
    assert!(ran.err.contains("spec.ingress[0].ports[0].port"), "{}", ran.err);
    let ran = run("a: {", |_| {});
    assert_eq!((ran.code, ran.out.as_str()), (ERROR, ""));
    let ran = run(CLUSTER, |args| args.to = vec!["shop/nobody".into()]);
    assert_eq!((ran.code, ran.out.as_str()), (ERROR, ""));
}

#[test]
fn the_table_names_each_sender_once_and_explains_itself() {
    let ran = run(CLUSTER, |args| args.output = Output::Table);
    let expected = "\
FROM       TO                    CONNECTIONS
shop/web   shop/db (Deployment)  TCP 5432
           0.0.0.0/0             all
0.0.0.0/0  shop/web              all

3 pairs may talk; no other may. TCP, UDP or SCTP without ports: all of them.
a/b (Deployment): each pod that the workload would make
10.0.0.0/8: the addresses in it that belong to nobody listed, and to no node
";
    assert_eq!(ran.out, expected);
    let ran = run(CLUSTER, |args| {
        args.output = Output::Table;
        args.from = vec!["shop/db".into()];
    });
    assert_eq!(ran.out, "nobody may talk to anybody\n");
}

#[test]
fn graphs() {
    let ran = run(CLUSTER, |args| args.output = Output::Dot);
    let expected = r#"digraph connectivity {
  rankdir=LR;
  node [shape=box];
  subgraph cluster_0 {
    label="shop";
    n0 [label="web"];
    n1 [label="db (Deployment)"];
  }
  n2 [label="0.0.0.0/0", shape=ellipse];
  n0 -> n1 [label="TCP 5432"];
  n0 -> n2 [label="all"];
  n2 -> n0 [label="all"];
}
"#;
    assert_eq!(ran.out, expected);
    let ran = run(CLUSTER, |args| args.output = Output::Mermaid);
    let expected = r#"flowchart LR
  subgraph s0["shop"]
    n0["web"]
    n1["db (Deployment)"]
  end
  n2(["0.0.0.0/0"])
  n0 -->|"TCP 5432"| n1
  n0 -->|"all"| n2
  n2 -->|"all"| n0
"#;
    assert_eq!(ran.out, expected);
}
