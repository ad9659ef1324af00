//! An agent dies without warning: the kernel must go on deciding, and the next agent must not disturb it.

use std::time::Duration;

use anyhow::Context as _;

use super::Findings;
use super::matrix;
use super::screen::Screen;
use crate::lab::Cluster;
use crate::lab::probe::Prober;

const NODE: &str = "node-1";
const TICK: Duration = Duration::from_millis(2);
const PATIENCE: Duration = Duration::from_secs(20);

pub(super) fn run(cluster: &mut Cluster, screen: &Screen, findings: &mut Findings) -> anyhow::Result<()> {
    // Both end on the node whose agent dies.
    let monitor = cluster
        .pod("ops/monitor")?
        .ip(false)
        .context("ops/monitor has no IPv4 address")?;
    let start = |pod: &str| -> anyhow::Result<Prober> {
        Ok(Prober::start(
            cluster.pod(pod)?.net.ns(),
            (monitor, 8125).into(),
            TICK,
        )?)
    };
    let allowed = start("shop/api-2")?;
    let denied = start("shop/frontend-2")?;
    std::thread::sleep(Duration::from_millis(200));

    let agent = cluster.agent(NODE)?;
    let pid = agent.pid().context("the agent is not running")?;
    agent.kill9()?;
    screen.text(&format!("killed the agent of {NODE}, process {pid}"));
    let checked = matrix::check(cluster, screen, matrix::sample(cluster, 5)?)?;
    if matrix::judge(screen, findings, &checked) {
        screen.good("verdicts are the same without an agent");
    }

    let agent = cluster.agent(NODE)?;
    agent.restart()?;
    let status = agent.wait_ready(PATIENCE)?;
    let (epoch, endpoints) = (status.epoch, status.endpoints.len());
    screen.text(&format!(
        "started it again: ready at epoch {epoch} with {endpoints} endpoints"
    ));
    cluster.wait_endpoints(PATIENCE)?;
    let checked = matrix::check(cluster, screen, matrix::sample(cluster, 5)?)?;
    matrix::judge(screen, findings, &checked);

    let grace = Duration::from_millis(300);
    let sent = |samples: &[crate::lab::probe::Sample]| {
        let settled: Vec<_> = samples
            .iter()
            .filter(|sample| sample.sent.elapsed() >= grace)
            .collect();
        (
            settled.len(),
            settled.iter().filter(|sample| sample.answered.is_some()).count(),
        )
    };
    let (total, answered) = sent(&allowed.finish(grace));
    if answered == total && total > 0 {
        screen.good(&format!(
            "none of {total} allowed datagrams was lost from before the kill to after the restart"
        ));
    } else {
        findings.add(
            screen,
            format!(
                "{} of {total} allowed datagrams were lost around the kill",
                total - answered
            ),
        );
    }
    let (total, answered) = sent(&denied.finish(grace));
    if answered == 0 && total > 0 {
        screen.good(&format!("none of {total} denied datagrams got through"));
    } else {
        findings.add(
            screen,
            format!("{answered} of {total} denied datagrams got through around the kill"),
        );
    }
    Ok(())
}
