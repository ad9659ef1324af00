//! `calico-azure tables`.

use std::io::Write;

use clap::Args;
use serde_json::json;

use super::{FINDING, Format, NodeArgs, OK, Outcome};
use crate::dataplane::fill::{Fill, fills};
use crate::dataplane::pins::Pins;

/// From here on a table that refuses what is new is a finding, in percent.
const NEARLY_FULL: u32 = 90;

#[derive(Debug, Args)]
pub(super) struct TablesArgs {
    #[command(flatten)]
    node: NodeArgs,
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

impl TablesArgs {
    pub(super) fn run(self, out: &mut dyn Write) -> Outcome {
        let pins = Pins::new(&self.node.bpffs, &self.node.pin_name())?;
        let fills = fills(&pins)?;
        if self.output == Format::Json {
            let rows = fills.iter().map(|fill| {
                json!({"table": fill.table, "entries": fill.entries, "limit": fill.limit,
                    "percent": fill.percent(), "evicts": fill.evicts})
            });
            writeln!(out, "{:#}", json!(rows.collect::<Vec<_>>()))?;
        } else {
            table(&fills, out)?;
        }
        let fine = fills
            .iter()
            .all(|fill| fill.evicts || fill.percent() < NEARLY_FULL);
        Ok(if fine { OK } else { FINDING })
    }
}

fn table(fills: &[Fill], out: &mut dyn Write) -> std::io::Result<()> {
    writeln!(
        out,
        "{:<12} {:>10} {:>10} {:>5}  WHEN FULL",
        "TABLE", "ENTRIES", "LIMIT", "%"
    )?;
    for fill in fills {
        let when_full = if fill.evicts {
            "the least recently used goes"
        } else {
            "what is new is refused and fails closed"
        };
        writeln!(
            out,
            "{:<12} {:>10} {:>10} {:>5}  {when_full}",
            fill.table,
            fill.entries,
            fill.limit,
            fill.percent()
        )?;
    }
    Ok(())
}
