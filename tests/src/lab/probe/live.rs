//! Traffic that goes on while something changes, with the time of everything that happened to it.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::transport::any;
use crate::lab::{LabError, NetNs, Result};

/// An established TCP connection that echoes eight bytes every interval.
#[derive(Debug)]
pub struct LiveConnection {
    stop: Arc<AtomicBool>,
    last: Arc<Mutex<Instant>>,
    local: SocketAddr,
    thread: Option<JoinHandle<()>>,
}

impl LiveConnection {
    /// Connects from `from` and completes one echo.
    pub fn open(from: &NetNs, dst: SocketAddr, interval: Duration) -> Result<Self> {
        let connect = || -> std::io::Result<TcpStream> {
            let mut stream = TcpStream::connect_timeout(&dst, Duration::from_secs(2))?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(Duration::from_secs(2)))?;
            echo(&mut stream, 0)?;
            stream.set_read_timeout(Some(Duration::from_millis(20)))?;
            Ok(stream)
        };
        let what = format!("cannot open a connection from {} to {dst}", from.name());
        let stream = from.run(connect)?.map_err(LabError::io(what))?;
        let local = stream
            .local_addr()
            .map_err(LabError::io("cannot read a socket's address"))?;
        let stop = Arc::new(AtomicBool::new(false));
        let last = Arc::new(Mutex::new(Instant::now()));
        let thread = std::thread::spawn({
            let (stop, last) = (Arc::clone(&stop), Arc::clone(&last));
            move || drive(stream, interval, &stop, &last)
        });
        Ok(Self {
            stop,
            last,
            local,
            thread: Some(thread),
        })
    }

    /// The client's side.
    #[must_use]
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// When the last echo arrived.
    #[must_use]
    pub fn last_success(&self) -> Instant {
        *lock(&self.last)
    }

    /// Waits until nothing has arrived for `quiet`, and returns when the last echo arrived.
    pub fn wait_quiet(&self, quiet: Duration, timeout: Duration) -> Result<Instant> {
        let what = || format!("the end of the connection from {}", self.local);
        wait(timeout, what, || {
            Some(self.last_success()).filter(|last| last.elapsed() >= quiet)
        })
    }

    /// Waits for an echo that arrives after `after`.
    pub fn wait_success(&self, after: Instant, timeout: Duration) -> Result<Instant> {
        let what = || format!("an echo on the connection from {}", self.local);
        wait(timeout, what, || {
            Some(self.last_success()).filter(|last| *last > after)
        })
    }
}

impl Drop for LiveConnection {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn drive(mut stream: TcpStream, interval: Duration, stop: &AtomicBool, last: &Mutex<Instant>) {
    let mut buffer = [0; 256];
    let mut number = 1_u64;
    while !stop.load(Ordering::Relaxed) {
        let start = Instant::now();
        // What is lost, TCP sends again: any byte that arrives is a sign of life.
        let sent = stream.write_all(&number.to_be_bytes());
        number += 1;
        match sent.and_then(|()| stream.read(&mut buffer)) {
            Ok(0) => return,
            Ok(_) => *lock(last) = Instant::now(),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
        std::thread::sleep(interval.saturating_sub(start.elapsed()));
    }
}

fn echo(stream: &mut TcpStream, number: u64) -> std::io::Result<()> {
    stream.write_all(&number.to_be_bytes())?;
    stream.read_exact(&mut [0; 8])
}

/// One datagram of a [`Prober`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    pub sent: Instant,
    /// When its echo arrived.
    pub answered: Option<Instant>,
}

/// Sends a numbered datagram every interval, each from the same socket, and notes which are answered.
#[derive(Debug)]
pub struct Prober {
    stop: Arc<AtomicBool>,
    samples: Arc<Mutex<Vec<Sample>>>,
    what: String,
    thread: Option<JoinHandle<()>>,
}

impl Prober {
    /// Starts sending from `from`.
    pub fn start(from: &NetNs, dst: SocketAddr, interval: Duration) -> Result<Self> {
        let open = || -> std::io::Result<UdpSocket> {
            let socket = UdpSocket::bind(any(dst.ip()))?;
            socket.connect(dst)?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        };
        let what = format!("from {} to {dst}", from.name());
        let socket = from
            .run(open)?
            .map_err(LabError::io(format!("cannot probe {what}")))?;
        let stop = Arc::new(AtomicBool::new(false));
        let samples = Arc::default();
        let thread = std::thread::spawn({
            let (stop, samples) = (Arc::clone(&stop), Arc::clone(&samples));
            move || pump(&socket, interval, &stop, &samples)
        });
        Ok(Self {
            stop,
            samples,
            what,
            thread: Some(thread),
        })
    }

