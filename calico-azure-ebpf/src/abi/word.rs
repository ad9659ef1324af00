//! Self-checking 64-bit words: what the kernel reads of a value that userspace may be changing.
//!
//! Two facts force this. Hash-map elements are recycled: a program that has looked one up may see another key's
//! value a moment later. And an update must become visible everywhere at once. So a value is one word that is read
//! once; part of it repeats its key, so a recycled element is noticed (the packet is then dropped with
//! `Reason::TableRace`), and words that an update changes hold two *slots*, of which the parity of
//! [`Config::epoch`](super::Config) names the live one. Userspace writes the idle slots, then flips the epoch.

/// Largest id that a slot holds. Ids are of policy sets and peer classes; 0 means "none in this slot".
pub const SLOT_MAX: u32 = (1 << 20) - 1;
const CHECK_BITS: u32 = 24;

/// Largest port-table id.
pub const TABLE_MAX: u32 = (1 << 24) - 1;

/// A slot word: the id for even epochs, the id for odd epochs, and 24 bits that repeat the key.
#[must_use]
pub const fn slots(even: u32, odd: u32, check: u32) -> u64 {
    ((check as u64 & 0xff_ffff) << 40) | ((odd as u64 & 0xf_ffff) << 20) | (even as u64 & 0xf_ffff)
}

/// The id in the slot that is live in `epoch`.
#[inline(always)]
#[must_use]
pub const fn slot(word: u64, epoch: u32) -> u32 {
    ((word >> ((epoch & 1) * 20)) & 0xf_ffff) as u32
}

/// `word` with `id` in the slot that is live in `epoch`.
#[must_use]
pub const fn with_slot(word: u64, epoch: u32, id: u32) -> u64 {
    let shift = (epoch & 1) * 20;
    (word & !(0xf_ffff << shift)) | ((id as u64 & 0xf_ffff) << shift)
}

/// The 24 bits of a slot word that repeat its key.
#[inline(always)]
#[must_use]
pub const fn slot_check(word: u64) -> u32 {
    (word >> 40) as u32
}

/// Mixes a key's 32 bits down to the 24 bits that a slot word repeats.
#[inline(always)]
#[must_use]
pub const fn check24(key: u32) -> u32 {
    key.wrapping_mul(0x9e37_79b1) >> (32 - CHECK_BITS)
}

/// [`check24`] of a v6 address.
#[inline(always)]
#[must_use]
pub const fn check24_v6(a: [u32; 4]) -> u32 {
    check24(a[0] ^ a[1].rotate_left(8) ^ a[2].rotate_left(16) ^ a[3].rotate_left(24))
}

/// Protocols for which a table has entries of its own; without the bit, its default decides.
pub mod hint {
    /// TCP.
    pub const TCP: u8 = 1;
    /// UDP.
    pub const UDP: u8 = 2;
    /// ICMP.
    pub const ICMP: u8 = 4;
    /// `ICMPv6`.
    pub const ICMP6: u8 = 8;
    /// SCTP.
    pub const SCTP: u8 = 16;
    /// Any other protocol.
    pub const OTHER: u8 = 32;
    /// Not a protocol: the table is about *source* ports, and its decisions lead to the tables that decide.
    pub const SOURCE: u8 = 64;
    /// No table at all: the id is that of the policy set to ask about the other side's class. Only sets of host
    /// endpoints have such entries, and they have no others.
    pub const SET: u8 = 128;

    /// The bit for an IP protocol number.
    #[inline(always)]
    #[must_use]
    pub const fn of(protocol: u8) -> u8 {
        match protocol {
            6 => TCP,
            17 => UDP,
            1 => ICMP,
            58 => ICMP6,
            132 => SCTP,
            _ => OTHER,
        }
    }
}

/// What `(policy set, peer class)` leads to: a port table, [`hint`] bits, and 32 bits that repeat the key.
#[must_use]
pub const fn table(table: u32, hints: u8, check: u32) -> u64 {
    ((check as u64) << 32) | ((hints as u64) << 24) | (table as u64 & 0xff_ffff)
}

