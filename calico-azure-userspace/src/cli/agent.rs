//! `calico-azure agent`.

use std::path::PathBuf;

use clap::Args;
use ipnet::IpNet;

use super::{NodeArgs, OK, Outcome, object};
use crate::agent::{AgentConfig, EstablishedFlows, FabricChoice, HostCgroup, LogFlows, MarkMask, run};
use crate::dataplane::attach::Mode;
use crate::dataplane::kernel::Sizes;

#[derive(Debug, Args)]
pub(super) struct AgentArgs {
    #[command(flatten)]
    node: NodeArgs,
    /// Directory of manifests; it is watched.
    #[arg(long, env = "CALICO_AZURE_SOURCE", value_name = "DIR")]
    source: PathBuf,
    /// Prefixes of pods' host-side interfaces.
    #[arg(
        long,
        env = "FELIX_INTERFACEPREFIX",
        default_value = "cali,azv",
        value_delimiter = ','
    )]
    interface_prefix: Vec<String>,
    /// Interfaces to the fabric: `auto` (those of default routes), `none`, or names.
    #[arg(
        long,
        env = "CALICO_AZURE_FABRIC_INTERFACE",
        default_value = "auto",
        value_name = "auto|none|NAME,…"
    )]
    fabric_interface: FabricChoice,
    /// How programs are attached.
    #[arg(long, env = "CALICO_AZURE_ATTACH", value_enum, default_value_t)]
    attach: Mode,
    /// What happens to approved flows when policy changes.
    #[arg(long, env = "CALICO_AZURE_ESTABLISHED_FLOWS", value_enum, default_value_t)]
    established_flows: EstablishedFlows,
    /// Append a line of JSON for each drop and each packet that a Log rule matched; `-` for standard output. It says
    /// what staged policies would decide, too.
    #[arg(long, env = "CALICO_AZURE_FLOW_LOG", value_name = "FILE")]
    flow_log: Option<PathBuf>,
    /// Which flows are recorded.
    #[arg(long, env = "CALICO_AZURE_LOG_FLOWS", value_enum, default_value_t)]
    log_flows: LogFlows,
    /// Sources that may be forwarded to the fabric although nothing on this node owns them.
    #[arg(
        long,
        env = "CALICO_AZURE_ALLOWED_FORWARDED_SOURCES",
        value_delimiter = ',',
        value_name = "CIDR,…"
    )]
    allowed_forwarded_sources: Vec<IpNet>,
    /// Root of the control groups whose sockets are this host's: what pods send to services that it serves itself is judged
    /// there.
    #[arg(
        long,
        env = "CALICO_AZURE_HOST_CGROUP",
        default_value = "auto",
        value_name = "auto|none|PATH"
    )]
    host_cgroup: HostCgroup,
    /// Bits of packet marks that are ours, 12 in a row or more. kube-proxy's own must not be among them.
    #[arg(
        long,
        env = "FELIX_IPTABLESMARKMASK",
        default_value = "0xffff0000",
        value_name = "MASK"
    )]
    mark_mask: MarkMask,
    /// Established flows of each family that can be followed; half-open ones are a quarter of it.
    #[arg(long, env = "FELIX_BPFMAPSIZECONNTRACK", default_value_t = Sizes::default().conntrack,
          value_parser = clap::value_parser!(u32).range(1024..))]
    conntrack_entries: u32,
    /// Addresses, prefixes, policy pairs and port entries that can be stored, each.
    #[arg(long, env = "CALICO_AZURE_TABLE_ENTRIES", default_value_t = Sizes::default().tables,
          value_parser = clap::value_parser!(u32).range(1024..))]
    table_entries: u32,
    /// An eBPF object instead of the one in this binary.
    #[arg(long, value_name = "FILE")]
    object: Option<PathBuf>,
}

impl AgentArgs {
    pub(super) fn run(self) -> Outcome {
        let pin_name = self.node.pin_name();
        let NodeArgs {
            node, bpffs, run_dir, ..
        } = self.node;
        if !self.source.is_dir() {
            return Err(format!(
                "--source {}: expected a directory of manifests",
                self.source.display()
            )
            .into());
        }
        let sizes = Sizes {
            conntrack: self.conntrack_entries,
            half_open: (self.conntrack_entries / 4).max(1024),
            tables: self.table_entries,
        };
        run(AgentConfig {
            node,
            source: self.source,
            interface_prefixes: self.interface_prefix,
            fabric: self.fabric_interface,
            bpffs,
            pin_name,
            attach: self.attach,
            run_dir,
            flow_log: self.flow_log,
            log_flows: self.log_flows,
            established_flows: self.established_flows,
            allowed_sources: self.allowed_forwarded_sources,
            host_cgroup: self.host_cgroup,
            mark_mask: self.mark_mask,
            sizes,
            object: object::read(self.object.as_deref())?,
        })?;
        Ok(OK)
    }
}
