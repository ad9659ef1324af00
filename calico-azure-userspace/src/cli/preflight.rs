//! `calico-azure preflight`: can this node do what the agent needs of it, and what of it breaks clusters.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::agent::networking;
use super::{FINDING, Format, OK, Outcome};
use crate::agent::preflight::{Finding, Options, Place, gather, preflight};
use crate::agent::{FabricChoice, LinkNames, MarkMask, NetworkingChoice};
use crate::azure::finding::Severity;

/// Look at this node, and say what keeps the agent from working or clusters from networking, and how to mend it. Changes nothing. Flags and
/// variables are the agent's.
#[derive(Debug, Args)]
pub(super) struct PreflightArgs {
    /// Where the agent's pins are to be.
    #[arg(
        long,
        env = "CALICO_AZURE_BPFFS",
        default_value = "/sys/fs/bpf",
        value_name = "DIR"
    )]
    bpffs: PathBuf,
    /// Prefixes of pods' host-side interfaces, `cali,azv` if nothing else is said.
    #[arg(
        long,
        env = "FELIX_INTERFACEPREFIX",
        value_delimiter = ',',
        value_name = "PREFIX,…"
    )]
    interface_prefix: Option<Vec<String>>,
    /// Interfaces to the fabric.
    #[arg(
        long,
        env = "CALICO_AZURE_FABRIC_INTERFACE",
        default_value = "auto",
        value_name = "auto|none|NAME,…"
    )]
    fabric_interface: FabricChoice,
    /// Bridges whose ports are pods' interfaces.
    #[arg(long, env = "CALICO_AZURE_POD_BRIDGES", value_delimiter = ',', default_values = LinkNames::BRIDGES, value_name = "NAME,…")]
    pod_bridges: Vec<String>,
    /// Who gives pods their addresses and carries their packets.
    #[arg(long, env = "CALICO_AZURE_NETWORKING", value_name = "auto|udr|flannel|azure-cni|host-local", default_value = "auto",
          value_parser = networking)]
    networking: NetworkingChoice,
    /// Bits of packet marks that are ours.
    #[arg(long, env = "FELIX_IPTABLESMARKMASK", value_name = "MASK")]
    mark_mask: Option<MarkMask>,
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

impl PreflightArgs {
    pub(super) fn run(self, out: &mut dyn Write) -> Outcome {
        let usual = Options::default();
        let options = Options {
            names: LinkNames {
                prefixes: self.interface_prefix.unwrap_or(usual.names.prefixes),
                fabric: self.fabric_interface,
                bridges: self.pod_bridges,
            },
            networking: self.networking,
            mark_mask: self.mark_mask.unwrap_or(usual.mark_mask),
        };
        let seen = gather(&Place { bpffs: &self.bpffs }, &options)?;
        let findings = preflight(&seen, &options);
        if self.output == Format::Json {
            let report = json!({"findings": findings, "unread": seen.unread});
            writeln!(out, "{report:#}")?;
        } else {
            table(&findings, &seen.unread, out)?;
        }
        let fine =
            findings.iter().all(|finding| finding.severity == Severity::Info) && seen.unread.is_empty();
        Ok(if fine { OK } else { FINDING })
    }
}

fn table(findings: &[Finding], unread: &[String], out: &mut dyn Write) -> std::io::Result<()> {
    for finding in findings {
        writeln!(
            out,
            "{}: {}: {}",
            finding.severity,
            finding.check.name(),
            finding.evidence
        )?;
        writeln!(out, "  so: {}", finding.consequence)?;
        for command in &finding.fix {
            writeln!(out, "  $ {command}")?;
        }
    }
    for what in unread {
        writeln!(out, "not looked at: {what}")?;
    }
    writeln!(
        out,
        "{} finding{}",
        findings.len(),
        if findings.len() == 1 { "" } else { "s" }
    )
}
