//! A small client of Azure Resource Manager: what routes and network interfaces need, and no more. The only part of `azure` that
//! talks to anybody, and with `sources::kube` the only one with an event loop.
//!
//! A write is sent once. What became of one that was not answered is found out by reading, never by writing again.

mod client;
mod http;
mod limits;
mod session;
mod token;
mod wire;
mod write;

pub use client::Arm;
pub use limits::Remaining;
pub use session::{Gathered, Session, SessionError};
pub use write::{Writing, Written};

use std::time::Duration;

/// How long things may take.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// One answer.
    pub answer: Duration,
    /// One operation, from its acceptance to its end, retries included.
    pub operation: Duration,
    /// Between two looks at an operation, or before a request is sent again, unless the answer says otherwise.
    pub pause: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            answer: Duration::from_secs(30),
            operation: Duration::from_secs(300),
            pause: Duration::from_secs(2),
        }
    }
}

/// ARM did not do what was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ArmError {
    #[error("no token from {from}: {why}")]
    Token { from: String, why: String },
    #[error("{what}: no answer: {why}")]
    Lost { what: String, why: String },
    #[error("{what}: ARM says {status} {code}: {message}")]
    Refused {
        what: String,
        status: u16,
        code: String,
        message: String,
    },
    #[error("{what}: somebody else changed it meanwhile")]
    Changed { what: String },
    #[error("{what}: ARM asks to wait {} s", .wait.as_secs())]
    Throttled { what: String, wait: Duration },
    #[error("{what}: ARM does not know the token any more")]
    Expired { what: String },
    #[error("{what}: not done after {} s", .after.as_secs())]
    Late { what: String, after: Duration },
    #[error("{what}: the answer is not what ARM says: {why}")]
    Garbled { what: String, why: String },
    #[error("TLS: {0}; mount the machine's certificates or set SSL_CERT_FILE")]
    Tls(String),
}

impl ArmError {
    /// Whether trying again later, from the start, may help.
    #[must_use]
    pub fn passes(&self) -> bool {
        match self {
            Self::Lost { .. }
            | Self::Changed { .. }
            | Self::Throttled { .. }
            | Self::Expired { .. }
            | Self::Late { .. } => true,
            Self::Refused { status, .. } => matches!(status, 408 | 409 | 429 | 500..=599),
            Self::Token { .. } | Self::Garbled { .. } | Self::Tls(_) => false,
        }
    }
}
