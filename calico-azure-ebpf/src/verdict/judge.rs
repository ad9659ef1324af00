//! Whose policy answers, and what it is asked: about the packet's flow in the direction in which that began.

use super::azure;
use super::beside;
use super::entry::ICMP_SHIFT;
use super::flow::{ADOPTS, AtPod, EXISTS, REPLY};
use super::policy::{Question, ask, ready};
use super::{FamilyTables, Outcome, Tables};
use crate::abi::{CLASS_DEFAULT_V4, Config, LEG_OUT, Reason};
use crate::packet::{Family, Packet, protocol};

/// Whose policy answers at a place.
pub(super) trait Judge<F: Family> {
    /// Whether it hears of flows that may have begun before the first start.
    const ADOPTS: bool = false;

    /// What it says of the flow, in the direction in which it began, or of an error of no flow. `bits` are those of
    /// [`EXISTS`], [`REPLY`], [`ADOPTS`] and [`super::flow::FORWARDED`].
    fn answer<T: Tables + FamilyTables<F>>(
        &self,
        tables: &T,
        config: &Config,
        at: &AtPod<'_, F>,
        bits: u64,
    ) -> Outcome;

    /// What others who have a say here make of its answer.
    #[inline(always)]
    fn beside<T: Tables + FamilyTables<F>>(
        &self,
        _tables: &T,
        _config: &Config,
        _at: &AtPod<'_, F>,
        _bits: u64,
        answer: Outcome,
    ) -> Outcome {
        answer
    }

    /// `CtValue::kind` of a flow that the packet itself begins, if that is this judge's to say.
    #[inline(always)]
    fn kind(&self) -> Option<u32> {
        None
    }
}

/// The pod, and what has a say beside it.
pub(super) struct Pod<'a, P: Packet> {
    pub(super) packet: &'a P,
}

impl<F: Family, P: Packet> Judge<F> for Pod<'_, P> {
    const ADOPTS: bool = true;

    #[inline(always)]
    fn answer<T: Tables + FamilyTables<F>>(
        &self,
        tables: &T,
        config: &Config,
        at: &AtPod<'_, F>,
        bits: u64,
    ) -> Outcome {
        if at.from_host {
            return Outcome::of(Reason::FromHost);
        }
        let (q, leg) = question(at, bits);
        of_pod(tables, config, at, q, leg, bits)
    }

    #[inline(always)]
    fn beside<T: Tables + FamilyTables<F>>(
        &self,
        tables: &T,
        config: &Config,
        at: &AtPod<'_, F>,
        bits: u64,
        of_pod: Outcome,
    ) -> Outcome {
        beside::beside_pod(self.packet, tables, config, at, bits, of_pod)
    }
}

/// What policy is to be asked of a packet, and in which direction of [`AtPod`]'s: about its flow, as it began, or about an
/// error of no flow itself.
#[inline(always)]
pub(super) fn question<F: Family>(at: &AtPod<'_, F>, bits: u64) -> (Question<F>, u32) {
    let (protocol, ports) = (at.of.known.protocol, &at.of.known.transport);
    let mut q = Question {
        ifindex: at.ifindex,
        endpoint: at.endpoint,
        peer: at.of.peer,
        protocol,
        sport: ports.sport,
        port: ports.policy_port,
        blind: at.of.known.blind,
    };
    let mut leg = at.flow_leg();
    if at.error && bits & EXISTS == 0 {
        let network = &*at.network;
        leg = at.leg;
        q = Question {
            peer: if leg == LEG_OUT { network.dst } else { network.src },
            protocol: network.protocol,
            sport: at.policy_port,
            port: at.policy_port,
            blind: false,
            ..q
        };
    } else if bits & (REPLY | ADOPTS) != 0 {
        leg = 1 - leg;
        q.sport = ports.dport;
        q.port = if matches!(protocol, protocol::ICMP | protocol::ICMP6) {
            (bits >> ICMP_SHIFT) as u16
        } else {
            ports.sport
        };
    }
    (q, leg)
}

#[inline(always)]
fn of_pod<F: Family, T: Tables + FamilyTables<F>>(
    tables: &T,
    config: &Config,
    at: &AtPod<'_, F>,
    mut q: Question<F>,
    leg: u32,
    bits: u64,
) -> Outcome {
    if leg != at.leg {
        let Some(other) = tables.endpoint(at.ifindex, leg) else {
            return Outcome::of(Reason::NoEndpoint);
        };
        q.endpoint = other;
    }
    if leg == LEG_OUT && F::DEFAULT_CLASS == CLASS_DEFAULT_V4 && !(at.error && bits & EXISTS == 0) {
        let port = if q.blind { None } else { Some(q.port) };
        if let Some(reason) = azure::guard(config.flags, F::wide(q.peer)[0], q.protocol, port) {
            return match ready(config.epoch, at.ifindex, q.endpoint) {
                Ok(_) => Outcome::of(reason),
                Err(reason) => Outcome::of(reason),
            };
        }
    }
    // Without ports it is not known to be for a service: the address that it has must do.
    let defers = at.defers || bits & ADOPTS != 0;
    if defers && !at.error && !at.of.known.blind && leg == LEG_OUT && config.mark_mask != 0 {
        let port = if bits & ADOPTS != 0 {
            q.port
        } else {
            at.of.known.transport.dport
        };
        let slots = tables.service(q.peer, port, q.protocol);
        if slots & 1 << (config.epoch & 1) != 0 {
            return match ready(config.epoch, at.ifindex, q.endpoint) {
                Ok(_) => Outcome::of(Reason::Service),
                Err(reason) => Outcome::of(reason),
            };
        }
    }
    let word =
        u64::from(q.sport) | u64::from(q.port) << 16 | u64::from(q.protocol) << 32 | u64::from(q.blind) << 40;
    let word = T::opaque(word);
    (q.sport, q.port, q.protocol) = (word as u16, (word >> 16) as u16, (word >> 32) as u8);
    (q.blind, q.endpoint) = (word & 1 << 40 != 0, T::opaque(q.endpoint));
    ask::<F, T>(tables, config.epoch, &q)
}
