//! The chained CNI plug-in in a node's network configuration: how it comes in, stays in, and goes out again. `cli::cni` is the plug-in itself,
//! and the commands.

mod conflist;
mod files;
mod keeper;

pub(super) use keeper::start;

pub use conflist::Ours;
pub use files::{Dirs, Installed, Unfit, install, remove};

/// What the plug-in is called in network configurations, and its file.
pub const PLUGIN: &str = "calico-azure-cni";

/// What becomes of a pod whose policy is not in the kernel in time. Its interface drops everything either way, if an agent runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum OnTimeout {
    /// Its start fails, and the kubelet tries again.
    #[default]
    Fail,
    /// It starts.
    Start,
}

impl OnTimeout {
    const fn name(self) -> &'static str {
        match self {
            Self::Fail => "fail",
            Self::Start => "start",
        }
    }
}

/// What the agent keeps in the node's network configuration.
#[derive(Clone, Debug)]
pub struct Plugin {
    pub dirs: Dirs,
    pub ours: Ours,
}
