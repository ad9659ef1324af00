//! From the moment in which a policy's file has changed to the first packet that obeys it: a real agent, two pods on one
//! node, a datagram every 200 µs.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::Scope;
use super::report::{Report, Table, Target};
use super::stats::Samples;
use crate::lab::probe::Prober;
use crate::lab::{AgentSpec, Cluster, ClusterSpec, PodManifest, Port};

const FILE: &str = "edited.yaml";
const PORT: u16 = 8125;
const TICK: Duration = Duration::from_micros(200);
/// No answer for so long means that the last answer was the last one.
const QUIET: Duration = Duration::from_millis(40);
const PATIENCE: Duration = Duration::from_secs(10);
/// Edits each way.
const EDITS: usize = 30;

fn policy(allowed: bool) -> Value {
    json!({
        "apiVersion": "projectcalico.org/v3",
        "kind": "GlobalNetworkPolicy",
        "metadata": {"name": "edited"},
        "spec": {
            "selector": "app == 'server'",
            "types": ["Ingress"],
            "ingress": [{
                "action": if allowed { "Allow" } else { "Deny" },
                "protocol": "UDP",
                "source": {"selector": "app == 'client'"},
                "destination": {"ports": [PORT]},
            }],
        },
    })
}

fn cluster() -> Result<Cluster> {
    let mut cluster = Cluster::start(&ClusterSpec {
        nodes: 1,
        agents: Some(AgentSpec::new()?),
        ..ClusterSpec::default()
    })?;
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "bench"}});
    cluster.source.write_objects("namespace.yaml", &[namespace])?;
    cluster.source.write_objects(FILE, &[policy(true)])?;
    for name in ["client", "server"] {
        let pod = PodManifest::new("bench", name, "node-1", &[("app", name)], &[Port::Udp(PORT)]);
        cluster.add_pod(pod)?;
    }
    cluster.wait_endpoints(PATIENCE)?;
    Ok(cluster)
}

pub(super) fn run(scope: &Scope) -> Result<Report> {
    let mut cluster = cluster()?;
    let server = cluster.pod("bench/server")?.ip(false);
    let server = server.context("the server has no IPv4 address")?;
    let client = cluster.pod("bench/client")?.net.ns().clone();
    let prober = Prober::start(&client, (server, PORT).into(), TICK)?;
    let begun = Instant::now();
    prober.wait_answered(begun, PATIENCE)?;
    let [mut denied, mut allowed, mut agent] = <[Samples; 3]>::default();
    let edits = if scope.quick { 2 } else { EDITS };
    for _ in 0..edits {
        let edit = Instant::now();
        cluster.source.write_objects(FILE, &[policy(false)])?;
        let first = prober.wait_silent(QUIET, PATIENCE)?;
        denied.push(millis(first.sent.saturating_duration_since(edit)));
        agent.push(own_time(&mut cluster)?);
        let edit = Instant::now();
        cluster.source.write_objects(FILE, &[policy(true)])?;
        let first = prober.wait_answered(edit, PATIENCE)?;
        allowed.push(millis(first.sent.saturating_duration_since(edit)));
        // Until the agent has written what it measured itself.
        std::thread::sleep(QUIET);
        agent.push(own_time(&mut cluster)?);
    }
    let mut table = Table::new(
        "From the changed file to the first packet that obeys, milliseconds",
        ["edit", "edits", "p50", "p99"],
    );
    for (name, samples, count) in [
        ("an allow becomes a deny", &denied, edits),
        ("a deny becomes an allow", &allowed, edits),
        (
            "of these: the agent, from reading the file to the flip",
            &agent,
            edits * 2,
        ),
    ] {
        table.row([
            name.into(),
            (count as f64).into(),
            samples.percentile(50).into(),
            samples.percentile(99).into(),
        ]);
    }
    Ok(Report {
        tables: vec![table],
        targets: vec![Target::at_most(
            "the agent, p99, ms (20 ms is the promise for 100,000 pods; see `scale`)",
            agent.percentile(99),
            20.0,
        )],
        notes: vec![
            "The agent waits 5 ms after a change, for writers that are not done; a datagram is sent every 0.2 ms.".into(),
        ],
        ..Report::default()
    })
}

fn own_time(cluster: &mut Cluster) -> Result<f64> {
    let status = cluster.agent("node-1")?.status()?;
    let status = status.context("the agent has no status")?;
    Ok(status.last_change_us as f64 / 1e3)
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
