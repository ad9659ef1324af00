//! `calico-azure status` and `calico-azure counters`.

use std::collections::BTreeMap;
use std::io::Write;

use calico_azure_ebpf::abi::{Hook, Reason};
use clap::Args;
use serde_json::{Value, json};

use super::{FINDING, Format, NodeArgs, OK, Outcome};
use crate::agent::status_path;
use crate::dataplane::counters::Counters;
use crate::dataplane::pins::Pins;

#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    #[command(flatten)]
    node: NodeArgs,
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

impl StatusArgs {
    pub(super) fn run(self, out: &mut dyn Write) -> Outcome {
        let path = status_path(&self.node.run_dir, &self.node.node);
        let text = std::fs::read_to_string(&path).map_err(|error| {
            format!(
                "{}: {error}; does an agent for {} run with this --run-dir?",
                path.display(),
                self.node.node
            )
        })?;
        let status: Value =
            serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))?;
        if self.output == Format::Json {
            writeln!(out, "{status:#}")?;
        } else {
            table(&status, out)?;
        }
        let fine = status["ready"] == true && status["problems"].as_array().is_none_or(Vec::is_empty);
        Ok(if fine { OK } else { FINDING })
    }
}

fn table(status: &Value, out: &mut dyn Write) -> std::io::Result<()> {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    for field in [
        "node",
        "ready",
        "epoch",
        "applies",
        "last_apply_us",
        "last_change_us",
        "cold_start_us",
    ] {
        writeln!(out, "{field:<16} {}", text(&status[field]))?;
    }
    if let Some(found) = status["networking"].as_object() {
        let how = if found["named"] == true { "named" } else { "found" };
        writeln!(out, "{:<16} {} ({how})", "networking", text(&found["networking"]))?;
        for evidence in found["evidence"].as_array().into_iter().flatten() {
            writeln!(out, "{:<16}   {}", "", text(evidence))?;
        }
    }
    for (name, fields) in [
        ("endpoints", &["pod", "interface", "ifindex"][..]),
        ("attached", &["interface", "program", "hook", "how"][..]),
    ] {
        writeln!(out, "\n{name}")?;
        for row in status[name].as_array().into_iter().flatten() {
            let cells: Vec<_> = fields
                .iter()
                .map(|field| format!("{:<28}", text(&row[field])))
                .collect();
            writeln!(out, "  {}", cells.join(" ").trim_end())?;
        }
    }
    let findings = status["preflight"]["findings"].as_array().into_iter().flatten();
    let grave: Vec<&Value> = findings.filter(|finding| finding["severity"] != "info").collect();
    writeln!(out, "\nfindings on the node: {}", grave.len())?;
    for finding in grave {
        writeln!(out, "{}: {}", text(&finding["check"]), text(&finding["evidence"]))?;
        for command in finding["fix"].as_array().into_iter().flatten() {
            writeln!(out, "  $ {}", text(command))?;
        }
    }
    let problems = status["problems"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    writeln!(out, "\nproblems: {}", problems.len())?;
    for problem in problems {
        writeln!(out, "{}", text(problem))?;
    }
    Ok(())
}

#[derive(Debug, Args)]
pub(super) struct CountersArgs {
    #[command(flatten)]
    node: NodeArgs,
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

impl CountersArgs {
    pub(super) fn run(self, out: &mut dyn Write) -> Outcome {
        let pins = Pins::new(&self.node.bpffs, &self.node.pin_name())?;
        let counters = Counters::open(&pins)?;
        let (totals, drops, lost) = (counters.totals()?, counters.drops()?, counters.lost_records()?);
        let names = names(&self.node);
        let drops = drops.iter().filter_map(|(key, count)| {
            let hook = Hook::try_from(u8::try_from(key.hook).ok()?).ok()?;
            let reason = Reason::try_from(u8::try_from(key.reason).ok()?).ok()?;
            let (interface, endpoint) = names.get(&key.ifindex).cloned().unwrap_or_default();
            Some((key.ifindex, interface, endpoint, hook, reason, *count))
        });
        if self.output == Format::Json {
            let totals = totals.iter().map(|((hook, reason), count)| {
                json!({"hook": hook.as_str(), "reason": reason.as_str(),
                    "verdict": if reason.passes() { "allow" } else { "deny" },
                    "packets": count.packets, "bytes": count.bytes})
            });
            let drops = drops.map(|(ifindex, interface, endpoint, hook, reason, count)| {
                json!({"ifindex": ifindex, "interface": interface, "endpoint": endpoint,
                    "hook": hook.as_str(), "reason": reason.as_str(),
                    "packets": count.packets, "bytes": count.bytes})
            });
            let all = json!({"totals": totals.collect::<Vec<_>>(), "drops": drops.collect::<Vec<_>>(),
                "lost_records": lost});
            writeln!(out, "{all:#}")?;
            return Ok(OK);
        }
        writeln!(
            out,
            "{:<14} {:<24} {:>12} {:>16}",
            "HOOK", "REASON", "PACKETS", "BYTES"
        )?;
        for ((hook, reason), count) in totals {
            let (hook, reason) = (hook.as_str(), reason.as_str());
            writeln!(
                out,
                "{hook:<14} {reason:<24} {:>12} {:>16}",
                count.packets, count.bytes
            )?;
        }
        writeln!(
            out,
            "\n{:<16} {:<32} {:<14} {:<24} {:>10}",
            "DROPS AT", "ENDPOINT", "HOOK", "REASON", "PACKETS"
        )?;
        for (ifindex, interface, endpoint, hook, reason, count) in drops {
            let interface = if interface.is_empty() {
                ifindex.to_string()
            } else {
                interface
            };
            let (hook, reason) = (hook.as_str(), reason.as_str());
            writeln!(
                out,
                "{interface:<16} {endpoint:<32} {hook:<14} {reason:<24} {:>10}",
                count.packets
            )?;
        }
        if lost != 0 {
            writeln!(
                out,
                "\n{lost} flow record(s) were not written: too many for the ring or for --flow-records-per-second"
            )?;
        }
        Ok(OK)
    }
}

/// Interface and pod by ifindex, as the agent last said; without its status file numbers must do.
pub(super) fn names(node: &NodeArgs) -> BTreeMap<u32, (String, String)> {
    let text = std::fs::read_to_string(status_path(&node.run_dir, &node.node)).unwrap_or_default();
    let status: Value = serde_json::from_str(&text).unwrap_or_default();
    let mut names = BTreeMap::new();
    for (list, endpoint) in [("attached", ""), ("endpoints", "pod")] {
        for row in status[list].as_array().into_iter().flatten() {
            let text = |field: &str| row[field].as_str().unwrap_or_default().to_owned();
            if let Some(ifindex) = row["ifindex"].as_u64().and_then(|i| u32::try_from(i).ok()) {
                names.insert(ifindex, (text("interface"), text(endpoint)));
            }
        }
    }
    names
}
