//! The chained CNI plug-in, `calico-azure-cni`, which is this very program by another name; and `calico-azure cni`, which puts it into a
//! node's network configuration and takes it out again.

mod conflist;
mod install;
mod plugin;
mod protocol;

pub(super) use install::CniArgs;
pub use plugin::main;

/// What the plug-in is called in network configurations, and its file.
pub const PLUGIN: &str = "calico-azure-cni";
