//! Host endpoints in the scenario: the endpoint, its policies, packets at the fabric interface.

use anyhow::Result;
use calico_azure_ebpf::abi::{Hook, Reason, program};
use calico_azure_userspace::model::{Action, HostEndpoint, HostRole, Policy, Resource, Rule};
use calico_azure_userspace::policy::{Event, Interface, NodeFacts, Store};

use super::At;
use super::packet::Frame;
use super::scenario::{Bench, FABRIC, address, policy, rule, store};

pub const TCP: u8 = 6;
pub const UDP: u8 = 17;

/// A host endpoint of node `n1` for `eth0`.
pub fn host(interface: &str) -> Resource {
    Resource::HostEndpoint(HostEndpoint {
        name: "n1-eth0".into(),
        labels: [("app".to_owned(), "host".to_owned())].into(),
        node: "n1".into(),
        interface: Some(interface.into()),
        expected_ips: [false, true].map(|v6| address("node", v6)).into(),
        ..HostEndpoint::default()
    })
}

/// A policy of the host endpoint.
pub fn of_host(
    name: &str,
    role: HostRole,
    ingress: Option<Vec<Rule>>,
    egress: Option<Vec<Rule>>,
) -> Resource {
    match policy(name, "host", ingress, egress) {
        Resource::Policy(policy) => Resource::Policy(Policy { host: role, ..policy }),
        other => other,
    }
}

/// The cluster of the scenario with the node's own interface.
pub fn cluster(resources: impl IntoIterator<Item = Resource>) -> Store {
    let mut store = store(resources);
    let mut interfaces = store.interfaces().clone();
    let eth0 = Interface {
        name: "eth0".into(),
        addresses: [false, true].map(|v6| address("node", v6)).into(),
        ..Interface::default()
    };
    interfaces.by_ifindex.insert(FABRIC, eth0);
    store.apply(Event::Interfaces(interfaces));
    store.apply(Event::Node(NodeFacts {
        host_ips: [false, true].map(|v6| address("node", v6)).into(),
        ..store.facts().clone()
    }));
    store
}

pub fn allow(protocol: u8, port: u16) -> Option<Vec<Rule>> {
    Some(vec![rule(Action::Allow, Some(protocol), &[(port, port)])])
}

pub fn deny(protocol: u8, port: u16) -> Option<Vec<Rule>> {
    Some(vec![rule(Action::Deny, Some(protocol), &[(port, port)])])
}

pub fn deny_all() -> Option<Vec<Rule>> {
    Some(vec![rule(Action::Deny, None, &[])])
}

/// Packets at the fabric interface.
pub struct At0<'b> {
    pub bench: &'b mut Bench,
}

impl At0<'_> {
    #[track_caller]
    pub fn comes_in(&mut self, frame: &Frame, reason: Reason) -> Result<()> {
        let at = At {
            program: program::FROM_FABRIC,
            ifindex: FABRIC,
            ingress_ifindex: FABRIC,
        };
        self.bench.expect(at, &frame.bytes(), Hook::FromFabric, reason)
    }

    /// From the host itself.
    #[track_caller]
    pub fn goes_out(&mut self, frame: &Frame, reason: Reason) -> Result<()> {
        self.leaves(frame, 0, reason)
    }

    #[track_caller]
    pub fn leaves(&mut self, frame: &Frame, ingress_ifindex: u32, reason: Reason) -> Result<()> {
        let at = At {
            program: program::TO_FABRIC,
            ifindex: FABRIC,
            ingress_ifindex,
        };
        self.bench.expect(at, &frame.bytes(), Hook::ToFabric, reason)
    }
}

pub fn packet(from: &str, to: &str, v6: bool, protocol: u8, ports: (u16, u16)) -> Frame {
    Frame::new(address(from, v6), address(to, v6), protocol, ports.0, ports.1)
}

pub fn tcp(from: &str, to: &str, v6: bool, sport: u16, dport: u16) -> Frame {
    packet(from, to, v6, TCP, (sport, dport))
}
