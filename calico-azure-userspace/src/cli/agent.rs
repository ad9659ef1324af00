//! `calico-azure agent`.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::builder::BoolishValueParser;
use clap::{Args, ValueEnum as _};
use ipnet::IpNet;

use super::{Log, NodeArgs, OK, Outcome, cidr, object};
use crate::agent::felix::{Told, ToldListener, ToldTimeouts, severity, source_spoofing};
use crate::agent::preflight::Paths;
use crate::agent::{
    AgentConfig, EstablishedFlows, FabricChoice, Failsafes, HostCgroup, Imds, LinkNames, LogFlows, MarkMask,
    Networking, NetworkingChoice, Source, UnknownInterfaces, Wireserver, endpoint_to_host, run,
};
use crate::dataplane::attach::Mode;
use crate::dataplane::kernel::Sizes;
use crate::dataplane::plan::DEFAULT_RECORDS;
use crate::model::{EndpointToHost, FelixConfiguration};
use crate::sources::kube::KubeConfig;

/// What `--source` says for the Kubernetes API.
const KUBE: &str = "kube";

#[derive(Debug, Args)]
pub(super) struct AgentArgs {
    #[command(flatten)]
    node: NodeArgs,
    /// Where manifests come from: `kube`, the Kubernetes API, or a directory (one that is named kube: `./kube`). Either is watched.
    #[arg(long, env = "CALICO_AZURE_SOURCE", value_name = "kube|DIR")]
    source: PathBuf,
    /// How to reach the Kubernetes API: a kubeconfig file, or several with colons between. Without it, as the pod's service account.
    #[arg(long, env = "KUBECONFIG", value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// A context of the kubeconfig file other than its current one.
    #[arg(long, env = "CALICO_AZURE_KUBE_CONTEXT", value_name = "NAME")]
    kube_context: Option<String>,
    /// Prefixes of pods' host-side interfaces, `cali,azv` if nothing else is said.
    #[arg(
        long,
        env = "FELIX_INTERFACEPREFIX",
        value_delimiter = ',',
        value_name = "PREFIX,…"
    )]
    interface_prefix: Option<Vec<String>>,
    /// Who gives pods their addresses and carries their packets; found out if it is not said (`calico-azure status` says why).
    #[arg(long, env = "CALICO_AZURE_NETWORKING", value_name = "auto|udr|flannel|azure-cni|host-local", default_value = "auto",
          value_parser = networking)]
    networking: NetworkingChoice,
    /// Whether nodes' podCIDRs are where their pods' addresses come from; as the network has it if nothing is said.
    #[arg(long, env = "USE_POD_CIDR", value_parser = BoolishValueParser::new(),
          num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    use_pod_cidr: Option<bool>,
    /// As calico-node has it. Anything but `none` is reported: calico-azure makes no network.
    #[arg(long, env = "CALICO_NETWORKING_BACKEND", value_name = "none", hide = true)]
    networking_backend: Option<String>,
    /// Interfaces to the fabric: `auto` (those of default routes, and flannel's), `none`, or names.
    #[arg(
        long,
        env = "CALICO_AZURE_FABRIC_INTERFACE",
        default_value = "auto",
        value_name = "auto|none|NAME,…"
    )]
    fabric_interface: FabricChoice,
    /// Bridges whose ports are pods' interfaces, whatever those are called.
    #[arg(long, env = "CALICO_AZURE_POD_BRIDGES", value_delimiter = ',', default_values = LinkNames::BRIDGES, value_name = "NAME,…")]
    pod_bridges: Vec<String>,
    #[command(flatten)]
    paths: Paths,
    /// How often the node itself is looked at, as `calico-azure preflight` does; what is found is in the log and in `calico-azure status`.
    #[arg(long, env = "CALICO_AZURE_PREFLIGHT_INTERVAL", default_value_t = 60, value_name = "SECONDS",
          value_parser = clap::value_parser!(u32).range(1..))]
    preflight_interval: u32,
    /// How programs are attached.
    #[arg(long, env = "CALICO_AZURE_ATTACH", value_enum, default_value_t)]
    attach: Mode,
    /// What happens to approved flows when policy changes.
    #[arg(long, env = "CALICO_AZURE_ESTABLISHED_FLOWS", value_enum, default_value_t)]
    established_flows: EstablishedFlows,
    /// Pods may send IPIP.
    #[arg(long, env = "FELIX_ALLOWIPIPPACKETSFROMWORKLOADS", value_parser = BoolishValueParser::new(),
          num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    allow_ipip_packets_from_workloads: Option<bool>,
    /// Pods may send VXLAN.
    #[arg(long, env = "FELIX_ALLOWVXLANPACKETSFROMWORKLOADS", value_parser = BoolishValueParser::new(),
          num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    allow_vxlan_packets_from_workloads: Option<bool>,
    /// UDP port by which VXLAN is told from other traffic; 4789 if nothing else is said.
    #[arg(long, env = "FELIX_VXLANPORT", value_parser = clap::value_parser!(u16).range(1..))]
    vxlan_port: Option<u16>,
    /// What becomes of pods' requests to the privileged ports of Azure's wireserver (168.63.129.16, TCP 80 and 32526).
    #[arg(long, env = "CALICO_AZURE_WIRESERVER", value_enum, default_value_t)]
    wireserver: Wireserver,
    /// What becomes of pods' requests to Azure's instance metadata service (169.254.169.254).
    #[arg(long, env = "CALICO_AZURE_IMDS", value_enum, default_value_t)]
    imds: Imds,
    /// What becomes of traffic at an interface that is by its name a pod's, and nobody knows which pod's. `allow` leaves new pods open until
    /// their policy is in the kernel.
    #[arg(long, env = "CALICO_AZURE_UNKNOWN_INTERFACES", value_enum, default_value_t)]
    unknown_interfaces: UnknownInterfaces,
    /// For how long after the first start on a node TCP connections that had begun before go on, if policy allows that they began; 0:
    /// they must begin anew.
    #[arg(
        long,
        env = "CALICO_AZURE_ADOPT_FLOWS",
        default_value_t = 3600,
        value_name = "SECONDS"
    )]
    adopt_flows: u32,
    /// Append a line of JSON for each drop and each packet that a Log rule matched; `-` for standard output. It says
    /// what staged policies would decide, too.
    #[arg(long, env = "CALICO_AZURE_FLOW_LOG", value_name = "FILE")]
    flow_log: Option<PathBuf>,
    /// Which flows are recorded.
    #[arg(long, env = "CALICO_AZURE_LOG_FLOWS", value_enum, default_value_t)]
    log_flows: LogFlows,
    /// Records that each processor writes in a second at most, whatever is dropped; 0: all. Those left out are counted
    /// (`calico-azure counters`, `calico_azure_flow_records_lost_total`), as is every drop.
    #[arg(
        long,
        env = "CALICO_AZURE_FLOW_RECORDS_PER_SECOND",
        default_value_t = DEFAULT_RECORDS,
        value_name = "NUMBER"
    )]
    flow_records_per_second: u32,
    /// Sources that may be forwarded to the fabric although nothing on this node owns them.
    #[arg(
        long,
        env = "CALICO_AZURE_ALLOWED_FORWARDED_SOURCES",
        value_delimiter = ',',
        value_name = "CIDR,…",
        value_parser = cidr::parse
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
    /// Bits of packet marks that are ours, 12 in a row or more; `0xffff0000` if nothing else is said. kube-proxy's own must not be among
    /// them.
    #[arg(long, env = "FELIX_IPTABLESMARKMASK", value_name = "MASK")]
    mark_mask: Option<MarkMask>,
    /// Serve `/liveness` and `/readiness`. As with everything here that has a `FELIX_` variable, FelixConfiguration decides if it is not
    /// given.
    #[arg(long, env = "FELIX_HEALTHENABLED", value_parser = BoolishValueParser::new(),
          num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    health: Option<bool>,
    /// Where; `localhost` if nothing else is said.
    #[arg(long, env = "FELIX_HEALTHHOST", value_name = "HOST")]
    health_host: Option<String>,
    /// On which port; 9099 if nothing else is said.
    #[arg(long, env = "FELIX_HEALTHPORT", value_parser = clap::value_parser!(u16).range(1..))]
    health_port: Option<u16>,
    /// Serve `/metrics`.
    #[arg(long, env = "FELIX_PROMETHEUSMETRICSENABLED", value_parser = BoolishValueParser::new(),
          num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    metrics: Option<bool>,
    /// Where; `localhost` if nothing else is said.
    #[arg(long, env = "FELIX_PROMETHEUSMETRICSHOST", value_name = "HOST")]
    metrics_host: Option<String>,
    /// On which port; 9091 if nothing else is said.
    #[arg(long, env = "FELIX_PROMETHEUSMETRICSPORT", value_parser = clap::value_parser!(u16).range(1..))]
    metrics_port: Option<u16>,
    /// What becomes of what a pod sends to its own host, once the pod's policy allowed it. FelixConfiguration's
    /// setting, else `Drop`, if it is not given.
    #[arg(long, env = "FELIX_DEFAULTENDPOINTTOHOSTACTION", value_name = "Drop|Accept|Return",
          value_parser = endpoint_to_host)]
    default_endpoint_to_host_action: Option<EndpointToHost>,
    /// Whether this node's pods may have the source prefixes that they ask for by annotation.
    #[arg(long, env = "FELIX_WORKLOADSOURCESPOOFING", value_name = "Any|Disabled", value_parser = source_spoofing)]
    workload_source_spoofing: Option<bool>,
    /// Timeouts of conntrack, like `TCPSynSent=20s,UDPTimeout=90s`; names as in FelixConfiguration's bpfConntrackTimeouts.
    #[arg(long, env = "FELIX_BPFCONNTRACKTIMEOUTS", value_name = "NAME=DURATION,…")]
    conntrack_timeouts: Option<ToldTimeouts>,
    /// What to log, in Felix's words, if `--log` is not given.
    #[arg(long, env = "FELIX_LOGSEVERITYSCREEN", value_name = "Trace|Debug|Info|Warning|Error|Fatal|None", value_parser = severity)]
    log_severity_screen: Option<&'static str>,
    /// Ports of the host that no policy closes, instead of FelixConfiguration's: `protocol:port` or
    /// `protocol:net:port`, with commas between, or `none`.
    #[arg(long, env = "FELIX_FAILSAFEINBOUNDHOSTPORTS", value_name = "PORTS|none")]
    failsafe_inbound_host_ports: Option<Failsafes>,
    /// The same for what the host sends.
    #[arg(long, env = "FELIX_FAILSAFEOUTBOUNDHOSTPORTS", value_name = "PORTS|none")]
    failsafe_outbound_host_ports: Option<Failsafes>,
    /// Established flows of each family that can be followed; half-open ones are a quarter of it.
    #[arg(long, env = "FELIX_BPFMAPSIZECONNTRACK", default_value_t = Sizes::default().conntrack,
          value_parser = clap::value_parser!(u32).range(1024..))]
    conntrack_entries: u32,
    /// Addresses, prefixes, policy pairs and port entries that can be stored, each.
    #[arg(long, env = "CALICO_AZURE_TABLE_ENTRIES", default_value_t = Sizes::default().tables,
          value_parser = clap::value_parser!(u32).range(1024..))]
    table_entries: u32,
    #[command(flatten)]
    plugin: super::cni::PluginArgs,
    /// An eBPF object instead of the one in this binary.
    #[arg(long, value_name = "FILE")]
    object: Option<PathBuf>,
}

