//! Host endpoints: failsafe ports, then untracked, pre-DNAT, and normal or forward policies.

use std::net::IpAddr;

use super::matching::in_nets;
use super::walk::{Sphere, Tape};
use super::{Oracle, Point, Stage, TraceStep, Verdict};
use crate::model::{EndpointToHost, Failsafe, HostEndpoint};
use crate::policy::labels::EffectiveLabels;
use crate::policy::{Direction, Probe, RuleRef, Traffic};

/// What a host endpoint says, and in which of its stages that was decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostVerdict {
    pub stage: Stage,
    pub verdict: Verdict,
}

const fn failsafe(protocol: u8, port: u16) -> Failsafe {
    Failsafe {
        protocol,
        port,
        net: None,
    }
}

/// Failsafe ports for what a host gets, unless FelixConfiguration says otherwise.
pub const INBOUND: [Failsafe; 9] = [
    failsafe(6, 22),
    failsafe(17, 68),
    failsafe(6, 179),
    failsafe(6, 2379),
    failsafe(6, 2380),
    failsafe(6, 5473),
    failsafe(6, 6443),
    failsafe(6, 6666),
    failsafe(6, 6667),
];

/// Failsafe ports for what a host sends, unless FelixConfiguration says otherwise.
pub const OUTBOUND: [Failsafe; 9] = [
    failsafe(17, 53),
    failsafe(17, 67),
    failsafe(6, 179),
    failsafe(6, 2379),
    failsafe(6, 2380),
    failsafe(6, 5473),
    failsafe(6, 6443),
    failsafe(6, 6666),
    failsafe(6, 6667),
];

