//! ICMP and ICMPv6 echo over a raw socket.

use std::io::{self, Read as _};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use super::{Outcome, raw, token};

pub(super) fn echo(dst: IpAddr, timeout: Duration) -> io::Result<Outcome> {
    let (domain, protocol) = match dst {
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4),
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6),
    };
    let mut socket = Socket::new(domain, Type::RAW, Some(protocol))?;
    // Connected, so that only packets of `dst` are seen.
    socket.connect(&SocketAddr::from((dst, 0)).into())?;
    let token = token();
    let request = raw::echo_request(dst.is_ipv6(), token);
    let mut reply = request.clone();
    reply[0] = if dst.is_ipv6() { 129 } else { 0 };
    let start = Instant::now();
    socket.send(&request)?;
    let mut buffer = [0; 256];
    loop {
        let left = timeout.saturating_sub(start.elapsed());
        if left.is_zero() {
            return Ok(Outcome::Timeout);
        }
        socket.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
        let len = socket.read(&mut buffer)?;
        let packet = buffer.get(..len).unwrap_or_default();
        // A raw IPv4 socket shows the IP header too.
        let header = if dst.is_ipv6() {
            0
        } else {
            usize::from(packet.first().copied().unwrap_or(0) & 15) * 4
        };
        let message = packet.get(header..).unwrap_or_default();
        // All but the checksum.
        if message.first() == reply.first() && message.get(4..) == reply.get(4..) {
            return Ok(Outcome::Reached(start.elapsed()));
        }
    }
}
