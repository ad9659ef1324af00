//! Packets: a few frames in a row through the verdict engine. What passes parses strictly, and the reference allows it
//! or its flow.
//!
//! An input is frames, each after a byte for where it is seen and two for its length.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use calico_azure_ebpf::abi::Reason;
use calico_azure_ebpf::packet::SlicePacket;
use calico_azure_ebpf::verdict::{Outcome, fabric, service, workload};
use calico_azure_userspace::dataplane::host::HostTables;
use calico_azure_userspace::policy::reference::Oracle;
use calico_azure_userspace::policy::{Direction, Probe, Store};

use super::strict::{About, Fragment, Reading, Strict, Transport, read};
use crate::harness::scenario::{A, B, TUNNEL, address};

mod at;
mod counts;
mod host;
mod marked;
mod socket;
mod whose;
mod world;

use at::{At, Hook};
pub use counts::{Counted, counted};
use socket::Socket;
use world::IMAGE;

/// Frames of one input.
const FRAMES: usize = 12;

pub(super) fn check(data: &[u8]) {
    IMAGE.with(|(store, image)| {
        let mut seen = Seen {
            store,
            oracle: Oracle::new(store),
            flows: HashSet::new(),
            deferred: HashSet::new(),
            fragments: HashMap::new(),
        };
        let tables = HostTables::new(image.clone());
        for (at, bytes) in frames(data).take(FRAMES) {
            seen.frame(&tables, At::of(at), bytes);
        }
    });
}

/// Each frame with the byte that says where it is seen.
pub(super) fn frames(data: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    let mut rest = data;
    std::iter::from_fn(move || {
        let (&[at, low, high], after) = rest.split_first_chunk::<3>()?;
        let length = usize::from(u16::from_le_bytes([low, high])).min(after.len());
        let (frame, after) = after.split_at(length);
        rest = after;
        Some((at, frame))
    })
}

/// Both sides of a flow in one order, and its protocol: the same for each of its packets.
type Flow = ([(IpAddr, u16); 2], u8);

/// What an independent observer remembers of earlier frames.
struct Seen<'a> {
    store: &'a Store,
    oracle: Oracle<'a>,
    /// Flows that passed at the pod that has the address.
    flows: HashSet<(IpAddr, Flow)>,
    /// Those of what was sent on to a service, without being judged.
    deferred: HashSet<(IpAddr, Flow)>,
    /// First fragments, by where they were seen, whatever became of them.
    fragments: HashMap<Datagram, First>,
}

/// Interface, direction, addresses and identification of a datagram, and its protocol, if it is in each fragment (IPv4).
type Datagram = (u32, bool, IpAddr, IpAddr, u32, u8);

/// What a first fragment says.
#[derive(Clone, Copy, Debug)]
struct First {
    protocol: u8,
    transport: Transport,
    /// Where it ends, in bytes.
    end: usize,
}

