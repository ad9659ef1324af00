//! Sends frames out of a pod's interface at full rate.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::topology::Pod;
use crate::harness::packet::Frame;
use crate::harness::pin;

/// Frames in one system call.
const BATCH: usize = 64;

/// A packet socket on a pod's `eth0`. What it sends passes the whole path within the sending thread, so that the
/// thread's processor time is the path's.
pub(in crate::bench) struct Sender {
    socket: OwnedFd,
    /// Processor that it sends on.
    cpu: usize,
}

/// What was sent.
#[derive(Clone, Copy, Debug)]
pub(in crate::bench) struct Sent {
    pub(in crate::bench) packets: u64,
    /// Processor time of the sending thread.
    pub(in crate::bench) cpu: Duration,
}

impl Sent {
    /// Nanoseconds of processor time for each packet.
    pub(in crate::bench) fn cost(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e9 / self.packets as f64
    }
}

impl Sender {
    /// On the processor that clients use.
    pub(in crate::bench) fn open(pod: &Pod) -> Result<Self> {
        Self::open_on(pod, 0)
    }

    pub(in crate::bench) fn open_on(pod: &Pod, cpu: usize) -> Result<Self> {
        let socket = pod.ns.run(open)?.context("a packet socket")?;
        Ok(Self { socket, cpu })
    }

    /// Sends frames, each with the source port that `ports` gives next, until there is no more time or port. The calling
    /// thread stays on one processor from now on.
    pub(in crate::bench) fn send(
        &self,
        frame: &[u8],
        ports: &mut impl Iterator<Item = u16>,
        time: Duration,
    ) -> Result<Sent> {
        pin(self.cpu)?;
        // Behind the Ethernet header and an IPv4 header without options.
        const SPORT: usize = 34;
        ensure!(frame.len() >= SPORT + 2, "the frame has no source port");
        let mut frames = vec![frame.to_vec(); BATCH];
        let begun = Instant::now();
        let cpu = thread_time()?;
        let mut packets = 0;
        while begun.elapsed() < time {
            let mut filled = 0;
            for (frame, port) in frames.iter_mut().zip(&mut *ports) {
                if let Some(bytes) = frame.get_mut(SPORT..SPORT + 2) {
                    bytes.copy_from_slice(&port.to_be_bytes());
                }
                filled += 1;
            }
            if filled == 0 {
                break;
            }
            packets += self.batch(&mut frames, filled)?;
        }
        ensure!(packets > 0, "nothing was sent");
        Ok(Sent {
            packets,
            cpu: thread_time()?.saturating_sub(cpu),
        })
    }

    fn batch(&self, frames: &mut [Vec<u8>], count: usize) -> Result<u64> {
        let mut vectors: Vec<libc::iovec> = frames
            .iter_mut()
            .take(count)
            .map(|frame| libc::iovec {
                iov_base: frame.as_mut_ptr().cast(),
                iov_len: frame.len(),
            })
            .collect();
        let mut messages: Vec<libc::mmsghdr> = vectors
            .iter_mut()
            .map(|vector| {
                // SAFETY: all zeros is a valid header: no address, no control data.
                let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
                message.msg_hdr.msg_iov = vector;
                message.msg_hdr.msg_iovlen = 1;
                message
            })
            .collect();
        let length = u32::try_from(messages.len())?;
        // SAFETY: the headers point to vectors, and those to frames, that live until the call returns.
        let sent = unsafe { libc::sendmmsg(self.socket.as_raw_fd(), messages.as_mut_ptr(), length, 0) };
        match u64::try_from(sent) {
            Ok(sent) => Ok(sent),
            // The other side's queue is full, which it may be: what arrives is counted there.
            Err(_) if io::Error::last_os_error().raw_os_error() == Some(libc::ENOBUFS) => Ok(1),
            Err(_) => Err(io::Error::last_os_error()).context("sendmmsg"),
        }
    }
}

fn open() -> Result<OwnedFd> {
    let protocol = i32::from(0x0800_u16.to_be());
    // SAFETY: takes plain numbers.
    let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    ensure!(fd >= 0, "{}", io::Error::last_os_error());
    // SAFETY: the descriptor was just made and belongs to nobody else.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: a C string that outlives the call.
    let ifindex = unsafe { libc::if_nametoindex(c"eth0".as_ptr()) };
    // SAFETY: all zeros is a valid address.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = u16::try_from(libc::AF_PACKET)?;
    address.sll_protocol = u16::try_from(protocol)?;
    address.sll_ifindex = i32::try_from(ifindex)?;
    let length = u32::try_from(size_of_val(&address))?;
    // SAFETY: an address of that length. It is bound after it was made without a protocol, so it receives nothing until
    // then; what it receives later fills its small buffer and is dropped.
    let bound = unsafe { libc::bind(fd, (&raw const address).cast(), length) };
    ensure!(bound == 0, "{}", io::Error::last_os_error());
    const PACKET_QDISC_BYPASS: i32 = 20;
    for (level, name, value) in [
        (libc::SOL_PACKET, PACKET_QDISC_BYPASS, 1_i32),
        (libc::SOL_SOCKET, libc::SO_RCVBUF, 1),
    ] {
        // SAFETY: an option of an integer's size.
        let set = unsafe { libc::setsockopt(fd, level, name, (&raw const value).cast(), 4) };
        ensure!(set == 0, "{}", io::Error::last_os_error());
    }
    Ok(socket)
}

/// The frame from one pod to another, with the link's addresses.
pub(in crate::bench) fn frame(from: &Pod, to: IpAddr, protocol: u8, dport: u16) -> Vec<u8> {
    let mut bytes = Frame::new(from.ip, to, protocol, 1024, dport).bytes();
    let [inside, outside] = from.mac;
    if let Some(header) = bytes.get_mut(..12) {
        header[..6].copy_from_slice(&outside);
        header[6..].copy_from_slice(&inside);
    }
    checksum(&mut bytes);
    bytes
}

/// Of the IPv4 header; without it no router forwards the packet.
fn checksum(frame: &mut [u8]) {
    let Some(header) = frame.get_mut(14..34) else {
        return;
    };
    header[10..12].copy_from_slice(&[0, 0]);
    let mut sum: u32 = header
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let sum = !u16::try_from(sum).unwrap_or(0);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
}

/// Processor time of the calling thread.
pub(in crate::bench) fn thread_time() -> Result<Duration> {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: writes to a valid struct.
    let read = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    ensure!(read == 0, "{}", io::Error::last_os_error());
    Ok(Duration::new(
        u64::try_from(time.tv_sec)?,
        u32::try_from(time.tv_nsec)?,
    ))
}
