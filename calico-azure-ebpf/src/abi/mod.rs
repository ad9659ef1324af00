//! The contract between kernel and userspace: map keys, map values, events, reason codes.
//!
//! Rules of this module: `repr(C)`, no padding (checked at compile time by `abi_struct!`), no enum and no bool in
//! a map, integers in native order, addresses as the raw network-order words that are on the wire. Whatever the
//! kernel reads while userspace may be writing it is one aligned 64-bit word, read once ([`word`]).

mod conntrack;
mod counters;
mod denied;
mod host;
mod keys;
mod names;
mod pod;
mod reason;
mod version;
pub mod word;

pub use conntrack::*;
pub use counters::*;
pub use denied::*;
pub use host::*;
pub use keys::*;
pub use names::*;
pub use pod::Pod;
pub use reason::*;
pub use version::*;

/// Defines a map struct and proves that it has no padding: its size is the sum of its fields' sizes.
macro_rules! abi_struct {
    ($(#[$meta:meta])* pub struct $name:ident { $($(#[$fmeta:meta])* pub $field:ident: $ty:ty,)+ }) => {
        $(#[$meta])*
        #[repr(C)]
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name { $($(#[$fmeta])* pub $field: $ty,)+ }
        const _: () = assert!(
            core::mem::size_of::<$name>() == 0 $(+ core::mem::size_of::<$ty>())+,
            concat!(stringify!($name), " has padding")
        );
        // SAFETY: no padding (asserted above), and fields are integers or arrays of integers.
        unsafe impl $crate::abi::Pod for $name {}
        impl $crate::abi::Layout for $name {
            const NAME: &'static str = stringify!($name);
            const HASH: u64 = $crate::abi::fnv(
                concat!(stringify!($name), $(" ", stringify!($field), ":", stringify!($ty)),+),
                core::mem::size_of::<$name>() as u64,
            );
        }
    };
}
pub(crate) use abi_struct;
