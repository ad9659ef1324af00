//! Events from the kernel's ring buffer.

use std::io;
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use aya::maps::{MapData, RingBuf};
use calico_azure_ebpf::abi::{Event, Pod, map};

use super::kernel::{Kernel, KernelError};

/// Reads events as they come.
pub struct Events {
    ring: RingBuf<MapData>,
}

impl Events {
    /// Takes the ring buffer; there can be one reader.
    ///
    /// # Errors
    /// If it was taken before, or cannot be mapped.
    pub fn take(kernel: &mut Kernel) -> Result<Self, KernelError> {
        let missing = KernelError::Missing {
            kind: "map",
            name: map::EVENTS,
        };
        let map = kernel.take_map(map::EVENTS).ok_or(missing)?;
        let ring = RingBuf::try_from(map).map_err(|error| KernelError::Map {
            name: map::EVENTS,
            source: io::Error::other(error),
        })?;
        Ok(Self { ring })
    }

    /// Waits until there are events, at most `timeout`.
    ///
    /// # Errors
    /// What poll(2) says.
    pub fn wait(&self, timeout: Duration) -> io::Result<()> {
        let mut poll = libc::pollfd {
            fd: self.ring.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        let timeout = libc::c_int::try_from(timeout.as_millis()).unwrap_or(libc::c_int::MAX);
        // SAFETY: one pollfd, valid for the call.
        let result = unsafe { libc::poll(&raw mut poll, 1, timeout) };
        match io::Error::last_os_error() {
            error if result < 0 && error.kind() != io::ErrorKind::Interrupted => Err(error),
            _ => Ok(()),
        }
    }

    /// The next event, if there is one. Records of another size (not ours) are passed over.
    pub fn next_event(&mut self) -> Option<Event> {
        loop {
            let item = self.ring.next()?;
            if let Some(event) = Event::from_bytes(&item) {
                return Some(event);
            }
        }
    }
}

/// What programs of a build with the `bpf-log` feature say; forwarded to `tracing` through `log`.
pub struct DebugLog {
    logger: aya_log::EbpfLogger<&'static dyn log::Log>,
}

impl DebugLog {
    /// Takes the log, if this build of the programs has one.
    pub fn take(kernel: &mut Kernel) -> Option<Self> {
        let logger = aya_log::EbpfLogger::init(kernel.ebpf()).ok()?;
        Some(Self { logger })
    }

    /// Forwards everything that was said since the last time.
    pub fn forward(&mut self) {
        self.logger.flush();
    }
}