/// The 32 bits of a table word that repeat its key.
#[inline(always)]
#[must_use]
pub const fn table_check(set: u32, class: u32) -> u32 {
    set.wrapping_mul(0x9e37_79b1) ^ class.wrapping_mul(0x85eb_ca6b)
}

/// The port table's id.
#[inline(always)]
#[must_use]
pub const fn table_id(word: u64) -> u32 {
    (word & 0xff_ffff) as u32
}

/// The [`hint`] bits.
#[inline(always)]
#[must_use]
pub const fn table_hints(word: u64) -> u8 {
    (word >> 24) as u8
}

/// A mark word, in `ENDPOINTS` under the ifindex and in `MARKS` under the mark: each repeats the other's key. The mark, to be
/// shifted into `Config::mark_mask`, is never 0.
#[must_use]
pub const fn mark(ifindex: u32, mark: u32) -> u64 {
    ((ifindex as u64) << 32) | mark as u64
}

/// The mark in an endpoint's mark word.
#[inline(always)]
#[must_use]
pub const fn mark_of(word: u64, ifindex: u32) -> Option<u32> {
    if (word >> 32) as u32 == ifindex {
        Some(word as u32)
    } else {
        None
    }
}

/// The ifindex in a mark's mark word.
#[inline(always)]
#[must_use]
pub const fn marked(word: u64, mark: u32) -> Option<u32> {
    if word as u32 == mark {
        Some((word >> 32) as u32)
    } else {
        None
    }
}

/// A decision: allow or deny, whether a `Log` rule matched before it, the deciding rule, and 24 bits of its table.
#[must_use]
pub const fn decision(allow: bool, log: bool, rule: u32, table: u32) -> u64 {
    (((table & 0xff_ffff) as u64) << 40) | ((log as u64) << 33) | ((allow as u64) << 32) | rule as u64
}

/// A decision of a table with [`hint::SOURCE`]: which table (as in a table word, with its hints) decides for this
/// source port.
#[must_use]
pub const fn lead(next: u64, table: u32) -> u64 {
    (((table & 0xff_ffff) as u64) << 40) | (1 << 34) | (next & 0xffff_ffff)
}

/// No decision: the next stage of the host endpoint is to be asked.
#[must_use]
pub const fn undecided(log: bool, table: u32) -> u64 {
    decision(false, log, 0, table) | (1 << 35)
}

/// Whether there is no decision.
#[inline(always)]
#[must_use]
pub const fn decision_goes_on(word: u64) -> bool {
    word & (1 << 35) != 0
}

/// Whether a decision leads to another table.
#[inline(always)]
#[must_use]
pub const fn decision_leads(word: u64) -> bool {
    word & (1 << 34) != 0
}

/// The table that a decision leads to, as in a table word.
#[inline(always)]
#[must_use]
pub const fn decision_next(word: u64) -> u64 {
    word & 0xffff_ffff
}

/// The same decision as one of another table.
#[must_use]
pub const fn of_table(decision: u64, table: u32) -> u64 {
    (decision & 0xff_ffff_ffff) | (((table & 0xff_ffff) as u64) << 40)
}

/// The table that a decision belongs to.
#[inline(always)]
#[must_use]
pub const fn decision_table(word: u64) -> u32 {
    (word >> 40) as u32
}

/// Whether a decision allows.
#[inline(always)]
#[must_use]
pub const fn decision_allows(word: u64) -> bool {
    word & (1 << 32) != 0
}

/// Whether a `Log` rule matched on the way to a decision.
#[inline(always)]
#[must_use]
pub const fn decision_logs(word: u64) -> bool {
    word & (1 << 33) != 0
}

/// The same decision after a `Log` rule, if there was one.
#[inline(always)]
#[must_use]
pub const fn with_log(decision: u64, log: bool) -> u64 {
    decision | (log as u64) << 33
}

/// The id of the deciding rule.
#[inline(always)]
#[must_use]
pub const fn decision_rule(word: u64) -> u32 {
    word as u32
}
