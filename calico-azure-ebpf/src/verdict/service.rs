//! What a pod sends to a service is translated after `from_workload` has seen it, and policy is about the backend. So
//! `from_workload` lets it through with a mark that names the pod, and here, where the translated packet leaves, the
//! pod's egress policy is asked. Replies need nothing: they are translated back before they reach the pod, and belong to the
//! flow that `from_workload` noted.
//!
//! | where the marked packet leaves | verdict |
//! |---|---|
//! | mark of an endpoint that is gone | `NoEndpoint` |
//! | to the interface of the pod that sent it | `Hairpin` |
//! | anywhere else | the pod's egress policy, with a flow of the translated addresses |
//!
//! A packet that nothing translated is judged by the address that it has. For what came in by a host endpoint's interface see
//! [`super::behind`].

use super::datagram::{Known, know};
use super::flow::{AtPod, track};
use super::judge::Pod;
use super::peer::apart_from_links;
use super::related::Quoted;
use super::workload::{done, is_tunnel, read};
use super::{AllTables, FamilyTables, Outcome, Tables, nothing_left, part};
use crate::abi::{Config, Hook, LEG_IN, LEG_OUT, Reason, word};
use crate::packet::vlan::behind_tags;
use crate::packet::{Family, Network, Packet, Transport, V4, V6, ethertype};

/// Whether a packet is one that [`leaving`] must see before anything else does.
#[inline(always)]
pub fn is_marked<P: Packet, T: Tables>(packet: &P, tables: &T) -> bool {
    let mark = packet.mark();
    mark != 0 && tables.config().is_some_and(|config| config.mark_of(mark) != 0)
}

/// A marked packet that leaves, to a pod, to the fabric or to a socket of this host. One that passes has lost its mark;
/// `Hairpin` passes everything that comes after, too.
#[inline(always)]
pub fn leaving<P: Packet, T: AllTables>(packet: &P, tables: &T) -> Outcome {
    leaving_in::<P, T, { part::WHOLE }>(packet, tables, nothing_left)
}

/// As [`leaving`], for the families in `PART`; `leave` tells what became of a packet of another.
#[inline(always)]
pub fn leaving_in<P: Packet, T: AllTables, const PART: u8>(
    packet: &P,
    tables: &T,
    leave: impl FnOnce() -> Outcome,
) -> Outcome {
    let mark = packet.mark();
    let (reason, sender) = match tables.config().filter(|config| config.epoch != 0) {
        None => (Reason::NotConfigured, 0),
        Some(config) => match sender(tables, config.mark_of(mark)) {
            None => (Reason::NoEndpoint, 0),
            Some(sender) => match tables.endpoint(sender, LEG_OUT) {
                None => (Reason::NoEndpoint, sender),
                Some(endpoint) => {
                    let sent = Sent { packet, sender };
                    match behind_tags(packet) {
                        Ok((ethertype::IPV4, start)) => {
                            if PART & part::V4 == 0 {
                                return leave();
                            }
                            return family::<V4, P, T>(&sent, tables, config, endpoint, start);
                        }
                        Ok((ethertype::IPV6, start)) => {
                            if PART & part::V6 == 0 {
                                return leave();
                            }
                            return family::<V6, P, T>(&sent, tables, config, endpoint, start);
                        }
                        Ok(_) => (Reason::UnsupportedEthertype, sender),
                        Err(reason) => (reason, sender),
                    }
                }
            },
        },
    };
    let outcome = Outcome::of(reason);
    tables.record_bare(Hook::Service, &Sent { packet, sender }, outcome);
    outcome
}

#[inline(always)]
fn sender<T: Tables>(tables: &T, mark: u32) -> Option<u32> {
    word::marked(tables.marked(mark)?, mark)
}

