//! `--live`: a running agent's tables instead of manifests.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::NodeArgs;
use super::show::names;
use crate::agent::names::{self, Names};
use crate::dataplane::kernel::is_root;
use crate::dataplane::live::{Live, in_force};
use crate::dataplane::pins::Pins;
use crate::judge::LiveTables;

#[derive(Clone, Debug, Args)]
pub(super) struct LiveArgs {
    /// What a running agent has put in force, read from the kernel's own tables, instead of manifests.
    #[arg(long, conflicts_with_all = ["paths", "engine", "object"])]
    pub(super) live: bool,
    /// The agent's node; may be left out where only one agent runs.
    #[arg(long, env = "NODENAME", value_name = "NAME")]
    node: Option<String>,
    /// With --live: a mounted bpf file system.
    #[arg(
        long,
        env = "CALICO_AZURE_BPFFS",
        default_value = "/sys/fs/bpf",
        value_name = "DIR"
    )]
    bpffs: PathBuf,
    /// With --live: name of the pin directory, if it is not the node's.
    #[arg(long, env = "CALICO_AZURE_PIN_NAME", value_name = "NAME")]
    pin_name: Option<String>,
    /// With --live: directory of the agent's status file.
    #[arg(
        long,
        env = "CALICO_AZURE_RUN_DIR",
        default_value = "/run/calico-azure",
        value_name = "DIR"
    )]
    run_dir: PathBuf,
}

/// How often the file of names is read again, since it is written just after the tables.
const ATTEMPTS: u32 = 10;

impl LiveArgs {
    /// What is in force now. `complete` tells whether all names that are needed are there.
    pub(super) fn read(
        &self,
        complete: impl Fn(&LiveTables) -> bool,
    ) -> Result<LiveTables, Box<dyn std::error::Error>> {
        if !is_root() {
            return Err("--live reads the kernel's tables: run as root, or with CAP_BPF".into());
        }
        let args = self.node()?;
        let live = Live::open(&Pins::new(&args.bpffs, &args.pin_name())?)?;
        let image = live.read()?;
        let pods = names(&args).into_iter().map(|(ifindex, (_, pod))| (ifindex, pod));
        let pods: BTreeMap<u32, String> = pods.filter(|(_, pod)| !pod.is_empty()).collect();
        let desired = in_force(&image, &pods);
        let mut attempt = 1;
        loop {
            // Without the file, numbers must do.
            let Names { rules } = names::read(&args.run_dir, &args.node).unwrap_or_default();
            let tables = LiveTables::new(args.node.clone(), desired.clone(), rules);
            if complete(&tables) || attempt == ATTEMPTS {
                return Ok(tables);
            }
            std::thread::sleep(Duration::from_millis(50));
            attempt += 1;
        }
    }

    fn node(&self) -> Result<NodeArgs, String> {
        let Self {
            node,
            bpffs,
            pin_name,
            run_dir,
            live: _,
        } = self;
        let node = match node {
            Some(node) => node.clone(),
            None => self.only_agent()?,
        };
        Ok(NodeArgs {
            node,
            bpffs: bpffs.clone(),
            pin_name: pin_name.clone(),
            run_dir: run_dir.clone(),
        })
    }

    fn only_agent(&self) -> Result<String, String> {
        let dir = self.run_dir.display();
        let entries = std::fs::read_dir(&self.run_dir)
            .map_err(|error| format!("{dir}: {error}; does an agent run with this --run-dir?"))?;
        let mut nodes: Vec<String> = entries
            .filter_map(|entry| {
                let name = entry.ok()?.file_name().into_string().ok()?;
                Some(name.strip_suffix(".status.json")?.to_owned())
            })
            .collect();
        nodes.sort_unstable();
        match nodes.as_slice() {
            [node] => Ok(node.clone()),
            [] => Err(format!(
                "{dir}: no agent has written its status here; name its directory with --run-dir"
            )),
            several => Err(format!(
                "--node is missing: there are agents for {}",
                several.join(", ")
            )),
        }
    }
}
