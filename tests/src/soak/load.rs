//! Load: ever new UDP flows that policy allows or denies, TCP connections, and a few connections that last.

use std::collections::VecDeque;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Result;
use socket2::SockRef;

use super::world::{SERVED, World};
use crate::lab::NetNs;
use crate::lab::probe::LiveConnection;

/// How long an answer may take before the datagram is sent again.
const PATIENCE: Duration = Duration::from_millis(400);
const TRIES: u32 = 4;
/// For how long a connection may be silent.
const SILENCE: Duration = Duration::from_secs(5);
/// New TCP connections per second and pair.
const CONNECTIONS: u32 = 10;

/// What happened.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    /// Flows that policy allows and that were answered.
    pub(super) allowed: u64,
    /// Of these, not at once.
    pub(super) late: u64,
    /// Never answered.
    pub(super) lost: u64,
    /// Datagrams that policy denies.
    pub(super) denied: u64,
    /// Of these, answered.
    pub(super) wrong: u64,
    /// TCP connections with an echo.
    pub(super) connections: u64,
    pub(super) failed: u64,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    allowed: AtomicU64,
    late: AtomicU64,
    lost: AtomicU64,
    denied: AtomicU64,
    wrong: AtomicU64,
    connections: AtomicU64,
    failed: AtomicU64,
}

/// The threads.
pub(super) struct Load {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    lasting: Vec<(String, LiveConnection)>,
}

impl Load {
    pub(super) fn start(world: &World, flows: u32) -> Result<Self> {
        let shared = Arc::<Shared>::default();
        let mut threads = Vec::new();
        let mut lasting = Vec::new();
        for number in [1, 2] {
            for (app, rate) in [("client", flows / 2), ("stranger", flows / 20)] {
                let from = world.ns(&format!("{app}-{number}"))?;
                // Each on its own node and the other, in both families.
                let to = [
                    ("server-1", false),
                    ("server-2", true),
                    ("server-2", false),
                    ("server-1", true),
                ];
                let to = to.map(|(pod, v6)| world.address(pod, v6, SERVED));
                let to = to.into_iter().collect::<Result<Vec<_>>>()?;
                if app == "client" {
                    for address in &to {
                        let connection = LiveConnection::open(&from, *address, Duration::from_millis(100))?;
                        lasting.push((format!("{app}-{number} to {address}"), connection));
                    }
                    threads.push(spawn(&from, &shared, &to, connect));
                }
                let (allowed, rate) = (app == "client", rate.max(1));
                threads.push(spawn(&from, &shared, &to, move |to, shared| {
                    datagrams(to, shared, rate, allowed);
                }));
            }
        }
        Ok(Self {
            shared,
            threads,
            lasting,
        })
    }

    pub(super) fn counts(&self) -> Counts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let shared = &self.shared;
        Counts {
            allowed: read(&shared.allowed),
            late: read(&shared.late),
            lost: read(&shared.lost),
            denied: read(&shared.denied),
            wrong: read(&shared.wrong),
            connections: read(&shared.connections),
            failed: read(&shared.failed),
        }
    }

    /// Lasting connections that are silent.
    pub(super) fn dead_connections(&self) -> Vec<String> {
        let silent = self
            .lasting
            .iter()
            .filter(|(_, connection)| connection.last_success().elapsed() > SILENCE);
        silent
            .map(|(name, connection)| {
                let silent = connection.last_success().elapsed().as_secs();
                format!("the connection {name} has been silent for {silent} s")
            })
            .collect()
    }

    /// Waits for what is under way.
    pub(super) fn finish(mut self) -> Counts {
        self.stop();
        self.counts()
    }

    fn stop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _panicked = thread.join();
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Counts {
    pub(super) fn findings(&self) -> Vec<String> {
        let mut findings = Vec::new();
        let mut add = |count: u64, what: &str| {
            if count > 0 {
                findings.push(format!("{count} {what}"));
            }
        };
        add(self.lost, "flows that policy allows were never answered");
        add(self.wrong, "datagrams that policy denies were answered");
        add(self.failed, "connections that policy allows failed");
        add(
            u64::from(self.allowed == 0),
            "of the allowed kind of flow at all: nothing was tested",
        );
        add(
            u64::from(self.denied == 0),
            "of the denied kind of flow at all: nothing was tested",
        );
        findings
    }
}

