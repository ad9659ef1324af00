//! What an address is: whose, in which sets, behind which services; only the reference uses it.

use std::net::IpAddr;

use super::matching::in_nets;
use super::{Oracle, Point};
use crate::model::{Backends, Kind, NamedPort, PortRange, ServiceName};
use crate::policy::labels::EffectiveLabels;
use crate::selector::Selector;

/// One side's address and port.
#[derive(Clone, Copy)]
pub(super) struct Side {
    pub(super) address: IpAddr,
    pub(super) protocol: u8,
    /// `None` for protocols without ports that policy looks at.
    pub(super) port: Option<u16>,
}

impl Oracle<'_> {
    /// Whether the address belongs to a pod or host endpoint, or lies in a network set, that the selector matches.
    pub(super) fn is_member(&self, selector: &Selector, address: IpAddr) -> bool {
        let mut pods = self.topology.endpoints.iter().zip(&self.endpoint_labels);
        let mut hosts = self.store.host_endpoints().zip(&self.host_labels);
        let mut sets = self.store.network_sets().zip(&self.set_labels);
        if pods.any(|(pod, labels)| pod.addresses.contains(&address) && selector.matches(labels)) {
            return self.at(Point::MemberPod, true);
        }
        if hosts.any(|(host, labels)| host.expected_ips.contains(&address) && selector.matches(labels)) {
            return self.at(Point::MemberHost, true);
        }
        if sets.any(|(set, labels)| in_nets(&set.nets, address) && selector.matches(labels)) {
            return self.at(Point::MemberSet, true);
        }
        self.at(Point::MemberNone, false)
    }

    /// Whether the side's port lies in a range, or is one of the names that an endpoint which has the address and is
    /// selected gives to it.
    pub(super) fn is_port(
        &self,
        ranges: &[PortRange],
        names: &[String],
        selector: Option<&Selector>,
        side: Side,
    ) -> bool {
        let Some(port) = side.port else {
            return self.at(Point::PortNone, false);
        };
        if ranges
            .iter()
            .any(|range| range.first <= port && port <= range.last)
        {
            return self.at(Point::PortInRange, true);
        }
        names.iter().any(|name| self.is_named(name, selector, side, port))
    }

    fn is_named(&self, name: &str, selector: Option<&Selector>, side: Side, port: u16) -> bool {
        let pods = self.topology.endpoints.iter().zip(&self.endpoint_labels);
        let pods = pods.filter(|(pod, _)| pod.addresses.contains(&side.address));
        let pods = pods.map(|(pod, labels)| (Point::PortNamedByPod, &pod.pod.ports, labels));
        let hosts = self.store.host_endpoints().zip(&self.host_labels);
        let hosts = hosts.filter(|(host, _)| host.expected_ips.contains(&side.address));
        let hosts = hosts.map(|(host, labels)| (Point::PortNamedByHost, &host.ports, labels));
        let mut all: Vec<(Point, &Vec<NamedPort>, &EffectiveLabels<'_>)> = pods.collect();
        all.extend(hosts);
        all.into_iter().any(|(point, ports, labels)| {
            let mut ports = ports.iter().filter(|x| x.name == name).peekable();
            if ports.peek().is_none() {
                false
            } else if selector.is_some_and(|selector| !selector.matches(labels)) {
                self.at(Point::PortNamedUnselected, false)
            } else if ports.any(|x| x.protocol == side.protocol && x.port == port) {
                self.at(point, true)
            } else {
                self.at(Point::PortNamedDifferently, false)
            }
        })
    }

    /// Whether the address is one of the service's backends; with `port`, whether protocol and port are as well.
    pub(super) fn is_backend(&self, service: &ServiceName, side: Side, port: bool) -> bool {
        let mut subsets = self.backends(service).into_iter().flat_map(|x| &x.subsets);
        subsets.any(|subset| {
            let mut ports = subset.ports.iter();
            subset.addresses.contains(&side.address)
                && (!port
                    || ports.any(|(protocol, port)| *protocol == side.protocol && Some(*port) == side.port))
        })
    }

    /// Its EndpointSlices; the older Endpoints only if it has none, as they say the same.
    fn backends(&self, service: &ServiceName) -> Vec<&Backends> {
        let all = self.store.backends().map(AsRef::as_ref);
        let own = all.filter(|backends: &&Backends| {
            backends.service == service.name && backends.key.namespace.as_deref() == Some(&service.namespace)
        });
        let (slices, others): (Vec<_>, Vec<_>) = own.partition(|x| x.key.kind == Kind::EndpointSlice);
        if !slices.is_empty() {
            self.at(Point::ServiceBySlices, slices)
        } else if !others.is_empty() {
            self.at(Point::ServiceByEndpoints, others)
        } else {
            self.at(Point::ServiceUnknown, others)
        }
    }
}
