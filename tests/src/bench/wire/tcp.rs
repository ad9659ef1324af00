//! TCP between two pods: one byte to and fro, one connection after the other, and as much as goes.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use socket2::SockRef;

use super::topology::Pod;
use crate::bench::stats::Samples;
use crate::harness::pin;

/// Echoes single bytes, one connection at a time.
pub(in crate::bench) const ECHO_PORT: u16 = 5000;
const IPERF_PORT: u16 = 5201;
const PATIENCE: Duration = Duration::from_secs(2);

/// An echo server and an iperf3 server in a pod.
pub(in crate::bench) struct Servers {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    iperf: Option<Child>,
}

/// What one byte to and fro took.
pub(in crate::bench) struct Exchanges {
    /// Per second.
    pub(in crate::bench) rate: f64,
    /// Microseconds.
    pub(in crate::bench) p50: f64,
    pub(in crate::bench) p99: f64,
}

impl Servers {
    /// Starts both; `iperf` may be left out where it is not needed.
    pub(in crate::bench) fn start(pod: &Pod, iperf: bool) -> Result<Self> {
        let address = SocketAddr::new(pod.ip, ECHO_PORT);
        let listener = pod.ns.run(|| TcpListener::bind(address))??;
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let stop = Arc::clone(&stop);
            move || serve(&listener, &stop)
        });
        let mut servers = Self {
            address,
            stop,
            thread: Some(thread),
            iperf: None,
        };
        if iperf {
            let mut command = pod.ns.command("iperf3");
            command.args(["-s", "-p", &IPERF_PORT.to_string()]);
            command
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            servers.iperf = Some(
                command
                    .spawn()
                    .context("iperf3: `cargo xtask setup` installs it")?,
            );
        }
        Ok(servers)
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(mut iperf) = self.iperf.take() {
            let _gone = iperf.kill();
            let _gone = iperf.wait();
        }
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

fn serve(listener: &TcpListener, stop: &AtomicBool) {
    let _anywhere = pin(1);
    let _blocking = SockRef::from(listener).set_read_timeout(Some(Duration::from_millis(50)));
    while !stop.load(Ordering::Relaxed) {
        let Ok((mut stream, _)) = listener.accept() else {
            continue;
        };
        let _slower = stream.set_nodelay(true);
        let _patient = stream.set_read_timeout(Some(PATIENCE));
        let mut byte = [0];
        while !stop.load(Ordering::Relaxed) && matches!(stream.read(&mut byte), Ok(1)) {
            if stream.write_all(&byte).is_err() {
                break;
            }
        }
    }
}

fn connect(to: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

fn exchange(stream: &mut TcpStream) -> std::io::Result<()> {
    stream.write_all(&[1])?;
    stream.read_exact(&mut [0])
}

/// On one connection, for some time.
pub(in crate::bench) fn requests(from: &Pod, servers: &Servers, time: Duration) -> Result<Exchanges> {
    let run = || -> Result<Exchanges> {
        pin(0)?;
        let mut stream = connect(servers.address)?;
        for _ in 0..20 {
            exchange(&mut stream)?;
        }
        let mut times = Samples::default();
        let mut count = 0_u32;
        let begun = Instant::now();
        let mut last = begun;
        while last.duration_since(begun) < time {
            exchange(&mut stream)?;
            let now = Instant::now();
            times.push(now.duration_since(last).as_secs_f64() * 1e6);
            last = now;
            count += 1;
        }
        let rate = f64::from(count) / last.duration_since(begun).as_secs_f64();
        let _closed = stream.shutdown(Shutdown::Both);
        Ok(Exchanges {
            rate,
            p50: times.percentile(50),
            p99: times.percentile(99),
        })
    };
    from.ns
        .run(run)?
        .with_context(|| format!("one byte to and fro from {} to {}", from.ip, servers.address))
}

/// Connections per second, each with one byte to and fro.
pub(in crate::bench) fn connections(from: &Pod, servers: &Servers, time: Duration) -> Result<f64> {
    let run = || -> Result<f64> {
        pin(0)?;
        let mut count = 0_u32;
        let begun = Instant::now();
        while begun.elapsed() < time {
            let mut stream = connect(servers.address)?;
            exchange(&mut stream)?;
            // Ended by a reset: no side keeps the port in TIME_WAIT.
            SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
            count += 1;
        }
        Ok(f64::from(count) / begun.elapsed().as_secs_f64())
    };
    from.ns
        .run(run)?
        .with_context(|| format!("connections from {} to {}", from.ip, servers.address))
}

/// Gigabits per second that arrive, by iperf3: in a second, or of a few megabytes.
pub(in crate::bench) fn throughput(from: &Pod, servers: &Servers, quick: bool) -> Result<f64> {
    let mut command = from.ns.command("iperf3");
    command.args(["-c", &servers.address.ip().to_string()]);
    command.args(["-p", &IPERF_PORT.to_string(), "-J"]);
    command.args(if quick { ["-n", "16M"] } else { ["-t", "1"] });
    // The server may still be tidying up after the client before.
    let mut problem = String::new();
    for _ in 0..20 {
        let output = command.stdin(Stdio::null()).output().context("iperf3")?;
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).context("iperf3's output")?;
        if let Some(bits) = json["end"]["sum_received"]["bits_per_second"].as_f64() {
            return Ok(bits / 1e9);
        }
        problem = json["error"].as_str().unwrap_or("no figure").to_owned();
        std::thread::sleep(Duration::from_millis(50));
    }
    anyhow::bail!("iperf3 from {} to {}: {problem}", from.ip, servers.address.ip())
}
