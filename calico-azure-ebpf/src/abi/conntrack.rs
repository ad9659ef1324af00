//! Conntrack and fragment entries.

use super::abi_struct;

abi_struct! {
    /// Key of `CT_*4`: the canonical 5-tuple, lower (address, port) first.
    pub struct CtKey4 {
        /// The two addresses, network order, the lower first (compared as numbers of the wire's bytes).
        pub addr: [u32; 2],
        /// Their ports, host order; the identifier for ICMP echo.
        pub port: [u16; 2],
        /// IP protocol number.
        pub protocol: u32,
    }
}

abi_struct! {
    /// Key of `CT_*6`.
    pub struct CtKey6 {
        /// The two addresses, network order, the lower first.
        pub addr: [[u32; 4]; 2],
        /// Their ports, host order.
        pub port: [u16; 2],
        /// IP protocol number.
        pub protocol: u32,
    }
}

/// The side's endpoint never approved this leg.
pub const LEG_NONE: u32 = 0;
/// The leg was approved once and policy has since taken it back.
pub const LEG_REVOKED: u32 = u32::MAX;
/// The leg was approved because the host itself sent it; policy has no say.
pub const LEG_HOST: u32 = u32::MAX - 1;
/// What the side sends goes to a service address: it passes with the endpoint's mark, and is judged where the translated
/// packet leaves.
pub const LEG_SERVICE: u32 = u32::MAX - 2;
/// With an epoch: what comes in by a host endpoint's interface for a service address. What policy says before translation allowed it in
/// that epoch; it passes with [`MARK_HOST`](super::MARK_HOST), and the rest is judged where the translated packet leaves.
pub const LEG_DEFERS: u32 = 1 << 31;
/// The highest epoch; the next one is 2.
pub const EPOCH_MAX: u32 = (1 << 30) - 1;

/// Whether what such a leg's side sends is judged where it leaves.
#[inline(always)]
#[must_use]
pub const fn leg_defers(leg: u32) -> bool {
    leg == LEG_SERVICE || leg >> 30 == LEG_DEFERS >> 30
}

/// What a side sends, by its egress policy: the low half of its word in [`CtValue::legs`].
pub const LEG_OUT: u32 = 0;
/// What a side receives, by its ingress policy: the high half.
pub const LEG_IN: u32 = 1;

/// A host endpoint's forward policy allowed the flow. Its packets' addresses need not tell: the host's are those of what
/// kube-proxy masquerades, too.
pub const CT_FORWARDED: u32 = 1;

abi_struct! {
    /// Value of `CT_*`. Packed into words, because an index that varies within a word is something that compilers
    /// turn into arithmetic which the verifier refuses.
    pub struct CtValue {
        /// Monotonic time of the last packet in nanoseconds, at most `CT_REFRESH` behind.
        pub last_seen: u64,
        /// `[lower side, upper side]`: for each leg the epoch in which that side's policy approved it, or a `LEG_*`.
        /// A side whose pod is not on this node has no say and stays `LEG_NONE`.
        pub legs: [u64; 2],
        /// TCP flags and [`CT_SEEN`], lower side's in the low byte.
        pub seen: u16,
        /// ICMP: `type << 8 | code` of the packet that began the flow.
        pub icmp: u16,
        /// [`CT_FORWARDED`] or 0.
        pub kind: u32,
    }
}

impl CtValue {
    /// A leg of a side (0 lower, 1 upper).
    #[inline(always)]
    #[must_use]
    pub const fn leg(&self, side: u32, leg: u32) -> u32 {
        (self.legs[(side & 1) as usize] >> (leg * 32)) as u32
    }

    /// Sets a leg of a side.
    #[inline(always)]
    pub const fn set_leg(&mut self, side: u32, leg: u32, value: u32) {
        let word = &mut self.legs[(side & 1) as usize];
        *word = (*word & !(0xffff_ffff << (leg * 32))) | ((value as u64) << (leg * 32));
    }

    /// What was seen from a side.
    #[inline(always)]
    #[must_use]
    pub const fn seen_from(&self, side: u32) -> u8 {
        (self.seen >> ((side & 1) * 8)) as u8
    }
}

/// [`CtValue::seen`]: a packet of any kind came from this side.
pub const CT_SEEN: u8 = 0x40;
/// How far [`CtValue::last_seen`] may lag, in nanoseconds: spares a shared cache line most writes.
pub const CT_REFRESH: u64 = 1 << 27;

abi_struct! {
    /// Key of `FRAGS4`: a datagram at one interface, in one direction.
    pub struct FragKey4 {
        /// Source and destination, network order.
        pub addr: [u32; 2],
        /// Identification.
        pub id: u32,
        /// IP protocol number, and above it the leg (`LEG_OUT`, `LEG_IN`).
        pub protocol: u32,
        /// The pod's host-side interface.
        pub ifindex: u32,
    }
}

abi_struct! {
    /// Key of `FRAGS6`.
    pub struct FragKey6 {
        /// Source and destination, network order.
        pub addr: [[u32; 4]; 2],
        /// Identification.
        pub id: u32,
        /// The leg above 8 zero bits: later fragments need not repeat the first one's protocol (RFC 8200).
        pub protocol: u32,
        /// The pod's host-side interface.
        pub ifindex: u32,
    }
}

abi_struct! {
    /// Value of `FRAGS*`: what the first fragment of a datagram says of the others.
    pub struct FragValue {
        /// From the low bits: what tells flows apart (two ports; for ICMP identifier, then type and code), 16 bits
        /// each; protocol, 8; where the fragment ends, in units of 8 bytes, 13; a check of the key, 11.
        pub word: u64,
        /// Monotonic time of the first fragment, nanoseconds.
        pub seen: u64,
    }
}

/// How long a datagram's first fragment is remembered, in nanoseconds: as long as Linux waits for the others.
pub const FRAGMENT_TIMEOUT: u64 = 30_000_000_000;
