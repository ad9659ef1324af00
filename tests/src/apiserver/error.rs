//! What can go wrong with a server for tests.

use std::path::PathBuf;
use std::time::Duration;

/// An error of the server or of its surroundings; the message says what to do.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    #[error("{what}: {error}")]
    Io { what: String, error: std::io::Error },
    #[error("certificates for the server: {0}")]
    Certificate(#[from] rcgen::Error),
    #[error(
        "no {program} for the tests, neither in {variable} nor as {searched}: run `cargo xtask setup`, or name one in {variable}"
    )]
    NoProgram {
        program: &'static str,
        variable: &'static str,
        searched: PathBuf,
    },
    #[error("{program}: its port was taken by another process before it listened")]
    PortTaken { program: &'static str },
    #[error("{program} {problem}; the end of its log {log}:\n{tail}")]
    Failed {
        program: &'static str,
        problem: String,
        log: PathBuf,
        tail: String,
    },
    #[error("{program} was not ready within {timeout:?} ({last}); the end of its log {log}:\n{tail}")]
    NotReady {
        program: &'static str,
        timeout: Duration,
        last: String,
        log: PathBuf,
        tail: String,
    },
    #[error("etcd answered {0}")]
    Etcd(String),
    #[error("{what}: {error}")]
    Api { what: String, error: Box<kube::Error> },
    #[error("kubeconfig: {0}")]
    Kubeconfig(#[from] kube::config::KubeconfigError),
    #[error("a manifest: {0}")]
    Manifest(String),
}

impl ApiError {
    /// Wraps an [`std::io::Error`] with what was being done.
    pub(super) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |error| Self::Io { what, error }
    }

    /// Wraps the server's refusal with what was asked.
    pub(super) fn api(what: impl Into<String>) -> impl FnOnce(kube::Error) -> Self {
        let what = what.into();
        move |error| Self::Api {
            what,
            error: Box::new(error),
        }
    }
}
