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
    pub host_cgroup: HostCgroup,
    pub mark_mask: MarkMask,
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
            mark_mask: self.mark_mask.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
