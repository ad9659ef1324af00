//! What came in by a host endpoint's interface and was sent to a service, where the translated packet leaves: pre-DNAT policy saw it
//! before, see [`super::host`], and the rest of the endpoint's policy is about what it was translated to. As with what pods send
//! ([`super::service`]), answers belong to the flow that was noted where it came in.
//!
//! | where the marked packet leaves | verdict |
//! |---|---|
//! | it came in by an interface that nobody knows | `NoEndpoint` |
//! | the interface has no host endpoint any more | `FabricPass` |
//! | to a socket of this host | failsafe ports, then normal policy: `PolicyAllow` / `PolicyDeny` |
//! | by an interface | forward policy, likewise |
//!
//! What kube-proxy masquerades has the node's address here.

use super::datagram::{Known, know};
use super::flow::{AtPod, track};
use super::host::AtHost;
use super::related::Quoted;
use super::service::Sent;
use super::workload::{done, read};
use super::{AllTables, FamilyTables, Outcome, Tables, nothing_left, part};
use crate::abi::{Config, Hook, LEG_OUT, MARK_HOST, Reason, host_set, word};
use crate::packet::vlan::behind_tags;
use crate::packet::{Family, Network, Packet, Transport, V4, V6, ethertype};

/// Whether a marked packet is for [`leaving`].
#[inline(always)]
pub fn is_for<P: Packet, T: Tables>(packet: &P, tables: &T) -> bool {
    tables
        .config()
        .is_some_and(|config| config.mark_of(packet.mark()) == MARK_HOST)
}

/// Such a packet, which leaves, to a pod, to the fabric or to a socket of this host.
#[inline(always)]
pub fn leaving<P: Packet, T: AllTables>(packet: &P, tables: &T) -> Outcome {
    leaving_in::<P, T, { part::WHOLE }>(packet, tables, nothing_left)
}

/// As [`leaving`], of a family in `PART`; one that passes has lost its mark. `leave` tells what became of a packet of another family.
#[inline(always)]
pub fn leaving_in<P: Packet, T: AllTables, const PART: u8>(
    packet: &P,
    tables: &T,
    leave: impl FnOnce() -> Outcome,
) -> Outcome {
    let sent = Sent {
        packet,
        sender: packet.ingress_ifindex(),
    };
    let reason = match tables.config().filter(|config| config.epoch != 0) {
        None => Reason::NotConfigured,
        Some(config) => match tables.host(sent.sender, host_set::NORMAL) {
            // Key 0 is not an interface's.
            None => Reason::NoEndpoint,
            Some(_) if sent.sender == 0 => Reason::NoEndpoint,
            Some(sets) if word::slot(sets, config.epoch) == 0 => {
                packet.set_mark(config.with_mark(packet.mark(), 0));
                Reason::FabricPass
            }
            Some(_) => match behind_tags(packet) {
                Ok((ethertype::IPV4, start)) => {
                    if PART & part::V4 == 0 {
                        return leave();
                    }
                    return family::<V4, P, T>(&sent, tables, config, start);
                }
                Ok((ethertype::IPV6, start)) => {
                    if PART & part::V6 == 0 {
                        return leave();
                    }
                    return family::<V6, P, T>(&sent, tables, config, start);
                }
                Ok(_) => Reason::UnsupportedEthertype,
                Err(reason) => reason,
            },
        },
    };
    let outcome = Outcome::of(reason);
    tables.record_bare(Hook::Service, &sent, outcome);
    outcome
}

#[inline(always)]
fn family<F: Family, P: Packet, T: Tables + FamilyTables<F>>(
    sent: &Sent<'_, P>,
    tables: &T,
    config: &Config,
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
        Ok(()) => {
            transport = known.transport;
            let (src, peer) = (network.src, network.dst);
            let mut at = AtPod {
                network: &mut network,
                endpoint: 0,
                ifindex: sent.sender,
                policy_port: transport.policy_port,
                leg: LEG_OUT,
                from_host: false,
                error: false,
                defers: false,
                of: Quoted { peer, known },
            };
            at.settle::<T>();
            let who = AtHost {
                src,
                local: !P::AT_INTERFACE,
                translated: true,
            };
            track(tables, config, &at, &who)
        }
        Err(reason) => Outcome::of(reason),
    };
    if outcome.reason.passes() {
        sent.packet.set_mark(config.with_mark(sent.packet.mark(), 0));
    }
    tables.record(Hook::Service, sent, &network, &transport, outcome);
    outcome
}
