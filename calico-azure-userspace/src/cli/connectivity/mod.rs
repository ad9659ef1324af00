//! `connectivity`: who may talk to whom.

mod filter;
mod graph;
mod table;
#[cfg(test)]
mod tests;

use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::Outcome;
use super::inputs::{Inputs, json_lines, print_notes, written};
use crate::analysis::{Connectivity, Options, connectivity};
use filter::Filter;

/// Who may talk to whom, as manifests would be enforced.
///
/// Lists every ordered pair of pods, workloads that have no pod among the inputs, nodes with host endpoints, and
/// ranges of other addresses, with the protocols and destination ports (or ICMP types) that both ends' policies let
/// through. A pair that is not listed may not talk; what a pod sends to itself is not listed. A pod without an address
/// counts as one that lies in no CIDR of the inputs; a namespace without an object has no label but its name; services
/// without EndpointSlices get the backends that their selectors find. Problems and assumptions go to stderr.
///
/// Exit code: 0 if all is valid; 1 if some object is not (it counts as it would be enforced, which never opens
/// anything); 2 if something could not be read.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct ConnectivityArgs {
    /// Files and directories.
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
    /// Only what these send: `namespace/name` of a pod or workload, `namespace/*`, a node's name, an address or CIDR.
    #[arg(long, value_name = "WHO")]
    from: Vec<String>,
    /// Only what these get; as for --from.
    #[arg(long, value_name = "WHO")]
    to: Vec<String>,
    /// Only pairs with an end in one of these namespaces.
    #[arg(short, long, value_name = "NAME")]
    namespace: Vec<String>,
    /// As if staged policies were enforced.
    #[arg(long)]
    pending: bool,
}

/// How connections are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Output {
    #[default]
    Table,
    /// `[{"src":…,"dst":…,"connections":…}]`
    Json,
    /// For Graphviz.
    Dot,
    /// For Markdown.
    Mermaid,
}

impl ConnectivityArgs {
    pub(super) fn run(self, out: &mut dyn Write) -> Outcome {
        let mut err = io::stderr().lock();
        self.print(out, &mut err)
    }

    fn print(self, out: &mut dyn Write, err: &mut dyn Write) -> Outcome {
        let inputs = Inputs::read(&self.paths, err)?;
        let code = inputs.code();
        let options = Options {
            pending: self.pending,
            v6: false,
        };
        let mut found = connectivity(inputs.resources, options)?;
        print_notes(&found.notes, err);
        Filter::new(&self.from, &self.to, &self.namespace, found.places())?.apply(&mut found);
        let mut out = BufWriter::with_capacity(1 << 16, out);
        Ok(written(write(&found, self.output, &mut out), code))
    }
}

fn write(found: &Connectivity, output: Output, out: &mut dyn Write) -> io::Result<()> {
    match output {
        Output::Table => table::write(found, out),
        Output::Json => json_lines(out, found.pairs()),
        Output::Dot => graph::dot(found, out),
        Output::Mermaid => graph::mermaid(found, out),
    }
}
