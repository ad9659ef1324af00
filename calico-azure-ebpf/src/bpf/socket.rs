//! A packet that a socket is about to get, in an skb that begins with the network header.

use core::mem::MaybeUninit;

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::generated::bpf_skb_load_bytes;
use aya_ebpf::programs::SkBuffContext;

use super::ctx::{opaque, pair};
use crate::packet::{ETHERNET, Packet};

/// An skb at a cgroup's hook.
pub(super) struct SocketPacket {
    skb: *mut __sk_buff,
}

impl SocketPacket {
    #[inline(always)]
    pub(super) fn new(ctx: &SkBuffContext) -> Self {
        Self { skb: ctx.skb.skb }
    }
}

impl Packet for SocketPacket {
    const AT_INTERFACE: bool = false;

    #[inline(always)]
    fn len(&self) -> u32 {
        // SAFETY: the context pointer is valid for the whole program run.
        ETHERNET + unsafe { (*self.skb).len }
    }

    #[inline(always)]
    fn ethertype(&self) -> u16 {
        // SAFETY: as above.
        u16::from_be(unsafe { (*self.skb).protocol } as u16)
    }

    #[inline(always)]
    fn ifindex(&self) -> u32 {
        // SAFETY: as above.
        unsafe { (*self.skb).ifindex }
    }

    #[inline(always)]
    fn ingress_ifindex(&self) -> u32 {
        // SAFETY: as above.
        unsafe { (*self.skb).ingress_ifindex }
    }

    #[inline(always)]
    fn mark(&self) -> u32 {
        // SAFETY: as above.
        unsafe { (*self.skb).mark }
    }

    #[inline(always)]
    fn set_mark(&self, mark: u32) {
        // SAFETY: as above; programs at this hook may write the mark.
        unsafe { (*self.skb).mark = mark }
    }

    #[inline(always)]
    fn peer4(&self, peer: u32, asked: u64) -> u64 {
        peer4_of_socket(self.skb, u64::from(peer), asked)
    }

    #[inline(always)]
    fn peer6(&self, peer: [u32; 4], asked: u64) -> u64 {
        let [upper, lower] = pair(peer);
        peer6_of_socket(self.skb, upper, lower, asked)
    }

    #[inline(always)]
    fn opaque(value: u64) -> u64 {
        opaque(value)
    }

    #[inline(always)]
    fn follow(&self, from: u64) -> u64 {
        headers_of_socket(self.skb, from)
    }

    #[inline(always)]
    fn transport(&self, from: u64) -> u64 {
        transport_of_socket(self.skb, from)
    }

    #[inline(always)]
    fn words<const N: usize>(&self, offset: u32) -> Option<[u32; N]> {
        let offset = offset.checked_sub(ETHERNET)?;
        let mut words = MaybeUninit::<[u32; N]>::uninit();
        // SAFETY: the helper writes all `N * 4` bytes or returns an error.
        let result =
            unsafe { bpf_skb_load_bytes(self.skb.cast(), offset, words.as_mut_ptr().cast(), N as u32 * 4) };
        if result == 0 {
            // SAFETY: the helper succeeded, so it filled the array.
            Some(unsafe { words.assume_init() })
        } else {
            None
        }
    }
}

read_apart!(
    SocketPacket { skb: __sk_buff },
    headers_of_socket,
    transport_of_socket
);
peer_apart!(SocketPacket { skb: __sk_buff }, peer4_of_socket, peer6_of_socket);
