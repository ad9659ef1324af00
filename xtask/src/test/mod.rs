//! Runs every check and every test, then says in one place what passed and what did not.

mod counts;
mod failures;
mod leftovers;
mod programs;

use std::io::Write as _;
use std::process::{Command, ExitCode};

use self::counts::{Outcome, Report};
use self::programs::Step;
use crate::build::How;
use crate::image::Shipped;
use crate::kernels::{Extent, Kernel};
use crate::setup::{self, Need};
use crate::term::Ui;
use crate::workspace::{Object, Workspace};
use crate::{apiserver, build, ebpf, image, licences, manifests, process, term, tidy};

/// Test programs that run at the same time.
const AT_ONCE: usize = 3;

pub(crate) fn run(ui: &Ui, ws: &Workspace, quick: bool, filter: Option<&str>) -> anyhow::Result<ExitCode> {
    let toolchain = setup::run(ui, ws, Need::Everything)?;
    let mut report = Report::default();
    if !quick && filter.is_none() {
        checks(ui, ws, &mut report);
    }
    // Tests find them where they were put; without them, those that need them fail.
    record(ui, &mut report, "kube-apiserver and etcd", || {
        apiserver::prepare(ui, ws).map(|assets| {
            Outcome::noted(&format!(
                "{}, {}",
                assets.apiserver.display(),
                assets.etcd.display()
            ))
        })
    });
    let shipped = How::Shipped(Shipped::for_tests(ws));
    let built = record(ui, &mut report, "build of the eBPF programs", || {
        ebpf::build(ui, ws, &toolchain, Object::Default)?;
        ebpf::build(ui, ws, &toolchain, Object::Yardstick).map(|()| Outcome::ok())
    }) && record(ui, &mut report, "build of the agent", || {
        // Of another libc than the image's, where there are both.
        build::agent(ui, ws, &shipped).map(|_| Outcome::ok())
    }) && record(ui, &mut report, "container image", || {
        // The tests unpack it.
        image::build(ui, ws, None, None).map(|(_, digest)| Outcome::noted(&digest))
    });
    // In the dev profile: the engine's arithmetic is then checked for overflow.
    test_step(
        ui,
        ws,
        &mut report,
        "tests of the engine and of xtask",
        &Step {
            packages: &["calico-azure-ebpf", "xtask"],
            how: &How::Debug,
            at_once: 1,
            filter,
        },
    );
    let before = leftovers::all();
    if built {
        // As what is shipped: that is what real packets meet.
        test_step(
            ui,
            ws,
            &mut report,
            "tests of the agent, with the kernel",
            &Step {
                packages: &[build::AGENT, build::TESTS],
                how: &shipped,
                at_once: AT_ONCE,
                filter,
            },
        );
    } else {
        report.add(
            "tests of the agent, with the kernel",
            Outcome::failed("needs the build that failed"),
        );
    }
    record(ui, &mut report, "nothing left behind", || {
        let left: Vec<String> = leftovers::since(&before)
            .iter()
            .map(|path| path.display().to_string())
            .collect();
        Ok(if left.is_empty() {
            Outcome::ok()
        } else {
            Outcome::failed(&left.join(", "))
        })
    });
    // The floor: what loads there loads on all. The others are for `--kernels`, as they take longer.
    if built && in_ci() && !quick && filter.is_none() {
        machines(ui, ws, &[Kernel::V5_10], Extent::Programs, &mut report).unwrap_or_else(|error| {
            ui.error(&format!("{error:#}"));
            report.add("kernel 5.10", Outcome::failed("see above"));
        });
    }
    print!("{}", report.render(ui));
    std::io::stdout().flush()?;
    Ok(if report.all_passed() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn in_ci() -> bool {
    std::env::var_os("CI").is_some_and(|value| !value.is_empty())
}

/// `--kernels`: the tests of the loaded programs, on other kernels.
pub(crate) fn on_kernels(ui: &Ui, ws: &Workspace, kernels: &[Kernel]) -> anyhow::Result<ExitCode> {
    let mut report = Report::default();
    let kernels = if kernels.is_empty() { &Kernel::ALL } else { kernels };
    machines(ui, ws, kernels, Extent::Everything, &mut report)?;
    print!("{}", report.render(ui));
    std::io::stdout().flush()?;
    Ok(if report.all_passed() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn machines(
    ui: &Ui,
    ws: &Workspace,
    kernels: &[Kernel],
    extent: Extent,
    report: &mut Report,
) -> anyhow::Result<()> {
    for (kernel, runs) in crate::kernels::run(ui, ws, kernels, extent)? {
        for run in runs {
            let name = format!("kernel {}: {}", kernel.name(), run.name);
            let outcome = if run.ok {
                Outcome::noted(&run.how)
            } else {
                Outcome::failed(&run.how)
            };
            report.add(&name, outcome);
        }
    }
    Ok(())
}

/// What needs no build first, so that a slip shows early.
fn checks(ui: &Ui, ws: &Workspace, report: &mut Report) {
    record(ui, report, "tidy", || {
        let step = ui.step("tidy");
        Ok(if tidy::passes(ui, ws)? {
            step.done("");
            Outcome::ok()
        } else {
            step.failed();
            Outcome::failed("see above")
        })
    });
    component(ui, ws, report, "fmt", "rustfmt", |cargo| {
        cargo.args(["--all", "--check"]);
    });
    component(ui, ws, report, "clippy", "clippy", |cargo| {
        // As the tests are built, so that macros and build scripts of dependencies are compiled once.
        Shipped::for_tests(ws).apply(cargo);
        cargo.args(["--workspace", "--all-targets"]).args(ws.locked());
        cargo.args(["--", "-D", "warnings"]);
    });
    record(ui, report, "licences", || licence_check(ui, ws));
    record(ui, report, "manifests", || {
        let stale = manifests::stale(ui, ws)?;
        let names: Vec<String> = stale.iter().map(|(path, _)| path.display().to_string()).collect();
        Ok(if names.is_empty() {
            Outcome::ok()
        } else {
            Outcome::failed(&format!("run `cargo xtask manifests` for {}", names.join(", ")))
        })
    });
}

/// A check by a part of the Rust distribution that may not be installed.
fn component(
    ui: &Ui,
    ws: &Workspace,
    report: &mut Report,
    verb: &str,
    component: &str,
    told: impl FnOnce(&mut Command),
) {
    record(ui, report, verb, || {
        if process::capture(process::cargo(&ws.root).args([verb, "--version"])).is_err() {
            let why = format!("cargo {verb} is not installed: `rustup component add {component}`");
            // CI must not pass because a tool was missing.
            return Ok(if in_ci() {
                Outcome::failed(&why)
            } else {
                Outcome::not_run(&why)
            });
        }
        let step = ui.step(format!("cargo {verb}"));
        let mut cargo = process::cargo(&ws.root);
        cargo.arg(verb);
        told(&mut cargo);
        if process::visible(&mut cargo)? {
            step.done("");
            return Ok(Outcome::ok());
        }
        step.failed();
        Ok(Outcome::failed("see above"))
    });
}

fn licence_check(ui: &Ui, ws: &Workspace) -> anyhow::Result<Outcome> {
    let step = ui.step("licences of all dependencies");
    if process::which("cargo-deny").is_some() {
        let passed = process::visible(process::cargo(&ws.root).args(["deny", "check"]))?;
        if passed {
            step.done("by cargo-deny");
            return Ok(Outcome::noted("cargo-deny"));
        }
        step.failed();
        return Ok(Outcome::failed("cargo-deny, see above"));
    }
    match licences::check(ws) {
        Ok(count) => {
            let note = format!("{count} packages against deny.toml; cargo-deny is not installed");
            step.done(&note);
            Ok(Outcome::noted(&note))
        }
        Err(error) => {
            step.failed();
            Err(error)
        }
    }
}

/// Runs a step; an error is a failed step with its text printed, and the other steps still run.
fn record(ui: &Ui, report: &mut Report, name: &str, step: impl FnOnce() -> anyhow::Result<Outcome>) -> bool {
    let outcome = step().unwrap_or_else(|error| {
        ui.error(&format!("{error:#}"));
        Outcome::failed("see above")
    });
    report.add(name, outcome)
}

fn test_step(ui: &Ui, ws: &Workspace, report: &mut Report, name: &str, programs: &Step<'_>) {
    let mut failures = String::new();
    record(ui, report, name, || {
        let step = ui.step(name);
        let ended = programs::run(ui, ws, programs)?;
        if ended.passed {
            step.done(&format!("{} tests", ended.counts.passed));
        } else {
            step.failed();
        }
        failures = ended.failures;
        Ok(Outcome::tests(ended.passed, ended.counts))
    });
    report.say_again(&failures);
}

/// How long a whole run took, for the summary.
fn took(started: std::time::Instant) -> String {
    term::seconds(started.elapsed())
}
