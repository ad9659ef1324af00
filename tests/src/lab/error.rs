//! What can go wrong in a lab: the environment, never the product.

use std::path::PathBuf;
use std::time::Duration;

/// An error of the lab itself; the message says what was tried and what to do.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    #[error("{what}: {error}")]
    Io { what: String, error: std::io::Error },
    #[error("{path}: {error}")]
    File { path: PathBuf, error: std::io::Error },
    #[error("`{command}` failed in {place} ({status}): {output}")]
    Command {
        command: String,
        place: String,
        status: std::process::ExitStatus,
        output: String,
    },
    #[error("CNI {command} of {pod} with {plugin}: {problem}")]
    Cni {
        command: &'static str,
        pod: String,
        plugin: String,
        problem: String,
    },
    #[error("{path}: document {document}: {problem}")]
    Manifest {
        path: PathBuf,
        document: usize,
        problem: String,
    },
    #[error("{path}: {problem}")]
    Format { path: PathBuf, problem: String },
    #[error(
        "no calico-azure binary beside {searched}; build it with `cargo xtask build` or set CALICO_AZURE_BIN to its path"
    )]
    NoBinary { searched: PathBuf },
    #[error("agent of {node} {problem}; the end of its log {log}:\n{tail}")]
    Agent {
        node: String,
        problem: String,
        log: PathBuf,
        tail: String,
    },
    #[error("{what}: not seen within {timeout:?}")]
    Timeout { what: String, timeout: Duration },
    #[error("{kind} {name} does not exist in this lab; it has {known}")]
    Unknown {
        kind: &'static str,
        name: String,
        known: String,
    },
    #[error("a thread in namespace {place} panicked")]
    Panicked { place: String },
}

impl LabError {
    /// Wraps an [`std::io::Error`] with what was being done.
    pub fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |error| Self::Io { what, error }
    }

    /// Wraps an [`std::io::Error`] with the file it is about.
    pub fn file(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |error| Self::File { path, error }
    }
}
