//! TCP and UDP echo on many ports, one thread per namespace.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd as _, RawFd};
use std::os::unix::net::UnixStream;
use std::thread::JoinHandle;

use socket2::{Domain, Socket, Type};

use crate::lab::{LabError, NetNs, Port, Result};

/// Echo servers in one namespace; they end when this is dropped.
#[derive(Debug)]
pub struct Server {
    ports: Vec<Port>,
    stop: UnixStream,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Serves every port on every address; unspecified addresses (`0.0.0.0`, `::`) stand for all of a family.
    pub fn start(ns: &NetNs, addresses: &[IpAddr], ports: &[Port]) -> Result<Self> {
        Self::spawn(ns.run(|| Sockets::bind(addresses, ports))??, ports)
    }

    /// As [`Self::start`], in the calling thread's namespace.
    pub fn start_here(addresses: &[IpAddr], ports: &[Port]) -> Result<Self> {
        Self::spawn(Sockets::bind(addresses, ports)?, ports)
    }

    fn spawn(sockets: Sockets, ports: &[Port]) -> Result<Self> {
        let (stop, stopped) = UnixStream::pair().map_err(LabError::io("cannot make a socket pair"))?;
        let thread = std::thread::spawn(move || sockets.serve(&stopped));
        Ok(Self {
            ports: ports.to_vec(),
            stop,
            thread: Some(thread),
        })
    }

    /// What is served.
    #[must_use]
    pub fn ports(&self) -> &[Port] {
        &self.ports
    }

    /// Closes every socket, so that another process can take over.
    pub fn stop(&mut self) {
        let _ = self.stop.shutdown(std::net::Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

#[derive(Default)]
struct Sockets {
    listeners: Vec<TcpListener>,
    datagrams: Vec<UdpSocket>,
    streams: Vec<TcpStream>,
}

impl Sockets {
    fn bind(addresses: &[IpAddr], ports: &[Port]) -> Result<Self> {
        let mut sockets = Self::default();
        for address in addresses {
            for port in ports {
                sockets
                    .add(*address, *port)
                    .map_err(LabError::io(format!("cannot serve {address} {port:?}")))?;
            }
        }
        Ok(sockets)
    }

    fn add(&mut self, address: IpAddr, port: Port) -> io::Result<()> {
        let domain = if address.is_ipv6() {
            Domain::IPV6
        } else {
            Domain::IPV4
        };
        let (kind, number) = match port {
            Port::Tcp(number) => (Type::STREAM, number),
            Port::Udp(number) => (Type::DGRAM, number),
        };
        let socket = Socket::new(domain, kind, None)?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&SocketAddr::from((address, number)).into())?;
        match port {
            Port::Tcp(_) => {
                socket.listen(128)?;
                self.listeners.push(socket.into());
            }
            Port::Udp(_) => self.datagrams.push(socket.into()),
        }
        Ok(())
    }

    fn serve(mut self, stopped: &UnixStream) {
        loop {
            let (listeners, datagrams) = (self.listeners.len(), self.datagrams.len());
            let fds = [stopped.as_raw_fd()].into_iter();
            let fds = fds.chain(self.listeners.iter().map(|s| s.as_raw_fd()));
            let fds = fds.chain(self.datagrams.iter().map(|s| s.as_raw_fd()));
            let fds = fds.chain(self.streams.iter().map(|s| s.as_raw_fd()));
            let ready = match poll(fds.collect()) {
                Ok(ready) => ready,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => return,
            };
            let (stop, ready) = ready.split_at(1);
            if stop == [true] {
                return;
            }
            let (new, ready) = ready.split_at(listeners);
            let (datagram, stream) = ready.split_at(datagrams);
            let mut stream = stream.iter();
            self.streams
                .retain_mut(|socket| stream.next() != Some(&true) || echo_stream(socket));
            for (socket, _) in self.datagrams.iter().zip(datagram).filter(|(_, ready)| **ready) {
                echo_datagrams(socket);
            }
            for (listener, _) in self.listeners.iter().zip(new).filter(|(_, ready)| **ready) {
                while let Ok((socket, _)) = listener.accept() {
                    if socket
                        .set_nonblocking(true)
                        .and_then(|()| socket.set_nodelay(true))
                        .is_ok()
                    {
                        self.streams.push(socket);
                    }
                }
            }
        }
    }
}

/// Echoes what is there; `false` once the connection is over.
fn echo_stream(socket: &mut TcpStream) -> bool {
    let mut buffer = [0; 4096];
    loop {
        match socket.read(&mut buffer) {
            Ok(0) => return false,
            Ok(len) => {
                if socket.write_all(&buffer[..len]).is_err() {
                    return false;
                }
            }
            Err(error) => return error.kind() == ErrorKind::WouldBlock,
        }
    }
}

fn echo_datagrams(socket: &UdpSocket) {
    let mut buffer = [0; 4096];
    // An error of an earlier answer is reported once and then gone.
    while let Ok((len, from)) = socket.recv_from(&mut buffer) {
        let _ = socket.send_to(&buffer[..len], from);
    }
}

/// Waits until some descriptor is readable; says which.
fn poll(fds: Vec<RawFd>) -> io::Result<Vec<bool>> {
    let mut fds: Vec<_> = fds
        .into_iter()
        .map(|fd| libc::pollfd {
            fd,
            events: libc::POLLIN,
            revents: 0,
        })
        .collect();
    let len = libc::nfds_t::try_from(fds.len()).unwrap_or(libc::nfds_t::MAX);
    // SAFETY: the pointer and the length are those of a vector that outlives the call.
    if unsafe { libc::poll(fds.as_mut_ptr(), len, -1) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(fds.into_iter().map(|fd| fd.revents != 0).collect())
}
