//! The kernel's tables in memory, under the same verdict engine that the programs run. For tests and for verdicts
//! without a kernel.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;

use calico_azure_ebpf::abi::{
    CidrClass, Config, CtKey4, CtKey6, CtValue, Denied, FragKey4, FragKey6, FragValue, Hook, LEG_OUT,
    OwnerKey4, OwnerKey6, PolicyKey, PortKey, PrefixKey4, PrefixKey6, Reason, ServiceKey4, ServiceKey6,
};
use calico_azure_ebpf::packet::{Network, Packet, Transport, V4, V6};
use calico_azure_ebpf::verdict::{CtTable, FamilyTables, Outcome, Tables, peer};

use super::image::Image;

/// Tables, flows and counters of one node.
#[derive(Debug, Default)]
pub struct HostTables {
    /// What userspace wrote.
    pub image: Image,
    /// Monotonic nanoseconds; tests set it.
    pub clock: Cell<u64>,
    /// The kernel's `LINKS`.
    pub links: BTreeSet<u32>,
    /// Flow tables take no more entries.
    pub full: Cell<bool>,
    /// Packets by hook and reason.
    pub counters: RefCell<HashMap<(Hook, Reason), u64>>,
    denied: RefCell<HashMap<u32, Denied>>,
    flows4: Flows<CtKey4, FragKey4>,
    flows6: Flows<CtKey6, FragKey6>,
    /// How often the configuration was looked up. Twice for one packet may be two epochs.
    pub configured: Cell<u32>,
}

/// Flows of one family.
#[derive(Debug, PartialEq)]
struct Flows<K: Hash + Eq, F: Hash + Eq> {
    established: RefCell<HashMap<K, CtValue>>,
    half_open: RefCell<HashMap<K, CtValue>>,
    fragments: RefCell<HashMap<F, FragValue>>,
}

impl<K: Hash + Eq, F: Hash + Eq> Default for Flows<K, F> {
    fn default() -> Self {
        Self {
            established: RefCell::default(),
            half_open: RefCell::default(),
            fragments: RefCell::default(),
        }
    }
}

impl<K: Hash + Eq + Copy, F: Hash + Eq> Flows<K, F> {
    fn table(&self, table: CtTable) -> &RefCell<HashMap<K, CtValue>> {
        match table {
            CtTable::Established => &self.established,
            CtTable::HalfOpen => &self.half_open,
        }
    }
}

impl HostTables {
    /// Tables with these contents and no flows.
    #[must_use]
    pub fn new(image: Image) -> Self {
        Self {
            image,
            clock: Cell::new(1),
            ..Self::default()
        }
    }

    /// Forgets every flow and fragment.
    pub fn forget_flows(&mut self) {
        self.flows4 = Flows::default();
        self.flows6 = Flows::default();
    }

    /// Whether both know the same flows and fragments.
    #[must_use]
    pub fn has_flows_of(&self, other: &Self) -> bool {
        self.flows4 == other.flows4 && self.flows6 == other.flows6
    }

    fn count(&self, hook: Hook, outcome: Outcome) {
        *self
            .counters
            .borrow_mut()
            .entry((hook, outcome.reason))
            .or_default() += 1;
    }

    fn longest4<V: Copy>(map: &std::collections::BTreeMap<PrefixKey4, V>, addr: u32) -> Option<V> {
        let addr = u32::from_be(addr);
        (0..=32_u32).rev().find_map(|len| {
            let mask = u32::MAX.checked_shl(32 - len).unwrap_or(0);
            map.get(&PrefixKey4 {
                len,
                addr: (addr & mask).to_be(),
            })
            .copied()
        })
    }

    fn longest6<V: Copy>(map: &std::collections::BTreeMap<PrefixKey6, V>, addr: [u32; 4]) -> Option<V> {
        (0..=128_u32).rev().find_map(|len| {
            let mut masked = addr;
            for (i, word) in (0_u32..).zip(&mut masked) {
                let kept = len.saturating_sub(i * 32).min(32);
                *word = (u32::from_be(*word) & u32::MAX.checked_shl(32 - kept).unwrap_or(0)).to_be();
            }
            map.get(&PrefixKey6 { len, addr: masked }).copied()
        })
    }
}

impl Tables for HostTables {
    fn config(&self) -> Option<&Config> {
        self.configured.set(self.configured.get() + 1);
        Some(&self.image.config)
    }

    fn now(&self) -> u64 {
        self.clock.get()
    }

    fn endpoint(&self, ifindex: u32, leg: u32) -> Option<u64> {
        let endpoint = self.image.endpoints.get(&ifindex)?;
        Some(if leg == LEG_OUT {
            endpoint.egress
        } else {
            endpoint.ingress
        })
    }

