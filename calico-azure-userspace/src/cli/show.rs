//! `calico-azure status` and `calico-azure counters`.

use std::io::Write;

use clap::Args;
use serde_json::Value;

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
    ] {
        writeln!(out, "{field:<16} {}", text(&status[field]))?;
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
        let totals = counters.totals()?;
        if self.output == Format::Json {
            let rows: Vec<Value> = totals
                .iter()
                .map(|((hook, reason), count)| {
                    serde_json::json!({"hook": hook.as_str(), "reason": reason.as_str(),
                        "verdict": if reason.passes() { "allow" } else { "deny" },
                        "packets": count.packets, "bytes": count.bytes})
                })
                .collect();
            writeln!(out, "{:#}", Value::Array(rows))?;
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
        Ok(OK)
    }
}
