//! `explain --live` and `verdict --live` answer from a running agent's tables as the wire does, before and after an edit.

#![expect(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::io::Write as _;
use std::net::IpAddr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use calico_azure_tests::lab::{AgentSpec, Cluster, ClusterSpec, PodManifest, Port, binary, probe};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(60);
const NEVER: Duration = Duration::from_millis(300);

const NAMESPACES: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: a}
---
apiVersion: v1
kind: Namespace
metadata: {name: b}
";

/// `b/three` hears one pod of namespace `a` only.
fn policy(who: &str) -> String {
    format!(
        "
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {{name: three, namespace: b}}
spec:
  selector: app == 'three'
  types: [Ingress]
  ingress:
  - action: Allow
    source: {{selector: app == '{who}', namespaceSelector: all()}}
"
    )
}

fn cluster() -> Cluster {
    let mut cluster = Cluster::start(&ClusterSpec {
        agents: Some(AgentSpec::new().unwrap()),
        ..ClusterSpec::default()
    })
    .unwrap();
    cluster.source.write("namespaces.yaml", NAMESPACES).unwrap();
    cluster.source.write("policy.yaml", &policy("one")).unwrap();
    for (namespace, name, node) in [
        ("a", "one", "node-1"),
        ("a", "two", "node-1"),
        ("b", "three", "node-2"),
    ] {
        let ports = [Port::Tcp(8080)];
        let pod = PodManifest::new(namespace, name, node, &[("app", name)], &ports);
        cluster.add_pod(pod).unwrap();
    }
    cluster.wait_endpoints(SOON).unwrap();
    cluster
}

fn ip(cluster: &Cluster, pod: &str, v6: bool) -> IpAddr {
    cluster.pod(pod).unwrap().ip(v6).unwrap()
}

fn reaches(cluster: &Cluster, from: &str, v6: bool) -> bool {
    let net = cluster.pod(from).unwrap().net.ns().clone();
    probe::tcp(&net, ip(cluster, "b/three", v6), 8080, NEVER)
        .unwrap()
        .reached()
}

/// The command line for an agent's state. It needs no network namespace.
fn live(cluster: &mut Cluster, node: &str, command: &str) -> Command {
    let agent = cluster.agent(node).unwrap();
    let mut run = Command::new(binary().unwrap());
    run.args([
        command,
        "--live",
        "--node",
        node,
        "--pin-name",
        &agent.pin_name(),
        "--run-dir",
    ]);
    run.arg(agent.run_dir());
    run
}

fn explain(cluster: &mut Cluster, node: &str, from: &str, to: &str) -> Value {
    let mut command = live(cluster, node, "explain");
    command.args(["--from", from, "--to", to, "--port", "8080", "-o", "json"]);
    let output = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Waits until the wire says so, then asks for an explanation of it.
#[track_caller]
fn agrees(cluster: &mut Cluster, from: &str, v6: bool, allowed: bool) {
    let end = Instant::now() + SOON;
    while reaches(cluster, from, v6) != allowed {
        assert!(Instant::now() < end, "the wire never said {allowed}");
    }
    let source = ip(cluster, from, v6).to_string();
    let said = explain(cluster, "node-2", &source, "b/three");
    let (verdict, rule) = if allowed {
        ("allow", "tier default / NetworkPolicy b/three / ingress[0]")
    } else {
        ("deny", "tier default / default action")
    };
    assert_eq!(
        (&said["verdict"], &said["rule"]),
        (&verdict.into(), &rule.into()),
        "{said:#}"
    );
    assert_eq!(
        (&said["stage"], &said["at"]),
        (&"ingress".into(), &"b/three".into()),
        "{said:#}"
    );
    assert!(
        said["stages"][0]["tables"]["policy_set"].as_u64().unwrap() > 0,
        "{said:#}"
    );
    // The sender's node has a say as well, and has nothing against it.
    let own = explain(cluster, "node-1", from, &ip(cluster, "b/three", v6).to_string());
    assert_eq!(
        (&own["verdict"], &own["rule"]),
        (&"allow".into(), &"profile kns.a".into()),
        "{own:#}"
    );
}

#[test]
fn explanations_of_what_is_in_force_before_and_after_an_edit() {
    let mut cluster = cluster();
    for v6 in [false, true] {
        agrees(&mut cluster, "a/one", v6, true);
        agrees(&mut cluster, "a/two", v6, false);
    }
    cluster.source.write("policy.yaml", &policy("two")).unwrap();
    for v6 in [false, true] {
        agrees(&mut cluster, "a/one", v6, false);
        agrees(&mut cluster, "a/two", v6, true);
    }
    // The kernel goes on without its agent, and so do explanations.
    cluster.agent("node-2").unwrap().kill9().unwrap();
    agrees(&mut cluster, "a/two", false, true);

    let three = ip(&cluster, "b/three", false);
    let packets: String = [("a/one", "deny"), ("a/two", "allow")]
        .map(|(pod, expected)| {
            let source = ip(&cluster, pod, false);
            format!(r#"{{"id":"{expected}","src":"{source}","dst":"{three}","protocol":"tcp","dport":8080}}"#)
                + "\n"
        })
        .concat();
    let mut command = live(&mut cluster, "node-2", "verdict");
    let command = command
        .args(["--packets", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(packets.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let lines: Vec<Value> = output
        .stdout
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 2);
    for line in lines {
        assert_eq!(line["verdict"], line["id"], "{line}");
    }

    let mut elsewhere = live(&mut cluster, "node-2", "explain");
    let output = elsewhere
        .args(["--from", "a/one", "--to", "b/three", "--port", "1"])
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(
        stderr.contains("a/one: this is no pod of node node-2") && stderr.contains("b/three"),
        "{stderr}"
    );
}
