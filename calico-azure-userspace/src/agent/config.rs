//! What the agent is told at start.

use std::path::PathBuf;

use calico_azure_ebpf::abi::{CONFIG_KEEP_ESTABLISHED, CONFIG_LOG_ALLOWED, DEFAULT_TIMEOUTS};
use ipnet::IpNet;

use crate::dataplane::attach::Mode;
use crate::dataplane::kernel::Sizes;
use crate::dataplane::plan::Settings;

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
    /// Those that a default route points to.
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

/// Everything the agent is told.
#[derive(Clone, Debug)]
pub struct AgentConfig {
    /// As pods name it.
    pub node: String,
    /// Directory of manifests.
    pub source: PathBuf,
    /// Prefixes of pod interface names.
    pub interface_prefixes: Vec<String>,
    pub fabric: FabricChoice,
    pub bpffs: PathBuf,
    /// Names the pin directory.
    pub pin_name: String,
    pub attach: Mode,
    /// Directory of the status file and the lock.
    pub run_dir: PathBuf,
    /// File that flow records are appended to; `-` for standard output.
    pub flow_log: Option<PathBuf>,
    pub log_flows: LogFlows,
    pub established_flows: EstablishedFlows,
    /// Sources that may be forwarded although nothing on this node owns them.
    pub allowed_sources: Vec<IpNet>,
    pub sizes: Sizes,
    /// The eBPF object.
    pub object: Vec<u8>,
}

impl AgentConfig {
    /// What goes into the kernel's configuration.
    #[must_use]
    pub fn settings(&self) -> Settings {
        let established = match self.established_flows {
            EstablishedFlows::Reevaluate => 0,
            EstablishedFlows::Keep => CONFIG_KEEP_ESTABLISHED,
        };
        let log = match self.log_flows {
            LogFlows::Denied => 0,
            LogFlows::All => CONFIG_LOG_ALLOWED,
        };
        Settings {
            flags: established | log,
            timeouts: SETTINGS_TIMEOUTS,
        }
    }
}
