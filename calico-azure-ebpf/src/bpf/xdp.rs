//! A frame that the driver has just received, before there is an skb.

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::programs::XdpContext;

use super::ctx::{opaque, word};
use crate::packet::Packet;

/// How far into a frame headers are read. What lies beyond is left to the TC program.
const LINEAR: u32 = 0x7ff;
/// Where the Ethernet header has its protocol.
const ETHERTYPE: usize = 12;

/// A frame at an interface's XDP hook.
pub(super) struct XdpPacket {
    frame: *mut xdp_md,
}

impl XdpPacket {
    #[inline(always)]
    pub(super) fn new(ctx: &XdpContext) -> Self {
        Self { frame: ctx.ctx }
    }

    #[inline(always)]
    fn bounds(&self) -> (usize, usize) {
        // SAFETY: the context pointer is valid for the whole program run.
        unsafe { ((*self.frame).data as usize, (*self.frame).data_end as usize) }
    }
}

impl Packet for XdpPacket {
    #[inline(always)]
    fn len(&self) -> u32 {
        let (start, end) = self.bounds();
        (end - start) as u32
    }

    #[inline(always)]
    fn ethertype(&self) -> u16 {
        let (start, end) = self.bounds();
        if start + ETHERTYPE + 2 > end {
            return 0;
        }
        // SAFETY: the two bytes lie before the end; frames begin at even addresses.
        u16::from_be(unsafe { ((start + ETHERTYPE) as *const u16).read() })
    }

    #[inline(always)]
    fn ifindex(&self) -> u32 {
        // SAFETY: as above.
        unsafe { (*self.frame).ingress_ifindex }
    }

    #[inline(always)]
    fn ingress_ifindex(&self) -> u32 {
        self.ifindex()
    }

    /// None yet.
    #[inline(always)]
    fn mark(&self) -> u32 {
        0
    }

    #[inline(always)]
    fn set_mark(&self, _mark: u32) {}

    #[inline(always)]
    fn opaque(value: u64) -> u64 {
        opaque(value)
    }

    #[inline(always)]
    fn follow(&self, from: u64) -> u64 {
        headers_of_frame(self.frame, from)
    }

    #[inline(always)]
    fn transport(&self, from: u64) -> u64 {
        transport_of_frame(self.frame, from)
    }

    #[inline(always)]
    fn words<const N: usize>(&self, offset: u32) -> Option<[u32; N]> {
        let (data, end) = self.bounds();
        // The verifier must see a small bound on what is added to a packet pointer.
        let start = data + (offset & LINEAR) as usize;
        if offset > LINEAR || start + N * 4 > end {
            return None;
        }
        let start = start as *const u32;
        let mut words = [0; N];
        let mut i = 0;
        while i < N {
            // SAFETY: all `N * 4` bytes from `start` on lie before the end.
            words[i] = unsafe { word(start.add(i)) };
            i += 1;
        }
        Some(words)
    }
}

read_apart!(XdpPacket { frame: xdp_md }, headers_of_frame, transport_of_frame);