impl<'a> Oracle<'a> {
    /// The host endpoint that governs an interface of the node, known by name, by its addresses, or both. One that
    /// names the interface or one of its addresses beats one for all interfaces; of several the first by name counts.
    /// Where the interface's name is not known, an endpoint that has only that may well be it.
    #[must_use]
    pub fn host_endpoint(
        &self,
        node: &str,
        interface: Option<&str>,
        addresses: &[IpAddr],
    ) -> Option<&'a HostEndpoint> {
        let all = self.store.host_endpoints().map(AsRef::as_ref);
        let of_node: Vec<&HostEndpoint> = all.filter(|host: &&HostEndpoint| host.node == node).collect();
        let has_address = |host: &HostEndpoint| host.expected_ips.iter().any(|ip| addresses.contains(ip));
        let mut own = of_node.iter().filter(|host| match (&host.interface, interface) {
            (Some(all), _) if all == "*" => false,
            (Some(named), Some(interface)) => named == interface,
            (Some(_), None) => host.expected_ips.is_empty() || has_address(host),
            (None, _) => has_address(host),
        });
        if let Some(host) = own.next() {
            self.at(
                if host.interface.is_some() {
                    Point::HostByInterface
                } else {
                    Point::HostByAddress
                },
                (),
            );
            if own.next().is_some() {
                self.at(Point::HostFirstOfSeveral, ());
            }
            return Some(host);
        }
        match self.host_for_all_interfaces(node) {
            Some(host) => self.at(Point::HostAllInterfaces, Some(host)),
            None => self.at(Point::HostNone, None),
        }
    }

    /// The node's host endpoint with `interfaceName: "*"`, the first by name.
    #[must_use]
    pub fn host_for_all_interfaces(&self, node: &str) -> Option<&'a HostEndpoint> {
        let mut all = self.store.host_endpoints().map(AsRef::as_ref);
        all.find(|host: &&HostEndpoint| host.node == node && host.interface.as_deref() == Some("*"))
    }

    /// Judges a packet at a host endpoint. `original` is the packet before destination NAT, which pre-DNAT and untracked
    /// policies see; `traffic` tells what it is after that.
    #[must_use]
    pub fn host(
        &self,
        host: &HostEndpoint,
        direction: Direction,
        traffic: Traffic,
        original: &Probe,
        packet: &Probe,
    ) -> HostVerdict {
        let mut tape = Tape::recording();
        let (stage, (allow, rule)) = self.host_stages(host, direction, traffic, original, packet, &mut tape);
        HostVerdict {
            stage,
            verdict: tape.verdict(allow, rule),
        }
    }

    pub(super) fn host_stages(
        &self,
        host: &HostEndpoint,
        direction: Direction,
        traffic: Traffic,
        original: &Probe,
        packet: &Probe,
        tape: &mut Tape,
    ) -> (Stage, (bool, RuleRef)) {
        let labels = EffectiveLabels::of_host_endpoint(self.store, host);
        let ask = |stage, sphere, packet, tape: &mut Tape| {
            tape.note(|| TraceStep::Stage { stage });
            self.tiers(sphere, &labels, direction, packet, tape)
        };
        let local = traffic == Traffic::Local;
        let own_interface = matches!(traffic, Traffic::Local | Traffic::Forwarded);
        // Nobody closes a failsafe port of the host; but of what it is translated to, that says nothing.
        let was_local = if original == packet {
            local
        } else {
            own_interface && self.host_of(original.own) == Some(host.node.as_str())
        };
        let open = was_local && self.is_failsafe(&host.node, direction, original);
        if own_interface && !open {
            if let Some(decided) = ask(Stage::Untracked, Sphere::Untracked, original, tape) {
                return self.at(Point::UntrackedDecides, (Stage::Untracked, decided));
            }
            self.at(Point::UntrackedUndecided, ());
        }
        if direction == Direction::Ingress && !open {
            if let Some(decided) = ask(Stage::PreDnat, Sphere::PreDnat, original, tape) {
                return self.at(Point::PreDnatDecides, (Stage::PreDnat, decided));
            }
            self.at(Point::PreDnatUndecided, ());
        }
        if local && self.is_failsafe(&host.node, direction, packet) {
            let ingress = direction == Direction::Ingress;
            return (Stage::Failsafe, (true, RuleRef::Failsafe { ingress }));
        }
        if traffic == Traffic::PodToHost {
            return (Stage::EndpointToHost, (true, RuleRef::EndpointToHost));
        }
        if !local {
            return match ask(Stage::Forward, Sphere::Forward, packet, tape) {
                Some(decided) => self.at(Point::ForwardDecides, (Stage::Forward, decided)),
                None => self.at(
                    Point::ForwardUndecided,
                    (Stage::Forward, (true, RuleRef::Forwarded)),
                ),
            };
        }
        let decided = match ask(Stage::Normal, Sphere::Normal, packet, tape) {
            Some(decided) => self.at(Point::NormalDecides, decided),
            None => {
                self.at(Point::NormalUndecided, ());
                self.profiles(&host.profiles, direction, packet, tape)
            }
        };
        (Stage::Normal, decided)
    }

    fn is_failsafe(&self, node: &str, direction: Direction, packet: &Probe) -> bool {
        let mut configurations = self.store.felix_configurations(node);
        let (configured, default) = match direction {
            Direction::Ingress => (
                configurations.find_map(|x| x.failsafe_inbound.as_deref()),
                &INBOUND,
            ),
            Direction::Egress => (
                configurations.find_map(|x| x.failsafe_outbound.as_deref()),
                &OUTBOUND,
            ),
        };
        let failsafes = match configured {
            Some(configured) => self.at(Point::FailsafeConfigured, configured),
            None => self.at(Point::FailsafeDefault, default.as_slice()),
        };
        let ports: Vec<&Failsafe> = failsafes
            .iter()
            .filter(|x| x.protocol == packet.protocol && x.port == packet.dport)
            .collect();
        let point = if ports.is_empty() {
            Point::FailsafeNone
        } else if !ports
            .iter()
            .any(|x| x.net.is_none_or(|net| in_nets(&[net], packet.peer)))
        {
            Point::FailsafeOtherNet
        } else if direction == Direction::Ingress {
            Point::FailsafeInbound
        } else {
            Point::FailsafeOutbound
        };
        self.at(
            point,
            !matches!(point, Point::FailsafeNone | Point::FailsafeOtherNet),
        )
    }

    /// Whether a pod that its own policy lets reaches its host, as far as the pod-to-host action goes.
    #[must_use]
    pub fn may_reach_own_host(&self, node: &str) -> bool {
        self.endpoint_to_host(node) != EndpointToHost::Drop
    }

    /// What becomes of what a pod sends to its host after the pod's own policy.
    pub(super) fn endpoint_to_host(&self, node: &str) -> EndpointToHost {
        let mut configurations = self.store.felix_configurations(node);
        configurations
            .find_map(|x| x.endpoint_to_host)
            .unwrap_or(EndpointToHost::Drop)
    }
}
