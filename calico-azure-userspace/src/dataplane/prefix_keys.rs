//! Prefixes as keys of the kernel's tries.

use std::collections::BTreeMap;

use calico_azure_ebpf::abi::{PrefixKey4, PrefixKey6};

/// A desired table under the kernel's keys: the way there, and back.
pub(super) struct View<'a, D, K, V>(
    pub(super) &'a BTreeMap<D, V>,
    pub(super) fn(&D) -> K,
    pub(super) fn(&K) -> D,
);

impl<D: Ord, K, V: Copy> View<'_, D, K, V> {
    pub(super) fn get(&self, key: &K) -> Option<V> {
        self.0.get(&(self.2)(key)).copied()
    }
}

pub(super) fn prefix4(addr: u32, len: u8) -> PrefixKey4 {
    PrefixKey4 {
        len: u32::from(len),
        addr,
    }
}

pub(super) fn prefix6(addr: [u32; 4], len: u8) -> PrefixKey6 {
    PrefixKey6 {
        len: u32::from(len),
        addr,
    }
}

pub(super) fn bare4(key: &PrefixKey4) -> (u32, u8) {
    (key.addr, u8::try_from(key.len).unwrap_or(u8::MAX))
}

pub(super) fn bare6(key: &PrefixKey6) -> ([u32; 4], u8) {
    (key.addr, u8::try_from(key.len).unwrap_or(u8::MAX))
}

/// The prefixes that cover a prefix, longest first.
pub(super) fn parents4(key: &PrefixKey4) -> Vec<PrefixKey4> {
    let addr = u32::from_be(key.addr);
    (0..key.len)
        .rev()
        .map(|len| {
            let mask = u32::MAX.checked_shl(32 - len).unwrap_or(0);
            PrefixKey4 {
                len,
                addr: (addr & mask).to_be(),
            }
        })
        .collect()
}

pub(super) fn parents6(key: &PrefixKey6) -> Vec<PrefixKey6> {
    let bits = key
        .addr
        .iter()
        .fold(0_u128, |bits, word| bits << 32 | u128::from(u32::from_be(*word)));
    (0..key.len)
        .rev()
        .map(|len| {
            let masked = bits & u128::MAX.checked_shl(128 - len).unwrap_or(0);
            PrefixKey6 {
                len,
                addr: wire6(masked),
            }
        })
        .collect()
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "takes a number apart into its words"
)]
fn wire6(bits: u128) -> [u32; 4] {
    [96, 64, 32, 0].map(|shift| ((bits >> shift) as u32).to_be())
}
