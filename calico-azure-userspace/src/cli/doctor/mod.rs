//! `calico-azure doctor`: does Azure do what the cluster needs of it, and what mends it; once, or for ever ([`watch`]).

mod watch;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use ipnet::IpNet;
use serde::Serialize;
use serde_json::Value;

use self::watch::WatchArgs;
use super::{FINDING, Format, OK, Outcome, cidr};
use crate::azure::arm::{Gathered, Session, SessionError, Timing, Writing};
use crate::azure::audit::audit;
use crate::azure::config::CloudConfig;
use crate::azure::finding::{Check, Finding, Severity};
use crate::azure::network::{Found, Network};
use crate::azure::nodes::{self, NodeState};
use crate::azure::plan::{Change, Plan, commands, others_at_work, plan};
use crate::azure::resource::Id;
use crate::azure::snapshot::{ROUTE_LIMIT, Settings, Snapshot};
use crate::sources::kube::{self, KubeConfig};

/// Compare the cluster's nodes with Azure's route table, subnets and network interfaces, and say what is wrong and how to mend it.
#[derive(Debug, Args)]
pub(super) struct DoctorArgs {
    /// The cluster's azure.json.
    #[arg(
        long,
        env = "CALICO_AZURE_CLOUD_CONFIG",
        default_value = "/etc/kubernetes/azure.json",
        value_name = "FILE"
    )]
    cloud_config: PathBuf,
    /// A kubeconfig file, or several with colons between. Without it, and without --nodes, as the pod's service account.
    #[arg(long, env = "KUBECONFIG", value_name = "FILE", conflicts_with = "nodes")]
    kubeconfig: Option<PathBuf>,
    /// A context of the kubeconfig file other than its current one.
    #[arg(long, value_name = "NAME")]
    kube_context: Option<String>,
    /// Nodes from a file that `kubectl get nodes -o json` (or yaml) has written, instead of from the API server.
    #[arg(long, value_name = "FILE")]
    nodes: Option<PathBuf>,
    /// What carries pods' packets; only with user-defined routes is the route table looked at. `auto` goes by the nodes.
    #[arg(long, env = "CALICO_AZURE_NETWORKING", value_name = "auto|udr|flannel|azure-cni|host-local", default_value = "auto",
          value_parser = networking)]
    networking: Networking,
    /// What the controller manager's --cluster-cidr is; routes inside it that are no node's are stale.
    #[arg(long, value_name = "CIDR", value_delimiter = ',', value_parser = cidr::parse)]
    cluster_cidr: Vec<IpNet>,
    /// What the API server's --service-cluster-ip-range is.
    #[arg(long, value_name = "CIDR", value_delimiter = ',', value_parser = cidr::parse)]
    service_cidr: Vec<IpNet>,
    /// Routes that the table may have.
    #[arg(long, default_value_t = ROUTE_LIMIT, value_name = "NUMBER")]
    route_limit: usize,
    /// Ask the fabric, too, what it does at these nodes' interfaces. Takes seconds for each.
    #[arg(long, value_name = "NODE", value_delimiter = ',')]
    effective_routes: Vec<String>,
    /// Only these checks.
    #[arg(long = "check", value_name = "NAME", value_delimiter = ',', value_parser = check)]
    checks: Vec<Check>,
    /// Bring the route table in step with the nodes: say what would be written, or write it.
    #[arg(long, value_enum, value_name = "HOW", num_args = 0..=1, default_missing_value = "dry-run")]
    manage_routes: Option<Manage>,
    /// Write although a cloud controller makes this cluster's routes; nothing is deleted then. (Nor is it with --nodes: a file may
    /// not name them all.)
    #[arg(long, requires = "manage_routes")]
    beside_cloud_controller: bool,
    /// How long writing may take, in seconds.
    #[arg(long, default_value_t = 600, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    patience: u64,
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
    #[command(flatten)]
    watch: WatchArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Manage {
    DryRun,
    Apply,
}

/// `None`: the one that is found.
#[derive(Clone, Copy, Debug)]
struct Networking(Option<Network>);

fn networking(text: &str) -> Result<Networking, String> {
    if text == "auto" {
        return Ok(Networking(None));
    }
    let network = Network::from_str(text, false);
    network
        .map(|network| Networking(Some(network)))
        .map_err(|_| "expected auto, udr, flannel, azure-cni or host-local".to_owned())
}

fn check(name: &str) -> Result<Check, String> {
    let known = || Check::ALL.map(Check::name).join(", ");
    Check::named(name).ok_or_else(|| format!("no such check; there are: {}", known()))
}

