//! The eBPF object that is part of this binary.

use std::path::Path;

/// ELF parsers expect the file aligned.
#[repr(C, align(8))]
struct Aligned<T: ?Sized>(T);

static OBJECT: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/tc.o")));

/// The object: a file's, or the one that was built in (empty if none was).
pub(crate) fn read(path: Option<&Path>) -> Result<Vec<u8>, String> {
    match path {
        Some(path) => std::fs::read(path).map_err(|error| format!("--object {}: {error}", path.display())),
        None => Ok(OBJECT.0.to_vec()),
    }
}
