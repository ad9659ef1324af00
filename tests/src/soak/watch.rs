//! What agents use: memory, file descriptors, pins and conntrack entries. None may grow for ever.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::Result;
use calico_azure_userspace::dataplane::fill::fills;

use super::world::{World, pins};
use crate::process;

/// How much more than after the beginning.
const GROWTH_KIB: u64 = 8 * 1024;

/// At one moment.
#[derive(Clone, Copy, Debug, Default)]
struct Use {
    resident_kib: u64,
    descriptors: usize,
    pins: usize,
    flows: u32,
}

/// What was seen of each node: first after the beginning, and last.
#[derive(Default)]
pub(super) struct Watch {
    seen: BTreeMap<String, (Use, Use)>,
    last: Vec<Use>,
}

impl Watch {
    /// Looks at both agents; `keep` from when on they are compared.
    pub(super) fn look(&mut self, world: &World, keep: bool) -> Result<()> {
        self.last.clear();
        for agent in &world.cluster.agents {
            let Some(pid) = agent.pid() else { continue };
            let pins = pins(agent)?;
            let fills = fills(&pins)?;
            let seen = Use {
                resident_kib: process::memory(&pid.to_string(), "VmRSS")? >> 10,
                descriptors: fs::read_dir(format!("/proc/{pid}/fd"))?.count(),
                pins: count(&pins.links()),
                flows: fills
                    .iter()
                    .filter(|fill| fill.table.starts_with("CT_"))
                    .map(|fill| fill.entries)
                    .sum(),
            };
            self.last.push(seen);
            if keep {
                let entry = self.seen.entry(agent.node().to_owned()).or_insert((seen, seen));
                entry.1 = seen;
            }
        }
        Ok(())
    }

    pub(super) fn told(&self) -> String {
        let list = |of: fn(&Use) -> String| self.last.iter().map(of).collect::<Vec<_>>().join("/");
        format!(
            "MiB {} fds {} pins {} conntrack {}",
            list(|u| (u.resident_kib / 1024).to_string()),
            list(|u| u.descriptors.to_string()),
            list(|u| u.pins.to_string()),
            list(|u| u.flows.to_string())
        )
    }

    pub(super) fn findings(&self) -> Vec<String> {
        let mut findings = Vec::new();
        for (node, (first, last)) in &self.seen {
            if last.resident_kib > first.resident_kib + GROWTH_KIB {
                findings.push(format!(
                    "the agent of {node} grew from {} to {} KiB",
                    first.resident_kib, last.resident_kib
                ));
            }
            // Pods that come and go, and what is read at the moment.
            if last.descriptors > first.descriptors + 16 {
                findings.push(format!(
                    "the agent of {node} had {} file descriptors, and has {}",
                    first.descriptors, last.descriptors
                ));
            }
            if last.pins > first.pins + 8 {
                findings.push(format!("{node} had {} pins, and has {}", first.pins, last.pins));
            }
        }
        findings
    }
}

/// Files below a directory.
fn count(dir: &Path) -> usize {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.file_type() {
            Ok(kind) if kind.is_dir() => count(&entry.path()),
            _ => 1,
        })
        .sum()
}
