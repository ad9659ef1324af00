//! Fuzzing: libFuzzer around the properties in `tests/src/fuzz`, guided by coverage that a stable compiler instruments.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode};

use anyhow::{Context as _, bail, ensure};
use clap::ValueEnum;

use crate::build;
use crate::process;
use crate::setup::{self, Need};
use crate::term::Ui;
use crate::workspace::Workspace;

/// What to fuzz, and for how long.
#[derive(clap::Args)]
pub(crate) struct FuzzArgs {
    /// One target; all of them in turn without it.
    target: Option<Target>,
    /// Minutes for each target.
    #[arg(long, default_value_t = 5, conflicts_with = "runs", value_parser = clap::value_parser!(u32).range(1..))]
    minutes: u32,
    /// Executions for each target and job, instead of minutes.
    #[arg(long)]
    runs: Option<u64>,
    /// Processes at a time, which share what they find.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    jobs: u32,
    /// Adds the inputs that reach new code to tests/corpus, to be committed.
    #[arg(long)]
    keep: bool,
    /// Only runs these inputs of the target, for instance one that failed.
    #[arg(long, value_name = "FILE", num_args = 1.., requires = "target", conflicts_with = "keep")]
    replay: Vec<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Target {
    /// The selector language.
    Selector,
    /// Manifests: any text.
    Resources,
    /// Manifests with one place made nonsense: nothing may be opened by it.
    Broken,
    /// Frames on the verdict engine.
    Packet,
    /// Clusters and edits: tables and engine against the reference.
    Policy,
}

impl Target {
    fn name(self) -> &'static str {
        match self {
            Self::Selector => "selector",
            Self::Resources => "resources",
            Self::Broken => "broken",
            Self::Packet => "packet",
            Self::Policy => "policy",
        }
    }

    /// Longer inputs only cost time.
    fn max_length(self) -> usize {
        match self {
            Self::Selector | Self::Policy => 600,
            Self::Packet => 2_000,
            Self::Resources | Self::Broken => 8_000,
        }
    }
}

/// What the compiler is told besides: what `cargo fuzz` tells it, and every check that a debug build makes.
const FLAGS: [&str; 8] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Cdebug-assertions=on",
    "-Coverflow-checks=on",
    "-Ccodegen-units=1",
];
/// Names the target to the program.
const NAME: &str = "CALICO_AZURE_FUZZ_TARGET";

pub(crate) fn run(ui: &Ui, ws: &Workspace, args: &FuzzArgs) -> anyhow::Result<ExitCode> {
    setup::run(ui, ws, Need::Everything)?;
    let program = compile(ui, ws)?;
    let targets = match args.target {
        Some(target) => vec![target],
        None => Target::value_variants().to_vec(),
    };
    let mut code = ExitCode::SUCCESS;
    for target in targets {
        let fuzzer = Fuzzer {
            ui,
            ws,
            program: &program,
            target,
        };
        let held = if args.replay.is_empty() {
            fuzzer.fuzz(args)?
        } else {
            fuzzer.replay(&args.replay)?
        };
        if !held {
            code = ExitCode::FAILURE;
        } else if args.keep {
            fuzzer.keep()?;
        }
    }
    Ok(code)
}

/// In a target directory of its own: nothing of this build fits any other.
fn compile(ui: &Ui, ws: &Workspace) -> anyhow::Result<PathBuf> {
    let step = ui.step("building the fuzzer");
    let version = process::capture(process::cargo(&ws.root).args(["version", "--verbose"]))?;
    let host = host(&version).context("`cargo version --verbose` names no host")?;
    let dir = ws.target.join("fuzz");
    let mut cargo = process::cargo(&ws.root);
    // With --target the flags do not reach build scripts, which have no fuzzer to link with.
    cargo
        .args(["build", "--release", "--package", build::TESTS, "--bin", "fuzz"])
        .args(["--features", "libfuzzer", "--target", host])
        .args(ws.locked())
        .arg("--target-dir")
        .arg(&dir)
        .env_remove("RUSTFLAGS")
        .env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\u{1f}"));
    if !process::visible(&mut cargo)? {
        step.failed();
        bail!("the fuzzer does not build; the compiler's messages are above");
    }
    step.done("");
    Ok(dir.join(host).join("release/fuzz"))
}

fn host(version: &str) -> Option<&str> {
    version.lines().find_map(|line| line.strip_prefix("host: "))
}

struct Fuzzer<'a> {
    ui: &'a Ui,
    ws: &'a Workspace,
    program: &'a Path,
    target: Target,
}

