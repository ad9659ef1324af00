//! Makes a packet the one that resets its connection, and sends it back where it came from.

use core::ffi::c_void;
use core::ptr;

use aya_ebpf::bindings::TC_ACT_SHOT;
use aya_ebpf::helpers::generated::{bpf_redirect_neigh, bpf_skb_change_tail, bpf_skb_store_bytes};
use aya_ebpf::programs::TcContext;

use super::{KernelTables, SkbPacket};
use crate::packet::{ETHERNET, V4, V6, ethertype, protocol, tcp};
use crate::verdict::reset::{Reset, reset};

/// As Linux sends it.
const HOP_LIMIT: u8 = 64;
/// Length of the TCP header.
const TCP: u16 = 20;
/// Its data offset and flags.
const RESET: u16 = (TCP / 4) << 12 | tcp::RST as u16;

/// For IPv4.
#[inline(always)]
pub fn run_reset4(ctx: &TcContext) -> i32 {
    let Some(reset) = reset::<V4, _, _>(&SkbPacket::new(ctx), &KernelTables, ethertype::IPV4) else {
        return TC_ACT_SHOT as i32;
    };
    let (src, dst) = (halves(reset.src), halves(reset.dst));
    let ttl = u16::from_be_bytes([HOP_LIMIT, protocol::TCP]).to_be();
    const DO_NOT_FRAGMENT: u16 = 0x4000;
    let mut ip = [
        0x4500_u16.to_be(),
        (20 + TCP).to_be(),
        0,
        DO_NOT_FRAGMENT.to_be(),
        ttl,
        0,
        src[0],
        src[1],
        dst[0],
        dst[1],
    ];
    ip[5] = checksum(sum(&ip));
    let addresses = sum(&[src[0], src[1], dst[0], dst[1]]);
    let transport = transport(&reset.ports, reset.seq, addresses);
    send(ctx, &Frame { ip, transport })
}

/// For IPv6.
#[inline(always)]
pub fn run_reset6(ctx: &TcContext) -> i32 {
    let Some(reset) = reset::<V6, _, _>(&SkbPacket::new(ctx), &KernelTables, ethertype::IPV6) else {
        return TC_ACT_SHOT as i32;
    };
    let Reset { src, dst, .. } = reset;
    let mut ip = [0_u16; 20];
    ip[0] = 0x6000_u16.to_be();
    ip[2] = TCP.to_be();
    ip[3] = u16::from_be_bytes([protocol::TCP, HOP_LIMIT]).to_be();
    let mut i = 0;
    while i < 4 {
        let (from, to) = (halves(src[i]), halves(dst[i]));
        (ip[4 + i * 2], ip[5 + i * 2]) = (from[0], from[1]);
        (ip[12 + i * 2], ip[13 + i * 2]) = (to[0], to[1]);
        i += 1;
    }
    let addresses = sum(&ip) - u32::from(ip[0]) - u32::from(ip[2]) - u32::from(ip[3]);
    let transport = transport(&reset.ports, reset.seq, addresses);
    send(ctx, &Frame { ip, transport })
}

/// Both headers, as on the wire.
#[repr(C)]
struct Frame<const N: usize> {
    ip: [u16; N],
    transport: [u16; TCP as usize / 2],
}

/// The TCP header; `addresses`: their sum.
#[inline(always)]
fn transport(ports: &[u16; 2], seq: u32, addresses: u32) -> [u16; TCP as usize / 2] {
    let seq = halves(seq);
    let mut header = [
        ports[0].to_be(),
        ports[1].to_be(),
        seq[0],
        seq[1],
        0,
        0,
        RESET.to_be(),
        0,
        0,
        0,
    ];
    let pseudo = addresses + u32::from(TCP.to_be()) + u32::from(u16::from(protocol::TCP).to_be());
    header[8] = checksum(sum(&header) + pseudo);
    header
}

#[inline(always)]
fn send<const N: usize>(ctx: &TcContext, frame: &Frame<N>) -> i32 {
    let length = size_of::<Frame<N>>() as u32;
    let skb = ctx.skb.skb;
    // SAFETY: the context is valid; the frame is initialised and has no padding.
    unsafe {
        // Where it came in; a packet that only now comes in has that from its interface.
        let from = match (*skb).ingress_ifindex {
            0 => (*skb).ifindex,
            from => from,
        };
        let frame = ptr::from_ref(frame).cast::<c_void>();
        if bpf_skb_change_tail(skb, ETHERNET + length, 0) != 0
            || bpf_skb_store_bytes(skb, ETHERNET, frame, length, 0) != 0
        {
            return TC_ACT_SHOT as i32;
        }
        // The neighbour table knows the way back, which need not be the way here.
        bpf_redirect_neigh(from, ptr::null_mut(), 0, 0) as i32
    }
}

/// A word as on the wire, likewise in halves.
#[inline(always)]
fn halves(word: u32) -> [u16; 2] {
    if cfg!(target_endian = "big") {
        [(word >> 16) as u16, word as u16]
    } else {
        [word as u16, (word >> 16) as u16]
    }
}

/// RFC 1071: the sum may be taken in the machine's order.
#[inline(always)]
fn sum<const N: usize>(words: &[u16; N]) -> u32 {
    let mut sum = 0;
    let mut i = 0;
    while i < N {
        sum += u32::from(words[i]);
        i += 1;
    }
    sum
}

#[inline(always)]
fn checksum(sum: u32) -> u16 {
    let folded = (sum & 0xffff) + (sum >> 16);
    !((folded & 0xffff) + (folded >> 16)) as u16
}
