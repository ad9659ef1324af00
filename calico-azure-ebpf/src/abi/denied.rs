//! What untracked policy has denied, so that it need not be asked again about each packet of a flood.

use super::abi_struct;

abi_struct! {
    /// Value of `DENIED` (per CPU): a question, and that the answer was no. It holds as long as the epoch does.
    pub struct Denied {
        /// In which it was denied; 0: nothing was.
        pub epoch: u32,
        /// Interface that the frame came in by.
        pub ifindex: u32,
        /// Source, network order; IPv4 in the first word.
        pub src: [u32; 4],
        /// Destination, network order.
        pub dst: [u32; 4],
        /// What policy calls the port, above it the source port; that is 0 if it makes no difference (`Config::alike_from`).
        pub ports: u32,
        /// IP protocol number, and the `DENIED_*` bits that belong to the question.
        pub what: u32,
        /// Deciding rule.
        pub rule: u32,
        /// 1 if a `Log` rule matched.
        pub log: u32,
    }
}

/// `Denied::what`: the addresses are IPv6.
pub const DENIED_V6: u32 = 1 << 8;
/// `Denied::what`: the source port makes no difference.
pub const DENIED_ALIKE: u32 = 1 << 9;
/// Entries of `DENIED`, a power of two. Each question has one place; the last one that was denied has it.
pub const DENIED_LEN: u32 = 1024;

impl Denied {
    /// Whether both are the same question.
    #[inline(always)]
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        let first = (self.epoch ^ other.epoch)
            | (self.ifindex ^ other.ifindex)
            | (self.ports ^ other.ports)
            | (self.what ^ other.what)
            | (self.src[0] ^ other.src[0])
            | (self.dst[0] ^ other.dst[0]);
        // The others are zero if they are IPv4's.
        first == 0
            && (other.what & DENIED_V6 == 0
                || self.src[1..] == other.src[1..] && self.dst[1..] == other.dst[1..])
    }

    /// Its place in the table.
    #[inline(always)]
    #[must_use]
    pub fn place(&self) -> u32 {
        let [a, b, c, d] = self.src;
        let [e, f, g, h] = self.dst;
        let addresses = (a ^ b ^ c ^ d) ^ (e ^ f ^ g ^ h).rotate_left(11);
        let mixed =
            addresses.wrapping_mul(0x9e37_79b1) ^ (self.ports ^ self.what << 16).wrapping_mul(0x85eb_ca6b);
        (mixed ^ mixed >> 15) & (DENIED_LEN - 1)
    }
}

abi_struct! {
    /// Value of `EARLY` (per CPU): what untracked policy denied at XDP of one interface, remembering it, and did not record. To be added to what
    /// `TOTALS` has for that hook and of lost events, and to `DROPS`.
    pub struct EarlyCount {
        /// Whose it is; 0: nobody's yet.
        pub ifindex: u32,
        /// Zero.
        pub reserved: u32,
        /// As [`CounterValue`](super::CounterValue).
        pub packets: u64,
        /// As [`CounterValue`](super::CounterValue).
        pub bytes: u64,
    }
}

/// Entries of `EARLY`, a power of two: an interface's place is its index, modulo this.
pub const EARLY_LEN: u32 = 64;
