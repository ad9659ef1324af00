//! The desired tables, edited in place, with a note of every key that was touched.

use std::collections::BTreeMap;

use calico_azure_ebpf::abi::{OwnerKey4, OwnerKey6, PolicyKey, PortKey, ServiceKey4, ServiceKey6};
use ipnet::IpNet;

use crate::policy::services::ServiceAt;
use crate::policy::{Desired, DesiredEndpoint, DesiredHost, Prefix4, Prefix6, wire};

/// Keys whose entries may be others than when the last change was taken. Ascending, each once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// The keys are not known: everything has to be compared.
    pub everything: bool,
    pub endpoints: Vec<u32>,
    pub hosts: Vec<u32>,
    pub owners4: Vec<OwnerKey4>,
    pub owners6: Vec<OwnerKey6>,
    pub class4: Vec<u32>,
    pub class6: Vec<[u32; 4]>,
    pub cidr4: Vec<Prefix4>,
    pub cidr6: Vec<Prefix6>,
    pub policy: Vec<PolicyKey>,
    pub ports: Vec<PortKey>,
    pub services4: Vec<ServiceKey4>,
    pub services6: Vec<ServiceKey6>,
    pub routes4: Vec<Prefix4>,
    pub routes6: Vec<Prefix6>,
    /// Ids of rules that got a name or lost it.
    pub rules: Vec<u32>,
}

impl Change {
    /// Every key, whatever it is.
    #[must_use]
    pub fn everything() -> Self {
        Self {
            everything: true,
            ..Self::default()
        }
    }

    /// Adds a later change, for an update that did not get into the kernel.
    pub fn merge(&mut self, later: Self) {
        let Self {
            everything,
            endpoints,
            hosts,
            owners4,
            owners6,
            class4,
            class6,
            cidr4,
            cidr6,
            policy,
            ports,
            services4,
            services6,
            routes4,
            routes6,
            rules,
        } = later;
        self.everything |= everything;
        self.endpoints.extend(endpoints);
        self.hosts.extend(hosts);
        self.owners4.extend(owners4);
        self.owners6.extend(owners6);
        self.class4.extend(class4);
        self.class6.extend(class6);
        self.cidr4.extend(cidr4);
        self.cidr6.extend(cidr6);
        self.policy.extend(policy);
        self.ports.extend(ports);
        self.services4.extend(services4);
        self.services6.extend(services6);
        self.routes4.extend(routes4);
        self.routes6.extend(routes6);
        self.rules.extend(rules);
        self.tidy();
    }

    fn tidy(&mut self) {
        fn tidy<K: Ord>(keys: &mut Vec<K>) {
            keys.sort_unstable();
            keys.dedup();
        }
        if self.everything {
            *self = Self::everything();
        }
        tidy(&mut self.endpoints);
        tidy(&mut self.hosts);
        tidy(&mut self.owners4);
        tidy(&mut self.owners6);
        tidy(&mut self.class4);
        tidy(&mut self.class6);
        tidy(&mut self.cidr4);
        tidy(&mut self.cidr6);
        tidy(&mut self.policy);
        tidy(&mut self.ports);
        tidy(&mut self.services4);
        tidy(&mut self.services6);
        tidy(&mut self.routes4);
        tidy(&mut self.routes6);
        tidy(&mut self.rules);
    }
}

/// The desired tables and what was touched in them.
#[derive(Debug, Default)]
pub(super) struct Sheet {
    desired: Desired,
    change: Change,
}

/// Sets or (`None`) removes an entry.
fn edit<K: Ord + Copy, V: PartialEq>(
    table: &mut BTreeMap<K, V>,
    touched: &mut Vec<K>,
    key: K,
    value: Option<V>,
) {
    let changed = match value {
        Some(value) => {
            table.get(&key) != Some(&value) && {
                table.insert(key, value);
                true
            }
        }
        None => table.remove(&key).is_some(),
    };
    if changed {
        touched.push(key);
    }
}

