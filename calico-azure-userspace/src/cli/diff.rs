//! `diff`: what a change opens and closes.

use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

use clap::Args;

use super::inputs::{Inputs, json_lines, print_notes, row, written};
use super::{FINDING, Format, OK, Outcome};
use crate::analysis::{Change, Changed, Connections, Difference, Options, Place, connectivity, diff, has_v6};

/// What a change of manifests opens and closes.
///
/// Compares who may talk to whom (see `connectivity`) before and after. Pairs with an end that only one side has are
/// listed as well. Ranges of addresses are cut where either side cuts them.
///
/// JSON: `[{"src":…,"dst":…,"change":"added"|"removed"|"changed","old":C,"new":C,"opened":C,"closed":C}]`.
///
/// Exit code: 0 if the same connections are open, 1 if not, 2 if something could not be read. Objects that are not
/// valid are reported to stderr, and count as they would be enforced.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct DiffArgs {
    /// File or directory before the change.
    old: PathBuf,
    /// File or directory after the change.
    new: PathBuf,
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
    /// As if staged policies were enforced, on both sides.
    #[arg(long)]
    pending: bool,
}

impl DiffArgs {
    pub(super) fn run(self, out: &mut dyn Write) -> Outcome {
        let mut err = io::stderr().lock();
        self.print(out, &mut err)
    }

    fn print(self, out: &mut dyn Write, err: &mut dyn Write) -> Outcome {
        let (old, new) = (read(&self.old, err)?, read(&self.new, err)?);
        // Both sides answer the same questions.
        let options = Options {
            pending: self.pending,
            v6: has_v6(old.iter().cloned()) || has_v6(new.iter().cloned()),
        };
        let (old, new) = (connectivity(old, options)?, connectivity(new, options)?);
        let mut notes = old.notes.clone();
        notes.extend(new.notes.iter().filter(|note| !old.notes.contains(note)).cloned());
        print_notes(&notes, err);
        let difference = diff(&old, &new);
        let code = if difference.pairs.is_empty() { OK } else { FINDING };
        let mut out = BufWriter::with_capacity(1 << 16, out);
        let result = match self.output {
            Format::Table => table(&difference, &mut out),
            Format::Json => json_lines(&mut out, difference.pairs.iter()),
        };
        Ok(written(result, code))
    }
}

fn read(
    path: &PathBuf,
    err: &mut dyn Write,
) -> Result<Vec<crate::model::Resource>, super::inputs::Unreadable> {
    Ok(Inputs::read(std::slice::from_ref(path), err)?.resources)
}

