//! The chained CNI plug-in, `calico-azure-cni`, which is this very program by another name; and `calico-azure cni`, which puts it into a
//! node's network configuration and takes it out again.

mod install;
mod plugin;
mod protocol;

pub(super) use install::{CniArgs, PluginArgs};
pub use plugin::main;

pub use crate::agent::cni::PLUGIN;