impl Sheet {
    pub(super) fn desired(&self) -> &Desired {
        &self.desired
    }

    /// What was touched since the last call.
    pub(super) fn take_change(&mut self) -> Change {
        self.change.tidy();
        std::mem::take(&mut self.change)
    }

    pub(super) fn endpoint(&mut self, ifindex: u32, endpoint: Option<DesiredEndpoint>) {
        let Self { desired, change } = self;
        edit(&mut desired.endpoints, &mut change.endpoints, ifindex, endpoint);
    }

    pub(super) fn host(&mut self, ifindex: u32, host: Option<DesiredHost>) {
        let Self { desired, change } = self;
        edit(&mut desired.hosts, &mut change.hosts, ifindex, host);
    }

    /// No key: each apply looks at it.
    pub(super) fn alike_from(&mut self, port: u16) {
        self.desired.alike_from = port;
    }

    pub(super) fn owner(&mut self, ifindex: u32, address: std::net::IpAddr, owns: bool) {
        let Self { desired, change } = self;
        let value = owns.then_some(1);
        match address {
            std::net::IpAddr::V4(ip) => {
                let addr = wire::addr4(ip);
                let key = OwnerKey4 { ifindex, addr };
                edit(&mut desired.owners4, &mut change.owners4, key, value);
            }
            std::net::IpAddr::V6(ip) => {
                let addr = wire::addr6(ip);
                let key = OwnerKey6 { ifindex, addr };
                edit(&mut desired.owners6, &mut change.owners6, key, value);
            }
        }
    }

    pub(super) fn class(&mut self, net: IpNet, class: Option<u32>) {
        let Self { desired, change } = self;
        match net {
            IpNet::V4(net) if net.prefix_len() == 32 => {
                let key = wire::addr4(net.network());
                edit(&mut desired.class4, &mut change.class4, key, class);
            }
            IpNet::V4(net) => edit(&mut desired.cidr4, &mut change.cidr4, wire::prefix4(net), class),
            IpNet::V6(net) if net.prefix_len() == 128 => {
                let key = wire::addr6(net.network());
                edit(&mut desired.class6, &mut change.class6, key, class);
            }
            IpNet::V6(net) => edit(&mut desired.cidr6, &mut change.cidr6, wire::prefix6(net), class),
        }
    }

    pub(super) fn rule(&mut self, id: u32) {
        self.change.rules.push(id);
    }

    pub(super) fn policy(&mut self, key: PolicyKey, word: Option<u64>) {
        let Self { desired, change } = self;
        edit(&mut desired.policy, &mut change.policy, key, word);
    }

    pub(super) fn port(&mut self, key: PortKey, word: Option<u64>) {
        let Self { desired, change } = self;
        edit(&mut desired.ports, &mut change.ports, key, word);
    }

    pub(super) fn service(&mut self, at: ServiceAt, is_one: bool) {
        let Self { desired, change } = self;
        let ServiceAt {
            address,
            port,
            protocol,
        } = at;
        let (value, protocol) = (is_one.then_some(1), u16::from(protocol));
        match address {
            std::net::IpAddr::V4(ip) => {
                let key = ServiceKey4 {
                    addr: wire::addr4(ip),
                    port,
                    protocol,
                };
                edit(&mut desired.services4, &mut change.services4, key, value);
            }
            std::net::IpAddr::V6(ip) => {
                let key = ServiceKey6 {
                    addr: wire::addr6(ip),
                    port,
                    protocol,
                };
                edit(&mut desired.services6, &mut change.services6, key, value);
            }
        }
    }

    pub(super) fn route(&mut self, net: IpNet, bits: Option<u32>) {
        let Self { desired, change } = self;
        match net {
            IpNet::V4(net) => edit(
                &mut desired.routes4,
                &mut change.routes4,
                wire::prefix4(net),
                bits,
            ),
            IpNet::V6(net) => edit(
                &mut desired.routes6,
                &mut change.routes6,
                wire::prefix6(net),
                bits,
            ),
        }
    }
}