#[derive(Serialize)]
struct Report<'a> {
    #[serde(flatten)]
    networking: &'a Found,
    nodes: usize,
    routes: usize,
    findings: &'a [Finding],
    /// What could not be looked at, and why.
    unread: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    plan: Option<&'a Plan>,
    #[serde(skip_serializing_if = "Option::is_none")]
    written: Option<&'a [Change]>,
    /// Why the table is not in step.
    #[serde(skip_serializing_if = "Option::is_none")]
    unwritten: Option<&'a str>,
}

/// What one look, and what was done about it, came to.
struct Round {
    snapshot: Snapshot,
    findings: Vec<Finding>,
    unread: Vec<String>,
    plan: Option<Plan>,
    written: Option<Vec<Change>>,
    /// Why it was not written, or not to the end.
    unwritten: Option<String>,
}

/// Whom to ask for the nodes, and whether we may write; else why not.
struct Surroundings<'a> {
    nodes: &'a dyn Fn() -> Result<Vec<NodeState>, String>,
    may_write: &'a dyn Fn() -> Result<(), String>,
}

/// How long the fabric may take to do what was written, and how often it is asked.
const VERIFIED: Duration = Duration::from_secs(60);
const VERIFY: Duration = Duration::from_secs(1);

type Failed = Box<dyn std::error::Error>;

impl DoctorArgs {
    pub(super) fn run(self, out: &mut dyn Write) -> Outcome {
        let env = |name: &str| std::env::var(name).ok();
        let path = &self.cloud_config;
        let config = CloudConfig::read(path, env).map_err(|error| format!("{}: {error}", path.display()))?;
        let session = Session::new(config, Timing::default(), env)?;
        if self.watch.is_wanted() {
            return watch::run(&self, &session);
        }
        let around = Surroundings {
            nodes: &|| self.read_nodes().map_err(|error| error.to_string()),
            may_write: &|| Ok(()),
        };
        let round = self.round(&session, &around)?;
        let report = Report {
            networking: &round.snapshot.networking,
            nodes: round.snapshot.nodes.len(),
            routes: round
                .snapshot
                .table
                .as_ref()
                .map_or(0, |table| table.routes.len()),
            findings: &round.findings,
            unread: &round.unread,
            plan: round.plan.as_ref(),
            written: round.written.as_deref(),
            unwritten: round.unwritten.as_deref(),
        };
        report.print(self.output, &round.snapshot.table_id, out)?;
        Ok(report.code())
    }

    /// Looks, and writes if that is wanted; then looks again. That nothing could be written takes no finding away.
    fn round(&self, session: &Session, around: &Surroundings<'_>) -> Result<Round, Failed> {
        let settings = Settings {
            cluster_cidrs: self.cluster_cidr.clone(),
            service_cidrs: self.service_cidr.clone(),
            route_limit: self.route_limit,
            network: self.networking.0,
        };
        let look = || session.gather(around.nodes, settings.clone(), &self.effective_routes);
        let Gathered { snapshot, unread } = look()?;
        let mut round = Round {
            findings: self.audit(&snapshot),
            plan: self.manage_routes.map(|_| self.plan(&snapshot)),
            snapshot,
            unread,
            written: None,
            unwritten: None,
        };
        let nothing = round.plan.as_ref().is_none_or(|plan| plan.changes.is_empty());
        if self.manage_routes != Some(Manage::Apply) || nothing {
            return Ok(round);
        }
        if let Some(name) = others_at_work(&round.snapshot)
            .first()
            .filter(|_| !self.beside_cloud_controller)
        {
            round.unwritten = Some(SessionError::Others((*name).to_owned()).to_string());
            return Ok(round);
        }
        let writing = Writing {
            nodes: around.nodes,
            may_write: around.may_write,
            deletions: self.deletes(),
            beside: self.beside_cloud_controller,
            patience: Duration::from_secs(self.patience),
        };
        let written = session.reconcile(round.snapshot.clone(), &writing);
        round.written = Some(written.changes);
        round.unwritten = written.stopped.as_ref().map(ToString::to_string);
        if written.stopped.is_none() {
            round.plan = Some(written.left);
        }
        // Somebody else looks now, or nobody is to.
        if (around.may_write)().is_err() {
            return Ok(round);
        }
        // What is wrong now.
        match self.verified(&look, around) {
            Ok(Gathered { snapshot, unread }) => {
                round.findings = self.audit(&snapshot);
                if round.unwritten.is_some() {
                    round.plan = Some(self.plan(&snapshot));
                }
                (round.snapshot, round.unread) = (snapshot, unread);
            }
            Err(error) => round.unread.push(format!(
                "everything, after writing; what is said was seen before: {error}"
            )),
        }
        Ok(round)
    }

