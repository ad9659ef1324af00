//! Letting rustup install a toolchain with the sources of core.

use std::path::Path;
use std::process::Command;

use anyhow::Context as _;

use super::toolchain::KNOWN_GOOD;
use crate::process;
use crate::term::Ui;

/// Installs the known good release, or a nightly if the server does not have it.
pub(super) fn install(ui: &Ui, log: &Path) -> anyhow::Result<()> {
    reachable()?;
    install_one(ui, log, KNOWN_GOOD).or_else(|_| install_one(ui, log, "nightly"))
}

fn install_one(ui: &Ui, log: &Path, name: &str) -> anyhow::Result<()> {
    let rustup = process::which("rustup").context("rustup is not on the PATH")?;
    let mut command = process::foreign(&rustup);
    command.args([
        "toolchain",
        "install",
        name,
        "--profile",
        "minimal",
        "-c",
        "rust-src",
        "--no-self-update",
    ]);
    process::logged(
        ui,
        &format!("installing Rust {name} with rust-src through rustup"),
        &mut command,
        log,
    )
}

/// Fails quickly where rustup's server cannot be reached, instead of waiting for rustup's own retries.
fn reachable() -> anyhow::Result<()> {
    let Some(curl) = process::which("curl") else {
        return Ok(());
    };
    let server =
        std::env::var("RUSTUP_DIST_SERVER").unwrap_or_else(|_| "https://static.rust-lang.org".to_owned());
    let url = format!("{server}/dist/channel-rust-{KNOWN_GOOD}.toml.sha256");
    let mut command = Command::new(curl);
    command.args(["-sSf", "-o", "/dev/null", "--head", "--max-time", "15", &url]);
    process::capture(&mut command)
        .with_context(|| {
            format!("rustup has no toolchain with rust-src, and {server} cannot be reached to get one")
        })
        .map(drop)
}
