//! bpf(2) on maps: reads and writes of raw bytes, whole tables at a time.
//!
//! aya has typed maps only and no batch operations; a table of 100,000 entries is read here in a few calls.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::io::Entries;

const MAP_LOOKUP: u32 = 1;
const MAP_UPDATE: u32 = 2;
const MAP_DELETE: u32 = 3;
const MAP_GET_NEXT_KEY: u32 = 4;

/// `union bpf_attr` for `BPF_MAP_*_ELEM` (linux/bpf.h).
#[repr(C)]
#[derive(Default)]
struct ElementAttr {
    map_fd: u32,
    pad: u32,
    key: u64,
    value_or_next_key: u64,
    flags: u64,
}

fn bpf(command: u32, attr: &mut ElementAttr) -> io::Result<()> {
    // SAFETY: `attr` is laid out as the kernel expects for these commands, and the callers' pointers in it are to
    // buffers of the map's key and value size that outlive the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_mut(attr),
            std::mem::size_of::<ElementAttr>(),
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

fn attr(fd: BorrowedFd<'_>, key: *const u8, other: *mut u8) -> ElementAttr {
    let map_fd = u32::try_from(fd.as_raw_fd()).unwrap_or(u32::MAX);
    ElementAttr {
        map_fd,
        key: key as u64,
        value_or_next_key: other as u64,
        ..ElementAttr::default()
    }
}

/// A map's shape, so that no buffer is ever shorter than the kernel thinks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) key: usize,
    pub(super) value: usize,
}

impl Shape {
    fn check(self, key: usize, value: Option<usize>) -> io::Result<()> {
        if key == self.key && value.is_none_or(|value| value == self.value) {
            return Ok(());
        }
        let text = format!(
            "the map has keys of {} and values of {} bytes, not {key} and {value:?}",
            self.key, self.value
        );
        Err(io::Error::new(io::ErrorKind::InvalidInput, text))
    }
}

/// Inserts or replaces.
pub(super) fn put(fd: BorrowedFd<'_>, shape: Shape, key: &[u8], value: &[u8]) -> io::Result<()> {
    shape.check(key.len(), Some(value.len()))?;
    let mut attempts = 0;
    loop {
        match bpf(MAP_UPDATE, &mut attr(fd, key.as_ptr(), value.as_ptr().cast_mut())) {
            // Rapid inserts outrun the kernel's own refill of a map without preallocation, and racing programs make
            // an insert fail (EBUSY, kernels 5.11 to 6.14): both pass within microseconds.
            Err(error)
                if attempts < 50 && matches!(error.raw_os_error(), Some(libc::ENOMEM | libc::EBUSY)) =>
            {
                attempts += 1;
                std::thread::sleep(std::time::Duration::from_micros(50 * attempts));
            }
            result => return result,
        }
    }
}

