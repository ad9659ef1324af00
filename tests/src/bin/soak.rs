//! `cargo xtask soak`: a cluster under load and change for a long time.

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    calico_azure_tests::soak::main(&calico_azure_tests::soak::Args::parse())
}