#[inline(always)]
fn family<F: Family, P: Packet, T: Tables + FamilyTables<F>>(
    sent: &Sent<'_, P>,
    tables: &T,
    config: &Config,
    endpoint: u64,
    start: u32,
) -> Outcome {
    let zero = T::opaque(0) as u32;
    let mut network = Network::unread(zero);
    if let Err(reason) = done(read(sent, start, &mut network)) {
        let outcome = Outcome::of(reason);
        tables.record_bare(Hook::Service, sent, outcome);
        return outcome;
    }
    let mut transport = Transport::unread(zero);
    let mut known = Known::nothing();
    let outcome = match done(know(sent, tables, &network, LEG_OUT, &mut known)) {
        Ok(()) if is_tunnel(config, &known) => {
            transport = known.transport;
            Outcome::of(Reason::WorkloadTunnel)
        }
        Ok(()) => {
            transport = known.transport;
            let hairpin = sent.packet.ifindex() == sent.sender && sent.is_leaving();
            // A pod may always talk to itself; its answers find the flow by what it was allowed to receive.
            let (leg, peer) = if hairpin {
                (LEG_IN, network.src)
            } else {
                (LEG_OUT, network.dst)
            };
            let mut at = AtPod {
                network: &mut network,
                endpoint,
                ifindex: sent.sender,
                policy_port: transport.policy_port,
                leg,
                from_host: hairpin,
                error: false,
                defers: false,
                of: Quoted { peer, known },
            };
            at.settle::<T>();
            let outcome = track(tables, config, &at, &Pod { packet: sent });
            match outcome.reason {
                Reason::FromHost if hairpin => Outcome::of(Reason::Hairpin),
                _ => outcome,
            }
        }
        Err(reason) => Outcome::of(reason),
    };
    if outcome.reason.passes() {
        sent.packet.set_mark(config.with_mark(sent.packet.mark(), 0));
    }
    tables.record(Hook::Service, sent, &network, &transport, outcome);
    outcome
}

/// A packet as one of the pod that sent it, or of the host endpoint's interface that it came in by: that is whom counters and records are about.
pub(super) struct Sent<'a, P: Packet> {
    pub(super) packet: &'a P,
    pub(super) sender: u32,
}

impl<P: Packet> Sent<'_, P> {
    /// Whether the packet is on its way out of an interface, and not to a socket.
    #[inline(always)]
    fn is_leaving(&self) -> bool {
        P::AT_INTERFACE
    }
}

impl<P: Packet> Packet for Sent<'_, P> {
    const AT_INTERFACE: bool = P::AT_INTERFACE;

    #[inline(always)]
    fn len(&self) -> u32 {
        self.packet.len()
    }

    #[inline(always)]
    fn ethertype(&self) -> u16 {
        self.packet.ethertype()
    }

    #[inline(always)]
    fn ifindex(&self) -> u32 {
        self.sender
    }

    #[inline(always)]
    fn ingress_ifindex(&self) -> u32 {
        self.packet.ingress_ifindex()
    }

    #[inline(always)]
    fn mark(&self) -> u32 {
        self.packet.mark()
    }

    #[inline(always)]
    fn set_mark(&self, mark: u32) {
        self.packet.set_mark(mark);
    }

    #[inline(always)]
    fn opaque(value: u64) -> u64 {
        P::opaque(value)
    }

    #[inline(always)]
    fn follow(&self, from: u64) -> u64 {
        self.packet.follow(from)
    }

    #[inline(always)]
    fn transport(&self, from: u64) -> u64 {
        self.packet.transport(from)
    }

    #[inline(always)]
    fn peer4(&self, peer: u32, asked: u64) -> u64 {
        self.packet.peer4(peer, apart_from_links(asked))
    }

    #[inline(always)]
    fn peer6(&self, peer: [u32; 4], asked: u64) -> u64 {
        self.packet.peer6(peer, apart_from_links(asked))
    }

    #[inline(always)]
    fn words<const N: usize>(&self, offset: u32) -> Option<[u32; N]> {
        self.packet.words(offset)
    }
}