    fn host(&self, ifindex: u32, stage: usize) -> Option<u64> {
        self.image.hosts.get(&ifindex)?.sets.get(stage).copied()
    }

    fn link(&self, ifindex: u32) -> bool {
        self.links.contains(&ifindex)
    }

    fn endpoint_mark(&self, ifindex: u32) -> Option<u64> {
        self.image.endpoints.get(&ifindex).map(|endpoint| endpoint.mark)
    }

    fn marked(&self, mark: u32) -> Option<u64> {
        self.image.marks.get(&mark).copied()
    }

    fn policy(&self, key: &PolicyKey) -> Option<u64> {
        self.image.policy.get(key).copied()
    }

    fn port(&self, key: &PortKey) -> Option<u64> {
        self.image.ports.get(key).copied()
    }

    fn denied(&self, asked: &Denied) -> Option<(u32, bool)> {
        let denied = self.denied.borrow();
        let denied = denied
            .get(&asked.place())
            .filter(|denied| denied.is_same(asked))?;
        Some((denied.rule, denied.log != 0))
    }

    fn counts_denied<P: Packet>(&self, _packet: &P, _config: &Config) -> bool {
        let limited = self.image.config.records != 0;
        if limited {
            self.count(Hook::Untracked, Outcome::of(Reason::PolicyDeny));
        }
        limited
    }

    fn set_denied(&self, asked: &Denied, rule: u32, log: bool) {
        let log = u32::from(log);
        let denied = Denied { rule, log, ..*asked };
        self.denied.borrow_mut().insert(asked.place(), denied);
    }

    fn record_bare<P: Packet>(&self, hook: Hook, _packet: &P, outcome: Outcome) {
        self.count(hook, outcome);
    }
}

macro_rules! family_tables {
    ($family:ty, $addr:ty, $owner:ident, $owners:ident, $service:ident, $services:ident, $class:ident, $cidr:ident, $routes:ident, $longest:ident,
     $flows:ident, $ctkey:ty, $fragkey:ty) => {
        impl FamilyTables<$family> for HostTables {
            fn owns(&self, ifindex: u32, addr: $addr) -> u32 {
                self.image
                    .$owners
                    .get(&$owner { ifindex, addr })
                    .copied()
                    .unwrap_or(0)
            }

            fn service(&self, addr: $addr, port: u16, protocol: u8) -> u32 {
                let protocol = u16::from(protocol);
                let key = $service {
                    addr,
                    port,
                    protocol,
                };
                self.image.$services.get(&key).copied().unwrap_or(0)
            }

            fn class(&self, addr: $addr) -> Option<u64> {
                self.image.$class.get(&addr).copied()
            }

            fn cidr(&self, addr: $addr, slot: usize) -> u32 {
                Self::$longest(&self.image.$cidr, addr).map_or(0, |CidrClass { slots }| slots[slot & 1])
            }

            fn route(&self, addr: $addr) -> u32 {
                Self::$longest(&self.image.$routes, addr).unwrap_or(0)
            }

            fn peer<P: Packet>(&self, packet: &P, address: $addr, asked: u64) -> u64 {
                peer::peer::<$family, _, _>(packet, self, address, asked)
            }

            fn ct_with<R>(
                &self,
                table: CtTable,
                key: &$ctkey,
                f: impl FnOnce(&mut CtValue) -> R,
            ) -> Option<R> {
                self.$flows.table(table).borrow_mut().get_mut(key).map(f)
            }

            fn ct_insert(&self, table: CtTable, key: &$ctkey, value: &CtValue) -> bool {
                if self.full.get() {
                    return false;
                }
                self.$flows.table(table).borrow_mut().insert(*key, *value);
                true
            }

            fn ct_remove(&self, table: CtTable, key: &$ctkey) {
                self.$flows.table(table).borrow_mut().remove(key);
            }

            fn frag(&self, key: &$fragkey) -> Option<FragValue> {
                self.$flows.fragments.borrow().get(key).copied()
            }

            fn set_frag(&self, key: &$fragkey, value: &FragValue) {
                self.$flows.fragments.borrow_mut().insert(*key, *value);
            }

            fn record<P: Packet>(
                &self,
                hook: Hook,
                _packet: &P,
                _network: &Network<$family>,
                _transport: &Transport,
                outcome: Outcome,
            ) {
                self.count(hook, outcome);
            }
        }
    };
}

family_tables!(
    V4,
    u32,
    OwnerKey4,
    owners4,
    ServiceKey4,
    services4,
    class4,
    cidr4,
    routes4,
    longest4,
    flows4,
    CtKey4,
    FragKey4
);
family_tables!(
    V6,
    [u32; 4],
    OwnerKey6,
    owners6,
    ServiceKey6,
    services6,
    class6,
    cidr6,
    routes6,
    longest6,
    flows6,
    CtKey6,
    FragKey6
);
