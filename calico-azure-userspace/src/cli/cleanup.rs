//! `calico-azure cleanup`.

use std::io::Write;

use clap::Args;

use super::{NodeArgs, OK, Outcome};
use crate::agent::{AgentError, attachments_path};
use crate::dataplane::attach::detach_clsact;
use crate::dataplane::kernel::is_root;
use crate::dataplane::pins::Pins;
use crate::sources::links::snapshot;

/// Run it in the node's network namespace, with the agent stopped.
#[derive(Debug, Args)]
pub(super) struct CleanupArgs {
    #[command(flatten)]
    node: NodeArgs,
}

impl CleanupArgs {
    pub(super) fn run(self, out: &mut dyn Write) -> Outcome {
        if !is_root() {
            return Err(Box::new(AgentError::NotRoot));
        }
        let _lock = crate::agent::lock(&self.node.run_dir, &self.node.pin_name(), &self.node.node)?;
        let mut filters = 0;
        for link in snapshot()?.links.values() {
            filters += detach_clsact(&link.name)?;
        }
        let removed = Pins::new(&self.node.bpffs, &self.node.pin_name())?.remove()?;
        for suffix in ["status.json", "status.json.new", "names.json", "names.json.new"] {
            let _never_written =
                std::fs::remove_file(self.node.run_dir.join(format!("{}.{suffix}", self.node.node)));
        }
        let _never_written =
            std::fs::remove_file(self.node.run_dir.join(format!("{}.lock", self.node.pin_name())));
        let _never_written = std::fs::remove_dir_all(attachments_path(&self.node.run_dir));
        writeln!(
            out,
            "removed {filters} clsact filter(s) and {} pin director(ies)",
            removed.len()
        )?;
        for dir in removed {
            writeln!(out, "  {}", dir.display())?;
        }
        Ok(OK)
    }
}
