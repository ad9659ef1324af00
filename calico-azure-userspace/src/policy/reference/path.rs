//! The whole way of a flow's first packet between any two addresses: pods, hosts, the world outside.

use std::net::IpAddr;

use super::walk::Tape;
use super::{Flow, Leg, Oracle, PathVerdict, Point, Stage, Traffic, Verdict};
use crate::model::{EndpointToHost, HostEndpoint, Pod};
use crate::policy::topology::pod_name;
use crate::policy::{Direction, Probe, RuleRef};

/// What an address is.
#[derive(Clone, Copy)]
enum Place<'a> {
    Pod(&'a Pod),
    /// A pod that gets and sends nothing.
    Isolated(&'a Pod),
    /// Of the node of that name.
    Host(&'a str),
    Outside,
}

impl<'a> Place<'a> {
    /// The node that it is on.
    fn node(&self) -> Option<&'a str> {
        match *self {
            Self::Pod(pod) | Self::Isolated(pod) => (!pod.node.is_empty()).then_some(pod.node.as_str()),
            Self::Host(node) => Some(node),
            Self::Outside => None,
        }
    }
}

/// A packet as it is before and after destination NAT, and what was said about it so far.
struct Way<'f> {
    original: &'f Flow,
    flow: &'f Flow,
    legs: Vec<Leg>,
    /// Whether legs have traces.
    traced: bool,
}

impl<'a> Oracle<'a> {
    /// Judges a flow by everything on its way: the policy of the pod that sends it, the host endpoints that it leaves
    /// and enters by, the policy of the pod that gets it. An address that nobody knows has no say; what a pod sends to
    /// itself never reaches policy.
    #[must_use]
    pub fn path(&self, flow: &Flow) -> PathVerdict {
        self.path_translated(flow, flow)
    }

    /// [`Self::path`] of a flow whose destination was another before the host that it enters by translated it.
    #[must_use]
    pub fn path_translated(&self, original: &Flow, flow: &Flow) -> PathVerdict {
        let mut way = Way {
            original,
            flow,
            legs: Vec::new(),
            traced: true,
        };
        let passes = self.go(&mut way);
        let of_pod = |stage| {
            let leg = way.legs.iter().find(|leg| leg.stage == stage);
            leg.map(|leg| (leg.at.clone(), leg.verdict.clone()))
        };
        PathVerdict {
            allow: passes,
            egress: of_pod(Stage::PodEgress),
            ingress: of_pod(Stage::PodIngress),
            legs: way.legs,
        }
    }

    /// [`Self::path`] for those who ask often: only whether the flow passes.
    #[must_use]
    pub fn passes(&self, flow: &Flow) -> bool {
        self.go(&mut Way {
            original: flow,
            flow,
            legs: Vec::new(),
            traced: false,
        })
    }

    fn go(&self, way: &mut Way<'_>) -> bool {
        let flow = way.flow;
        if flow.src.is_ipv4() != flow.dst.is_ipv4() {
            return self.at(Point::PathFamiliesDiffer, false);
        }
        self.travel(way, self.place(flow.src), self.place(flow.dst));
        way.legs.iter().all(|leg| leg.verdict.allow)
    }

