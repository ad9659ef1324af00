//! `verdict`: packets in, verdicts out.

mod line;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;
use serde_json::value::RawValue;

use super::inputs::{Inputs, print_notes, written};
use super::live::LiveArgs;
use super::{ERROR, OK, Outcome, engine};
use crate::analysis::completed;
use crate::judge::{Answer, Cluster, EngineName, Judge, JudgeError, LiveStep, Packet};
use crate::policy::Store;

/// What becomes of packets: a line of JSON for each, in the same order.
///
/// In: {"id":…,"src":"10.0.0.1","dst":"10.0.0.2","protocol":"tcp","sport":…,"dport":…,"icmp_type":…,"icmp_code":…,
///     "hook":"ingress","endpoint":"namespace/pod"}
/// Out: {"id":…,"verdict":"allow"|"deny","reason":…,"rule":…}, or {"id":…,"error":…}
///
/// Each packet is the first of a flow, after service translation. `hook` (ingress or egress) and `endpoint` together
/// ask that endpoint's policy alone; without them, everybody on the way from src to dst: the answer is that of the
/// first who denied, else of the last who was asked. `id` is any JSON value, `protocol` a name or a number; numbers
/// that are missing are 0. A pod needs an address to be found by it; it need not be scheduled.
///
/// With --live: by what a running agent has put in force, at the ends that are pods of its node.
///
/// Host endpoints are judged by their policies with every engine: the tables of pods do not hold them.
///
/// Exit code: 0, or 2 if a line was not understood or the manifests could not be read.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct VerdictArgs {
    /// Who judges.
    #[arg(long, value_enum, default_value = "compiled")]
    engine: EngineName,
    /// Lines of JSON, `-` for standard input.
    #[arg(long, value_name = "FILE|-")]
    packets: PathBuf,
    /// An eBPF object instead of the one in this binary.
    #[arg(long, value_name = "FILE")]
    object: Option<PathBuf>,
    #[command(flatten)]
    live: LiveArgs,
    /// Manifests: files and directories.
    #[arg(required_unless_present = "live")]
    paths: Vec<PathBuf>,
}

impl VerdictArgs {
    pub(super) fn run(self, out: &mut dyn Write) -> Outcome {
        let mut err = io::stderr().lock();
        self.print(out, &mut err)
    }

    fn print(self, out: &mut dyn Write, err: &mut dyn Write) -> Outcome {
        let packets = open(&self.packets)?;
        let mut bad = 0_u64;
        if self.live.live {
            let tables = self.live.read(|_| true)?;
            let judge = |packet: &Packet| tables.answer(packet).map(Spoken::from);
            let result = judge_all(packets, judge, out, err, &mut bad)?;
            return Ok(written(result, if bad == 0 { OK } else { ERROR }));
        }
        let store: Store = Inputs::read(&self.paths, err)?.resources.into_iter().collect();
        let (store, notes) = completed(store);
        print_notes(&notes, err);
        let cluster = Cluster::new(&store);
        let engine = engine::start(self.engine, &cluster, self.object.as_deref())?;
        let mut judge = Judge::new(&cluster, engine);
        let judge = |packet: &Packet| judge.answer(packet).map(Spoken::from);
        let result = judge_all(packets, judge, out, err, &mut bad)?;
        Ok(written(result, if bad == 0 { OK } else { ERROR }))
    }
}

fn open(path: &Path) -> Result<Box<dyn Read>, String> {
    if path == Path::new("-") {
        return Ok(Box::new(io::stdin()));
    }
    match File::open(path) {
        Ok(file) => Ok(Box::new(file)),
        Err(error) => Err(format!("--packets {}: {error}", path.display())),
    }
}

#[derive(Serialize)]
struct Said<'a> {
    id: Option<&'a RawValue>,
    verdict: &'static str,
    reason: &'static str,
    rule: Option<&'a str>,
}

/// An answer in words.
struct Spoken {
    allow: bool,
    reason: &'static str,
    rule: Option<String>,
}

impl From<Answer> for Spoken {
    fn from(answer: Answer) -> Self {
        let Answer { allow, reason, rule } = answer;
        Self {
            allow,
            reason,
            rule: rule.as_ref().map(ToString::to_string),
        }
    }
}

impl From<LiveStep> for Spoken {
    fn from(step: LiveStep) -> Self {
        let LiveStep {
            allow, reason, rule, ..
        } = step;
        Self { allow, reason, rule }
    }
}

#[derive(Serialize)]
struct NotSaid<'a> {
    id: Option<&'a RawValue>,
    error: &'a str,
}

/// Answers every line. Errors of one line go to `err` and are counted; the outer error ends it, the inner one is of
/// writing the answers.
fn judge_all(
    packets: impl Read,
    mut judge: impl FnMut(&Packet) -> Result<Spoken, JudgeError>,
    out: &mut dyn Write,
    err: &mut dyn Write,
    bad: &mut u64,
) -> Result<io::Result<()>, Box<dyn std::error::Error>> {
    let mut packets = BufReader::with_capacity(1 << 16, packets);
    let mut out = BufWriter::with_capacity(1 << 16, out);
    let mut text = Vec::new();
    for number in 1_u64.. {
        // Whoever waits for answers before asking on gets them.
        if packets.buffer().is_empty()
            && let Err(error) = out.flush()
        {
            return Ok(Err(error));
        }
        text.clear();
        let read = packets.read_until(b'\n', &mut text);
        if read.map_err(|error| format!("--packets: {error}"))? == 0 {
            break;
        }
        if text.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let (id, packet) = line::read(&text);
        let answer = match packet.map(|packet| judge(&packet)) {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(JudgeError::Packet(error))) | Err(error) => Err(error),
            Ok(Err(fatal)) => return Err(Box::new(fatal)),
        };
        let result = match &answer {
            Ok(Spoken { allow, reason, rule }) => {
                let verdict = if *allow { "allow" } else { "deny" };
                let rule = rule.as_deref();
                write_line(
                    &mut out,
                    &Said {
                        id,
                        verdict,
                        reason,
                        rule,
                    },
                )
            }
            Err(error) => {
                *bad += 1;
                let _closed = writeln!(err, "line {number}: {error}");
                write_line(&mut out, &NotSaid { id, error })
            }
        };
        if let Err(error) = result {
            return Ok(Err(error));
        }
    }
    Ok(out.flush())
}

fn write_line(out: &mut impl Write, line: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, line)?;
    out.write_all(b"\n")
}
