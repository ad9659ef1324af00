//! Criteria about the endpoint itself, resolved while compiling so that the kernel need not ask: its address, and
//! the ports that it gives names.

use std::cell::OnceCell;
use std::net::IpAddr;

use ipnet::IpNet;

use super::members::backends;
use super::predicate::{Family, PerFamily};
use super::rules::{BodyRule, OwnCriteria};
use super::sets::{Own, OwnAddress};
use super::side::OwnPorts;
use crate::model::{Action, NamedPort, Peer, ServiceName};
use crate::policy::labels::EffectiveLabels;
use crate::policy::store::Store;
use crate::policy::topology::Endpoint;
use crate::selector::Selector;

/// The addresses of one endpoint, and what else has them.
pub(super) struct OwnSide<'a> {
    store: &'a Store,
    endpoint: &'a Endpoint<'a>,
    addresses: Vec<Owners<'a>>,
}

/// Everything that has one address, found when somebody asks.
struct Owners<'a> {
    address: IpAddr,
    pod: OnceCell<EffectiveLabels<'a>>,
    hosts: OnceCell<Vec<(EffectiveLabels<'a>, &'a [NamedPort])>>,
    sets: OnceCell<Vec<EffectiveLabels<'a>>>,
}

impl<'a> OwnSide<'a> {
    pub(super) fn new(store: &'a Store, endpoint: &'a Endpoint<'a>) -> Self {
        let addresses = endpoint
            .addresses
            .iter()
            .map(|address| Owners {
                address: *address,
                pod: OnceCell::new(),
                hosts: OnceCell::new(),
                sets: OnceCell::new(),
            })
            .collect();
        Self {
            store,
            endpoint,
            addresses,
        }
    }

    /// What the rule's own side comes to, and whether addresses of one family differ in it.
    pub(super) fn resolve(&self, rule: &BodyRule) -> (PerFamily<Own>, bool) {
        let Some(criteria) = &rule.own else {
            return (PerFamily::default(), false);
        };
        let mut ambiguous = false;
        let own = PerFamily::new(|family| {
            let of_family = self
                .addresses
                .iter()
                .filter(|owners| owners.address.is_ipv4() == (family == Family::V4));
            let mut answers: Vec<Option<OwnPorts>> = of_family
                .map(|owners| self.holds(criteria, owners).then(|| self.ports(criteria, owners)))
                .collect();
            answers.dedup();
            match (answers.pop(), answers.is_empty()) {
                (Some(Some(ports)), true) => {
                    let address = OwnAddress::Holds;
                    return Own { address, ports };
                }
                (Some(None), true) => return OwnAddress::Fails.into(),
                (Some(_), false) => ambiguous = true,
                // No address of the family that we know of, so no packet of it that we could be sure about.
                (None, _) => {}
            }
            match rule.action {
                Action::Allow | Action::Log => OwnAddress::Fails.into(),
                Action::Deny | Action::Pass => Own {
                    address: OwnAddress::Denies,
                    ports: OwnPorts::Any,
                },
            }
        });
        (own, ambiguous)
    }

    fn holds(&self, criteria: &OwnCriteria, owners: &Owners<'a>) -> bool {
        let Peer {
            nets,
            not_nets,
            selector,
            not_selector,
            service,
            ..
        } = &criteria.side;
        let within = |nets: &[IpNet]| nets.iter().any(|net| net.contains(&owners.address));
        let is_member = |selector: &Selector| {
            selector.matches(self.pod(owners))
                || self
                    .hosts(owners)
                    .iter()
                    .any(|(labels, _)| selector.matches(labels))
                || self.sets(owners).iter().any(|labels| selector.matches(labels))
        };
        (nets.is_empty() || within(nets))
            && !within(not_nets)
            && selector.as_ref().is_none_or(is_member)
            && !not_selector.as_ref().is_some_and(is_member)
            && service
                .as_ref()
                .is_none_or(|service| self.serving(service, owners.address).next().is_some())
    }

    fn ports(&self, criteria: &OwnCriteria, owners: &Owners<'a>) -> OwnPorts {
        let side = &criteria.side;
        let named = |names: &[String]| {
            if names.is_empty() {
                return Box::default();
            }
            let selector = side.selector.as_ref();
            let of_pod = selector.is_none_or(|selector| selector.matches(self.pod(owners)));
            let of_pod = self.endpoint.pod.ports.iter().filter(|_| of_pod);
            let hosts = self.hosts(owners).iter();
            let hosts = hosts.filter(|(labels, _)| selector.is_none_or(|s| s.matches(labels)));
            let ports = of_pod.chain(hosts.flat_map(|(_, ports)| *ports));
            let ports = ports.filter(|port| names.contains(&port.name));
            sorted(ports.map(|port| (port.protocol, port.port)))
        };
        let service = side.service.as_ref().filter(|_| criteria.is_destination);
        let service = service.map(|service| sorted(self.serving(service, owners.address).flatten()));
        OwnPorts::Known {
            listed: named(&side.named_ports),
            excluded: named(&side.not_named_ports),
            service: service.unwrap_or_default(),
        }
    }

    /// Ports of the service's backends that have the address.
    fn serving(
        &self,
        service: &ServiceName,
        address: IpAddr,
    ) -> impl Iterator<Item = impl Iterator<Item = (u8, u16)>> {
        backends(self.store)
            .filter(move |(name, subset)| name == service && subset.addresses.contains(&address))
            .map(|(_, subset)| subset.ports.iter().copied())
    }

    fn pod<'o>(&self, owners: &'o Owners<'a>) -> &'o EffectiveLabels<'a> {
        let labels = || EffectiveLabels::of_pod(self.store, self.endpoint.pod);
        owners.pod.get_or_init(labels)
    }

    fn hosts<'o>(&self, owners: &'o Owners<'a>) -> &'o [(EffectiveLabels<'a>, &'a [NamedPort])] {
        owners.hosts.get_or_init(|| {
            let hosts = self.store.host_endpoints();
            let hosts = hosts.filter(|host| host.expected_ips.contains(&owners.address));
            hosts
                .map(|host| {
                    (
                        EffectiveLabels::of_host_endpoint(self.store, host),
                        host.ports.as_slice(),
                    )
                })
                .collect()
        })
    }

    /// The network sets around the address.
    fn sets<'o>(&self, owners: &'o Owners<'a>) -> &'o [EffectiveLabels<'a>] {
        owners.sets.get_or_init(|| {
            let sets = self.store.network_sets();
            let around = sets.filter(|set| set.nets.iter().any(|net| net.contains(&owners.address)));
            around
                .map(|set| EffectiveLabels::of_network_set(self.store, set))
                .collect()
        })
    }
}

impl From<OwnAddress> for Own {
    fn from(address: OwnAddress) -> Self {
        let ports = OwnPorts::default();
        Self { address, ports }
    }
}

fn sorted(ports: impl Iterator<Item = (u8, u16)>) -> Box<[(u8, u16)]> {
    let mut ports: Vec<_> = ports.collect();
    ports.sort_unstable();
    ports.dedup();
    ports.into()
}
