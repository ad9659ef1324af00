//! One agent that follows a stand-in for the API server, from its start on.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::super::Scope;
use super::super::report::{Report, Table, Target};
use super::objects::{self, LOCAL, Life};
use crate::apistand::ApiStand;
use crate::lab::{Agent, AgentSpec, Cluster, ClusterSpec, Node};
use crate::process;

/// A cluster's size, and how much of it changes.
#[derive(Clone, Copy)]
struct Size {
    pods: u32,
    nodes: u32,
    policies: u32,
}

/// DESIGN 8's is the second.
const SIZES: [Size; 3] = [
    Size {
        pods: 10_000,
        nodes: 500,
        policies: 1_000,
    },
    Size {
        pods: 100_000,
        nodes: 5_000,
        policies: 1_000,
    },
    Size {
        pods: 200_000,
        nodes: 5_000,
        policies: 1_000,
    },
];
const QUICK: Size = Size {
    pods: 1_000,
    nodes: 50,
    policies: 50,
};
const PROMISED: u32 = 100_000;
const RESIDENT_LIMIT_MIB: f64 = 300.0;
const COLD_LIMIT: f64 = 2.0;

/// A kubelet says so often how its node is, if nothing else changes (`nodeStatusReportFrequency`: five minutes).
const HEARTBEAT: u32 = 300;
/// Events of pods that come and go elsewhere, each second, while the cluster is busy.
const BUSY: u32 = 100;
const SOON: Duration = Duration::from_secs(120);

struct Found {
    /// Until the kernel's tables had everything, seconds.
    cold: f64,
    /// Until it was attached, too, seconds.
    attached: f64,
    cold_processor: f64,
    peak: f64,
    resident: f64,
    /// Percent of a processor.
    calm: f64,
    busy: f64,
}

pub(super) fn run(scope: &Scope, report: &mut Report) -> Result<()> {
    let mut table = Table::new(
        "One agent",
        [
            "pods",
            "nodes",
            "policies",
            "in the tables, s",
            "attached, s",
            "its processor time, s",
            "resident, peak MiB",
            "resident, MiB",
            "calm, % of a processor",
            "busy, % of a processor",
        ],
    );
    let sizes: &[Size] = if scope.quick { &[QUICK] } else { &SIZES };
    for size in sizes {
        let found = measure(*size, if scope.quick { 2 } else { 30 })?;
        let figures = [
            f64::from(size.pods),
            f64::from(size.nodes),
            f64::from(size.policies),
            found.cold,
            found.attached,
            found.cold_processor,
            found.peak,
            found.resident,
            found.calm,
            found.busy,
        ];
        table.row(figures.map(Into::into));
        if size.pods == PROMISED {
            report.targets.extend([
                Target::at_most("100,000 pods: in the tables, s", found.cold, COLD_LIMIT),
                Target::at_most("100,000 pods: resident, MiB", found.resident, RESIDENT_LIMIT_MIB),
            ]);
        }
    }
    report.tables.push(table);
    let text = |life| {
        objects::with_managers(objects::pod(LOCAL, 2, life))
            .to_string()
            .len()
    };
    report.notes.push(format!(
        "One agent: {LOCAL} pods of its own. Calm: each node's status every {HEARTBEAT} s. Busy: {BUSY} events of other nodes' pods a \
         second, too, of {} to {} bytes. The stand-in runs on the same processors and is not counted.",
        text(Life::Made),
        text(Life::Runs),
    ));
    Ok(())
}