    /// Everything so far. The newest datagrams may still be under way.
    #[must_use]
    pub fn samples(&self) -> Vec<Sample> {
        lock(&self.samples).clone()
    }

    /// Sent and answered.
    #[must_use]
    pub fn counts(&self) -> (usize, usize) {
        let samples = lock(&self.samples);
        (
            samples.len(),
            samples.iter().filter(|sample| sample.answered.is_some()).count(),
        )
    }

    /// Waits until a datagram sent after `after` is answered; returns it.
    pub fn wait_answered(&self, after: Instant, timeout: Duration) -> Result<Sample> {
        let what = || format!("an answered datagram {}", self.what);
        let find = || {
            let samples = lock(&self.samples);
            samples
                .iter()
                .find(|s| s.sent > after && s.answered.is_some())
                .copied()
        };
        wait(timeout, what, find)
    }

    /// Waits until nothing sent in the last `quiet` (and at least five datagrams) was answered, and returns the
    /// first datagram after the last answered one: the first that was stopped.
    pub fn wait_silent(&self, quiet: Duration, timeout: Duration) -> Result<Sample> {
        let what = || format!("silence {}", self.what);
        let find = || {
            let samples = lock(&self.samples);
            let answered = samples.iter().rposition(|sample| sample.answered.is_some());
            let silent = samples.get(answered.map_or(0, |at| at + 1)..).unwrap_or_default();
            silent
                .first()
                .filter(|first| silent.len() >= 5 && first.sent.elapsed() >= quiet)
                .copied()
        };
        wait(timeout, what, find)
    }

    /// Waits `grace` for what is under way, stops, and returns everything.
    #[must_use]
    pub fn finish(mut self, grace: Duration) -> Vec<Sample> {
        std::thread::sleep(grace);
        self.join();
        self.samples()
    }

    fn join(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        self.join();
    }
}

fn pump(socket: &UdpSocket, interval: Duration, stop: &AtomicBool, samples: &Mutex<Vec<Sample>>) {
    let mut next = Instant::now();
    let mut number = 0_u64;
    while !stop.load(Ordering::Relaxed) {
        if Instant::now() >= next {
            lock(samples).push(Sample {
                sent: Instant::now(),
                answered: None,
            });
            // A send may fail with the refusal of an earlier one; the sample then counts as unanswered.
            let _ = socket.send(&number.to_be_bytes());
            number += 1;
            next += interval;
        }
        let mut answer = [0; 8];
        while let Ok(8) = socket.recv(&mut answer) {
            let index = usize::try_from(u64::from_be_bytes(answer)).unwrap_or(usize::MAX);
            if let Some(sample) = lock(samples).get_mut(index) {
                sample.answered.get_or_insert_with(Instant::now);
            }
        }
        std::thread::sleep(
            next.saturating_duration_since(Instant::now())
                .min(Duration::from_micros(200)),
        );
    }
}

fn wait<T>(timeout: Duration, what: impl Fn() -> String, check: impl Fn() -> Option<T>) -> Result<T> {
    let end = Instant::now() + timeout;
    loop {
        if let Some(found) = check() {
            return Ok(found);
        }
        if Instant::now() >= end {
            return Err(LabError::Timeout {
                what: what(),
                timeout,
            });
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
