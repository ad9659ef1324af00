//! `cargo xtask`: everything a developer or CI does with this repository, in one program.
//!
//! Every verb sets the machine up first if that was not done yet, so a fresh checkout needs one command.

mod apiserver;
mod bookworm;
mod build;
mod debian;
mod ebpf;
mod fuzz;
mod image;
mod kernels;
mod licences;
mod manifests;
mod process;
mod run;
mod setup;
mod spdx;
mod term;
mod test;
mod tidy;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

use crate::term::Ui;
use crate::workspace::Workspace;

/// Builds, checks, loads and measures calico-azure.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Makes this machine able to build, run and test everything; quick when that was already done.
    Setup,
    /// Builds the eBPF object, then the agent and the test programs around it.
    Build {
        /// Optimised build (the default).
        #[arg(long, conflicts_with = "debug")]
        release: bool,
        /// Unoptimised userspace build; the eBPF object is always optimised.
        #[arg(long)]
        debug: bool,
        /// Also builds the object that logs through aya-log: target/bpf/calico-azure-tc-log.o.
        #[arg(long)]
        bpf_log: bool,
    },
    /// Builds, then loads the programs and attaches them on this machine.
    BuildAndLoad(LoadArgs),
    /// Runs the demo: a cluster in network namespaces. Arguments are passed on (`demo -- --help`).
    Demo {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Runs every check and every test, and ends with `N passed, N failed`.
    Test {
        /// Only builds and tests: no fmt, clippy, licence check or tidy.
        #[arg(long)]
        quick: bool,
        /// Only tests of the programs on other kernels, in virtual machines; without names all of them.
        #[arg(long, value_enum, value_name = "VERSION", num_args = 0.., value_delimiter = ',', conflicts_with_all = ["quick", "filter"])]
        kernels: Option<Vec<kernels::Kernel>>,
        /// Only tests whose name contains this (implies --quick).
        filter: Option<String>,
    },
    /// Runs the benchmarks. Arguments are passed on (`bench -- --help`).
    Bench {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Runs a cluster under load and change for half an hour. Arguments are passed on (`soak -- --help`).
    Soak {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Prints verified instructions and stack use of each program on this kernel.
    Verifier {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Looks for inputs that break a property of the parsers, the compiler or the verdict engine.
    Fuzz(fuzz::FuzzArgs),
    /// Builds a container image, without a container runtime: target/image/calico-azure-TAG-ARCH.tar.
    Image {
        /// What it is for, if not for machines like this one.
        #[arg(long, value_enum)]
        arch: Option<image::Arch>,
        /// Its tag, if not the version.
        #[arg(long)]
        tag: Option<String>,
    },
    /// Writes deploy/manifests from deploy/chart.
    Manifests {
        /// Only says which files are not up to date.
        #[arg(long)]
        check: bool,
    },
    /// Checks the rules the compiler does not know: layers, file lengths, leftovers.
    Tidy,
}

/// Which interfaces to load onto, and how.
#[derive(clap::Args)]
pub(crate) struct LoadArgs {
    /// A pod's host-side interface; repeat for several.
    #[arg(long, required = true, num_args = 1.., value_name = "NAME")]
    interface: Vec<String>,
    /// The interface towards the network: the NIC, or the VXLAN device over it.
    #[arg(long, value_name = "NAME")]
    fabric: Option<String>,
    /// How to attach; auto takes tcx where the kernel has it.
    #[arg(long, value_enum)]
    attach: Option<Attach>,
    /// Detaches what an earlier call attached.
    #[arg(long)]
    detach: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Attach {
    Auto,
    Tcx,
    Clsact,
}

impl Attach {
    fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
        }
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let ui = Ui::new();
    match dispatch(cli.verb, &ui) {
        Ok(code) => code,
        Err(error) => {
            ui.error(&format!("{error:#}"));
            ExitCode::from(2)
        }
    }
}

fn dispatch(verb: Verb, ui: &Ui) -> anyhow::Result<ExitCode> {
    let ws = Workspace::find()?;
    match verb {
        Verb::Setup => {
            let toolchain = setup::run(ui, &ws, setup::Need::Everything)?;
            apiserver::prepare(ui, &ws)?;
            ui.note(&format!("ready; eBPF toolchain: {}", toolchain.describe()));
            Ok(ExitCode::SUCCESS)
        }
        Verb::Build {
            release: _,
            debug,
            bpf_log,
        } => build::run(ui, &ws, debug, bpf_log),
        Verb::BuildAndLoad(args) => run::load(ui, &ws, &args),
        Verb::Demo { args } => run::program(ui, &ws, "demo", &args),
        Verb::Test {
            kernels: Some(kernels),
            ..
        } => test::on_kernels(ui, &ws, &kernels),
        Verb::Test { quick, filter, .. } => test::run(ui, &ws, quick, filter.as_deref()),
        Verb::Bench { args } => run::program(ui, &ws, "bench", &args),
        Verb::Soak { args } => run::program(ui, &ws, "soak", &args),
        Verb::Verifier { args } => {
            let args: Vec<String> = std::iter::once("--verifier".to_owned()).chain(args).collect();
            run::program(ui, &ws, "bench", &args)
        }
        Verb::Fuzz(args) => fuzz::run(ui, &ws, &args),
        Verb::Image { arch, tag } => image::run(ui, &ws, arch, tag.as_deref()),
        Verb::Manifests { check } => manifests::run(ui, &ws, check),
        Verb::Tidy => tidy::run(ui, &ws),
    }
}