impl Seen<'_> {
    fn frame(&mut self, tables: &HostTables, at: At, bytes: &[u8]) {
        let packet = SlicePacket {
            bytes,
            ifindex: at.ifindex,
            ingress_ifindex: at.ingress_ifindex,
            mark: at.mark.into(),
        };
        let reading = read(bytes);
        let outcome = match at.hook {
            Hook::From => workload::from_workload(&packet, tables),
            Hook::To => workload::to_workload(&packet, tables),
            Hook::Arrives | Hook::HostIn => fabric::from_fabric(&packet, tables),
            Hook::Leaves | Hook::HostOut => fabric::to_fabric(&packet, tables),
            Hook::Untracked => fabric::untracked(&packet, tables),
            Hook::Service => service::leaving(&packet, tables),
            Hook::ToHost => service::leaving(&Socket(&packet), tables),
            Hook::Reset => {
                self.reset(&packet, tables, &reading);
                return;
            }
        };
        counts::count(at.hook, outcome.reason.passes());
        if at.hook == Hook::Untracked {
            self.early(&packet, tables, &reading, outcome);
            return;
        }
        self.remember(at, &reading);
        let left = marked::left_with(at, outcome);
        assert_eq!(
            packet.mark.get(),
            left,
            "{at:?}: {outcome:?} of {reading:?}\n{bytes:02x?}"
        );
        if outcome.reason.passes() {
            let why = self.why(at, &reading, outcome);
            if let Err(why) = why {
                panic!("{why} at {at:?}: {outcome:?} of {reading:?}\n{bytes:02x?}");
            }
        } else {
            self.refused(at, &reading, outcome, bytes);
        }
    }

    /// A first fragment tells the ports of the others.
    fn remember(&mut self, at: At, reading: &Reading) {
        if let Reading::Ip(packet) = reading
            && !matches!(at.hook, Hook::Arrives | Hook::Leaves)
            && let (Fragment::First(id, end), Ok(transport)) = (packet.fragment, packet.transport)
        {
            let protocol = packet.protocol;
            let first = First {
                protocol,
                transport,
                end,
            };
            self.fragments.insert(datagram(at, packet, id), first);
        }
    }

    /// Nothing that passes may be without a reason of its own.
    fn why(&mut self, at: At, reading: &Reading, outcome: Outcome) -> Result<(), &'static str> {
        let own_traffic = at.hook == Hook::Leaves && at.ingress_ifindex == 0;
        let at_pod = matches!(at.hook, Hook::From | Hook::To);
        let packet = match reading {
            Reading::Bad(_) if own_traffic => return expect(outcome, Reason::FabricPass),
            Reading::Bad(what) => return Err(what),
            Reading::Other(0x0806) if at_pod => {
                return expect(outcome, Reason::AlwaysAllowed);
            }
            Reading::Other(_) if at_pod || at.mark != 0 => return Err("not IP"),
            Reading::Other(_) => return expect(outcome, Reason::FabricPass),
            Reading::Ip(packet) => packet,
        };
        match at.hook {
            Hook::Leaves | Hook::Arrives => {
                expect(outcome, Reason::FabricPass)?;
                if own_traffic || is_link_control(packet) {
                    return Ok(());
                }
                let ours = self.ours(packet.src);
                if at.hook == Hook::Arrives && ours {
                    return Err("one of our own addresses comes from outside");
                }
                if at.hook == Hook::Leaves && !ours {
                    return Err("a source leaves that the fabric does not know");
                }
                if at.hook == Hook::Leaves && matches!(packet.protocol, 4 | 47) {
                    return Err("a tunnel leaves that the fabric does not carry");
                }
                Ok(())
            }
            Hook::From | Hook::To => self.at_pod(at, packet, outcome),
            Hook::HostIn | Hook::HostOut => self.at_host(at, packet, outcome),
            Hook::Service | Hook::ToHost => self.marked(at, packet, outcome),
            Hook::Untracked | Hook::Reset => Ok(()),
        }
    }

    /// The ports of a packet, if it is a later fragment those of its first; `None` if that was not seen.
    fn whole(&self, at: At, packet: &Strict) -> Result<Option<First>, &'static str> {
        match packet.fragment {
            Fragment::Later(id, start) => match self.fragments.get(&datagram(at, packet, id)) {
                // Where it begins within the first one, a receiver might not see what was judged.
                Some(first) if start < first.end => Err("a fragment inside the first one"),
                first => Ok(first.copied()),
            },
            _ => Ok(Some(First {
                protocol: packet.protocol,
                transport: packet.transport?,
                end: 0,
            })),
        }
    }

    fn at_pod(&mut self, at: At, packet: &Strict, outcome: Outcome) -> Result<(), &'static str> {
        let name = match at.ifindex {
            A => "a",
            B => "b",
            _ if outcome.reason == Reason::AlwaysAllowed && self.finds_neighbours(at, packet) => {
                return Ok(());
            }
            _ => return Err("there is no such endpoint"),
        };
        let owned = [false, true].map(|v6| address(name, v6)).contains(&packet.src);
        if outcome.reason == Reason::AlwaysAllowed {
            let from_nowhere = match packet.src {
                IpAddr::V4(src) => src.is_unspecified(),
                IpAddr::V6(src) => src.is_unspecified() || src.is_unicast_link_local(),
            };
            return match at.hook {
                Hook::From if !owned && !from_nowhere => Err("link control with another's source"),
                Hook::From if router_speaks(packet) => Err("a pod speaks as a router"),
                _ if is_link_control(packet) => Ok(()),
                Hook::From if is_dhcp(packet) => Ok(()),
                _ => Err("this is no link control"),
            };
        }
        if at.hook == Hook::From && !owned {
            return Err("spoofed source");
        }
        let from_host = at.hook == Hook::To && at.ingress_ifindex == 0;
        if packet.options && !from_host {
            return Err("IPv4 options");
        }
        let Some(First {
            protocol, transport, ..
        }) = self.whole(at, packet)?
        else {
            return match outcome.reason {
                Reason::FromHost if from_host => Ok(()),
                Reason::PolicyAllow if self.allowed_blind(name, at.hook, packet) => Ok(()),
                _ => Err("a fragment of nothing that was seen"),
            };
        };
        if at.hook == Hook::From && is_tunnel(protocol, transport) {
            return Err("a pod's tunnel");
        }
        if packet.is_error() && !from_host {
            return self.error(at, name, packet, outcome);
        }
        let pod = match at.hook {
            Hook::From => packet.src,
            _ => packet.dst,
        };
        let flow = (pod, flow(packet, protocol, transport));
        let known = self.flows.contains(&flow) || self.deferred.contains(&flow);
        let peer = if pod == packet.src { packet.dst } else { packet.src };
        // What the other end's policy has let through, under whatever address, is no beginning.
        let begins = !known && !self.flows.contains(&(peer, flow.1));
        if outcome.reason == Reason::PolicyAllow && begins && self.is_nobodys(peer) {
            return Err("it begins with a pod that nobody knows");
        }
        match outcome.reason {
            Reason::FromHost if from_host => {}
            Reason::Established if known && !(transport.syn && packet.transport.is_ok()) => {}
            Reason::PolicyAllow if self.allowed(name, at.hook, packet, protocol, transport, known) => {}
            // What is asked is the egress policy, of the backend, where it leaves.
            Reason::Service
                if at.hook == Hook::From && world::is_service(packet.dst, protocol, transport.dport) =>
            {
                self.deferred.insert(flow);
                return Ok(());
            }
            Reason::Service => return Err("nobody serves there"),
            Reason::FromHost => return Err("this is not from the host"),
            Reason::Established => return Err("nothing established it"),
            Reason::PolicyAllow => return Err("policy does not allow it"),
            _ => return Err("no reason to pass here"),
        }
        self.flows.insert(flow);
        Ok(())
    }

    /// What a new pod and its link find each other by, before anything is known of it. What it sends must stay on the link.
    fn finds_neighbours(&self, at: At, packet: &Strict) -> bool {
        let kind = packet.transport.map(|transport| transport.dport >> 8);
        let stays = match packet.dst {
            IpAddr::V4(_) => false,
            IpAddr::V6(dst) => dst.is_multicast() || dst.is_unicast_link_local() || self.is_own(packet.dst),
        };
        is_link_control(packet) && matches!(kind, Ok(133 | 135 | 136)) && (at.hook == Hook::To || stays)
    }

    /// An ICMP error belongs to the flow that it is about, or else policy allows it as what it is; it never begins a flow.
    fn error(&self, at: At, name: &str, packet: &Strict, outcome: Outcome) -> Result<(), &'static str> {
        if packet.fragment != Fragment::Whole {
            return Err("an error in fragments");
        }
        let about = packet.about.ok_or("an error about what cannot be read")?;
        if about.src != packet.dst {
            return Err("an error about what its receiver did not send");
        }
        if at.hook == Hook::From && about.dst != packet.src {
            return Err("a pod's error about what it did not get");
        }
        let transport = packet.transport?;
        if outcome.reason == Reason::PolicyAllow {
            let allowed = self.allowed(name, at.hook, packet, packet.protocol, transport, false);
            return allowed.then_some(()).ok_or("policy does not allow it");
        }
        if outcome.reason != Reason::Related {
            return Err("no reason to pass here");
        }
        let pod = match at.hook {
            Hook::From => packet.src,
            _ => packet.dst,
        };
        self.knows(at, pod, &about)
    }

    /// Whether what an error is about belongs to a flow that passed. It went the other way.
    fn knows(&self, at: At, end: IpAddr, about: &About) -> Result<(), &'static str> {
        let (protocol, transport) = match about.fragment {
            Fragment::Later(id, _) => {
                let key = if about.src.is_ipv4() { about.protocol } else { 0 };
                let (ifindex, out) = place(at);
                let key = (ifindex, !out, about.src, about.dst, id, key);
                let first = self
                    .fragments
                    .get(&key)
                    .ok_or("an error about a fragment of nothing that was seen")?;
                (first.protocol, first.transport)
            }
            _ => (
                about.protocol,
                about.transport.ok_or("an error about what cannot be read")?,
            ),
        };
        let [sport, dport] = transport.flow;
        let mut sides = [(about.src, sport), (about.dst, dport)];
        sides.sort_unstable();
        let flow = (end, (sides, protocol));
        if self.flows.contains(&flow) || self.deferred.contains(&flow) {
            Ok(())
        } else {
            Err("an error about nothing that passed")
        }
    }

    /// Whether policy allows a packet whatever its ports are.
    fn allowed_blind(&self, name: &str, hook: Hook, packet: &Strict) -> bool {
        const SAMPLES: [u16; 12] = [0, 22, 53, 80, 443, 768, 1023, 1024, 2047, 2048, 33000, 65535];
        let ports = SAMPLES
            .iter()
            .flat_map(|sport| SAMPLES.map(|dport| Transport::of(*sport, dport)));
        let mut ports = ports;
        ports.all(|transport| self.allowed(name, hook, packet, packet.protocol, transport, false))
    }

    /// Whether the pod's policy allows the packet, or the flow that it answers.
    fn allowed(
        &self,
        name: &str,
        hook: Hook,
        packet: &Strict,
        protocol: u8,
        transport: Transport,
        known: bool,
    ) -> bool {
        let Some(pod) = self.store.pod("ns", name) else {
            return false;
        };
        let (direction, peer, own) = match hook {
            Hook::From => (Direction::Egress, packet.dst, packet.src),
            _ => (Direction::Ingress, packet.src, packet.dst),
        };
        let ask = |direction, sport, dport| {
            let probe = Probe {
                peer,
                own,
                protocol,
                sport,
                dport,
            };
            self.oracle.decide(pod, direction, &probe).0
        };
        let back = match direction {
            Direction::Egress => Direction::Ingress,
            Direction::Ingress => Direction::Egress,
        };
        ask(direction, transport.sport, transport.dport)
            || known && ask(back, transport.dport, transport.sport)
    }

    /// A new flow that policy allows, and that nothing else is wrong with, must not be refused.
    fn refused(&self, at: At, reading: &Reading, outcome: Outcome, bytes: &[u8]) {
        assert_ne!(outcome.reason, Reason::TableRace, "{at:?}: {bytes:02x?}");
        assert_ne!(outcome.reason, Reason::TableMissing, "{at:?}: {bytes:02x?}");
        let Reading::Ip(packet) = reading else { return };
        if matches!(at.hook, Hook::HostIn | Hook::HostOut) {
            return self.refused_at_host(at, packet, outcome, bytes);
        }
        let (Reason::PolicyDeny, Hook::From | Hook::To, A | B) = (outcome.reason, at.hook, at.ifindex) else {
            return;
        };
        let Ok(transport) = packet.transport else { return };
        if at.hook == Hook::To && packet.options {
            return;
        }
        let pod = if at.hook == Hook::From {
            packet.src
        } else {
            packet.dst
        };
        let known = self
            .flows
            .contains(&(pod, flow(packet, packet.protocol, transport)));
        let name = if at.ifindex == A { "a" } else { "b" };
        assert!(
            known || !self.allowed(name, at.hook, packet, packet.protocol, transport, false),
            "policy allows this at {at:?}: {packet:?}\n{bytes:02x?}"
        );
    }
}

