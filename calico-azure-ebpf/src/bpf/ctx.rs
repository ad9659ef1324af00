//! A packet in an skb.

use core::arch::asm;
use core::mem::MaybeUninit;

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::generated::{bpf_fib_lookup, bpf_skb_load_bytes};
use aya_ebpf::programs::TcContext;

use crate::packet::{Family, Packet};

/// How far into a packet headers are read directly.
const LINEAR: u32 = 0x7ff;

/// An skb at a TC hook.
pub struct SkbPacket {
    skb: *mut __sk_buff,
}

impl SkbPacket {
    #[inline(always)]
    pub(super) fn new(ctx: &TcContext) -> Self {
        Self { skb: ctx.skb.skb }
    }
}

impl Packet for SkbPacket {
    #[inline(always)]
    fn len(&self) -> u32 {
        // SAFETY: the context pointer is valid for the whole program run.
        unsafe { (*self.skb).len }
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
    fn opaque(value: u64) -> u64 {
        opaque(value)
    }

    /// In what the skb has for its owner: nobody else touches it while programs at one hook call each other.
    #[inline(always)]
    fn keep(&self, network: [u32; 3]) {
        // SAFETY: as above; programs at this hook may write it. The first word says where a call leads back.
        unsafe {
            (*self.skb).cb[1] = network[0];
            (*self.skb).cb[2] = network[1];
            (*self.skb).cb[3] = network[2];
        }
    }

    #[inline(always)]
    fn kept(&self) -> Option<[u32; 3]> {
        // SAFETY: as above.
        unsafe { Some([(*self.skb).cb[1], (*self.skb).cb[2], (*self.skb).cb[3]]) }
    }

    #[inline(always)]
    fn follow(&self, from: u64) -> u64 {
        headers_of_skb(self.skb, from)
    }

    #[inline(always)]
    fn transport(&self, from: u64) -> u64 {
        transport_of_skb(self.skb, from)
    }

    #[inline(always)]
    fn peer4(&self, peer: u32, asked: u64) -> u64 {
        peer4_of_skb(self.skb, u64::from(peer), asked)
    }

    #[inline(always)]
    fn peer6(&self, peer: [u32; 4], asked: u64) -> u64 {
        let [upper, lower] = pair(peer);
        peer6_of_skb(self.skb, upper, lower, asked)
    }

    #[inline(always)]
    fn leads_to<F: Family>(&self, to: F::Addr) -> u32 {
        /// `BPF_FIB_LKUP_RET_SUCCESS`, `…_NO_NEIGH`, `…_FRAG_NEEDED`: where to is known.
        const FOUND: u64 = 1 | 1 << 7 | 1 << 8;
        let to = F::wide(to);
        // `struct bpf_fib_lookup`: family, …, interface, …, source, destination, ….
        let mut params = MaybeUninit::<[u32; 16]>::uninit();
        let words = params.as_mut_ptr().cast::<u32>();
        let mut i = 0;
        while i < 16 {
            let word = match i {
                0 => F::AF,
                2 => self.ifindex(),
                8..12 => to[i - 8],
                _ => 0,
            };
            // SAFETY: within the array. Volatile, or it would be filled by a call.
            unsafe { words.add(i).write_volatile(word) };
            i += 1;
        }
        // SAFETY: the context is valid, and all of what the helper reads and writes was written.
        let code = unsafe { bpf_fib_lookup(self.skb.cast(), words.cast(), 64, 0) };
        if (0..=8).contains(&code) && FOUND >> code & 1 != 0 {
            // SAFETY: as above.
            unsafe { words.add(2).read() }
        } else {
            0
        }
    }

    /// Straight from the linear area where the words lie in it, which saves a call for each header; by the helper
    /// otherwise, which reads every skb.
    #[inline(always)]
    fn words<const N: usize>(&self, offset: u32) -> Option<[u32; N]> {
        // SAFETY: the context pointer is valid for the whole program run.
        let (data, end) = unsafe { ((*self.skb).data as usize, (*self.skb).data_end as usize) };
        // The verifier must see a small bound on what is added to a packet pointer.
        let start = data + (offset & LINEAR) as usize;
        if offset <= LINEAR && start + N * 4 <= end {
            let start = start as *const u32;
            let mut words = [0; N];
            let mut i = 0;
            while i < N {
                // SAFETY: all `N * 4` bytes from `start` on lie before `data_end`.
                words[i] = unsafe { word(start.add(i)) };
                i += 1;
            }
            return Some(words);
        }
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

/// A word of a packet in one load. The compiler would read single bytes, because frames begin anywhere; kernels let programs read words
/// (where the machine wants them aligned, they put Ethernet headers two bytes behind such an address, and so the ones after it are).
///
/// # Safety
/// The four bytes lie between the packet's ends, as the verifier sees them.
#[inline(always)]
pub(super) unsafe fn word(at: *const u32) -> u32 {
    let word: u64;
    // SAFETY: reads what the caller vouches for, and nothing else.
    unsafe {
        asm!("{0} = *(u32 *)({1} + 0)", out(reg) word, in(reg) at, options(pure, readonly, nostack, preserves_flags));
    }
    word as u32
}

/// An IPv6 address as arguments.
#[inline(always)]
pub(super) fn pair([a, b, c, d]: [u32; 4]) -> [u64; 2] {
    [
        u64::from(a) | u64::from(b) << 32,
        u64::from(c) | u64::from(d) << 32,
    ]
}

/// Stored whole, its upper half once more, and loaded as halves: the verifier then knows nothing of it but its size. (Stored as halves
/// and loaded whole it would know as little, but the processor would wait until both stores are through.)
#[inline(always)]
pub(super) fn opaque(value: u64) -> u64 {
    let mut slot = MaybeUninit::<u64>::uninit();
    let whole = slot.as_mut_ptr();
    let halves = whole.cast::<u32>();
    // SAFETY: the slot is written before it is read.
    unsafe {
        whole.write_volatile(value);
        halves.add(1).write_volatile((value >> 32) as u32);
        u64::from(halves.read_volatile()) | u64::from(halves.add(1).read_volatile()) << 32
    }
}

read_apart!(SkbPacket { skb: __sk_buff }, headers_of_skb, transport_of_skb);
peer_apart!(SkbPacket { skb: __sk_buff }, peer4_of_skb, peer6_of_skb);
