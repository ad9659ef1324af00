//! A policy is rewritten while traffic flows: how long until the first packet obeys, and what becomes of
//! connections that were allowed a moment ago.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use super::Findings;
use super::matrix;
use super::screen::Screen;
use crate::lab::probe::{LiveConnection, Prober};
use crate::lab::{AgentStatus, Cluster};

const FILE: &str = "security.yaml";
/// In the quarantine policy: the pods that it isolates.
const BEFORE: &str = "selector: quarantine == 'yes'";
const AFTER: &str = "selector: app == 'api'";

const TICK: Duration = Duration::from_millis(1);
const QUIET: Duration = Duration::from_millis(300);
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) fn run(cluster: &mut Cluster, screen: &Screen, findings: &mut Findings) -> anyhow::Result<()> {
    let original = cluster.source.read(FILE)?;
    let edited = original.replacen(BEFORE, AFTER, 1);
    ensure!(
        edited != original,
        "examples/shop/{FILE}: expected `{BEFORE}`, which this step rewrites"
    );

    let api = cluster.pod("shop/api-1")?.net.ns().clone();
    let address = |cluster: &Cluster, pod: &str| -> anyhow::Result<_> {
        cluster
            .pod(pod)?
            .ip(false)
            .with_context(|| format!("{pod} has no IPv4 address"))
    };
    let db = (address(cluster, "data/db")?, 5432);
    let monitor = (address(cluster, "ops/monitor")?, 8125);
    let connection = LiveConnection::open(&api, db.into(), TICK)?;
    let datagrams = Prober::start(&api, monitor.into(), TICK)?;
    let warm = Instant::now();
    findings.expect(screen, datagrams.wait_answered(warm, PATIENCE))?;
    screen.text(&format!(
        "shop/api-1 has a connection to data/db ({}) and sends datagrams to ops/monitor",
        db.0
    ));

    let edit = Instant::now();
    cluster.source.write(FILE, &edited)?;
    screen.text(&format!("{FILE}: the quarantine policy now says `{AFTER}`"));
    if let Some(first) = findings.expect(screen, datagrams.wait_silent(QUIET, PATIENCE))? {
        let after = first.sent.saturating_duration_since(edit);
        screen.good(&format!(
            "the first datagram was stopped {after:.1?} after the file changed"
        ));
    }
    if let Some(last) = findings.expect(screen, connection.wait_quiet(QUIET, PATIENCE))? {
        let after = last.saturating_duration_since(edit);
        screen.good(&format!(
            "the established connection was cut: its last echo came {after:.1?} after the change"
        ));
    }
    if let Some(status) = cluster.agent("node-1")?.status()? {
        screen.text(&agent_times(&status));
    }
    let checked = matrix::check(cluster, screen, matrix::sample(cluster, 5)?)?;
    matrix::judge(screen, findings, &checked);

    let revert = Instant::now();
    cluster.source.write(FILE, &original)?;
    screen.text(&format!("{FILE}: as it was"));
    if let Some(sample) = findings.expect(screen, datagrams.wait_answered(revert, PATIENCE))? {
        let after = sample.sent.saturating_duration_since(revert);
        screen.good(&format!(
            "the first datagram passed {after:.1?} after the file changed back"
        ));
    }
    if findings
        .expect(screen, connection.wait_success(revert, PATIENCE))?
        .is_some()
    {
        screen.good("the connection lives again: TCP has sent what was lost");
    }
    drop(connection);
    drop(datagrams);
    let checked = matrix::check(cluster, screen, matrix::sample(cluster, 5)?)?;
    matrix::judge(screen, findings, &checked);
    Ok(())
}

fn agent_times(status: &AgentStatus) -> String {
    format!(
        "by the agent's own clock: {} µs from noticing the file to the flip; the whole apply took {} µs",
        status.last_change_us, status.last_apply_us
    )
}