fn table(difference: &Difference, out: &mut dyn Write) -> io::Result<()> {
    let Difference {
        pairs,
        appeared,
        gone,
    } = difference;
    let sign = |change| match change {
        Change::Added => "added",
        Change::Removed => "removed",
        Change::Changed => "changed",
    };
    let shown = |connections: &Connections| {
        if connections.is_none() {
            "-".to_owned()
        } else {
            connections.to_string()
        }
    };
    let mut rows = vec![["CHANGE", "FROM", "TO", "OPENED", "CLOSED"].map(ToOwned::to_owned)];
    rows.extend(pairs.iter().map(
        |Changed {
             src,
             dst,
             change,
             opened,
             closed,
             ..
         }| {
            [
                sign(*change).to_owned(),
                src.to_string(),
                dst.to_string(),
                shown(opened),
                shown(closed),
            ]
        },
    ));
    let mut widths = [0; 5];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    if pairs.is_empty() {
        writeln!(out, "the same connections are open")?;
    } else {
        for cells in &rows {
            row(out, &cells.each_ref().map(String::as_str), &widths)?;
        }
        writeln!(out)?;
        let count = |wanted| pairs.iter().filter(|pair| pair.change == wanted).count();
        let [added, removed, changed] = [Change::Added, Change::Removed, Change::Changed].map(count);
        writeln!(out, "{added} added, {removed} removed, {changed} changed")?;
    }
    for (what, places) in [("only before", gone), ("only after", appeared)] {
        if !places.is_empty() {
            let names: Vec<String> = places.iter().map(Place::to_string).collect();
            writeln!(out, "{what}: {}", names.join(", "))?;
        }
    }
    out.flush()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const PODS: &str = "
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: a, labels: {app: web}}
---
apiVersion: v1
kind: Pod
metadata: {name: db, namespace: a, labels: {app: db}}
---
";

    fn policy(port: u16, extra: &str) -> String {
        format!(
            "{PODS}
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: db, namespace: a}}
spec:
  podSelector: {{matchLabels: {{app: db}}}}
  ingress:
    - from: [{{podSelector: {{}}}}]
      ports: [{{port: {port}}}]
{extra}"
        )
    }

    fn compare(old: &str, new: &str, output: Format) -> (u8, String, String) {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = dir.path().join(name);
            fs::write(&path, text).unwrap();
            path
        };
        let args = DiffArgs {
            old: file("old.yaml", old),
            new: file("new.yaml", new),
            output,
            pending: false,
        };
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let code = args.print(&mut out, &mut err).unwrap_or(crate::cli::ERROR);
        (
            code,
            String::from_utf8(out).unwrap(),
            String::from_utf8(err).unwrap(),
        )
    }

    #[test]
    fn the_same_connections_are_no_difference() {
        let (code, out, _) = compare(&policy(80, ""), &policy(80, ""), Format::Table);
        assert_eq!((code, out.as_str()), (OK, "the same connections are open\n"));
        let (code, out, _) = compare(&policy(80, ""), &policy(80, ""), Format::Json);
        let list: Vec<serde_json::Value> = serde_json::from_str(&out).unwrap();
        assert_eq!((code, list.len()), (OK, 0));
    }

    #[test]
    fn what_opens_and_what_closes() {
        let (code, out, _) = compare(&policy(80, ""), &policy(443, ""), Format::Json);
        let list: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!(code, FINDING);
        let tcp = |port: &str| serde_json::json!([{"protocol": "TCP", "ports": [port]}]);
        let expected = serde_json::json!([{
            "src": {"pod": "a/web"}, "dst": {"pod": "a/db"}, "change": "changed",
            "old": tcp("80"), "new": tcp("443"), "opened": tcp("443"), "closed": tcp("80"),
        }]);
        assert_eq!(list, expected);
    }

    #[test]
    fn a_range_is_named_where_it_changes_only() {
        let block = "    - from: [{ipBlock: {cidr: 10.0.0.0/8}}]\n";
        let more = "    - from: [{ipBlock: {cidr: 10.0.0.0/8}}, {ipBlock: {cidr: 11.0.0.0/8}}]\n";
        let (code, out, _) = compare(&policy(80, block), &policy(80, more), Format::Table);
        let expected = "\
CHANGE  FROM        TO    OPENED  CLOSED
added   11.0.0.0/8  a/db  all     -

1 added, 0 removed, 0 changed
";
        assert_eq!((code, out.as_str()), (FINDING, expected));
    }

    #[test]
    fn an_end_that_is_only_there_on_one_side() {
        let new = policy(80, "") + "---\napiVersion: v1\nkind: Pod\nmetadata: {name: new, namespace: a}\n";
        let (code, out, _) = compare(&policy(80, ""), &new, Format::Table);
        assert_eq!(code, FINDING);
        assert!(out.contains("added   a/new      a/db       TCP 80  -"), "{out}");
        assert!(out.ends_with("only after: a/new\n"), "{out}");
    }

    #[test]
    fn what_cannot_be_read_is_an_error() {
        let (code, out, err) = compare(&policy(80, ""), "a: {", Format::Json);
        assert_eq!((code, out.as_str()), (crate::cli::ERROR, ""));
        assert!(err.contains("new.yaml"), "{err}");
    }
}
