//! Test programs: built by cargo, run several at a time, because most of them wait more than they compute.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde_json::Value;

use super::counts::Counts;
use super::failures;
use crate::build::How;
use crate::process;
use crate::term::{self, Ui};
use crate::workspace::Workspace;

/// Tests that need privilege fail, instead of saying that they did not run, when this is set.
const REQUIRE_PRIVILEGED: &str = "CALICO_AZURE_REQUIRE_PRIVILEGED";
/// The agent that tests start.
const AGENT: &str = "CALICO_AZURE_BIN";

/// What to build and run.
pub(super) struct Step<'a> {
    pub(super) packages: &'a [&'a str],
    pub(super) how: &'a How,
    /// Programs that run at the same time.
    pub(super) at_once: usize,
    /// Only test functions with this in their name.
    pub(super) filter: Option<&'a str>,
}

/// One test program.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Program {
    name: String,
    path: PathBuf,
    /// Its package's, where cargo runs it.
    dir: PathBuf,
}

/// How a program ended.
struct Ran {
    program: Program,
    status: ExitStatus,
    output: Vec<u8>,
    took: Duration,
}

/// How all of them ended.
#[derive(Debug, Default)]
pub(super) struct Ended {
    /// Whether all passed.
    pub(super) passed: bool,
    /// Their functions.
    pub(super) counts: Counts,
    /// What failed ones said.
    pub(super) failures: String,
}

/// Builds and runs.
pub(super) fn run(ui: &Ui, ws: &Workspace, step: &Step<'_>) -> anyhow::Result<Ended> {
    let Some(programs) = build(ws, step)? else {
        return Ok(Ended::default());
    };
    let agent = step.how.program(ws, crate::build::BINARY);
    let queue = Mutex::new(VecDeque::from(programs));
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    let seen = Mutex::new(Ended {
        passed: true,
        ..Ended::default()
    });
    std::thread::scope(|scope| -> anyhow::Result<()> {
        let work = || -> anyhow::Result<()> {
            while let Some(program) = next() {
                let ran = execute(program, ui, &agent, step.filter)?;
                let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
                // Held while it is printed, so that outputs do not mix.
                print(&ran)?;
                let output = String::from_utf8_lossy(&ran.output);
                for line in output.lines() {
                    seen.counts.read_line(line);
                }
                if !ran.status.success() {
                    seen.passed = false;
                    seen.failures.push_str(&failures::of(&ran.program.name, &output));
                }
            }
            Ok(())
        };
        let workers: Vec<_> = (0..step.at_once.max(1)).map(|_| scope.spawn(work)).collect();
        for worker in workers {
            match worker.join() {
                Ok(done) => done?,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        Ok(())
    })?;
    Ok(seen.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// `None` if it does not compile; the compiler has said why.
fn build(ws: &Workspace, step: &Step<'_>) -> anyhow::Result<Option<Vec<Program>>> {
    let mut cargo = process::cargo(&ws.root);
    cargo
        .args(["test", "--no-run", "--message-format=json-render-diagnostics"])
        .args(ws.locked());
    for package in step.packages {
        cargo.args(["--package", package]);
    }
    step.how.apply(&mut cargo);
    let output = cargo
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot run `{}`", process::shown(&cargo)))?;
    let programs = programs(&String::from_utf8_lossy(&output.stdout));
    Ok(output.status.success().then_some(programs))
}

/// The test programs that cargo's messages name.
fn programs(messages: &str) -> Vec<Program> {
    let named = messages.lines().filter_map(|line| {
        let message: Value = serde_json::from_str(line).ok()?;
        let is_test = message["profile"]["test"] == true;
        let path = message["executable"].as_str().filter(|_| is_test)?;
        let source = Path::new(message["target"]["src_path"].as_str()?);
        let dir = Path::new(message["manifest_path"].as_str()?).parent()?;
        let name = source.strip_prefix(dir).unwrap_or(source);
        let package = dir.file_name().unwrap_or_default();
        Some(Program {
            name: format!("{} of {}", name.display(), package.to_string_lossy()),
            path: path.into(),
            dir: dir.to_owned(),
        })
    });
    named.collect()
}

fn execute(program: Program, ui: &Ui, agent: &Path, filter: Option<&str>) -> anyhow::Result<Ran> {
    let mut output = scratch()?;
    let mut command = Command::new(&program.path);
    command
        .args(filter)
        .current_dir(&program.dir)
        .env(REQUIRE_PRIVILEGED, "1")
        .env("CARGO_MANIFEST_DIR", &program.dir)
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output.try_clone()?);
    if std::env::var_os(AGENT).is_none() && agent.is_file() {
        command.env(AGENT, agent);
    }
    if ui.coloured() {
        command.arg("--color=always");
    }
    let started = Instant::now();
    let status = command
        .status()
        .with_context(|| format!("cannot run `{}`", process::shown(&command)))?;
    let mut bytes = Vec::new();
    output.rewind()?;
    output.read_to_end(&mut bytes)?;
    Ok(Ran {
        program,
        status,
        output: bytes,
        took: started.elapsed(),
    })
}

/// A file without a name: a pipe would have to be read while the program runs.
fn scratch() -> anyhow::Result<File> {
    static NEXT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("xtask-output-{}-{number}", std::process::id()));
    let mut options = File::options();
    options.read(true).append(true).create_new(true);
    let file = options
        .open(&path)
        .with_context(|| format!("cannot create {}", path.display()))?;
    std::fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
    Ok(file)
}

fn print(ran: &Ran) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "     Running {} ({})",
        ran.program.name,
        term::seconds(ran.took)
    )?;
    // Bytes, because a test may print what is not UTF-8.
    out.write_all(&ran.output)?;
    if !ran.status.success() {
        writeln!(out, "{} ended with {}", ran.program.path.display(), ran.status)?;
    }
    Ok(out.flush()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_test_programs_are_run_each_in_its_package() {
        let line = |executable: &str, test: bool| {
            format!(
                r#"{{"reason":"compiler-artifact","manifest_path":"/w/tests/Cargo.toml","target":{{"name":"lab","src_path":"/w/tests/tests/lab.rs"}},"profile":{{"test":{test}}},"executable":{executable}}}"#
            )
        };
        let messages = [
            line("\"/t/lab-1\"", true),
            line("\"/t/demo\"", false),
            line("null", true),
            r#"{"reason":"build-finished","success":true}"#.into(),
            "not JSON".into(),
        ];
        let found = programs(&messages.join("\n"));
        let lab = Program {
            name: "tests/lab.rs of tests".into(),
            path: "/t/lab-1".into(),
            dir: "/w/tests".into(),
        };
        assert_eq!(found, [lab]);
    }

    #[test]
    fn output_of_both_kinds_is_kept_and_a_failure_is_seen() {
        let program = Program {
            name: "sh".into(),
            path: "/bin/sh".into(),
            dir: "/".into(),
        };
        let script = std::env::temp_dir().join(format!("xtask-script-{}", std::process::id()));
        std::fs::write(&script, "echo out; echo err >&2; exit 3").unwrap();
        let ran = execute(program, &Ui::plain(), Path::new("/nowhere"), script.to_str()).unwrap();
        std::fs::remove_file(script).unwrap();
        assert_eq!(
            (ran.output.as_slice(), ran.status.code()),
            (&b"out\nerr\n"[..], Some(3))
        );
    }
}
