//! `calico-azure cni install` and `calico-azure cni remove`. The agent installs of its own accord if it is told so; init containers and the
//! cleanup job remove.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};

use crate::agent::cni::{Dirs, OnTimeout, Ours, Plugin, Unfit, install, remove};
use crate::cli::{OK, Outcome};

/// How often a directory without configurations is looked at.
const LOOK: Duration = Duration::from_millis(200);

/// The chained CNI plug-in, which holds a pod's start until its policy is in the kernel.
#[derive(Debug, Args)]
pub(in crate::cli) struct CniArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Copy this program beside the node's plug-ins and add it to the network configuration that the container runtime uses.
    Install(InstallArgs),
    /// Take it out of every network configuration, and remove it.
    Remove(RemoveArgs),
}

#[derive(Debug, Args)]
struct DirArgs {
    /// The node's directory of CNI plug-ins.
    #[arg(
        long,
        env = "CALICO_AZURE_CNI_BIN_DIR",
        default_value = "/opt/cni/bin",
        value_name = "DIR"
    )]
    bin_dir: PathBuf,
    /// The node's directory of network configurations.
    #[arg(
        long,
        env = "CALICO_AZURE_CNI_CONF_DIR",
        default_value = "/etc/cni/net.d",
        value_name = "DIR"
    )]
    conf_dir: PathBuf,
    /// The agent's directory, as the node names it.
    #[arg(long, default_value = "/run/calico-azure", value_name = "DIR")]
    run_dir: PathBuf,
}

#[derive(Debug, Args)]
struct RemoveArgs {
    #[command(flatten)]
    dirs: DirArgs,
    /// Say what went wrong and exit with 0 all the same: for an init container, which no agent must wait for.
    #[arg(long)]
    best_effort: bool,
}

#[derive(Debug, Args)]
struct InstallArgs {
    #[command(flatten)]
    dirs: DirArgs,
    /// The node's name, as pods name it.
    #[arg(long, env = "NODENAME", value_name = "NAME")]
    node: String,
    /// How long a pod's start may wait.
    #[arg(long, env = "CALICO_AZURE_CNI_TIMEOUT", default_value_t = 10, value_name = "SECONDS",
          value_parser = clap::value_parser!(u32).range(1..=600))]
    timeout: u32,
    /// What becomes of it then.
    #[arg(long, env = "CALICO_AZURE_CNI_ON_TIMEOUT", value_enum, default_value_t)]
    on_timeout: OnTimeout,
    /// How long to wait for a network configuration, which a new node gets from another DaemonSet.
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    wait: u64,
}

/// What the agent is told of it.
#[derive(Debug, Args)]
pub(in crate::cli) struct PluginArgs {
    /// Keep the chained CNI plug-in, which holds a pod's start until its policy is in the kernel, in the network configuration that the
    /// container runtime uses.
    #[arg(long, env = "CALICO_AZURE_CNI_PLUGIN", value_parser = clap::builder::BoolishValueParser::new(),
          num_args = 0..=1, default_value = "false", default_missing_value = "true", value_name = "BOOL")]
    cni_plugin: bool,
    /// The node's directory of CNI plug-ins.
    #[arg(
        long,
        env = "CALICO_AZURE_CNI_BIN_DIR",
        default_value = "/opt/cni/bin",
        value_name = "DIR"
    )]
    cni_bin_dir: PathBuf,
    /// How long a pod's start may wait.
    #[arg(long, env = "CALICO_AZURE_CNI_TIMEOUT", default_value_t = 10, value_name = "SECONDS",
          value_parser = clap::value_parser!(u32).range(1..=600))]
    cni_timeout: u32,
    /// What becomes of it then.
    #[arg(long, env = "CALICO_AZURE_CNI_ON_TIMEOUT", value_enum, default_value_t)]
    cni_on_timeout: OnTimeout,
}

impl PluginArgs {
    pub(in crate::cli) fn plugin(self, node: &str, run_dir: &Path, conf: &Path) -> Option<Plugin> {
        let Self {
            cni_plugin,
            cni_bin_dir,
            cni_timeout,
            cni_on_timeout,
        } = self;
        cni_plugin.then(|| Plugin {
            dirs: Dirs {
                bin: cni_bin_dir,
                conf: conf.to_owned(),
                run: run_dir.to_owned(),
            },
            ours: Ours {
                node: node.to_owned(),
                run_dir: run_dir.display().to_string(),
                timeout: cni_timeout,
                on_timeout: cni_on_timeout,
            },
        })
    }
}

impl CniArgs {
    pub(in crate::cli) fn run(self, out: &mut dyn Write) -> Outcome {
        match self.command {
            Command::Install(args) => args.run(out),
            Command::Remove(args) => args.run(out),
        }
    }
}

impl From<DirArgs> for Dirs {
    fn from(args: DirArgs) -> Self {
        Self {
            bin: args.bin_dir,
            conf: args.conf_dir,
            run: args.run_dir,
        }
    }
}

impl InstallArgs {
    fn run(self, out: &mut dyn Write) -> Outcome {
        let dirs = Dirs::from(self.dirs);
        let ours = Ours {
            node: self.node,
            run_dir: dirs.run.display().to_string(),
            timeout: self.timeout,
            on_timeout: self.on_timeout,
        };
        let ends = Instant::now() + Duration::from_secs(self.wait);
        let installed = loop {
            match install(&dirs, &ours) {
                Ok(installed) => break installed,
                Err(Unfit::NoNetwork(_)) if Instant::now() < ends => std::thread::sleep(LOOK),
                Err(unfit @ Unfit::NoNetwork(_)) => {
                    let why = "(*.conflist, *.conf, *.json): install the network first";
                    return Err(format!("{unfit} after {} s {why}", self.wait).into());
                }
                Err(unfit) => return Err(unfit.into()),
            }
        };
        for done in &installed.done {
            writeln!(out, "{done}")?;
        }
        if !installed.added {
            writeln!(out, "{} has it already", installed.configuration.display())?;
        }
        Ok(OK)
    }
}

impl RemoveArgs {
    fn run(self, out: &mut dyn Write) -> Outcome {
        match remove(&self.dirs.into()) {
            Ok(done) => {
                for done in &done {
                    writeln!(out, "{done}")?;
                }
            }
            Err(problem) if self.best_effort => writeln!(out, "the plug-in is not removed: {problem}")?,
            Err(problem) => return Err(problem.into()),
        }
        Ok(OK)
    }
}