fn expect(outcome: Outcome, reason: Reason) -> Result<(), &'static str> {
    if outcome.reason == reason {
        Ok(())
    } else {
        Err("no reason to pass here")
    }
}

fn flow(packet: &Strict, protocol: u8, transport: Transport) -> Flow {
    let [sport, dport] = transport.flow;
    let mut sides = [(packet.src, sport), (packet.dst, dport)];
    sides.sort_unstable();
    (sides, protocol)
}

fn datagram(at: At, packet: &Strict, id: u32) -> Datagram {
    // Only IPv4 repeats the protocol in each fragment.
    let protocol = if packet.src.is_ipv4() { packet.protocol } else { 0 };
    let (ifindex, out) = place(at);
    (ifindex, out, packet.src, packet.dst, id, protocol)
}

/// The interface and the direction that fragments are remembered by: what is marked is its sender's, and what comes in by the
/// fabric is what the far side sends.
fn place(at: At) -> (u32, bool) {
    match at.hook {
        Hook::Service | Hook::ToHost => (world::sender_of(at.mark).unwrap_or(0), true),
        Hook::From | Hook::HostIn => (at.ifindex, true),
        _ => (at.ifindex, false),
    }
}

/// Neighbour discovery or MLD.
fn is_link_control(packet: &Strict) -> bool {
    let (Ok(transport), Fragment::Whole, 58) = (packet.transport, packet.fragment, packet.protocol) else {
        return false;
    };
    match transport.dport >> 8 {
        133..=137 => packet.hop_limit == 255,
        130..=132 | 143 => packet.hop_limit == 1,
        _ => false,
    }
}

/// Router advertisement or redirect.
fn router_speaks(packet: &Strict) -> bool {
    let kind = packet.transport.map(|transport| transport.dport >> 8);
    packet.protocol == 58 && matches!(kind, Ok(134 | 137))
}

/// IPIP, or VXLAN on its own port or on that of the nodes.
fn is_tunnel(protocol: u8, transport: Transport) -> bool {
    protocol == 4 || protocol == 17 && matches!(transport.dport, 4789 | TUNNEL)
}

fn is_dhcp(packet: &Strict) -> bool {
    let ports = packet
        .transport
        .map(|transport| (transport.sport, transport.dport));
    packet.protocol == 17 && packet.fragment == Fragment::Whole && ports == Ok((68, 67))
}
