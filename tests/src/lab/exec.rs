//! Runs commands and turns their failure into an error that says what failed where.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use super::{LabError, Result};

/// The command line, for messages.
pub(super) fn line(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(command.get_args().map(|a| a.to_string_lossy().into_owned()));
    words.join(" ")
}

/// Runs `command` with `stdin`, whatever its exit status.
pub(super) fn output(command: &mut Command, stdin: &[u8]) -> Result<Output> {
    let what = format!("cannot run `{}`", line(command));
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().map_err(LabError::io(what.clone()))?;
    let written = match child.stdin.take() {
        Some(mut pipe) => pipe.write_all(stdin),
        None => Ok(()),
    };
    let output = child.wait_with_output().map_err(LabError::io(what.clone()))?;
    // A command that fails early closes its stdin; its own message is the better one.
    if output.status.success() {
        written.map_err(LabError::io(what))?;
    }
    Ok(output)
}

/// Runs `command` with `stdin` and returns its stdout; a failure names `place`.
pub(super) fn run(command: &mut Command, stdin: &[u8], place: &str) -> Result<String> {
    let output = output(command, stdin)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let mut text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if text.is_empty() {
        text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    }
    Err(LabError::Command {
        command: line(command),
        place: place.to_owned(),
        status: output.status,
        output: text,
    })
}
