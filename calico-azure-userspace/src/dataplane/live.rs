//! The tables of a running agent, read and never written.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd as _, OwnedFd};

use aya::maps::MapData;
use calico_azure_ebpf::abi::{
    CLASS_DEFAULT_V4, CLASS_DEFAULT_V6, Config, Configs, OwnerKey4, OwnerKey6, Pod as _, map, route, word,
};

use super::image::Image;
use super::io::Table;
use super::kernel::Sizes;
use super::maps::specs;
use super::pins::{PinError, Pins};
use super::syscall::{self, Shape};
use crate::policy::{Desired, DesiredEndpoint, DesiredHost, wire};

/// How often reading begins anew because the agent has changed the verdicts meanwhile.
const ATTEMPTS: usize = 5;

/// The tables cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LiveError {
    #[error("{0}; is there an agent for this node, and is this build the agent's?")]
    Pin(#[from] PinError),
    #[error("reading the kernel's tables: {0}")]
    Read(#[source] io::Error),
    #[error("the agent changes the tables faster than they can be read: try again")]
    Restless,
    #[error("the agent has not completed its first apply: nothing passes yet")]
    NotConfigured,
}

/// Descriptors of a node's pinned tables.
#[derive(Debug)]
pub struct Live {
    maps: BTreeMap<Table, (OwnedFd, Shape)>,
}

impl Live {
    /// Opens what is pinned.
    ///
    /// # Errors
    /// If nothing is, or it may not be opened.
    pub fn open(pins: &Pins) -> Result<Self, LiveError> {
        let shapes: BTreeMap<&str, Shape> = specs(Sizes::default())
            .iter()
            .map(|spec| (spec.name, spec.shape))
            .collect();
        let mut maps = BTreeMap::new();
        for table in Table::ALL {
            let path = pins.maps().join(table.name());
            let data = MapData::from_pin(&path).map_err(|source| PinError::Map {
                path: path.clone(),
                source,
            })?;
            let fd = data.fd().as_fd().try_clone_to_owned();
            let fd = fd.map_err(|source| PinError::Io { path, source })?;
            let shape = shapes.get(table.name()).copied();
            let shape = shape.ok_or_else(|| LiveError::Read(io::ErrorKind::NotFound.into()))?;
            maps.insert(table, (fd, shape));
        }
        Ok(Self { maps })
    }

    /// The tables at one moment.
    ///
    /// # Errors
    /// [`LiveError`].
    pub fn read(&self) -> Result<Image, LiveError> {
        for _ in 0..ATTEMPTS {
            let before = self.config()?;
            if before.epoch == 0 {
                return Err(LiveError::NotConfigured);
            }
            // What an update prepares is not live before the epoch changes, and what it clears away no longer is.
            let image = Image::collect(|table| self.dump(table)).map_err(LiveError::Read)?;
            if self.config()? == before && image.config == before {
                return Ok(image);
            }
        }
        Err(LiveError::Restless)
    }

    fn map(&self, table: Table) -> io::Result<&(OwnedFd, Shape)> {
        self.maps
            .get(&table)
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn dump(&self, table: Table) -> io::Result<super::io::Entries> {
        let (fd, shape) = self.map(table)?;
        syscall::dump(fd.as_fd(), *shape)
    }

    fn config(&self) -> Result<Config, LiveError> {
        let read = || {
            let (fd, shape) = self.map(Table::Config)?;
            let bytes = syscall::get(fd.as_fd(), *shape, 0_u32.bytes())?;
            let config = bytes.and_then(|bytes| Configs::from_bytes(&bytes));
            config
                .map(|configs| *configs.config())
                .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, map::CONFIG))
        };
        read().map_err(LiveError::Read)
    }
}

