//! The one trait through which tables are written, and its in-memory stand-in.

use std::collections::BTreeMap;
use std::io;

use calico_azure_ebpf::abi::map;

/// A table that userspace writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Table {
    Config,
    Endpoints,
    Hosts,
    Owners4,
    Owners6,
    Class4,
    Class6,
    Cidr4,
    Cidr6,
    Policy,
    Ports,
    Services4,
    Services6,
    Marks,
    Routes4,
    Routes6,
}

impl Table {
    /// Every table.
    pub const ALL: [Self; 16] = [
        Self::Config,
        Self::Endpoints,
        Self::Hosts,
        Self::Owners4,
        Self::Owners6,
        Self::Class4,
        Self::Class6,
        Self::Cidr4,
        Self::Cidr6,
        Self::Policy,
        Self::Ports,
        Self::Services4,
        Self::Services6,
        Self::Marks,
        Self::Routes4,
        Self::Routes6,
    ];

    /// The map's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Config => map::CONFIG,
            Self::Endpoints => map::ENDPOINTS,
            Self::Hosts => map::HOSTS,
            Self::Owners4 => map::OWNERS4,
            Self::Owners6 => map::OWNERS6,
            Self::Class4 => map::CLASS4,
            Self::Class6 => map::CLASS6,
            Self::Cidr4 => map::CIDR4,
            Self::Cidr6 => map::CIDR6,
            Self::Policy => map::POLICY,
            Self::Ports => map::PORTS,
            Self::Services4 => map::SERVICES4,
            Self::Services6 => map::SERVICES6,
            Self::Marks => map::MARKS,
            Self::Routes4 => map::ROUTES4,
            Self::Routes6 => map::ROUTES6,
        }
    }
}

/// Keys and values as the kernel has them.
pub type Entries = Vec<(Vec<u8>, Vec<u8>)>;

/// Reads and writes tables. Keys and values are bytes of `abi` types.
pub trait MapIo {
    /// Inserts or replaces one entry.
    ///
    /// # Errors
    /// What the kernel says; `ENOSPC`-like if the map is full.
    fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> io::Result<()>;
    /// Removes one entry; one that is not there is not an error.
    ///
    /// # Errors
    /// What the kernel says.
    fn delete(&mut self, table: Table, key: &[u8]) -> io::Result<()>;
    /// Every entry, in no particular order.
    ///
    /// # Errors
    /// What the kernel says.
    fn dump(&self, table: Table) -> io::Result<Entries>;
    /// Returns once no program that was running when it was called still runs.
    ///
    /// # Errors
    /// What the kernel says.
    fn wait_for_programs(&self) -> io::Result<()>;
}

/// Tables in memory, with a failure that can be made to happen at any operation.
#[derive(Clone, Debug, Default)]
pub struct FakeIo {
    /// The tables.
    pub tables: BTreeMap<Table, BTreeMap<Vec<u8>, Vec<u8>>>,
    /// The n-th write from now fails (1 = the next).
    pub fail_in: Option<usize>,
}

impl FakeIo {
    fn may_fail(&mut self) -> io::Result<()> {
        match self.fail_in.as_mut() {
            Some(1) => {
                self.fail_in = None;
                Err(io::Error::from_raw_os_error(libc::E2BIG))
            }
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

impl MapIo for FakeIo {
    fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> io::Result<()> {
        self.may_fail()?;
        self.tables
            .entry(table)
            .or_default()
            .insert(key.to_vec(), value.to_vec());
        Ok(())
    }

    fn delete(&mut self, table: Table, key: &[u8]) -> io::Result<()> {
        self.may_fail()?;
        self.tables.entry(table).or_default().remove(key);
        Ok(())
    }

    fn dump(&self, table: Table) -> io::Result<Entries> {
        Ok(self
            .tables
            .get(&table)
            .into_iter()
            .flatten()
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect())
    }

    fn wait_for_programs(&self) -> io::Result<()> {
        Ok(())
    }
}
