//! What a verdict costs, by `BPF_PROG_TEST_RUN`: nanoseconds of one program on one packet, no network around it.

mod cidrs;
mod floor;
mod many;

use std::time::Duration;

use anyhow::{Result, ensure};
use calico_azure_ebpf::abi::CONFIG_LINKS;
use calico_azure_userspace::dataplane::links;
use calico_azure_userspace::dataplane::plan::Settings;
use calico_azure_userspace::policy::{Compiler, Store};

use super::Scope;
use super::report::Report;
use super::yardstick::{self, Yardstick};
use crate::harness::scenario::{B, quiet};
use crate::harness::{At, Harness, Returned};

/// By which packets come in, in [`At::to_workload`].
const LOOPBACK: u32 = 1;
/// How long one measurement may take.
const RUN: Duration = Duration::from_millis(8);
/// Packets in one measurement at most.
const PACKETS: u32 = 100_000;

/// The product and what it is compared with, in one namespace.
struct Bench {
    harness: Harness,
    yardstick: Yardstick,
    compiler: Compiler,
    scope: Scope,
}

/// Who is to run a packet.
#[derive(Clone, Debug)]
enum Engine {
    Ours(At),
    Yardstick(&'static str),
}

/// One cell of a table: a program on a packet, and what it must say of it.
#[derive(Clone, Debug)]
struct Case {
    engine: Engine,
    packet: Vec<u8>,
    passes: bool,
}

pub(super) fn run(scope: &Scope) -> Result<Report> {
    let mut bench = Bench {
        harness: Harness::new("verdict")?,
        yardstick: Yardstick::load()?,
        compiler: Compiler::default(),
        scope: scope.clone(),
    };
    let mut report = Report::default();
    floor::measure(&mut bench, &mut report)?;
    many::measure(&mut bench, &mut report)?;
    cidrs::measure(&mut bench, &mut report)?;
    report.notes.push(
        "One packet many times over, so every cache is warm; what a cold cache adds is in the part `wire`."
            .into(),
    );
    Ok(report)
}

impl Case {
    fn ours(at: At, packet: Vec<u8>, passes: bool) -> Self {
        Self {
            engine: Engine::Ours(at),
            packet,
            passes,
        }
    }

    fn yardstick(program: &'static str, packet: Vec<u8>, passes: bool) -> Self {
        Self {
            engine: Engine::Yardstick(program),
            packet,
            passes,
        }
    }
}

impl Bench {
    /// Puts a cluster in the place of the one before, without any flows.
    fn apply(&mut self, store: &Store) -> Result<()> {
        self.harness.dataplane.io().maps().forget_flows()?;
        let desired = self.compiler.compile(store)?.desired;
        let settings = Settings {
            flags: CONFIG_LINKS,
            ..quiet()
        };
        self.harness.dataplane.apply(&desired, settings)?;
        for ifindex in [LOOPBACK, B] {
            links::list(self.harness.dataplane.io_ref().maps(), ifindex)?;
        }
        self.compiler.applied();
        Ok(())
    }

    /// Mean nanoseconds of so many runs; fails if the program does not say what it must.
    fn time(&mut self, case: &Case, repeat: u32) -> Result<f64> {
        let (passed, duration) = match &case.engine {
            Engine::Ours(at) => {
                let (returned, duration) = self.harness.run_timed(*at, &case.packet, repeat)?;
                (returned == Returned::Next, duration)
            }
            Engine::Yardstick(program) => {
                let (value, duration) = self.yardstick.run(program, &case.packet, repeat)?;
                ensure!(
                    matches!(value, yardstick::PASS | yardstick::DROP),
                    "{program} returned {value}"
                );
                (value == yardstick::PASS, duration)
            }
        };
        ensure!(
            passed == case.passes,
            "{:?}: expected a {}",
            case.engine,
            if case.passes { "pass" } else { "drop" }
        );
        Ok(duration.as_secs_f64() * 1e9)
    }

    /// Mean nanoseconds, over as many runs as fit into the time of one measurement.
    fn measure(&mut self, case: &Case) -> Result<f64> {
        let one = self.time(case, 20)?.max(1.0);
        let fit = RUN.as_secs_f64() * 1e9 / one;
        let most = if self.scope.quick { 1_000 } else { PACKETS };
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped")]
        let repeat = (fit as u32).clamp(20, most);
        self.time(case, repeat)
    }
}
