//! Whole explanations, in memory.

use std::fs;

use clap::Parser as _;

use super::*;
use crate::cli::OK;

#[derive(clap::Parser)]
struct Cli {
    #[command(flatten)]
    args: ExplainArgs,
}

const SHOP: &str = "apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}}
status: {podIP: 10.0.0.1}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: db, namespace: shop}
spec:
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
---
apiVersion: v1
kind: Node
metadata: {name: n1}
status: {addresses: [{type: InternalIP, address: 10.9.0.1}]}
---
apiVersion: projectcalico.org/v3
kind: Tier
metadata: {name: security}
spec: {order: 1, defaultAction: Pass}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: security.log}
spec:
  tier: security
  ingress:
  - {action: Log, protocol: TCP}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: db, namespace: shop}
spec:
  podSelector: {matchLabels: {app: db}}
  ingress:
  - from:
    - podSelector: {matchLabels: {app: web}}
    - ipBlock: {cidr: 192.0.2.0/24}
    ports:
    - port: 5432
---
apiVersion: projectcalico.org/v3
kind: StagedNetworkPolicy
metadata: {name: no-more, namespace: shop}
spec:
  order: 1
  selector: app == 'db'
  ingress:
  - action: Deny
";

fn run(args: &[&str]) -> (u8, String, String) {
    let dir = tempfile::tempdir().unwrap();
    let manifests = dir.path().join("shop.yaml");
    fs::write(&manifests, SHOP).unwrap();
    let path = manifests.to_string_lossy().into_owned();
    let all = ["explain", "--engine", "reference,compiled"].into_iter();
    let cli = Cli::try_parse_from(all.chain(args.iter().copied()).chain([path.as_str()])).unwrap();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let code = cli.args.print(&mut out, &mut err);
    let text = |bytes| String::from_utf8(bytes).unwrap().replace(&path, "shop.yaml");
    let (out, mut err) = (text(out), text(err));
    let code = code.unwrap_or_else(|error| {
        err.push_str(&error.to_string());
        super::super::ERROR
    });
    (code, out, err)
}

#[test]
fn the_decision_comes_first_and_then_why() {
    let (code, out, err) = run(&["--from", "shop/web", "--to", "shop/db", "--port", "5432"]);
    let expected = "\
ALLOW  shop/web (10.0.0.1) → shop/db (Deployment) (240.0.0.1)  tcp 50000 → 5432
  ingress of shop/db (Deployment): tier default / KubernetesNetworkPolicy shop/db / ingress[0]
  shop.yaml:42: - from:

egress of shop/web: allow
  profile kns.shop: allow

ingress of shop/db (Deployment): allow
  tier security
    GlobalNetworkPolicy security.log
      ingress[0]  log    matches
    nothing decided: the tier's default, pass
  tier default
    NetworkPolicy shop/db
      ingress[0]  allow  matches

engines: reference allow, compiled allow: they agree

if staged policies were enforced: DENY
  ingress of shop/db (Deployment): tier default / StagedNetworkPolicy shop/no-more / ingress[0]
  shop.yaml:55: - action: Deny
";
    assert_eq!((code, out.as_str()), (OK, expected), "{err}");
    assert!(err.contains("without an address"), "{err}");
}

#[test]
fn a_denied_packet_names_the_first_criterion_that_failed() {
    let (code, out, err) = run(&["--from", "192.0.3.1", "--to", "shop/db", "--port", "5432"]);
    let expected = "\
DENY  192.0.3.1 → shop/db (Deployment) (240.0.0.1)  tcp 50000 → 5432
  ingress of shop/db (Deployment): tier default / default action

ingress of shop/db (Deployment): deny
  tier security
    GlobalNetworkPolicy security.log
      ingress[0]  log    matches
    nothing decided: the tier's default, pass
  tier default
    NetworkPolicy shop/db
      ingress[0]  allow  no: source.selector, source.nets
    nothing decided: the tier's default, deny

engines: reference deny, compiled deny: they agree

if staged policies were enforced: still DENY
  ingress of shop/db (Deployment): tier default / StagedNetworkPolicy shop/no-more / ingress[0]
  shop.yaml:55: - action: Deny
";
    assert_eq!((code, out.as_str()), (OK, expected), "{err}");
}

#[test]
fn json_holds_the_same() {
    let args = [
        "--from",
        "n1",
        "--to",
        "10.0.0.1",
        "--protocol",
        "ICMP",
        "-o",
        "json",
    ];
    let (code, out, err) = run(&args);
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(code, OK, "{err}");
    assert_eq!(
        (&json["verdict"], &json["reason"]),
        (&"allow".into(), &"policy-allow".into()),
        "{out}"
    );
    assert_eq!(
        (&json["from"]["name"], &json["to"]["name"]),
        (&"host n1".into(), &"shop/web".into())
    );
    assert_eq!(
        (&json["icmp"], &json["dport"]),
        (&serde_json::json!([8, 0]), &serde_json::Value::Null)
    );
    assert_eq!(json["engines"]["compiled"]["rule"], "profile kns.shop", "{out}");
    assert_eq!(
        (&json["agree"], json["stages"].as_array().unwrap().len()),
        (&true.into(), 1),
        "{out}"
    );
    let trace = &json["stages"][0]["trace"];
    assert_eq!(
        trace[2],
        serde_json::json!({"step":"rule","rule":"ingress[0]","action":"log","matched":false,"failed":["protocol"]})
    );
}

#[test]
fn what_cannot_be_asked_is_said() {
    for (args, error) in [
        (
            &["--from", "shop/wbe", "--to", "shop/db", "--port", "1"][..],
            "--from shop/wbe: there is no such pod, workload or node among the inputs (did you mean shop/web?)",
        ),
        (
            &["--from", "web", "--to", "shop/db", "--port", "1"],
            "did you mean shop/web?",
        ),
        (
            &["--from", "shop/web", "--to", "shop/db"],
            "--port is missing: TCP has ports",
        ),
        (
            &["--from", "shop/web", "--to", "::1", "--port", "1"],
            "no addresses of one family",
        ),
    ] {
        let (code, out, err) = run(args);
        assert_eq!((code, out.as_str()), (super::super::ERROR, ""), "{args:?}");
        assert!(err.contains(error), "{args:?}: {err}");
    }
}

#[test]
fn nobody_is_asked_about_what_a_pod_says_to_itself() {
    let (code, out, _) = run(&["--from", "shop/web", "--to", "10.0.0.1", "--port", "1"]);
    let (decision, _) = out.split_once("\n\n").unwrap();
    let expected =
        "ALLOW  shop/web (10.0.0.1) → shop/web (10.0.0.1)  tcp 50000 → 1\n  a pod may always talk to itself";
    assert_eq!((code, decision), (OK, expected));
}
