//! `verdict`: judges packets, one JSON object a line.

pub(super) mod judge;
pub(super) mod packet;

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

use self::judge::{Engine, Judge};
use self::packet::Line;
use super::{ERROR, OK, Outcome};
use crate::analysis;
use crate::model::load::load_paths;
use crate::policy::Store;

#[derive(Debug, Args)]
pub(super) struct VerdictArgs {
    /// How packets are judged.
    #[arg(long, value_enum)]
    engine: Engine,
    /// A file of packets, one JSON object a line; - for standard input.
    #[arg(long, value_name = "FILE")]
    packets: PathBuf,
    /// Files and directories of manifests.
    #[arg(required = true)]
    paths: Vec<PathBuf>,
}

/// Reads manifests for a command that asks what they mean: problems go to standard error, invalid objects are what they
/// would be when enforced. `Err` if a file cannot be read.
pub(super) fn manifests(paths: &[PathBuf]) -> Result<Store, Box<dyn std::error::Error>> {
    let loaded = load_paths(paths);
    let mut problems = io::stderr().lock();
    for problem in loaded.problems.iter().chain(&loaded.missing_tiers()) {
        let _closed = writeln!(problems, "{problem}\n");
    }
    if loaded.unreadable {
        return Err(
            "some of the manifests cannot be read (see above), so the answers would mean nothing".into(),
        );
    }
    let (store, notes) = analysis::completed(loaded.resources.into_iter().collect());
    for note in notes {
        let _closed = writeln!(problems, "{note}");
    }
    Ok(store)
}

impl VerdictArgs {
    pub(super) fn run(self, out: &mut dyn Write) -> Outcome {
        let store = manifests(&self.paths)?;
        let judge = Judge::new(&store)?;
        let mut out = BufWriter::new(out);
        let fine = if self.packets.as_os_str() == "-" {
            answer(
                &judge,
                self.engine,
                io::stdin().lock(),
                "standard input",
                &mut out,
            )
        } else {
            let name = self.packets.display().to_string();
            let file = File::open(&self.packets).map_err(|error| format!("{name}: {error}"))?;
            answer(&judge, self.engine, BufReader::new(file), &name, &mut out)
        };
        match fine.and_then(|fine| out.flush().map(|()| fine)) {
            // Whoever closed the pipe has seen enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(OK),
            Err(error) => Err(error.into()),
            Ok(fine) => Ok(if fine { OK } else { ERROR }),
        }
    }
}

/// Whether every line was a packet that could be judged.
fn answer(
    judge: &Judge<'_>,
    engine: Engine,
    packets: impl BufRead,
    name: &str,
    out: &mut impl Write,
) -> io::Result<bool> {
    let mut fine = true;
    for (number, line) in (1..).zip(packets.lines()) {
        let line = line?;
        if line.trim().is_empty() {
            continue;
        }
        let answer = match one(judge, engine, &line) {
            Ok(answer) => answer,
            Err((id, error)) => {
                fine = false;
                let _closed = writeln!(io::stderr(), "{name}:{number}: {error}");
                json!({"id": id, "error": error})
            }
        };
        serde_json::to_writer(&mut *out, &answer)?;
        out.write_all(b"\n")?;
    }
    Ok(fine)
}

fn one(judge: &Judge<'_>, engine: Engine, text: &str) -> Result<Value, (Value, String)> {
    let line = Line::parse(text).map_err(|error| (Value::Null, error.to_string()))?;
    let answer = line.packet().map_err(|error| error.to_string());
    let answer = answer.and_then(|packet| judge.answer(engine, &packet).map_err(|error| error.to_string()));
    let answer = answer.map_err(|error| (line.id.clone(), error))?;
    let verdict = if answer.allow { "allow" } else { "deny" };
    let rule = answer.rule.map(|rule| rule.to_string());
    Ok(json!({"id": line.id, "verdict": verdict, "reason": answer.reason, "rule": rule}))
}