pub(super) fn networking(text: &str) -> Result<NetworkingChoice, String> {
    if text == "auto" {
        return Ok(NetworkingChoice::default());
    }
    let networking = Networking::from_str(text, false);
    let networking =
        networking.map_err(|_| "expected auto, udr, flannel, azure-cni or host-local".to_owned())?;
    Ok(NetworkingChoice {
        networking: Some(networking),
        ..NetworkingChoice::default()
    })
}

/// Settings of Felix's among these variables that no flag stands for, as they are written.
fn without_effect(variables: impl Iterator<Item = OsString>) -> Vec<String> {
    let agent = AgentArgs::augment_args(clap::Command::new("agent"));
    let known = agent.get_arguments().filter_map(|arg| arg.get_env());
    let known: BTreeSet<&std::ffi::OsStr> = known.collect();
    let unknown = variables.filter(|name| !known.contains(name.as_os_str()));
    let names = unknown.map(|name| name.to_string_lossy().into_owned());
    names
        .filter(|name| name.to_ascii_uppercase().starts_with("FELIX_"))
        .collect()
}

impl AgentArgs {
    pub(super) fn run(self, log: Log) -> Outcome {
        if let Some(level) = self.log_severity_screen.filter(|_| log.told.is_none()) {
            (log.set.0)(level)?;
        }
        for name in without_effect(std::env::vars_os().map(|(name, _)| name)) {
            tracing::warn!("{name} has no effect here");
        }
        let pin_name = self.node.pin_name();
        let NodeArgs {
            node, bpffs, run_dir, ..
        } = self.node;
        let source = if self.source == Path::new(KUBE) {
            Source::Kube(KubeConfig {
                // An empty variable is none.
                kubeconfig: self.kubeconfig.filter(|path| path.as_os_str() != ""),
                context: self.kube_context,
                ..KubeConfig::default()
            })
        } else if self.source.is_dir() {
            Source::Dir(self.source)
        } else {
            return Err(format!(
                "--source {}: expected {KUBE}, or a directory of manifests",
                self.source.display()
            )
            .into());
        };
        let sizes = Sizes {
            conntrack: self.conntrack_entries,
            half_open: (self.conntrack_entries / 4).max(1024),
            tables: self.table_entries,
        };
        run(AgentConfig {
            plugin: self.plugin.plugin(&node, &run_dir, &self.paths.cni_conf),
            node,
            source,
            fabric: self.fabric_interface,
            bridges: self.pod_bridges,
            paths: self.paths,
            preflight_interval: Duration::from_secs(self.preflight_interval.into()),
            networking: NetworkingChoice {
                use_pod_cidr: self.use_pod_cidr,
                // An empty variable is none.
                backend: self.networking_backend.filter(|backend| !backend.is_empty()),
                ..self.networking
            },
            bpffs,
            pin_name,
            attach: self.attach,
            run_dir,
            flow_log: self.flow_log,
            log_flows: self.log_flows,
            records_per_second: self.flow_records_per_second,
            established_flows: self.established_flows,
            wireserver: self.wireserver,
            imds: self.imds,
            unknown_interfaces: self.unknown_interfaces,
            adopt: Duration::from_secs(self.adopt_flows.into()),
            adopt_until: 0,
            allowed_sources: self.allowed_forwarded_sources,
            host_cgroup: self.host_cgroup,
            policy: FelixConfiguration {
                name: "the agent's own".into(),
                endpoint_to_host: self.default_endpoint_to_host_action,
                source_spoofing: self.workload_source_spoofing,
                failsafe_inbound: self.failsafe_inbound_host_ports.map(|ports| ports.0),
                failsafe_outbound: self.failsafe_outbound_host_ports.map(|ports| ports.0),
                ..FelixConfiguration::default()
            },
            told: Told {
                interface_prefixes: self.interface_prefix,
                allow_ipip: self.allow_ipip_packets_from_workloads,
                allow_vxlan: self.allow_vxlan_packets_from_workloads,
                vxlan_port: self.vxlan_port,
                mark_mask: self.mark_mask,
                health: ToldListener {
                    enabled: self.health,
                    host: self.health_host,
                    port: self.health_port,
                },
                metrics: ToldListener {
                    enabled: self.metrics,
                    host: self.metrics_host,
                    port: self.metrics_port,
                },
                timeouts: self.conntrack_timeouts.unwrap_or_default(),
                log: log.told.or_else(|| self.log_severity_screen.map(str::to_owned)),
            },
            set_log: log.set,
            sizes,
            object: object::read(self.object.as_deref())?,
        })?;
        Ok(OK)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_of_felix_that_nobody_reads_are_named() {
        let names = [
            "FELIX_LOGSEVERITYSCREEN",
            "FELIX_BPFCONNTRACKTIMEOUTS",
            "FELIX_WORKLOADSOURCESPOOFING",
            "FELIX_INTERFACEPREFIX",
            "FELIX_IPINIPENABLED",
            "felix_wireguardenabled",
            "PATH",
        ];
        let unknown = without_effect(names.into_iter().map(OsString::from));
        assert_eq!(unknown, ["FELIX_IPINIPENABLED", "felix_wireguardenabled"]);
    }
}