/// Inserts, if it is not there; says whether.
pub(super) fn put_new(fd: BorrowedFd<'_>, shape: Shape, key: &[u8], value: &[u8]) -> io::Result<bool> {
    const BPF_NOEXIST: u64 = 1;
    shape.check(key.len(), Some(value.len()))?;
    let mut attr = attr(fd, key.as_ptr(), value.as_ptr().cast_mut());
    attr.flags = BPF_NOEXIST;
    match bpf(MAP_UPDATE, &mut attr) {
        Ok(()) => Ok(true),
        // A table that is full is so for each that comes, too.
        Err(error) if matches!(error.raw_os_error(), Some(libc::EEXIST | libc::ENOMEM)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Removes, if it is there.
pub(super) fn delete(fd: BorrowedFd<'_>, shape: Shape, key: &[u8]) -> io::Result<()> {
    shape.check(key.len(), None)?;
    match bpf(MAP_DELETE, &mut attr(fd, key.as_ptr(), std::ptr::null_mut())) {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        result => result,
    }
}

/// Reads one entry; `None` if there is none.
pub(super) fn get(fd: BorrowedFd<'_>, shape: Shape, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
    shape.check(key.len(), None)?;
    let mut value = vec![0; shape.value];
    match bpf(MAP_LOOKUP, &mut attr(fd, key.as_ptr(), value.as_mut_ptr())) {
        Ok(()) => Ok(Some(value)),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Every entry. What is removed while reading may be missing; nothing is read twice by more than one pass.
pub(super) fn dump(fd: BorrowedFd<'_>, shape: Shape) -> io::Result<Entries> {
    let mut entries = std::collections::BTreeMap::new();
    let mut key: Option<Vec<u8>> = None;
    loop {
        let mut next = vec![0; shape.key];
        let from = key.as_ref().map_or(std::ptr::null(), Vec::as_ptr);
        match bpf(MAP_GET_NEXT_KEY, &mut attr(fd, from, next.as_mut_ptr())) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => break,
            Err(error) => return Err(error),
        }
        // A key that comes back means that the walk began anew, because the last one was removed meanwhile.
        if entries.contains_key(&next) {
            break;
        }
        if let Some(value) = get(fd, shape, &next)? {
            entries.insert(next.clone(), value);
        }
        key = Some(next);
    }
    Ok(entries.into_iter().collect())
}

/// Shows every entry of a hash table to `see`, thousands at a time (`BPF_MAP_LOOKUP_BATCH`, kernel 5.6). What comes or goes
/// meanwhile is seen or not.
pub(super) fn each(
    fd: BorrowedFd<'_>,
    shape: Shape,
    mut see: impl FnMut(&[u8], &[u8]) -> io::Result<()>,
) -> io::Result<()> {
    const LOOKUP_BATCH: u32 = 24;
    /// More than a bucket ever holds: one that does not fit ends the walk with an error.
    const CAPACITY: u32 = 4096;
    /// `union bpf_attr` for `BPF_MAP_*_BATCH`.
    #[repr(C)]
    #[derive(Default)]
    struct BatchAttr {
        in_batch: u64,
        out_batch: u64,
        keys: u64,
        values: u64,
        count: u32,
        map_fd: u32,
        elem_flags: u64,
        flags: u64,
    }
    let mut keys = vec![0; shape.key * CAPACITY as usize];
    let mut values = vec![0; shape.value * CAPACITY as usize];
    // A bucket's number, to go on from.
    let (mut from, mut to) = (0_u32, 0_u32);
    let mut begun = false;
    loop {
        let mut attr = BatchAttr {
            in_batch: if begun { &raw const from as u64 } else { 0 },
            out_batch: &raw mut to as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: CAPACITY,
            map_fd: u32::try_from(fd.as_raw_fd()).unwrap_or(u32::MAX),
            ..BatchAttr::default()
        };
        // SAFETY: `attr` is laid out as the kernel expects; the buffers hold `count` keys and values of the map's sizes, and
        // the batch positions of hash tables are 32 bits wide. All of them outlive the call.
        let result = unsafe {
            libc::syscall(
                libc::SYS_bpf,
                LOOKUP_BATCH,
                &raw mut attr,
                std::mem::size_of::<BatchAttr>(),
            )
        };
        let error = (result < 0).then(io::Error::last_os_error);
        let last = match &error {
            None => false,
            Some(error) if error.raw_os_error() == Some(libc::ENOENT) => true,
            Some(_) => return Err(error.unwrap_or_else(|| io::ErrorKind::Other.into())),
        };
        let pairs = keys.chunks_exact(shape.key).zip(values.chunks_exact(shape.value));
        for (key, value) in pairs.take(attr.count as usize) {
            see(key, value)?;
        }
        if last {
            return Ok(());
        }
        (from, begun) = (to, true);
    }
}

/// How many entries there are, `limit` at most: where entries come and go, the walk may begin anew.
pub(super) fn count(fd: BorrowedFd<'_>, shape: Shape, limit: u32) -> io::Result<u32> {
    let mut entries = 0;
    let mut key = vec![0; shape.key];
    let mut next = vec![0; shape.key];
    while entries < limit {
        let from = if entries == 0 {
            std::ptr::null()
        } else {
            key.as_ptr()
        };
        match bpf(MAP_GET_NEXT_KEY, &mut attr(fd, from, next.as_mut_ptr())) {
            Ok(()) => entries += 1,
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => break,
            Err(error) => return Err(error),
        }
        std::mem::swap(&mut key, &mut next);
    }
    Ok(entries)
}

/// Waits until every program that runs now has ended: programs run inside RCU read-side sections.
pub(super) fn synchronize() -> io::Result<()> {
    const MEMBARRIER_CMD_GLOBAL: libc::c_int = 1;
    // SAFETY: takes no pointers.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
