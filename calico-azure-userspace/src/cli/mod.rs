//! The command line. Exit codes: 0 ok, 1 finding, 2 usage or input error.

mod agent;
pub mod check;
mod cidr;
mod cleanup;
pub mod cni;
mod connectivity;
mod diff;
mod doctor;
mod engine;
mod explain;
mod inputs;
mod live;
mod load;
mod object;
mod preflight;
mod protocol;
mod routes;
mod show;
mod tables;
mod verdict;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, Parser, Subcommand, ValueEnum};
use tracing_subscriber::EnvFilter;

use crate::agent::{SetLog, end_on_panic};

/// No finding.
pub const OK: u8 = 0;
/// The command worked and found something.
pub const FINDING: u8 = 1;
/// Usage or input error, or the machine cannot do it.
pub const ERROR: u8 = 2;

/// Calico policy for Kubernetes on Azure, enforced by eBPF.
#[derive(Debug, Parser)]
#[command(name = "calico-azure", version, propagate_version = true)]
struct Cli {
    /// What to log, as `level` or `target=level,…`; `info` if nothing else is said. The agent also does what FelixConfiguration's
    /// logSeverityScreen says.
    #[arg(long, global = true, env = "CALICO_AZURE_LOG", value_name = "FILTER")]
    log: Option<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Follow manifests and links, and keep the kernel in step (the DaemonSet's entry point).
    Agent(Box<agent::AgentArgs>),
    /// Validate manifests.
    Check(CheckArgs),
    Connectivity(connectivity::ConnectivityArgs),
    Diff(diff::DiffArgs),
    Doctor(Box<doctor::DoctorArgs>),
    Preflight(preflight::PreflightArgs),
    Explain(explain::ExplainArgs),
    Verdict(verdict::VerdictArgs),
    /// Load the programs and attach them to interfaces, without an agent.
    Load(load::LoadArgs),
    Cni(cni::CniArgs),
    /// Remove every program, map and pin of a node, and nothing else.
    Cleanup(cleanup::CleanupArgs),
    /// What a running agent says of itself.
    Status(show::StatusArgs),
    /// Packets by hook and reason, from the kernel.
    Counters(show::CountersArgs),
    Routes(routes::RoutesArgs),
    /// How full the kernel's tables are.
    Tables(tables::TablesArgs),
}

/// How lists are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    #[default]
    Table,
    Json,
}

#[derive(Debug, Args)]
struct CheckArgs {
    /// Files and directories.
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// Where pins are, and whose.
#[derive(Debug, Args)]
struct NodeArgs {
    /// The node's name, as pods name it.
    #[arg(long, env = "NODENAME", value_name = "NAME")]
    node: String,
    /// A mounted bpf file system.
    #[arg(
        long,
        env = "CALICO_AZURE_BPFFS",
        default_value = "/sys/fs/bpf",
        value_name = "DIR"
    )]
    bpffs: PathBuf,
    /// Name of the pin directory, if it is not to be the node's.
    #[arg(long, env = "CALICO_AZURE_PIN_NAME", value_name = "NAME")]
    pin_name: Option<String>,
    /// Directory of the status file and the lock.
    #[arg(
        long,
        env = "CALICO_AZURE_RUN_DIR",
        default_value = "/run/calico-azure",
        value_name = "DIR"
    )]
    run_dir: PathBuf,
}

impl NodeArgs {
    fn pin_name(&self) -> String {
        self.pin_name.clone().unwrap_or_else(|| self.node.clone())
    }
}

/// Runs the command line.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    // An empty variable is none.
    let log = match start_log(cli.log.filter(|filter| !filter.is_empty())) {
        Ok(log) => log,
        Err(error) => return fail(&format!("--log: {error}")),
    };
    // Those that run for long have threads.
    if matches!(cli.command, Command::Agent(_) | Command::Doctor(_)) {
        end_on_panic();
    }
    let mut out = std::io::stdout().lock();
    let result = match cli.command {
        Command::Agent(args) => {
            drop(out);
            args.run(log)
        }
        Command::Check(args) => Ok(check::run(&args.paths, args.output == Format::Json, &mut out)),
        Command::Connectivity(args) => args.run(&mut out),
        Command::Diff(args) => args.run(&mut out),
        Command::Doctor(args) => args.run(&mut out),
        Command::Preflight(args) => args.run(&mut out),
        Command::Explain(args) => args.run(&mut out),
        Command::Verdict(args) => args.run(&mut out),
        Command::Load(args) => args.run(&mut out),
        Command::Cni(args) => args.run(&mut out),
        Command::Cleanup(args) => args.run(&mut out),
        Command::Status(args) => args.run(&mut out),
        Command::Counters(args) => args.run(&mut out),
        Command::Routes(args) => args.run(&mut out),
        Command::Tables(args) => args.run(&mut out),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => fail(&chain(error.as_ref())),
    }
}

/// An error with its causes, each said once.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}

fn fail(message: &str) -> ExitCode {
    let _closed = writeln!(std::io::stderr(), "calico-azure: {message}");
    ExitCode::from(ERROR)
}

/// What is logged.
struct Log {
    /// The filter that was asked for.
    told: Option<String>,
    /// Sets another one.
    set: SetLog,
}

fn start_log(told: Option<String>) -> Result<Log, String> {
    let parse = |filter: &str| EnvFilter::try_new(filter).map_err(|error| error.to_string());
    let log = tracing_subscriber::fmt()
        .with_env_filter(parse(told.as_deref().unwrap_or("info"))?)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_filter_reloading();
    let handle = log.reload_handle();
    log.init();
    let set = move |filter: &str| handle.reload(parse(filter)?).map_err(|error| error.to_string());
    Ok(Log {
        told,
        set: SetLog(Arc::new(set)),
    })
}

/// What a command returns: its exit code, or an error for [`ERROR`].
type Outcome = Result<u8, Box<dyn std::error::Error>>;