impl Fuzzer<'_> {
    /// What is committed.
    fn kept(&self) -> PathBuf {
        self.ws.root.join("tests/corpus").join(self.target.name())
    }

    /// What this checkout found so far.
    fn found(&self) -> PathBuf {
        self.ws.target.join("fuzz/corpus").join(self.target.name())
    }

    fn failed(&self) -> PathBuf {
        self.ws.target.join("fuzz/failed").join(self.target.name())
    }

    fn command(&self) -> Command {
        let mut command = Command::new(self.program);
        command.env(NAME, self.target.name()).current_dir(&self.ws.root);
        command.args(["-timeout=25", "-rss_limit_mb=3000", "-print_final_stats=1"]);
        command.arg(format!("-max_len={}", self.target.max_length()));
        command
    }

    /// Whether all properties held.
    fn fuzz(&self, args: &FuzzArgs) -> anyhow::Result<bool> {
        let (kept, found, failed) = (self.kept(), self.found(), self.failed());
        for dir in [&kept, &found, &failed] {
            std::fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
        }
        let limit = match args.runs {
            Some(runs) => format!("-runs={runs}"),
            None => format!("-max_total_time={}", u64::from(args.minutes) * 60),
        };
        let step = self.ui.step(format!("fuzzing {}", self.target.name()));
        let mut children = Vec::new();
        for _ in 0..args.jobs {
            let mut command = self.command();
            command.arg(&limit);
            command.arg(format!("-artifact_prefix={}/", failed.display()));
            command.args([&found, &kept]);
            let child = command
                .spawn()
                .with_context(|| format!("cannot run {}", self.program.display()));
            match child {
                Ok(child) => children.push(child),
                Err(error) => {
                    stop(children);
                    return Err(error);
                }
            }
        }
        let mut held = true;
        for mut child in children {
            held &= child.wait()?.success();
        }
        if held {
            step.done("");
        } else {
            step.failed();
            self.ui.error(&format!(
                "an input breaks a property of {0}: it is in {1}; run it alone with `cargo xtask fuzz {0} --replay FILE`, and \
                 keep it in {2} with the change that mends it",
                self.target.name(),
                failed.display(),
                kept.display()
            ));
        }
        Ok(held)
    }

    fn replay(&self, files: &[PathBuf]) -> anyhow::Result<bool> {
        let here = std::env::current_dir()?;
        let files: Vec<PathBuf> = files.iter().map(|file| here.join(file)).collect();
        for file in &files {
            ensure!(file.is_file(), "there is no file {}", file.display());
        }
        process::visible(self.command().args(&files))
    }

    /// Adds to what is committed the smallest inputs that reach what it does not.
    fn keep(&self) -> anyhow::Result<()> {
        let step = self
            .ui
            .step(format!("choosing inputs of {} to keep", self.target.name()));
        let mut command = self.command();
        command.arg("-merge=1").args([self.kept(), self.found()]);
        if !process::visible(&mut command)? {
            step.failed();
            bail!("libFuzzer could not compare the inputs; its messages are above");
        }
        step.done(&self.kept().display().to_string());
        Ok(())
    }
}

fn stop(children: Vec<Child>) {
    for mut child in children {
        // It may have ended by itself.
        let _gone = child.kill();
        let _gone = child.wait();
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::{Cli, Verb};

    fn parsed(line: &str) -> Option<FuzzArgs> {
        match Cli::try_parse_from(line.split(' ')).ok()?.verb {
            Verb::Fuzz(args) => Some(args),
            _ => None,
        }
    }

    #[test]
    fn arguments_that_contradict_each_other_are_refused() {
        let args = parsed("xtask fuzz packet --runs 10 --jobs 2").unwrap();
        assert_eq!(
            (args.target, args.runs, args.jobs),
            (Some(Target::Packet), Some(10), 2)
        );
        assert_eq!(parsed("xtask fuzz").unwrap().minutes, 5);
        for line in [
            "xtask fuzz nothing",
            "xtask fuzz packet --runs 10 --minutes 1",
            "xtask fuzz --replay file",
            "xtask fuzz packet --jobs 0",
        ] {
            assert!(parsed(line).is_none(), "{line}");
        }
    }

    #[test]
    fn the_host_is_read_from_cargo() {
        assert_eq!(
            host("cargo 1.95.0\nrelease: 1.95.0\nhost: x86_64-unknown-linux-gnu\nos: Debian"),
            Some("x86_64-unknown-linux-gnu")
        );
        assert_eq!(host("cargo 1.95.0"), None);
    }

    #[test]
    fn every_target_has_a_corpus() {
        let ws = Workspace::find().unwrap();
        for target in Target::value_variants() {
            let dir = ws.root.join("tests/corpus").join(target.name());
            assert!(dir.is_dir(), "{}", dir.display());
        }
    }
}
