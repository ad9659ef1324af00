//! The demo: builds a cluster, compares every verdict on the wire with what the policies say, and then changes,
//! breaks and abuses things while watching.
//!
//! Exit code 0: everything was as it must be; 1: something was not; 2: the demo could not be set up.

mod abuse;
mod crash;
mod edit;
mod expect;
mod keep;
mod matrix;
mod screen;
mod table;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;

use crate::lab::{AgentSpec, Cluster, ClusterSpec, LabError};
use screen::Screen;

/// Shows calico-azure at work on an embedded cluster: two nodes, an Azure-like fabric and real CNI pods in network
/// namespaces, with the policies of examples/shop.
#[derive(Debug, clap::Parser)]
#[command(name = "demo", version)]
pub struct Args {
    /// Leave the cluster up afterwards and print how to look around.
    #[arg(long)]
    keep: bool,
    /// Remove a cluster that was kept (all whose demo has ended, if none is named) and do nothing else.
    #[arg(long, value_name = "LAB", num_args = 0..=1)]
    remove: Option<Option<String>>,
    /// How the agents attach their programs.
    #[arg(long, value_name = "HOW", value_parser = ["auto", "tcx", "clsact"], default_value = "auto")]
    attach: String,
    /// Show every probe.
    #[arg(short, long)]
    verbose: bool,
    #[command(subcommand)]
    internal: Option<Internal>,
}

#[derive(Debug, clap::Subcommand)]
enum Internal {
    /// Serves a kept pod's ports.
    #[command(hide = true)]
    Serve { addresses: String, ports: String },
}

/// Everything that was not as it must be, shown again at the end.
#[derive(Debug, Default)]
struct Findings(Vec<String>);

impl Findings {
    fn add(&mut self, screen: &Screen, text: String) {
        screen.bad(&text);
        self.0.push(text);
    }

    /// What did not happen in time is a finding; any other failure is the lab's own.
    fn expect<T>(&mut self, screen: &Screen, result: Result<T, LabError>) -> anyhow::Result<Option<T>> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(error @ LabError::Timeout { .. }) => {
                self.add(screen, error.to_string());
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// Runs the demo.
#[must_use]
pub fn run(args: Args) -> ExitCode {
    let screen = Screen::new(args.verbose);
    let result = match (&args.internal, &args.remove) {
        (Some(Internal::Serve { addresses, ports }), _) => keep::serve(addresses, ports).map(|()| 0),
        (None, Some(lab)) => keep::remove(&screen, lab.as_deref()).map(|()| 0),
        (None, None) => demo(&args, &screen),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            screen.error(&format!("{error:#}"));
            ExitCode::from(2)
        }
    }
}

fn demo(args: &Args, screen: &Screen) -> anyhow::Result<u8> {
    let manifests = examples()?.join("shop");
    let mut findings = Findings::default();

    screen.step("Building the cluster: an Azure-like fabric, two nodes, real CNI pods, one agent per node");
    let spec = ClusterSpec {
        manifests: Some(manifests),
        agents: Some(AgentSpec::new()?.args(["--established-flows", "reevaluate", "--attach", &args.attach])),
        ..ClusterSpec::default()
    };
    let mut cluster = Cluster::start_with(&spec, |done| screen.done(done))?;
    describe(&cluster, screen)?;

    screen.step("Who may talk to whom: every pair of pods, both families, on the wire and by the policies");
    let checked = matrix::check(&cluster, screen, matrix::all(&cluster)?)?;
    table::print(&cluster, screen, &checked);
    matrix::judge(screen, &mut findings, &checked);

    screen.step("A policy edit on a live cluster");
    edit::run(&mut cluster, screen, &mut findings)?;

    screen.step("kill -9 of an agent");
    crash::run(&mut cluster, screen, &mut findings)?;

    screen.step("Packets that must not get anywhere");
    abuse::forged(&mut cluster, screen, &mut findings)?;

    screen.step("A rule that logs");
    abuse::logged(&mut cluster, screen, &mut findings)?;

    let code = u8::from(!findings.0.is_empty());
    if args.keep {
        keep::keep(cluster, screen)?;
    } else {
        drop(cluster);
    }
    screen.verdict(&findings.0);
    Ok(code)
}

fn describe(cluster: &Cluster, screen: &Screen) -> anyhow::Result<()> {
    for node in &cluster.nodes {
        let [v4, v6] = node.ips();
        screen.text(&format!("{}  {v4}  {v6}", node.name()));
        for pod in cluster
            .pods
            .values()
            .filter(|pod| pod.manifest.node == node.name())
        {
            let ips: Vec<_> = pod.net.ips().iter().map(ToString::to_string).collect();
            let name = pod.manifest.key();
            screen.text(&format!(
                "  {name:<18} {:<14} {}",
                pod.net.ifname(),
                ips.join("  ")
            ));
        }
        let agent = cluster.agents.iter().find(|agent| agent.node() == node.name());
        if let Some(status) = agent.map(|agent| agent.status()).transpose()?.flatten() {
            let mut how: Vec<_> = status.attached.iter().map(|a| a.how.as_str()).collect();
            how.sort_unstable();
            how.dedup();
            let programs = status.attached.len();
            screen.text(&format!(
                "  {programs} programs attached by {}",
                how.join(" and ")
            ));
            for problem in &status.problems {
                screen.warn(problem);
            }
        }
    }
    Ok(())
}

/// The repository's `examples`: above the current directory or the executable, else where this was built.
fn examples() -> anyhow::Result<PathBuf> {
    let mut starts = vec![std::env::current_dir().context("cannot find the current directory")?];
    starts.extend(std::env::current_exe().ok());
    starts.push(Path::new(env!("CARGO_MANIFEST_DIR")).to_owned());
    let mut above = starts
        .iter()
        .flat_map(|start| start.ancestors())
        .map(|dir| dir.join("examples"));
    above
        .find(|dir| dir.join("shop/pods.yaml").is_file())
        .with_context(|| {
            format!(
                "no examples/shop above {}; run the demo inside the repository",
                starts[0].display()
            )
        })
}
