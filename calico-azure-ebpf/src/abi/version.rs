//! The layout hash that names the pin directory, so that two layouts never share a map.

/// A struct whose layout is part of the contract.
pub trait Layout {
    /// The struct's name.
    const NAME: &'static str;
    /// A hash over its name, its fields' names and types, and its size in bytes.
    const HASH: u64;
}

/// Bumped by hand when the meaning of bytes changes without their layout changing.
pub const ABI_REVISION: u64 = 11;

/// The same for conntrack entries alone: an agent with another layout takes over those of an earlier one if this and their
/// layout did not change.
pub const CONNTRACK_REVISION: u64 = 1;

/// The hash over conntrack entries.
pub const CONNTRACK_HASH: u64 = {
    use super::{CtKey4, CtKey6, CtValue};
    let keys = mix(mix(CONNTRACK_REVISION, CtKey4::HASH), CtKey6::HASH);
    mix(keys, CtValue::HASH)
};

/// FNV-1a over `text`, seeded with `seed`.
#[must_use]
pub const fn fnv(text: &str, seed: u64) -> u64 {
    let bytes = text.as_bytes();
    let mut hash = 0xcbf2_9ce4_8422_2325 ^ seed;
    let mut i = 0;
    while i < bytes.len() {
        hash = (hash ^ bytes[i] as u64).wrapping_mul(0x0100_0000_01b3);
        i += 1;
    }
    hash
}

const fn mix(a: u64, b: u64) -> u64 {
    (a ^ b).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23)
}

/// The hash over every struct of the contract and [`ABI_REVISION`].
pub const LAYOUT_HASH: u64 = {
    use super::{
        Budget, CidrClass, Config, Configs, CounterKey, CounterValue, CtKey4, CtKey6, CtValue, Denied,
        EarlyCount, Endpoint, Event, FragKey4, FragKey6, FragValue, HostEndpoint, OwnerKey4, OwnerKey6,
        PolicyKey, PortKey, PrefixKey4, PrefixKey6, ServiceKey4, ServiceKey6,
    };
    let hashes = [
        ABI_REVISION,
        Budget::HASH,
        CidrClass::HASH,
        Config::HASH,
        Configs::HASH,
        CounterKey::HASH,
        CounterValue::HASH,
        CtKey4::HASH,
        CtKey6::HASH,
        CtValue::HASH,
        Denied::HASH,
        EarlyCount::HASH,
        Endpoint::HASH,
        Event::HASH,
        FragKey4::HASH,
        FragKey6::HASH,
        FragValue::HASH,
        HostEndpoint::HASH,
        OwnerKey4::HASH,
        OwnerKey6::HASH,
        PolicyKey::HASH,
        PortKey::HASH,
        PrefixKey4::HASH,
        PrefixKey6::HASH,
        ServiceKey4::HASH,
        ServiceKey6::HASH,
    ];
    let mut hash = 0;
    let mut i = 0;
    while i < hashes.len() {
        hash = mix(hash, hashes[i]);
        i += 1;
    }
    hash
};
