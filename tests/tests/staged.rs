//! Staged policies decide nothing; flow records say what they would decide.

#![expect(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::time::{Duration, Instant};

use calico_azure_tests::lab::{AgentSpec, Cluster, ClusterSpec, Flow, PodManifest, Port, probe};

const SOON: Duration = Duration::from_secs(60);
const NAMESPACE: &str = "{apiVersion: v1, kind: Namespace, metadata: {name: a}}";

/// Enforced: everybody may. Staged: nobody may but `app: other`.
fn policy(kind: &str, allowed: &str) -> String {
    format!(
        "apiVersion: projectcalico.org/v3\nkind: {kind}\nmetadata: {{name: two, namespace: a}}\nspec:\n  \
         selector: app == 'two'\n  types: [Ingress]\n  ingress: [{{action: Allow, source: {{selector: \"{allowed}\"}}}}]\n"
    )
}

/// The record of a new connection that `a/two` gets, by what is staged: every try is a new flow.
#[track_caller]
fn connection(cluster: &mut Cluster, accept: impl Fn(&Flow) -> bool) -> Flow {
    let end = Instant::now() + SOON;
    loop {
        let log = cluster.agent("node-1").unwrap().flows();
        let mark = log.mark();
        let (from, to) = (
            cluster.pod("a/one").unwrap().net.ns().clone(),
            cluster.pod("a/two").unwrap().ip(false).unwrap(),
        );
        let reached = probe::tcp(&from, to, 8080, Duration::from_millis(300))
            .unwrap()
            .reached();
        let is_new = |flow: &Flow| {
            flow.hook == "to-workload" && flow.dport == 8080 && flow.reason.starts_with("policy-")
        };
        let flow = log.wait_for(mark, "the new flow", SOON, is_new).unwrap();
        assert_eq!(reached, flow.verdict == "allow");
        if accept(&flow) {
            return flow;
        }
        assert!(Instant::now() < end, "{flow:?}");
    }
}

#[test]
fn flow_records_say_what_staged_policies_would_decide() {
    let spec = AgentSpec::new().unwrap().args(["--log-flows", "all"]);
    let mut cluster = Cluster::start(&ClusterSpec {
        agents: Some(spec),
        ..ClusterSpec::default()
    })
    .unwrap();
    cluster.source.write("namespaces.yaml", NAMESPACE).unwrap();
    cluster
        .source
        .write("enforced.yaml", &policy("NetworkPolicy", "all()"))
        .unwrap();
    for name in ["one", "two"] {
        cluster
            .add_pod(PodManifest::new(
                "a",
                name,
                "node-1",
                &[("app", name)],
                &[Port::Tcp(8080)],
            ))
            .unwrap();
    }
    cluster.wait_endpoints(SOON).unwrap();
    let flow = connection(&mut cluster, |flow| flow.verdict == "allow");
    assert_eq!(flow.staged, None, "nothing is staged");

    let staged_as = |wanted: &'static str| move |flow: &Flow| matches!(&flow.staged, Some(staged) if staged.verdict == wanted);
    cluster
        .source
        .write("staged.yaml", &policy("StagedNetworkPolicy", "app == 'other'"))
        .unwrap();
    let flow = connection(&mut cluster, staged_as("deny"));
    assert_eq!(flow.verdict, "allow", "what is staged decides nothing");
    let rule = flow.staged.unwrap().rule.unwrap();
    assert!(rule.contains("default"), "{rule}");

    // An edit of what is staged, and one of what both go by.
    cluster
        .source
        .write("staged.yaml", &policy("StagedNetworkPolicy", "app == 'one'"))
        .unwrap();
    let flow = connection(&mut cluster, staged_as("allow"));
    let rule = flow.staged.unwrap().rule.unwrap();
    assert!(
        rule.contains("StagedNetworkPolicy a/two") && rule.contains("ingress[0]"),
        "{rule}"
    );
    cluster.label_pod("a/one", "app", Some("another")).unwrap();
    assert_eq!(connection(&mut cluster, staged_as("deny")).verdict, "allow");

    cluster.source.remove("staged.yaml").unwrap();
    connection(&mut cluster, |flow| flow.staged.is_none());
}
