//! The way to an API server, which a test breaks in the ways in which networks do.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::lab::NetNs;

/// How often to look what the test wants.
const TICK: Duration = Duration::from_millis(20);

/// Listens on a loopback port in a node's namespace, and carries bytes to the same port outside of it.
pub struct Relay {
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    state: Mutex<State>,
}

#[derive(Clone, Copy, Default)]
struct State {
    /// The number of the next connection.
    next: u64,
    /// Connections before these numbers are closed; say nothing any more, and never end.
    closed: u64,
    muted: u64,
    /// New connections are closed at once.
    refuses: bool,
    /// Before whatever passes.
    delay: Duration,
}

impl Relay {
    /// Starts listening.
    pub fn start(ns: &NetNs, port: u16) -> Result<Self> {
        let listener = ns
            .run(|| TcpListener::bind((Ipv4Addr::LOCALHOST, port)))?
            .with_context(|| format!("port {port} of {}", ns.name()))?;
        listener.set_nonblocking(true)?;
        let shared = Arc::<Shared>::default();
        let acceptor = thread::spawn({
            let shared = Arc::clone(&shared);
            move || accept(&listener, port, &shared)
        });
        Ok(Self {
            shared,
            acceptor: Some(acceptor),
        })
    }

    /// Closes what is open. New connections are taken.
    pub fn cut(&self) {
        self.shared.edit(|state| state.closed = state.next);
    }

    /// What is open goes silent: nothing is carried and nothing is closed, as when a load balancer forgets a flow. New connections work.
    pub fn mute(&self) {
        self.shared.edit(|state| state.muted = state.next);
    }

    /// Closes what is open, and whatever is opened until [`Self::admit`].
    pub fn refuse(&self) {
        self.shared.edit(|state| {
            state.closed = state.next;
            state.refuses = true;
        });
    }

    /// Undoes [`Self::refuse`].
    pub fn admit(&self) {
        self.shared.edit(|state| state.refuses = false);
    }

    /// Everything takes so much longer from now on.
    pub fn slow(&self, delay: Duration) {
        self.shared.edit(|state| state.delay = delay);
    }

    /// Connections so far.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.shared.state().next
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(acceptor) = self.acceptor.take() {
            let _ended = acceptor.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> State {
        *self.lock()
    }

    fn edit(&self, edit: impl FnOnce(&mut State)) {
        edit(&mut self.lock());
    }

    fn is_over(&self, number: u64) -> bool {
        self.stop.load(Ordering::Relaxed) || number < self.state().closed
    }
}

fn accept(listener: &TcpListener, port: u16, shared: &Arc<Shared>) {
    while !shared.stop.load(Ordering::Relaxed) {
        let Ok((inner, _)) = listener.accept() else {
            thread::sleep(TICK / 4);
            continue;
        };
        // This thread is outside of the namespace.
        let outer = TcpStream::connect((Ipv4Addr::LOCALHOST, port));
        let number = {
            let mut state = shared.lock();
            if state.refuses {
                continue;
            }
            state.next += 1;
            state.next - 1
        };
        // A server that is away closes what it does not take.
        if let Ok(outer) = outer
            && let Ok(pair) = pair(&inner, &outer)
        {
            for (from, to) in [(inner, outer), pair] {
                let shared = Arc::clone(shared);
                thread::spawn(move || carry(from, to, number, &shared));
            }
        }
    }
}

/// The other direction.
fn pair(inner: &TcpStream, outer: &TcpStream) -> std::io::Result<(TcpStream, TcpStream)> {
    for stream in [inner, outer] {
        stream.set_nonblocking(false)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TICK))?;
    }
    Ok((outer.try_clone()?, inner.try_clone()?))
}

fn carry(mut from: TcpStream, mut to: TcpStream, number: u64, shared: &Shared) {
    let mut buffer = vec![0; 1 << 16];
    while !shared.is_over(number) {
        if number < shared.state().muted {
            thread::sleep(TICK);
            continue;
        }
        let length = match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => length,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => continue,
            Err(_) => break,
        };
        let State { delay, muted, .. } = shared.state();
        thread::sleep(delay);
        if number >= muted && to.write_all(buffer.get(..length).unwrap_or_default()).is_err() {
            break;
        }
    }
    // What the other direction reads is over, too.
    for stream in [from, to] {
        let _closed = stream.shutdown(Shutdown::Both);
    }
}
