//! Engines by name.

use std::path::Path;

use super::object;
use crate::judge::{Cluster, Compiled, Engine, EngineName, InKernel, JudgeError, Reference};

/// Makes an engine ready for a cluster.
pub(super) fn start(
    name: EngineName,
    cluster: &Cluster<'_>,
    object: Option<&Path>,
) -> Result<Box<dyn Engine>, Box<dyn std::error::Error>> {
    let said = |error: JudgeError| format!("engine {}: {error}", name.as_str());
    Ok(match name {
        EngineName::Reference => Box::new(Reference),
        EngineName::Compiled => Box::new(Compiled::new(cluster).map_err(said)?),
        EngineName::Kernel => Box::new(InKernel::new(cluster, &object::read(object)?).map_err(said)?),
    })
}
