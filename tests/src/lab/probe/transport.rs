//! TCP and UDP echo clients.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use super::{Outcome, token};

/// Shortest timeout that a socket takes.
const TICK: Duration = Duration::from_millis(1);

pub(super) fn tcp(dst: IpAddr, port: u16, timeout: Duration) -> io::Result<Outcome> {
    let start = Instant::now();
    let mut stream = match TcpStream::connect_timeout(&(dst, port).into(), timeout) {
        Ok(stream) => stream,
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            return Ok(Outcome::Refused(start.elapsed()));
        }
        Err(error) => return Err(error),
    };
    stream.set_read_timeout(Some(timeout.saturating_sub(start.elapsed()).max(TICK)))?;
    let token = token().to_be_bytes();
    let mut answer = [0; 8];
    match stream
        .write_all(&token)
        .and_then(|()| stream.read_exact(&mut answer))
    {
        Ok(()) if answer == token => Ok(Outcome::Reached(start.elapsed())),
        Ok(()) => Err(io::Error::new(
            ErrorKind::InvalidData,
            "the answer is not what was sent",
        )),
        Err(_) => Ok(Outcome::Stalled),
    }
}

pub(super) fn udp(dst: IpAddr, port: u16, timeout: Duration) -> io::Result<Outcome> {
    let socket = UdpSocket::bind(any(dst))?;
    socket.connect((dst, port))?;
    let token = token().to_be_bytes();
    let start = Instant::now();
    socket.send(&token)?;
    let mut answer = [0; 64];
    loop {
        let left = timeout.saturating_sub(start.elapsed());
        if left.is_zero() {
            return Ok(Outcome::Timeout);
        }
        socket.set_read_timeout(Some(left.max(TICK)))?;
        match socket.recv(&mut answer) {
            Ok(len) if answer.get(..len) == Some(token.as_slice()) => {
                return Ok(Outcome::Reached(start.elapsed()));
            }
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                return Ok(Outcome::Refused(start.elapsed()));
            }
            Err(error) => return Err(error),
        }
    }
}

/// The unspecified address of `dst`'s family, any port.
pub(super) fn any(dst: IpAddr) -> SocketAddr {
    match dst {
        IpAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        IpAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    }
}