fn measure(size: Size, seconds: u32) -> Result<Found> {
    let cluster = Cluster::start(&ClusterSpec {
        nodes: 1,
        ..ClusterSpec::default()
    })?;
    let node = cluster.node("node-1").context("the lab's only node")?;
    interfaces(node)?;
    // In the node's namespace, as there is no way out of it.
    let stand = node.ns().run(ApiStand::start)??;
    fill(&stand, size);
    stand.warm();
    let kubeconfig = tempfile::NamedTempFile::new()?;
    std::fs::write(kubeconfig.path(), stand.kubeconfig())?;
    let spec = AgentSpec {
        kubeconfig: Some(kubeconfig.path().to_owned()),
        ..AgentSpec::new()?
    };
    let begun = Instant::now();
    let mut agent = Agent::start(&cluster.dir, node, spec.args(["--table-entries", "2000000"]))?;
    let all = usize::try_from(LOCAL)?;
    let status = agent.wait_for("has everything in the kernel", SOON, |status| {
        status.ready && status.endpoints.len() == all
    })?;
    let attached = begun.elapsed().as_secs_f64();
    let cold = status.cold_start_us as f64 / 1e6;
    let pid = agent.pid().context("the agent has ended")?;
    let mib = |field| process::memory(&pid.to_string(), field).map(|bytes| bytes as f64 / 1_048_576.0);
    let cold_processor = process::processor_time(pid)?;
    let calm = during(pid, &stand, size, 0, seconds)?;
    let busy = during(pid, &stand, size, BUSY, seconds)?;
    Ok(Found {
        cold,
        attached,
        cold_processor,
        peak: mib("VmHWM")?,
        resident: mib("VmRSS")?,
        calm,
        busy,
    })
}

/// The node's pods, as far as the agent can tell: interfaces, and routes to addresses.
fn interfaces(node: &Node) -> Result<()> {
    let commands: String = (0..LOCAL)
        .map(|i| {
            let address = objects::address(i);
            format!(
                "link add veth{i} type veth peer name pod{i}\nlink set pod{i} up\nlink set veth{i} up\n\
                 route add {address}/32 dev veth{i} scope link\n"
            )
        })
        .collect();
    Ok(node.ns().ip_batch(&commands)?)
}

fn fill(stand: &ApiStand, size: Size) {
    for kind in ["NetworkPolicy", "GlobalNetworkPolicy", "GlobalNetworkSet", "Tier"] {
        stand.define("projectcalico.org/v3", kind);
    }
    objects::namespaces().for_each(|namespace| stand.put(&namespace));
    (0..size.nodes).for_each(|i| stand.put(&objects::node(i, 0)));
    (0..size.policies).for_each(|i| stand.put(&objects::policy(i)));
    for i in 0..size.pods {
        stand.put(&objects::with_managers(objects::pod(i, size.nodes, Life::Runs)));
    }
}

/// The share of a processor, in percent, that the agent takes while the cluster lives on.
fn during(pid: u32, stand: &ApiStand, size: Size, events: u32, seconds: u32) -> Result<f64> {
    const STEPS: u32 = 10;
    let (mut beats, mut done) = (0, 0);
    let (begun, before) = (Instant::now(), process::processor_time(pid)?);
    for step in 0..seconds * STEPS {
        // Each node's, evenly over the time.
        while beats < size.nodes * (step + 1) / (HEARTBEAT * STEPS) {
            beats += 1;
            stand.put(&objects::node(beats % size.nodes, beats));
        }
        for _ in 0..events / STEPS {
            change(stand, size, done);
            done += 1;
        }
        let next = begun + Duration::from_millis(u64::from(step + 1) * 1000 / u64::from(STEPS));
        sleep(next.saturating_duration_since(Instant::now()));
    }
    let spent = process::processor_time(pid)? - before;
    Ok(100.0 * spent / begun.elapsed().as_secs_f64())
}

/// The next thing that happens to a pod elsewhere: made, bound, running, gone.
fn change(stand: &ApiStand, size: Size, at: u32) {
    let i = size.pods + at / 4;
    let pod = |life| objects::with_managers(objects::pod(i, size.nodes, life));
    match at % 4 {
        0 => stand.put(&pod(Life::Made)),
        1 => stand.put(&pod(Life::Bound)),
        2 => stand.put(&pod(Life::Runs)),
        _ => stand.delete(&pod(Life::Runs)),
    }
}
