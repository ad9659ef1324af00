//! What the agent is told at start.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use calico_azure_ebpf::abi::{
    CONFIG_ALLOW_IMDS, CONFIG_ALLOW_IPIP, CONFIG_ALLOW_UNKNOWN, CONFIG_ALLOW_VXLAN, CONFIG_ALLOW_WIRESERVER,
    CONFIG_BRIDGED, CONFIG_DENY_IMDS, CONFIG_KEEP_ESTABLISHED, CONFIG_LINKS, CONFIG_LOG_ALLOWED,
    DEFAULT_TIMEOUTS,
};
use ipnet::IpNet;

use super::cni::Plugin;
use super::felix::{Felix, Told};
use super::links::LinkNames;
use super::networking::Choice;
use super::preflight::{Options, Paths};
use crate::dataplane::attach::Mode;
use crate::dataplane::kernel::Sizes;
use crate::dataplane::plan::{Settings, per_window};
use crate::model::{EndpointToHost, Failsafe, FelixConfiguration, Node};
use crate::sources::kube::KubeConfig;

/// Conntrack timeouts: Felix's defaults.
pub const SETTINGS_TIMEOUTS: [u64; 8] = DEFAULT_TIMEOUTS;

/// What happens to approved flows when policy changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum EstablishedFlows {
    /// Judged again with their next packet; what policy no longer allows is cut.
    #[default]
    Reevaluate,
    /// They stay approved until they end, as in Calico.
    Keep,
}

/// Tunnels that pods may make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tunnels {
    pub ipip: bool,
    pub vxlan: bool,
    /// UDP destination port of VXLAN.
    pub vxlan_port: u16,
}

/// Which packets flow records tell of, beside those that a `Log` rule matched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFlows {
    /// Every packet that is dropped.
    #[default]
    Denied,
    /// The first packet of each allowed flow, too.
    All,
}

/// Which interfaces lead to the fabric.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FabricChoice {
    /// Those that a default route points to, and flannel's.
    Auto,
    /// No source validation.
    None,
    /// These.
    Named(Vec<String>),
}

impl std::str::FromStr for FabricChoice {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "auto" => Self::Auto,
            "none" => Self::None,
            names => Self::Named(
                names
                    .split(',')
                    .map(str::trim)
                    .filter(|n| !n.is_empty())
                    .map(str::to_owned)
                    .collect(),
            ),
        })
    }
}

/// Which control group's sockets are this host's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostCgroup {
    /// The root of the unified hierarchy, where it is mounted.
    Auto,
    /// None: what a pod sends to a service that this very host serves is not judged.
    None,
    /// This one.
    Path(PathBuf),
}

impl std::str::FromStr for HostCgroup {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "auto" => Self::Auto,
            "none" => Self::None,
            path => Self::Path(path.into()),
        })
    }
}

/// Bits of packets' marks that are ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MarkMask(pub u32);

/// `Drop`, `Accept` or `Return`, in any case, as Felix reads it.
///
/// # Errors
/// Any other word.
pub fn endpoint_to_host(text: &str) -> Result<EndpointToHost, String> {
    match text.to_ascii_lowercase().as_str() {
        "drop" => Ok(EndpointToHost::Drop),
        "accept" => Ok(EndpointToHost::Accept),
        "return" => Ok(EndpointToHost::Return),
        _ => Err("expected Drop, Accept or Return".to_owned()),
    }
}

/// Failsafe ports as Felix reads them: `protocol:port` or `protocol:net:port`, with commas between; `none` for no
/// ports at all. A bare number is a TCP port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failsafes(pub Vec<Failsafe>);

impl std::str::FromStr for Failsafes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.trim().eq_ignore_ascii_case("none") {
            return Ok(Self(Vec::new()));
        }
        text.split(',').map(failsafe).collect::<Result<_, _>>().map(Self)
    }
}

fn failsafe(text: &str) -> Result<Failsafe, String> {
    let expected =
        || format!("{text:?}: expected none, or ports like tcp:22, udp:10.0.0.0/8:53 or tcp:[fd00::/8]:22");
    let (protocol, rest) = text.trim().split_once(':').unwrap_or(("tcp", text.trim()));
    let protocol = match protocol.to_ascii_lowercase().as_str() {
        "tcp" => 6,
        "udp" => 17,
        "sctp" => 132,
        _ => return Err(expected()),
    };
    let (net, port) = match rest.rsplit_once(':') {
        None => (None, rest),
        Some((net, port)) => {
            let net = net
                .strip_prefix('[')
                .and_then(|net| net.strip_suffix(']'))
                .unwrap_or(net);
            (
                Some(net.parse::<IpNet>().map_err(|_error| expected())?.trunc()),
                port,
            )
        }
    };
    let port = port.parse().map_err(|_error| expected())?;
    Ok(Failsafe { protocol, port, net })
}

