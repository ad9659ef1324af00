//! An agent that follows an API server: a node's pods, from the stand-in's objects to the packets.

#![expect(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::time::{Duration, Instant};

use calico_azure_tests::apistand::ApiStand;
use calico_azure_tests::lab::{Agent, AgentSpec, Cluster, ClusterSpec, PodManifest, Port, probe};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(60);
/// How long a connection may take before it counts as denied.
const NEVER: Duration = Duration::from_millis(300);
const CRD: &str = "crd.projectcalico.org/v1";

fn reaches(cluster: &Cluster, from: &str, to: &str) -> bool {
    let to = cluster.pod(to).unwrap().ip(false).unwrap();
    let ns = cluster.pod(from).unwrap().net.ns().clone();
    probe::tcp(&ns, to, 8080, NEVER).unwrap().reached()
}

#[track_caller]
fn wait(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + SOON;
    while !condition() {
        assert!(Instant::now() < end, "{what} did not come true in {SOON:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn policy(order: u32, action: &str) -> Value {
    json!({
        "apiVersion": CRD, "kind": "GlobalNetworkPolicy", "metadata": {"name": "p"},
        "spec": {"order": order, "selector": "app == 'two'", "types": ["Ingress"],
            "ingress": [{"action": action, "source": {"selector": "app == 'one'"}}]},
    })
}

#[test]
fn an_agent_enforces_what_the_api_server_says() {
    let spec = ClusterSpec {
        nodes: 1,
        ..ClusterSpec::default()
    };
    let mut cluster = Cluster::start(&spec).unwrap();
    for name in ["one", "two"] {
        let ports = [Port::Tcp(8080)];
        cluster
            .add_pod(PodManifest::new("a", name, "node-1", &[("app", name)], &ports))
            .unwrap();
    }
    assert!(reaches(&cluster, "a/one", "a/two"));
    // In the node's namespace, as there is no way out of it.
    let stand = cluster.nodes[0].ns().run(ApiStand::start).unwrap().unwrap();
    stand.put(&cluster.nodes[0].manifest());
    stand.put(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a"}}));
    for pod in cluster.pods.values() {
        stand.put(&pod.manifest.running(pod.net.ips()));
    }
    let kubeconfig = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(kubeconfig.path(), stand.kubeconfig()).unwrap();
    let spec = AgentSpec {
        kubeconfig: Some(kubeconfig.path().to_owned()),
        ..AgentSpec::new().unwrap()
    };
    let mut agent = Agent::start(&cluster.dir, &cluster.nodes[0], spec).unwrap();
    agent.wait_ready(SOON).unwrap();
    agent.wait_endpoint("a/one", SOON).unwrap();
    agent.wait_endpoint("a/two", SOON).unwrap();
    wait("no policy yet", || reaches(&cluster, "a/one", "a/two"));

    stand.define(CRD, "GlobalNetworkPolicy");
    stand.put(&policy(1, "Deny"));
    wait("the policy", || !reaches(&cluster, "a/one", "a/two"));
    // Policy stays while the server is away, and what changed meanwhile counts when it is back.
    stand.set_away(true);
    std::thread::sleep(Duration::from_secs(1));
    assert!(!reaches(&cluster, "a/one", "a/two"));
    stand.put(&policy(2, "Allow"));
    stand.compact();
    stand.set_away(false);
    wait("the other policy", || reaches(&cluster, "a/one", "a/two"));
    stand.put(&policy(3, "Deny"));
    wait("the third policy", || !reaches(&cluster, "a/one", "a/two"));
    stand.undefine(CRD, "GlobalNetworkPolicy");
    wait("no policy", || reaches(&cluster, "a/one", "a/two"));
}
