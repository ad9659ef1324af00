//! Frames as they are, from the Ethernet header on: what no socket of the network layer would send.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use crate::lab::{LabError, NetNs, Result};

/// Sends a frame by an interface of `from`.
pub fn frame(from: &NetNs, interface: &str, bytes: &[u8]) -> Result<()> {
    let name = CString::new(interface).map_err(|_| LabError::Unknown {
        kind: "interface",
        name: interface.to_owned(),
        known: "names without NUL".to_owned(),
    })?;
    let send = || -> io::Result<()> {
        let last = |failed: bool| {
            if failed {
                Err(io::Error::last_os_error())
            } else {
                Ok(())
            }
        };
        // SAFETY: takes plain numbers.
        let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
        last(fd < 0)?;
        // SAFETY: the descriptor was just made and belongs to nobody else.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        // SAFETY: a C string that outlives the call.
        let ifindex = unsafe { libc::if_nametoindex(name.as_ptr()) };
        last(ifindex == 0)?;
        // SAFETY: all zeros is a valid address.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = u16::try_from(libc::AF_PACKET).unwrap_or_default();
        address.sll_ifindex = i32::try_from(ifindex).unwrap_or_default();
        let length = u32::try_from(size_of_val(&address)).unwrap_or_default();
        let data = bytes.as_ptr().cast();
        let address = (&raw const address).cast();
        // SAFETY: the bytes and the address are as long as is said, and live until the call returns.
        let sent = unsafe { libc::sendto(socket.as_raw_fd(), data, bytes.len(), 0, address, length) };
        last(sent < 0)
    };
    let what = format!("cannot send a frame by {interface} in {}", from.name());
    from.run(send)?.map_err(LabError::io(what))
}