/// What is in force of an image: the tables that the current epoch reads.
#[must_use]
pub fn in_force(image: &Image, pods: &BTreeMap<u32, String>) -> Desired {
    let epoch = image.config.epoch;
    let live = |word: u64| word::slot(word, epoch);
    let owned = |bits: u32| bits & (1 << (epoch & 1)) != 0;
    let slot = |slots: [u32; 2]| {
        slots
            .get(usize::from(epoch & 1 == 1))
            .copied()
            .unwrap_or_default()
    };
    let mut desired = Desired {
        policy: image.policy.clone(),
        ports: image.ports.clone(),
        ..Desired::default()
    };
    for (key, bits) in image.owners4.iter().filter(|(_, bits)| owned(**bits)) {
        desired.owners4.insert(*key, *bits);
    }
    for (key, bits) in image.owners6.iter().filter(|(_, bits)| owned(**bits)) {
        desired.owners6.insert(*key, *bits);
    }
    for (ifindex, endpoint) in &image.endpoints {
        let own4 = desired.owners4.keys().filter(|key| key.ifindex == *ifindex);
        let own6 = desired.owners6.keys().filter(|key| key.ifindex == *ifindex);
        let addresses = own4
            .map(|OwnerKey4 { addr, .. }| IpAddr::V4(wire::ipv4(*addr)))
            .chain(own6.map(|OwnerKey6 { addr, .. }| IpAddr::V6(wire::ipv6(*addr))));
        let named = pods.get(ifindex).cloned();
        let endpoint = DesiredEndpoint {
            pod: named.unwrap_or_else(|| format!("interface {ifindex}")),
            egress: live(endpoint.egress),
            ingress: live(endpoint.ingress),
            mark: word::mark_of(endpoint.mark, *ifindex).unwrap_or_default(),
            addresses: addresses.collect(),
        };
        desired.endpoints.insert(*ifindex, endpoint);
    }
    for (ifindex, host) in &image.hosts {
        let host = DesiredHost {
            name: format!("interface {ifindex}"),
            sets: host.sets.map(live),
        };
        // Without any set there is none in this epoch.
        if host.sets.iter().any(|set| *set != 0) {
            desired.hosts.insert(*ifindex, host);
        }
    }
    // No class of its own: the longest prefix tells.
    let classes = |word: u64| Some(live(word)).filter(|class| *class != 0);
    desired.class4.extend(
        image
            .class4
            .iter()
            .filter_map(|(ip, word)| Some((*ip, classes(*word)?))),
    );
    desired.class6.extend(
        image
            .class6
            .iter()
            .filter_map(|(ip, word)| Some((*ip, classes(*word)?))),
    );
    // The longest prefix decides, also where it says nothing.
    let or = |class: u32, default: u32| if class == 0 { default } else { class };
    for (key, class) in &image.cidr4 {
        let len = u8::try_from(key.len).unwrap_or(32);
        desired
            .cidr4
            .insert((key.addr, len), or(slot(class.slots), CLASS_DEFAULT_V4));
    }
    for (key, class) in &image.cidr6 {
        let len = u8::try_from(key.len).unwrap_or(128);
        desired
            .cidr6
            .insert((key.addr, len), or(slot(class.slots), CLASS_DEFAULT_V6));
    }
    let v4 = image
        .routes4
        .iter()
        .map(|(key, bits)| ((key.addr, u8::try_from(key.len).unwrap_or(32)), *bits));
    desired.routes4.extend(v4);
    let v6 = image
        .routes6
        .iter()
        .map(|(key, bits)| ((key.addr, u8::try_from(key.len).unwrap_or(128)), *bits));
    desired.routes6.extend(v6);
    desired
}

/// Whether the address is one of the node's own.
#[must_use]
pub fn is_own_host(desired: &Desired, address: IpAddr) -> bool {
    let bits = match address {
        IpAddr::V4(ip) => desired.routes4.get(&(wire::addr4(ip), 32)),
        IpAddr::V6(ip) => desired.routes6.get(&(wire::addr6(ip), 128)),
    };
    bits.is_some_and(|bits| bits & route::LOCAL_HOST != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataplane::testrun::settings;
    use crate::dataplane::{Dataplane, FakeIo};
    use crate::policy::generate::{self, Shape, probes};
    use crate::policy::{Compiler, lookup};

    #[test]
    fn what_is_in_force_decides_as_what_was_desired() {
        let mut dataplane = Dataplane::open(FakeIo::default()).unwrap();
        let mut compiler = Compiler::default();
        let mut compared = 0;
        for seed in 0..12 {
            let store = generate::store(seed, &Shape::default());
            let output = compiler.compile(&store).unwrap();
            dataplane.apply(&output.desired, settings()).unwrap();
            compiler.applied();
            let pods = output.desired.endpoints.iter();
            let pods = pods
                .map(|(ifindex, endpoint)| (*ifindex, endpoint.pod.clone()))
                .collect();
            let found = in_force(dataplane.image(), &pods);
            assert_eq!(found.endpoints.len(), output.desired.endpoints.len());
            for (ifindex, endpoint) in &found.endpoints {
                let desired = &output.desired.endpoints[ifindex];
                assert_eq!((&endpoint.pod, endpoint.egress), (&desired.pod, desired.egress));
                let sorted = |addresses: &[IpAddr]| {
                    let mut addresses = addresses.to_vec();
                    addresses.sort_unstable();
                    addresses
                };
                assert_eq!(sorted(&endpoint.addresses), sorted(&desired.addresses));
            }
            for case in probes(&store, seed, 1) {
                let judge = |desired| lookup::verdict(desired, case.ifindex, case.direction, &case.probe);
                assert_eq!(judge(&found), judge(&output.desired), "seed {seed}: {case:?}");
                compared += 1;
            }
        }
        assert!(compared > 1000, "{compared}");
    }
}
