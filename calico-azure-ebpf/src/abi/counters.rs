//! Counters and ring-buffer events.

use super::abi_struct;

abi_struct! {
    /// Key of `DROPS` (per CPU): one interface, one hook, one reason.
    pub struct CounterKey {
        /// Interface that the program ran on.
        pub ifindex: u32,
        /// A `Hook`.
        pub hook: u16,
        /// A `Reason`.
        pub reason: u16,
    }
}

abi_struct! {
    /// Value of `DROPS` and of `TOTALS`.
    pub struct CounterValue {
        /// Packets.
        pub packets: u64,
        /// Bytes, link-layer header included.
        pub bytes: u64,
    }
}

abi_struct! {
    /// Value of `BUDGET` (per CPU): how many events were recorded in the current window.
    pub struct Budget {
        /// Which window, of the clock that `Config::tick` makes of jiffies.
        pub window: u32,
        /// Events that were due in it.
        pub used: u32,
    }
}

/// A window of [`Budget`] is this power of two in nanoseconds: 134 ms.
pub const RECORD_WINDOW: u32 = 27;

/// Entries of `TOTALS` (per CPU): indexed by `hook * 64 + reason`.
pub const TOTALS_LEN: u32 = 8 * 64;
/// Index in `TOTALS` that counts events lost to a full ring buffer or to the limit on them (hook 0, reason 1).
pub const TOTALS_LOST_EVENTS: u32 = 1;

abi_struct! {
    /// A ring-buffer record.
    pub struct Event {
        /// Monotonic time, nanoseconds.
        pub time: u64,
        /// Source, network order; IPv4 in the first word.
        pub src: [u32; 4],
        /// Destination, network order.
        pub dst: [u32; 4],
        /// Interface that the program ran on.
        pub ifindex: u32,
        /// Deciding rule; 0 if no rule decided.
        pub rule: u32,
        /// Bytes, link-layer header included.
        pub len: u32,
        /// Source port, host order; the identifier for ICMP echo.
        pub sport: u16,
        /// Destination port, host order; `type << 8 | code` for ICMP.
        pub dport: u16,
        /// Link-layer protocol, host order (0x0800, 0x86dd, …).
        pub ethertype: u16,
        /// IP protocol number.
        pub protocol: u8,
        /// A `Reason`.
        pub reason: u8,
        /// A `Hook`.
        pub hook: u8,
        /// 1 if a `Log` rule asked for this record.
        pub log: u8,
        /// Zero.
        pub reserved: [u8; 10],
    }
}
