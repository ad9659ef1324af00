//! What the kernel holds, typed: read once at start, then kept in step with every operation that succeeded.

use std::collections::BTreeMap;
use std::io;

use calico_azure_ebpf::abi::{
    CidrClass, Config, Configs, Endpoint, HostEndpoint, OwnerKey4, OwnerKey6, Pod, PolicyKey, PortKey,
    PrefixKey4, PrefixKey6, ServiceKey4, ServiceKey6, map, word,
};

use super::io::{Entries, MapIo, Table};
use super::op::Op;
use crate::policy::Reserved;

/// The tables of one node as they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    /// What is in force.
    pub config: Config,
    /// `abi::Configs::live`.
    pub live: u32,
    pub endpoints: BTreeMap<u32, Endpoint>,
    pub hosts: BTreeMap<u32, HostEndpoint>,
    pub owners4: BTreeMap<OwnerKey4, u32>,
    pub owners6: BTreeMap<OwnerKey6, u32>,
    pub class4: BTreeMap<u32, u64>,
    pub class6: BTreeMap<[u32; 4], u64>,
    pub cidr4: BTreeMap<PrefixKey4, CidrClass>,
    pub cidr6: BTreeMap<PrefixKey6, CidrClass>,
    pub policy: BTreeMap<PolicyKey, u64>,
    pub ports: BTreeMap<PortKey, u64>,
    pub services4: BTreeMap<ServiceKey4, u32>,
    pub services6: BTreeMap<ServiceKey6, u32>,
    pub marks: BTreeMap<u32, u64>,
    pub routes4: BTreeMap<PrefixKey4, u32>,
    pub routes6: BTreeMap<PrefixKey6, u32>,
}

impl Image {
    /// How many entries each table has, by the map's name.
    #[must_use]
    pub fn sizes(&self) -> [(&'static str, usize); 15] {
        [
            (map::ENDPOINTS, self.endpoints.len()),
            (map::HOSTS, self.hosts.len()),
            (map::OWNERS4, self.owners4.len()),
            (map::OWNERS6, self.owners6.len()),
            (map::CLASS4, self.class4.len()),
            (map::CLASS6, self.class6.len()),
            (map::CIDR4, self.cidr4.len()),
            (map::CIDR6, self.cidr6.len()),
            (map::POLICY, self.policy.len()),
            (map::PORTS, self.ports.len()),
            (map::SERVICES4, self.services4.len()),
            (map::SERVICES6, self.services6.len()),
            (map::MARKS, self.marks.len()),
            (map::ROUTES4, self.routes4.len()),
            (map::ROUTES6, self.routes6.len()),
        ]
    }
}

fn set<K: Pod + Ord, V: Pod>(map: &mut BTreeMap<K, V>, key: &[u8], value: Option<&[u8]>) -> Option<()> {
    let key = K::from_bytes(key)?;
    match value {
        Some(value) => {
            map.insert(key, V::from_bytes(value)?);
        }
        None => {
            map.remove(&key);
        }
    }
    Some(())
}

fn has<K: Pod + Ord, V>(map: &BTreeMap<K, V>, key: &[u8]) -> bool {
    K::from_bytes(key).is_some_and(|key| map.contains_key(&key))
}

impl Image {
    /// Reads every table.
    ///
    /// # Errors
    /// What the kernel says, or entries of a size that the contract does not have.
    pub fn read(io: &impl MapIo) -> io::Result<Self> {
        Self::collect(|table| io.dump(table))
    }

    /// [`Self::read`] for those who may not write.
    ///
    /// # Errors
    /// As there.
    pub fn collect(dump: impl Fn(Table) -> io::Result<Entries>) -> io::Result<Self> {
        let mut image = Self::default();
        for table in Table::ALL {
            for (key, value) in dump(table)? {
                image.set(table, &key, Some(&value)).ok_or_else(|| {
                    let text = format!(
                        "{} has an entry of {}+{} bytes",
                        table.name(),
                        key.len(),
                        value.len()
                    );
                    io::Error::new(io::ErrorKind::InvalidData, text)
                })?;
            }
        }
        Ok(image)
    }

