//! `cargo xtask bench`: what verdicts cost, on the loaded programs of this machine.

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    calico_azure_tests::bench::run(&calico_azure_tests::bench::Args::parse())
}
