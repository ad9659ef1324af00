//! `cargo xtask demo`: the product's main job on a cluster-in-a-box.

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    calico_azure_tests::demo::run(calico_azure_tests::demo::Args::parse())
}
