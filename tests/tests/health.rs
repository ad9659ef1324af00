//! Health, metrics and Felix's settings of a running agent.

#![expect(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use calico_azure_tests::lab::{AgentSpec, Cluster, ClusterSpec, NetNs, PodManifest};

const SOON: Duration = Duration::from_secs(60);

const POLICIES: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: a}
---
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: closed, namespace: a}
spec:
  selector: app == 'server'
  types: [Ingress]
  ingress:
  - {action: Allow, protocol: TCP, destination: {ports: [80]}}
";

/// Status code and body, or nothing if nobody listens, or stops listening before all of it is said.
fn get(from: &NetNs, port: u16, path: &str) -> Option<(u16, String)> {
    let mut stream = from
        .run(|| TcpStream::connect(("127.0.0.1", port)))
        .unwrap()
        .ok()?;
    stream.set_read_timeout(Some(SOON)).unwrap();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    )
    .ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let code = head.split(' ').nth(1).unwrap().parse().unwrap();
    Some((code, body.to_owned()))
}

fn until<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(begun.elapsed() < SOON, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The value of a sample.
fn value(text: &str, sample: &str) -> Option<f64> {
    let line = text.lines().find(|line| {
        line.strip_prefix(sample)
            .is_some_and(|rest| rest.starts_with(' '))
    })?;
    line.rsplit(' ').next()?.parse().ok()
}

fn cluster(agents: AgentSpec) -> Cluster {
    let mut cluster = Cluster::start(&ClusterSpec {
        agents: Some(agents),
        ..ClusterSpec::default()
    })
    .unwrap();
    cluster.source.write("policies.yaml", POLICIES).unwrap();
    for (name, app, node) in [("server", "server", "node-1"), ("client", "client", "node-2")] {
        cluster
            .add_pod(PodManifest::new("a", name, node, &[("app", app)], &[]))
            .unwrap();
    }
    cluster.wait_endpoints(SOON).unwrap();
    cluster
}

#[test]
fn an_agent_says_that_it_lives_when_it_is_ready_and_what_it_counts() {
    let cluster = cluster(AgentSpec::new().unwrap().args(["--health", "--metrics"]));
    let node = cluster.node("node-1").unwrap().ns().clone();
    let (code, text) = get(&node, 9099, "/liveness").unwrap();
    assert_eq!(code, 200, "{text}");
    let (code, text) = get(&node, 9099, "/readiness").unwrap();
    assert_eq!(code, 200, "{text}");
    assert!(
        text.contains("sources") && text.contains("every one has been read"),
        "{text}"
    );
    assert_eq!(get(&node, 9099, "/metrics").unwrap().0, 404);

    let drops = "calico_azure_packets_total{hook=\"to-workload\",reason=\"policy-deny\",verdict=\"drop\"}";
    let before = get(&node, 9091, "/metrics").unwrap().1;
    let to = cluster.pod("a/server").unwrap().ip(false).unwrap();
    let client = cluster.pod("a/client").unwrap().net.ns().clone();
    let refused = client
        .run(|| TcpStream::connect_timeout(&(to, 81).into(), Duration::from_millis(300)))
        .unwrap();
    assert!(refused.is_err());
    let after = get(&node, 9091, "/metrics").unwrap().1;
    let moved = value(&after, drops).unwrap() - value(&before, drops).unwrap_or(0.0);
    assert!(moved >= 1.0, "{after}");
    let of_pod = |line: &str| {
        line.starts_with("calico_azure_endpoint_drops_total")
            && line.contains("endpoint=\"a/server\"")
            && line.contains("policy-deny")
    };
    assert!(after.lines().any(of_pod), "{after}");
    for (sample, expected) in [
        ("felix_active_local_endpoints", 1.0),
        ("felix_active_local_policies", 1.0),
        ("felix_cluster_num_hosts", 2.0),
        ("felix_cluster_num_workload_endpoints", 2.0),
        ("felix_cluster_num_policies", 1.0),
        ("felix_resync_state", 3.0),
        ("felix_bpf_dirty_dataplane_endpoints", 0.0),
        ("felix_int_dataplane_failures", 0.0),
        ("calico_azure_table_entries{table=\"ENDPOINTS\"}", 1.0),
        ("calico_azure_table_limit{table=\"ENDPOINTS\"}", 4096.0),
    ] {
        assert_eq!(value(&after, sample), Some(expected), "{sample}\n{after}");
    }
    assert!(value(&after, "process_resident_memory_bytes").unwrap() > 1e6);
    // Each family is explained.
    for line in after.lines().filter(|line| !line.starts_with('#')) {
        let name = line.split(['{', ' ']).next().unwrap();
        assert!(after.contains(&format!("# HELP {name} ")), "{line}");
    }
}

#[test]
fn an_agent_that_has_not_read_everything_is_not_ready() {
    let mut cluster = cluster(AgentSpec::new().unwrap().args(["--health"]));
    let node = cluster.node("node-1").unwrap().ns().clone();
    let agent = cluster.agent("node-1").unwrap();
    agent.terminate().unwrap();
    // At the start, what cannot be read may be anything.
    cluster.source.write("broken.yaml", "a: [").unwrap();
    cluster.agent("node-1").unwrap().restart().unwrap();
    let (code, text) = until("it answers", || get(&node, 9099, "/readiness"));
    assert_eq!(code, 503, "{text}");
    assert!(text.contains("NO"), "{text}");
    assert_eq!(get(&node, 9099, "/liveness").unwrap().0, 200);
    cluster.source.remove("broken.yaml").unwrap();
    until("it becomes ready", || {
        get(&node, 9099, "/readiness").filter(|(code, _)| *code == 200)
    });
}

#[test]
fn felix_configuration_is_followed_while_the_agent_runs() {
    let mut cluster = cluster(AgentSpec::new().unwrap());
    let node = cluster.node("node-1").unwrap().ns().clone();
    let other = cluster.node("node-2").unwrap().ns().clone();
    assert_eq!(get(&node, 9099, "/liveness"), None, "nobody asked for it");
    let felix = |name: &str, spec: &str| {
        format!(
            "apiVersion: projectcalico.org/v3\nkind: FelixConfiguration\nmetadata: {{name: {name}}}\nspec: {spec}\n"
        )
    };
    cluster
        .source
        .write(
            "felix.yaml",
            &felix(
                "default",
                "{healthEnabled: true, prometheusMetricsEnabled: true, prometheusMetricsPort: 9191, \
         bpfLogLevel: Debug}",
            ),
        )
        .unwrap();
    for ns in [&node, &other] {
        until("health is served", || {
            get(ns, 9099, "/readiness").filter(|(code, _)| *code == 200)
        });
        until("metrics are served", || get(ns, 9191, "/metrics"));
    }
    // The node's own wins, and what has no effect is named, once.
    cluster
        .source
        .write(
            "node.yaml",
            &felix(
                "node.node-1",
                "{healthPort: 9098, logSeverityScreen: Debug, \
         bpfConntrackTimeouts: {udpTimeout: soon}}",
            ),
        )
        .unwrap();
    until("it moved", || get(&node, 9098, "/readiness"));
    until("and left", || {
        get(&node, 9099, "/readiness").is_none().then_some(())
    });
    assert!(get(&other, 9099, "/readiness").is_some());
    let (_, text) = until("it complains", || {
        get(&node, 9098, "/readiness").filter(|(_, text)| text.contains("bpfconntracktimeouts.udptimeout"))
    });
    assert!(
        text.contains("FelixConfiguration node.node-1") && text.contains("\"soon\""),
        "{text}"
    );
    let log = std::fs::read_to_string(cluster.agent("node-1").unwrap().log_path()).unwrap();
    assert_eq!(log.matches("bpfloglevel has no effect here").count(), 1, "{log}");
    cluster.source.remove("felix.yaml").unwrap();
    until("nobody wants it", || {
        get(&other, 9099, "/readiness").is_none().then_some(())
    });
}
