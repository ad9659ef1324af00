//! `calico-azure preflight`: can this node do what the agent needs of it, and what of it breaks clusters.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::agent::networking;
use super::{FINDING, Format, OK, Outcome};
use crate::agent::preflight::{Finding, Options, Paths, Place, gather, preflight};
use crate::agent::{FabricChoice, LinkNames, MarkMask, NetworkingChoice};
use crate::azure::finding::Severity;
use crate::model::load::parse_text;
use crate::model::{Node, Resource};
use crate::sources::kube::{self, KubeConfig};

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
    #[command(flatten)]
    paths: Paths,
    /// This node's name; with its object podCIDRs and flannel's annotations are looked at, too.
    #[arg(long, env = "NODENAME", value_name = "NAME")]
    node: Option<String>,
    /// Its object, among others, from a file that `kubectl get nodes -o json` (or yaml) has written.
    #[arg(long, value_name = "FILE", requires = "node")]
    nodes: Option<PathBuf>,
    /// Its object from the API server, by a kubeconfig file, or several with colons between. In a pod as its service account.
    #[arg(long, env = "KUBECONFIG", value_name = "FILE", conflicts_with = "nodes")]
    kubeconfig: Option<PathBuf>,
    /// A context of the kubeconfig file other than its current one.
    #[arg(long, env = "CALICO_AZURE_KUBE_CONTEXT", value_name = "NAME")]
    kube_context: Option<String>,
}

impl PreflightArgs {
    /// This node's object; `None` if nobody said where it is.
    fn object(&self) -> Result<Option<Node>, Box<dyn std::error::Error>> {
        let Some(name) = &self.node else { return Ok(None) };
        let kubeconfig = self.kubeconfig.clone().filter(|path| path.as_os_str() != "");
        let (place, text) = if let Some(path) = &self.nodes {
            let text =
                std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
            (path.clone(), text)
        } else if kubeconfig.is_some() || std::env::var_os("KUBERNETES_SERVICE_HOST").is_some() {
            let nodes = kube::nodes(&KubeConfig {
                kubeconfig,
                context: self.kube_context.clone(),
                ..KubeConfig::default()
            })?;
            let list = json!({"apiVersion": "v1", "kind": "List", "items": nodes});
            (PathBuf::from("the API server's nodes"), list.to_string())
        } else {
            return Ok(None);
        };
        let read = parse_text(&place, &text).resources.into_iter();
        let found = read
            .filter_map(|resource| match resource {
                Resource::Node(node) if node.name == *name => Some(node),
                _ => None,
            })
            .next();
        let missing = || format!("{}: there is no node {name}; say --node NAME", place.display());
        Ok(Some(found.ok_or_else(missing)?))
    }

    pub(super) fn run(self, out: &mut dyn Write) -> Outcome {
        let mut unread = Vec::new();
        let node = match self.object() {
            Ok(node) => node,
            // A file that was named must be right; an API server may be what this node does not reach.
            Err(error) if self.nodes.is_some() => return Err(error),
            Err(error) => {
                unread.push(format!("this node's object: {error}"));
                None
            }
        };
        let known = node.is_some();
        let usual = Options::default();
        let options = Options {
            names: LinkNames {
                prefixes: self.interface_prefix.unwrap_or(usual.names.prefixes),
                fabric: self.fabric_interface,
                bridges: self.pod_bridges,
            },
            networking: self.networking,
            mark_mask: self.mark_mask.unwrap_or(usual.mark_mask),
            node,
        };
        let place = Place {
            bpffs: &self.bpffs,
            paths: &self.paths,
        };
        let seen = gather(&place, &options)?;
        unread.extend(seen.unread.iter().cloned());
        let findings = preflight(&seen, &options);
        if self.output == Format::Json {
            let report = json!({"findings": findings, "unread": unread, "node": options.node.as_ref().map(|node| &node.name)});
            writeln!(out, "{report:#}")?;
        } else {
            table(&findings, &unread, out)?;
            if !known {
                writeln!(
                    out,
                    "note: without this node's object (--node with --nodes or --kubeconfig) podCIDRs and flannel's annotations are not looked at"
                )?;
            }
        }
        let fine = findings.iter().all(|finding| finding.severity == Severity::Info) && unread.is_empty();
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
