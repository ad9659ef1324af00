//! What the kernel's configuration holds beside tables. Anybody who plans uses this.

use calico_azure_ebpf::abi::{DEFAULT_TIMEOUTS, DEFAULT_VXLAN_PORT, RECORD_WINDOW};

/// Settings that live in the kernel's configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `abi::CONFIG_*` bits.
    pub flags: u32,
    /// `abi::TIMEOUT_*`, nanoseconds.
    pub timeouts: [u64; 8],
    /// UDP port of VXLAN, which pods may not send to unless the flags say so.
    pub vxlan_port: u16,
    /// UDP port of the VXLAN between nodes; 0: there is none.
    pub tunnel_port: u16,
    /// `abi::Config::mark_mask`.
    pub mark_mask: u32,
    /// `abi::Config::adopt_until`.
    pub adopt_until: u32,
    /// `abi::Config::records`.
    pub records: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            flags: 0,
            timeouts: DEFAULT_TIMEOUTS,
            vxlan_port: DEFAULT_VXLAN_PORT,
            tunnel_port: 0,
            mark_mask: 0,
            adopt_until: 0,
            records: 0,
        }
    }
}

/// Records that each processor may write in a second, if nobody says otherwise.
pub const DEFAULT_RECORDS: u32 = 10_000;

/// `abi::Config::records` of so many in a second; none of them means none at all, not all.
#[must_use]
pub fn per_window(per_second: u32) -> u32 {
    let share = u64::from(per_second) << RECORD_WINDOW;
    u32::try_from(share.div_ceil(1_000_000_000)).unwrap_or(u32::MAX)
}