    /// The node whose own address it is: of a Node, of a host endpoint, or (of this node) of one of its interfaces.
    #[must_use]
    pub fn host_of(&self, address: IpAddr) -> Option<&'a str> {
        let mut nodes = self.store.nodes();
        let mut hosts = self.store.host_endpoints();
        let facts = self.store.facts();
        let node = nodes.find(|node| node.internal_ips.contains(&address));
        let mut host = || hosts.find(|host| host.expected_ips.contains(&address));
        node.map(|node| node.name.as_str())
            .or_else(|| host().map(|host| host.node.as_str()))
            .or_else(|| facts.host_ips.contains(&address).then_some(facts.node.as_str()))
    }

    fn place(&self, address: IpAddr) -> Place<'a> {
        if let Some(endpoint) = self.topology.owner(address) {
            Place::Pod(endpoint.pod)
        } else if let Some(pod) = self.topology.isolated_at(address) {
            Place::Isolated(pod)
        } else if let Some(node) = self.host_of(address) {
            Place::Host(node)
        } else {
            Place::Outside
        }
    }

    fn travel(&self, way: &mut Way<'_>, src: Place<'_>, dst: Place<'_>) {
        let same_node = src.node().is_some() && src.node() == dst.node();
        match (src, dst) {
            (Place::Pod(a) | Place::Isolated(a), Place::Pod(b) | Place::Isolated(b)) if a == b => {
                return self.at(Point::PathWithinPod, ());
            }
            (Place::Host(_), Place::Host(_)) if same_node => {
                return self.at(Point::PathWithinHost, ());
            }
            (Place::Host(_), Place::Pod(pod)) if same_node => {
                self.at(Point::PathHostToOwnPod, ());
                way.add(
                    Stage::HostToPod,
                    pod_name(pod),
                    Direction::Ingress,
                    simple(true, RuleRef::HostToPod),
                );
                return;
            }
            _ => {}
        }
        self.leave(way, src, dst, same_node);
        self.arrive(way, dst, same_node);
    }

    /// Out of its pod or host, and off the node unless it stays there.
    fn leave(&self, way: &mut Way<'_>, src: Place<'_>, dst: Place<'_>, same_node: bool) {
        let to_host = same_node && matches!(dst, Place::Host(_));
        let sender = match src {
            Place::Pod(pod) | Place::Isolated(pod) => pod,
            Place::Host(node) => {
                self.at(Point::PathFromHost, ());
                let host = self.host_endpoint(node, None, &[way.flow.src]);
                return self.pass_host(way, host, Direction::Egress, Traffic::Local);
            }
            Place::Outside => return self.at(Point::PathOutside, ()),
        };
        if !to_host {
            let host = self.host_for_all_interfaces(&sender.node);
            self.pass_host(way, host, Direction::Ingress, Traffic::PodForwarded);
        }
        self.pass_pod(way, sender, Direction::Egress);
        if to_host {
            self.at(Point::PathPodToOwnHost, ());
            return self.pass_to_host(way, sender);
        }
        if same_node {
            return self.at(Point::PathPodToPodOnNode, ());
        }
        if let Some(node) = src.node() {
            self.at(Point::PathLeavesNode, ());
            self.pass_host(way, self.fabric(node), Direction::Egress, Traffic::Forwarded);
        }
    }

    /// Onto the node unless it is there already, and into its pod or host.
    fn arrive(&self, way: &mut Way<'_>, dst: Place<'_>, same_node: bool) {
        let receiver = match dst {
            Place::Pod(pod) | Place::Isolated(pod) => pod,
            Place::Host(node) => {
                if !same_node {
                    self.at(Point::PathArrivesAtHost, ());
                    let host = self.host_endpoint(node, None, &[way.flow.dst]);
                    self.pass_host(way, host, Direction::Ingress, Traffic::Local);
                }
                return;
            }
            Place::Outside => return self.at(Point::PathOutside, ()),
        };
        if let Some(node) = dst.node() {
            if !same_node {
                self.at(Point::PathArrivesForPod, ());
                self.pass_host(way, self.fabric(node), Direction::Ingress, Traffic::Forwarded);
            }
            let host = self.host_for_all_interfaces(node);
            self.pass_host(way, host, Direction::Egress, Traffic::PodForwarded);
        }
        self.pass_pod(way, receiver, Direction::Ingress);
    }

    /// The host endpoint of the interface that carries a node's traffic: the one with the node's addresses.
    fn fabric(&self, node: &str) -> Option<&'a HostEndpoint> {
        let object = self.store.nodes().find(|object| object.name == node);
        self.host_endpoint(node, None, object.map_or(&[], |object| &object.internal_ips))
    }

    fn pass_pod(&self, way: &mut Way<'_>, pod: &Pod, direction: Direction) {
        let mut tape = way.tape();
        let (allow, rule) = self.pod(pod, direction, &way.flow.probe(direction), &mut tape);
        let verdict = tape.verdict(allow, rule);
        if verdict.rule == RuleRef::Isolated {
            self.at(Point::PathIsolated, ());
        }
        let stage = match direction {
            Direction::Ingress => Stage::PodIngress,
            Direction::Egress => Stage::PodEgress,
        };
        way.add(stage, pod_name(pod), direction, verdict);
    }

    /// No host endpoint, no restriction.
    fn pass_host(
        &self,
        way: &mut Way<'_>,
        host: Option<&HostEndpoint>,
        direction: Direction,
        traffic: Traffic,
    ) {
        let Some(host) = host else { return };
        let (original, packet) = (way.original.probe(direction), way.flow.probe(direction));
        let mut tape = way.tape();
        let (stage, (allow, rule)) =
            self.host_stages(host, direction, traffic, &original, &packet, &mut tape);
        way.add(stage, host.name.clone(), direction, tape.verdict(allow, rule));
    }

    fn pass_to_host(&self, way: &mut Way<'_>, sender: &Pod) {
        let name = pod_name(sender);
        match self.endpoint_to_host(&sender.node) {
            EndpointToHost::Drop => {
                self.at(Point::ToHostDropped, ());
                way.add(
                    Stage::EndpointToHost,
                    name,
                    Direction::Egress,
                    simple(false, RuleRef::EndpointToHost),
                );
            }
            action => {
                self.at(
                    if action == EndpointToHost::Return {
                        Point::ToHostReturned
                    } else {
                        Point::ToHostAccepted
                    },
                    (),
                );
                let host = self.host_for_all_interfaces(&sender.node);
                if host.is_some() {
                    self.pass_host(way, host, Direction::Ingress, Traffic::PodToHost);
                } else {
                    way.add(
                        Stage::EndpointToHost,
                        name,
                        Direction::Egress,
                        simple(true, RuleRef::EndpointToHost),
                    );
                }
            }
        }
    }
}

impl Way<'_> {
    fn tape(&self) -> Tape {
        if self.traced {
            Tape::recording()
        } else {
            Tape::silent()
        }
    }

    fn add(&mut self, stage: Stage, at: String, direction: Direction, verdict: Verdict) {
        self.legs.push(Leg {
            stage,
            at,
            direction,
            verdict,
        });
    }
}

impl Flow {
    /// The packet as an endpoint sees it that receives (ingress) or sends it.
    #[must_use]
    pub fn probe(&self, direction: Direction) -> Probe {
        let (own, peer) = match direction {
            Direction::Ingress => (self.dst, self.src),
            Direction::Egress => (self.src, self.dst),
        };
        Probe {
            peer,
            own,
            protocol: self.protocol,
            sport: self.sport,
            dport: self.dport,
        }
    }
}

fn simple(allow: bool, rule: RuleRef) -> Verdict {
    Verdict {
        allow,
        log: false,
        rule,
        trace: Vec::new(),
    }
}