    /// Follows an operation that succeeded.
    pub fn follow(&mut self, op: &Op) {
        // A plan is made from this image's own types, so its bytes always fit.
        let fits = self.set(op.table, op.key(), op.value());
        debug_assert!(fits.is_some(), "operation {op:?} does not fit its table");
    }

    /// Whether a table has an entry for these bytes of a key. The configuration is always there.
    #[must_use]
    pub fn holds(&self, table: Table, key: &[u8]) -> bool {
        match table {
            Table::Config => true,
            Table::Endpoints => has(&self.endpoints, key),
            Table::Hosts => has(&self.hosts, key),
            Table::Owners4 => has(&self.owners4, key),
            Table::Owners6 => has(&self.owners6, key),
            Table::Class4 => has(&self.class4, key),
            Table::Class6 => has(&self.class6, key),
            Table::Cidr4 => has(&self.cidr4, key),
            Table::Cidr6 => has(&self.cidr6, key),
            Table::Policy => has(&self.policy, key),
            Table::Ports => has(&self.ports, key),
            Table::Services4 => has(&self.services4, key),
            Table::Services6 => has(&self.services6, key),
            Table::Marks => has(&self.marks, key),
            Table::Routes4 => has(&self.routes4, key),
            Table::Routes6 => has(&self.routes6, key),
        }
    }

    fn set(&mut self, table: Table, key: &[u8], value: Option<&[u8]>) -> Option<()> {
        match table {
            Table::Config => {
                let configs = value.map_or(Some(Configs::default()), Configs::from_bytes)?;
                (self.config, self.live) = (*configs.config(), configs.live);
                Some(())
            }
            Table::Endpoints => set(&mut self.endpoints, key, value),
            Table::Hosts => set(&mut self.hosts, key, value),
            Table::Owners4 => set(&mut self.owners4, key, value),
            Table::Owners6 => set(&mut self.owners6, key, value),
            Table::Class4 => set(&mut self.class4, key, value),
            Table::Class6 => set(&mut self.class6, key, value),
            Table::Cidr4 => set(&mut self.cidr4, key, value),
            Table::Cidr6 => set(&mut self.cidr6, key, value),
            Table::Policy => set(&mut self.policy, key, value),
            Table::Ports => set(&mut self.ports, key, value),
            Table::Services4 => set(&mut self.services4, key, value),
            Table::Services6 => set(&mut self.services6, key, value),
            Table::Marks => set(&mut self.marks, key, value),
            Table::Routes4 => set(&mut self.routes4, key, value),
            Table::Routes6 => set(&mut self.routes6, key, value),
        }
    }

    /// The ids in use, so that a new compiler gives out others.
    #[must_use]
    pub fn reserved(&self) -> Reserved {
        let both = |word: u64| [word::slot(word, 0), word::slot(word, 1)];
        let endpoints = self
            .endpoints
            .values()
            .flat_map(|e| [e.egress, e.ingress])
            .flat_map(both);
        let classes = self
            .class4
            .values()
            .chain(self.class6.values())
            .copied()
            .flat_map(both);
        let cidrs = self
            .cidr4
            .values()
            .chain(self.cidr6.values())
            .flat_map(|c| c.slots);
        Reserved {
            sets: endpoints
                .chain(self.hosts.values().flat_map(|host| host.sets).flat_map(both))
                .chain(self.policy.keys().map(|k| k.set))
                .filter(|&id| id != 0)
                .collect(),
            classes: classes
                .chain(cidrs)
                .chain(self.policy.keys().map(|k| k.class))
                .filter(|&id| id != 0)
                .collect(),
            tables: self
                .policy
                .values()
                .filter(|&&w| word::table_hints(w) & word::hint::SET == 0)
                .map(|&w| word::table_id(w))
                .chain(self.ports.keys().map(|k| k.table))
                .collect(),
            rules: self
                .ports
                .values()
                .filter(|&&w| !word::decision_leads(w))
                .map(|&w| word::decision_rule(w))
                .collect(),
        }
    }
}
