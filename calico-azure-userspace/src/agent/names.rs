//! Names of what is in the kernel's tables, for those who read them without the manifests.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::AgentConfig;
use crate::policy::RuleRef;

/// What a node's agent tells.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Names {
    /// By rule id.
    pub rules: BTreeMap<u32, String>,
}

/// Where the names of a node are.
#[must_use]
pub fn path(run_dir: &Path, node: &str) -> PathBuf {
    run_dir.join(format!("{node}.names.json"))
}

/// Reads what the agent last told.
///
/// # Errors
/// If there is nothing, or something else.
pub fn read(run_dir: &Path, node: &str) -> io::Result<Names> {
    let text = fs::read(path(run_dir, node))?;
    Ok(serde_json::from_slice(&text)?)
}

/// Replaces the file in one step.
pub(super) fn write(config: &AgentConfig, rules: &BTreeMap<u32, RuleRef>) -> io::Result<()> {
    let path = path(&config.run_dir, &config.node);
    let temporary = path.with_extension("json.new");
    let names = Names {
        rules: rules.iter().map(|(id, rule)| (*id, rule.to_string())).collect(),
    };
    let mut file = BufWriter::new(File::create(&temporary)?);
    serde_json::to_writer(&mut file, &names)?;
    file.write_all(b"\n")?;
    file.flush()?;
    fs::rename(&temporary, &path)
}