fn spawn(
    from: &NetNs,
    shared: &Arc<Shared>,
    to: &[SocketAddr],
    run: impl FnOnce(&[SocketAddr], &Shared) + Send + 'static,
) -> JoinHandle<()> {
    let (from, shared, to) = (from.clone(), Arc::clone(shared), to.to_vec());
    std::thread::spawn(move || {
        if let Err(error) = from.run(|| run(&to, &shared)) {
            eprintln!("warning: {error}");
            shared.failed.fetch_add(1, Ordering::Relaxed);
        }
    })
}

struct Flow {
    socket: UdpSocket,
    sent: Instant,
    tries: u32,
}

/// New flows at a rate, each a datagram and its echo. What is denied is sent once, so that it can be counted.
fn datagrams(to: &[SocketAddr], shared: &Shared, rate: u32, allowed: bool) {
    let interval = Duration::from_secs(1) / rate;
    let mut flows: VecDeque<Flow> = VecDeque::new();
    let mut next = Instant::now();
    let mut turn = to.iter().cycle();
    loop {
        let stopping = shared.stop.load(Ordering::Relaxed);
        if stopping && flows.is_empty() {
            return;
        }
        while !stopping && Instant::now() >= next {
            next += interval;
            // After a pause of the machine not all at once.
            next = next.max(
                Instant::now()
                    .checked_sub(Duration::from_millis(20))
                    .unwrap_or(next),
            );
            if let Some(flow) = turn.next().and_then(|to| open(*to)) {
                if !allowed {
                    shared.denied.fetch_add(1, Ordering::Relaxed);
                }
                flows.push_back(flow);
            }
        }
        for _ in 0..flows.len() {
            let Some(flow) = flows.pop_front() else { break };
            flows.extend(follow(flow, shared, allowed));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn open(to: SocketAddr) -> Option<Flow> {
    let any: SocketAddr = if to.is_ipv6() {
        ([0_u16; 8], 0).into()
    } else {
        ([0_u8; 4], 0).into()
    };
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect(to).ok()?;
    socket.set_nonblocking(true).ok()?;
    socket.send(b"soak").ok()?;
    Some(Flow {
        socket,
        sent: Instant::now(),
        tries: 1,
    })
}

/// Whether the flow is still to be followed.
fn follow(mut flow: Flow, shared: &Shared, allowed: bool) -> Option<Flow> {
    let count = |counter: &AtomicU64| counter.fetch_add(1, Ordering::Relaxed);
    if flow.socket.recv(&mut [0; 16]).is_ok() {
        if allowed {
            count(&shared.allowed);
            if flow.tries > 1 {
                count(&shared.late);
            }
        } else {
            count(&shared.wrong);
        }
        return None;
    }
    if flow.sent.elapsed() < PATIENCE {
        return Some(flow);
    }
    if !allowed {
        return None;
    }
    if flow.tries == TRIES {
        count(&shared.lost);
        return None;
    }
    flow.tries += 1;
    flow.sent = Instant::now();
    let _refused = flow.socket.send(b"soak");
    Some(flow)
}

/// One connection after the other.
fn connect(to: &[SocketAddr], shared: &Shared) {
    for address in to.iter().cycle() {
        if shared.stop.load(Ordering::Relaxed) {
            return;
        }
        let counter = match echo(*address) {
            Ok(()) => &shared.connections,
            Err(_) => &shared.failed,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(Duration::from_secs(1) / CONNECTIONS);
    }
}

fn echo(to: SocketAddr) -> std::io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&to, SILENCE)?;
    stream.set_read_timeout(Some(SILENCE))?;
    stream.write_all(b"soak")?;
    stream.read_exact(&mut [0; 4])?;
    // Ended by a reset: ports are not kept waiting.
    SockRef::from(&stream).set_linger(Some(Duration::ZERO))
}