    /// Looks; where the fabric was asked too, until it does what was written, or for a while.
    fn verified(
        &self,
        look: &dyn Fn() -> Result<Gathered, SessionError>,
        around: &Surroundings<'_>,
    ) -> Result<Gathered, SessionError> {
        let ends = Instant::now() + VERIFIED.min(Duration::from_secs(self.patience));
        loop {
            let gathered = look()?;
            let findings = audit(&gathered.snapshot);
            let waits = findings
                .iter()
                .any(|finding| finding.check == Check::RouteEffective);
            if !waits || Instant::now() + VERIFY > ends || (around.may_write)().is_err() {
                return Ok(gathered);
            }
            thread::sleep(VERIFY);
        }
    }

    fn audit(&self, snapshot: &Snapshot) -> Vec<Finding> {
        let mut findings = audit(snapshot);
        findings.retain(|finding| self.checks.is_empty() || self.checks.contains(&finding.check));
        findings
    }

    /// A file may be old, or name some of the nodes only.
    fn deletes(&self) -> bool {
        !self.beside_cloud_controller && self.nodes.is_none()
    }

    fn plan(&self, snapshot: &Snapshot) -> Plan {
        let planned = plan(snapshot);
        if self.deletes() {
            planned
        } else {
            planned.without_deletions()
        }
    }

    fn kube(&self) -> KubeConfig {
        KubeConfig {
            kubeconfig: self.kubeconfig.clone().filter(|path| path.as_os_str() != ""),
            context: self.kube_context.clone(),
            ..KubeConfig::default()
        }
    }

    fn read_nodes(&self) -> Result<Vec<NodeState>, Failed> {
        if let Some(path) = &self.nodes {
            return read_file(path).map_err(|error| format!("{}: {error}", path.display()).into());
        }
        let objects = kube::nodes(&self.kube())?;
        Ok(objects.iter().map(nodes::node).collect::<Result<_, _>>()?)
    }
}

fn read_file(path: &Path) -> Result<Vec<NodeState>, Box<dyn std::error::Error>> {
    let text = std::fs::read_to_string(path)?;
    let value: Value = if text.trim_start().starts_with('{') {
        serde_json::from_str(&text)?
    } else {
        serde_saphyr::from_str(&text)?
    };
    Ok(nodes::read(&value)?)
}

impl Report<'_> {
    fn code(&self) -> u8 {
        let fine = self
            .findings
            .iter()
            .all(|finding| finding.severity == Severity::Info)
            && self.unread.is_empty()
            && self.unwritten.is_none();
        if fine { OK } else { FINDING }
    }

    fn print(&self, format: Format, table: &Id, out: &mut dyn Write) -> std::io::Result<()> {
        if format == Format::Json {
            serde_json::to_writer_pretty(&mut *out, self)?;
            return writeln!(out);
        }
        for finding in self.findings {
            let Finding {
                severity,
                check,
                object,
                evidence,
                consequence,
                fix,
                ..
            } = finding;
            writeln!(out, "{severity}: {object}: {check}: {evidence}")?;
            writeln!(out, "  so: {consequence}")?;
            for command in fix {
                writeln!(out, "  $ {command}")?;
            }
        }
        for what in self.unread {
            writeln!(out, "not looked at: {what}")?;
        }
        if let Some(written) = self.written {
            writeln!(out, "written to route table {}:", table.name())?;
            lines(written, table, out)?;
        }
        if let Some(plan) = self.plan {
            if self.written.is_none() {
                writeln!(out, "to be written to route table {}:", table.name())?;
                lines(&plan.changes, table, out)?;
            } else if self.unwritten.is_some() {
                writeln!(out, "still to be written:")?;
                lines(&plan.changes, table, out)?;
            }
            for left in &plan.left {
                writeln!(out, "left alone: {}: {}", left.object, left.why)?;
            }
        }
        if let Some(why) = self.unwritten {
            writeln!(out, "not written: {why}")?;
        }
        let Found { network, evidence } = self.networking;
        writeln!(out, "networking {}: {evidence}", network.name())?;
        let counted =
            |number: usize, one: &str| format!("{number} {one}{}", if number == 1 { "" } else { "s" });
        writeln!(
            out,
            "{}, {}, {}",
            counted(self.nodes, "node"),
            counted(self.routes, "route"),
            counted(self.findings.len(), "finding")
        )
    }
}

fn lines(changes: &[Change], table: &Id, out: &mut dyn Write) -> std::io::Result<()> {
    if changes.is_empty() {
        return writeln!(out, "  nothing");
    }
    for command in commands(table, changes) {
        writeln!(out, "  {command}")?;
    }
    Ok(())
}