/// What kube-proxy marks packets with.
const KUBE_PROXY_MARKS: u32 = 0xc000;

impl std::str::FromStr for MarkMask {
    type Err = String;

    /// `0xffff0000`, as Felix has it, or a decimal number.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mask = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
            Some(digits) => u32::from_str_radix(digits, 16),
            None => text.parse(),
        };
        let mask = mask.map_err(|error| format!("{error}: expected a 32-bit number like 0xffff0000"))?;
        if mask & KUBE_PROXY_MARKS != 0 {
            return Err("kube-proxy marks packets with 0x4000 and 0x8000: leave these bits out".to_owned());
        }
        let run = mask
            .checked_shr(mask.trailing_zeros())
            .unwrap_or(0)
            .trailing_ones();
        if run != mask.count_ones() || run < 12 {
            return Err("the names of a node's pods need 12 bits in a row, like 0x0fff0000".to_owned());
        }
        Ok(Self(mask))
    }
}

/// What becomes of pods' requests to the privileged ports of Azure's wireserver.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Wireserver {
    /// None gets there, as on AKS.
    #[default]
    Deny,
    /// Policy decides.
    Policy,
}

/// What becomes of pods' requests to Azure's instance metadata service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Imds {
    /// All of them pass.
    Allow,
    /// None of them does.
    Deny,
    /// Policy decides.
    #[default]
    Policy,
}

/// What becomes of traffic at a pod's interface of which nobody knows which pod's it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum UnknownInterfaces {
    /// Dropped.
    #[default]
    Deny,
    /// Passed, as if there were no policy.
    Allow,
}

/// Where manifests come from.
#[derive(Clone, Debug)]
pub enum Source {
    /// A directory of them.
    Dir(PathBuf),
    /// A Kubernetes API.
    Kube(KubeConfig),
}

/// Changes what is logged while the agent runs.
#[derive(Clone)]
pub struct SetLog(pub Arc<SetLogFn>);

/// Takes a filter.
pub type SetLogFn = dyn Fn(&str) -> Result<(), String> + Send + Sync;

impl std::fmt::Debug for SetLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SetLog")
    }
}

/// Everything the agent is told.
#[derive(Clone, Debug)]
pub struct AgentConfig {
    /// As pods name it.
    pub node: String,
    pub source: Source,
    pub fabric: FabricChoice,
    /// Bridges whose ports are pods' interfaces.
    pub bridges: Vec<String>,
    /// What CNI's plug-ins and flannel's daemon keep in files.
    pub paths: Paths,
    /// How often the node is looked at.
    pub preflight_interval: Duration,
    pub networking: Choice,
    pub bpffs: PathBuf,
    /// Names the pin directory.
    pub pin_name: String,
    pub attach: Mode,
    /// Directory of the status file and the lock.
    pub run_dir: PathBuf,
    /// File that flow records are appended to; `-` for standard output.
    pub flow_log: Option<PathBuf>,
    pub log_flows: LogFlows,
    /// Flow records that each processor may write in a second; 0: all that are due.
    pub records_per_second: u32,
    pub established_flows: EstablishedFlows,
    pub wireserver: Wireserver,
    pub imds: Imds,
    /// For how long after the first start on a node TCP connections in their middle are adopted; zero: not at all.
    pub adopt: Duration,
    /// `abi::Config::adopt_until`, which the agent works out when it starts.
    pub adopt_until: u32,
    /// Sources that may be forwarded although nothing on this node owns them.
    pub allowed_sources: Vec<IpNet>,
    pub host_cgroup: HostCgroup,
    /// Settings of Felix that policy reads; they win over FelixConfiguration objects.
    pub policy: FelixConfiguration,
    /// Those that the agent reads itself.
    pub told: Told,
    pub unknown_interfaces: UnknownInterfaces,
    /// The chained CNI plug-in, if it is to be kept in the node's network configuration.
    pub plugin: Option<Plugin>,
    /// Sets the filter of log lines.
    pub set_log: SetLog,
    pub sizes: Sizes,
    /// The eBPF object.
    pub object: Vec<u8>,
}

