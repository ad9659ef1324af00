//! Traffic: servers, clients, crafted packets, and connections that are watched while something changes.
//!
//! A client's answer is what was seen on the wire, never an opinion: whether it should have been seen is for the caller.

mod frame;
mod icmp;
mod live;
mod raw;
mod server;
mod transport;

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

pub use frame::frame;
pub use live::{LiveConnection, Prober, Sample};
pub use raw::{Crafted, Payload};
pub use server::Server;

use super::{LabError, NetNs, Result};

/// What to try.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Connects, sends a token and reads it back.
    Tcp(u16),
    /// Sends a token and reads it back.
    Udp(u16),
    /// An echo request of the destination's family.
    Icmp,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(port) => write!(f, "tcp/{port}"),
            Self::Udp(port) => write!(f, "udp/{port}"),
            Self::Icmp => f.write_str("icmp"),
        }
    }
}

/// What came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The token, after this long.
    Reached(Duration),
    /// A reset or port unreachable: the destination itself answered.
    Refused(Duration),
    /// TCP: the handshake and then nothing.
    Stalled,
    /// Somebody on the way said no.
    Unreachable,
    /// Nothing.
    Timeout,
}

impl Outcome {
    /// Whether a packet got to the destination and one came back.
    #[must_use]
    pub const fn passed(self) -> bool {
        matches!(self, Self::Reached(_) | Self::Refused(_) | Self::Stalled)
    }

    /// Whether the destination's server answered.
    #[must_use]
    pub const fn reached(self) -> bool {
        matches!(self, Self::Reached(_))
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reached(rtt) => write!(f, "reached in {rtt:.1?}"),
            Self::Refused(rtt) => write!(f, "refused in {rtt:.1?}"),
            Self::Stalled => f.write_str("connected, then nothing"),
            Self::Unreachable => f.write_str("unreachable"),
            Self::Timeout => f.write_str("no answer"),
        }
    }
}

/// One TCP connection and echo from `from`.
pub fn tcp(from: &NetNs, dst: IpAddr, port: u16, timeout: Duration) -> Result<Outcome> {
    run(from, Kind::Tcp(port), dst, timeout)
}

/// One UDP echo from `from`.
pub fn udp(from: &NetNs, dst: IpAddr, port: u16, timeout: Duration) -> Result<Outcome> {
    run(from, Kind::Udp(port), dst, timeout)
}

/// One ICMP or ICMPv6 echo from `from`.
pub fn icmp(from: &NetNs, dst: IpAddr, timeout: Duration) -> Result<Outcome> {
    run(from, Kind::Icmp, dst, timeout)
}

/// One probe from `from`.
pub fn run(from: &NetNs, kind: Kind, dst: IpAddr, timeout: Duration) -> Result<Outcome> {
    from.run(|| here(kind, dst, timeout))?
}

/// One probe from the calling thread's namespace.
pub fn here(kind: Kind, dst: IpAddr, timeout: Duration) -> Result<Outcome> {
    let result = match kind {
        Kind::Tcp(port) => transport::tcp(dst, port, timeout),
        Kind::Udp(port) => transport::udp(dst, port, timeout),
        Kind::Icmp => icmp::echo(dst, timeout),
    };
    result
        .or_else(failed)
        .map_err(LabError::io(format!("cannot probe {dst} {kind}")))
}

/// Failures that are answers.
fn failed(error: io::Error) -> io::Result<Outcome> {
    use io::ErrorKind::{HostUnreachable, NetworkUnreachable, PermissionDenied, TimedOut, WouldBlock};
    match error.kind() {
        TimedOut | WouldBlock => Ok(Outcome::Timeout),
        HostUnreachable | NetworkUnreachable | PermissionDenied => Ok(Outcome::Unreachable),
        _ => Err(error),
    }
}

/// A number that no other probe of this process uses.
fn token() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    (u64::from(std::process::id()) << 32) | NEXT.fetch_add(1, Ordering::Relaxed)
}
