//! One map operation as data. Keys and values are small, so that an update of many entries allocates nothing for each.

use calico_azure_ebpf::abi::{Configs, OwnerKey6, Pod};

use super::io::Table;

/// The longest of all keys, and of all values but the configuration's.
const SHORT: usize = size_of::<OwnerKey6>();

/// One map operation.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Op {
    pub table: Table,
    key: Bytes,
    value: Option<Bytes>,
}

/// Bytes of an `abi` type.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Bytes {
    Short(u8, [u8; SHORT]),
    Long(Box<[u8]>),
}

impl Bytes {
    fn of(value: &impl Pod) -> Self {
        let bytes = value.bytes();
        let mut short = [0; SHORT];
        match (short.get_mut(..bytes.len()), u8::try_from(bytes.len())) {
            (Some(place), Ok(len)) => {
                place.copy_from_slice(bytes);
                Self::Short(len, short)
            }
            _ => Self::Long(bytes.into()),
        }
    }

    fn get(&self) -> &[u8] {
        match self {
            Self::Short(len, bytes) => bytes.get(..usize::from(*len)).unwrap_or_default(),
            Self::Long(bytes) => bytes,
        }
    }
}

impl Op {
    /// Inserts or replaces an entry.
    #[must_use]
    pub fn put(table: Table, key: &impl Pod, value: &impl Pod) -> Self {
        Self {
            table,
            key: Bytes::of(key),
            value: Some(Bytes::of(value)),
        }
    }

    /// Removes an entry.
    #[must_use]
    pub fn remove(table: Table, key: &impl Pod) -> Self {
        Self {
            table,
            key: Bytes::of(key),
            value: None,
        }
    }

    /// Of the entry.
    #[must_use]
    pub fn key(&self) -> &[u8] {
        self.key.get()
    }

    /// `None` removes the entry.
    #[must_use]
    pub fn value(&self) -> Option<&[u8]> {
        self.value.as_ref().map(Bytes::get)
    }
}

/// Longer than `SHORT`, and written twice in an update.
const _: () = assert!(size_of::<Configs>() > SHORT);