impl AgentConfig {
    /// How the node's links are told apart.
    #[must_use]
    pub fn link_names(&self, felix: &Felix) -> LinkNames {
        LinkNames {
            prefixes: felix.interface_prefixes.clone(),
            fabric: self.fabric.clone(),
            bridges: self.bridges.clone(),
        }
    }

    /// What the node is looked at for. `node`: its object, if it is known.
    #[must_use]
    pub fn preflight(&self, felix: &Felix, node: Option<&Node>) -> Options {
        Options {
            names: self.link_names(felix),
            networking: self.networking.clone(),
            mark_mask: felix.mark_mask,
            node: node.cloned(),
        }
    }

    /// What goes into the kernel's configuration. `open`: unknown interfaces are.
    #[must_use]
    pub fn settings(&self, felix: &Felix, tunnel_port: u16, bridged: bool, open: bool) -> Settings {
        let established = match self.established_flows {
            EstablishedFlows::Reevaluate => 0,
            EstablishedFlows::Keep => CONFIG_KEEP_ESTABLISHED,
        };
        let Tunnels {
            ipip,
            vxlan,
            vxlan_port,
        } = felix.tunnels;
        let ipip = if ipip { CONFIG_ALLOW_IPIP } else { 0 };
        let vxlan = if vxlan { CONFIG_ALLOW_VXLAN } else { 0 };
        let wireserver = match self.wireserver {
            Wireserver::Deny => 0,
            Wireserver::Policy => CONFIG_ALLOW_WIRESERVER,
        };
        let imds = match self.imds {
            Imds::Allow => CONFIG_ALLOW_IMDS,
            Imds::Deny => CONFIG_DENY_IMDS,
            Imds::Policy => 0,
        };
        let log = match self.log_flows {
            LogFlows::Denied => 0,
            LogFlows::All => CONFIG_LOG_ALLOWED,
        };
        let bridged = if bridged { CONFIG_BRIDGED } else { 0 };
        let open = if open { CONFIG_ALLOW_UNKNOWN } else { CONFIG_LINKS };
        Settings {
            flags: established | log | ipip | vxlan | wireserver | imds | bridged | open,
            timeouts: felix.timeouts,
            vxlan_port,
            tunnel_port,
            mark_mask: felix.mark_mask.0,
            adopt_until: self.adopt_until,
            records: per_window(self.records_per_second),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failsafe_ports_are_read_as_felix_reads_them() {
        let read = |text: &str| text.parse::<Failsafes>().map(|read| read.0);
        let port = |protocol, port, net: Option<&str>| Failsafe {
            protocol,
            port,
            net: net.and_then(|net| net.parse().ok()),
        };
        assert_eq!(read("none"), Ok(Vec::new()));
        assert_eq!(
            read("tcp:22, udp:10.0.0.0/8:53,SCTP:[fd00::/8]:9,179"),
            Ok(vec![
                port(6, 22, None),
                port(17, 53, Some("10.0.0.0/8")),
                port(132, 9, Some("fd00::/8")),
                port(6, 179, None),
            ])
        );
        for bad in [
            "",
            "tcp",
            "tcp:",
            "icmp:1",
            "tcp:10.0.0.0/40:1",
            "tcp:70000",
            "tcp:22,,udp:53",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
        assert_eq!(endpoint_to_host("ACCEPT"), Ok(EndpointToHost::Accept));
        assert!(endpoint_to_host("allow").is_err());
    }

    #[test]
    fn mark_masks_leave_kube_proxy_alone_and_are_wide_enough() {
        let mask = |text: &str| text.parse::<MarkMask>().map(|mask| mask.0);
        assert_eq!(mask("0xffff0000"), Ok(0xffff_0000));
        assert_eq!(mask("4095"), Ok(0xfff));
        for (text, told) in [
            ("0xffffffff", "kube-proxy"),
            ("0x00004fff", "kube-proxy"),
            ("0xff000000", "12 bits"),
            ("0xf0ff0000", "12 bits"),
            ("0", "12 bits"),
            ("mask", "expected"),
        ] {
            let error = mask(text).unwrap_err();
            assert!(error.contains(told), "{text}: {error}");
        }
    }
}
