//! Map keys and values as bytes: the only place where the contract's structs are reinterpreted.

use core::{mem, ptr, slice};

/// A type without padding, all of whose bit patterns are valid.
///
/// # Safety
/// Both must hold; `abi_struct!` proves the first at compile time and allows only integer fields.
pub unsafe trait Pod: Copy + 'static {
    /// The bytes as the kernel sees them.
    #[must_use]
    fn bytes(&self) -> &[u8] {
        // SAFETY: `Self` has no padding, so every byte is initialised; the slice borrows from `self`.
        unsafe { slice::from_raw_parts(ptr::from_ref(self).cast(), mem::size_of::<Self>()) }
    }

    /// Reads a value back; `None` if the length is not the type's.
    #[must_use]
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != mem::size_of::<Self>() {
            return None;
        }
        // SAFETY: the length fits and every bit pattern is valid; the read needs no alignment.
        Some(unsafe { ptr::read_unaligned(bytes.as_ptr().cast()) })
    }
}

// SAFETY: integers and arrays of integers have no padding and no invalid bits.
unsafe impl Pod for u32 {}
// SAFETY: as above.
unsafe impl Pod for u64 {}
// SAFETY: as above.
unsafe impl Pod for [u32; 4] {}
