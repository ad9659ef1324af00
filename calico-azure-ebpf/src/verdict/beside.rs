//! At a pod's interface, what is asked beside the pod's own policy: of a host endpoint for all interfaces pre-DNAT and forward policy, and no
//! other; of what the pod sends to its host, the pod-to-host action; and of what begins between pods of one node, whether the other one is
//! known, because an interface that no agent has looked at yet has no programs that would ask its policy. All must allow, and the pod's leg
//! is approved for all.

use super::fabric::is_nobodys;
use super::flow::{AtPod, EXISTS};
use super::host::{FORWARD, PRE_DNAT, ToStages, governs, outcome};
use super::judge::question;
use super::{FamilyTables, Outcome, Tables};
use crate::abi::{CONFIG_ALLOW_UNKNOWN, Config, LEG_IN, LEG_OUT, Reason, host_set, route, to_host, word};
use crate::packet::Family;

/// `HOSTS` key of what passes through the interfaces of pods.
const PODS: u32 = 0;

/// What the endpoint for all interfaces and the pod-to-host action add to what the pod's policy says of its flow; `bits` as for
/// [`super::judge::Judge::answer`].
#[inline(always)]
pub(super) fn beside_pod<F: Family, T: Tables + FamilyTables<F>>(
    tables: &T,
    config: &Config,
    at: &AtPod<'_, F>,
    bits: u64,
    of_pod: Outcome,
) -> Outcome {
    let asked = matches!(
        of_pod.reason,
        Reason::PolicyAllow | Reason::PolicyDeny | Reason::Service
    );
    if asked {
        T::opaque_outcome(ask_beside(tables, config, at, bits, of_pod))
    } else {
        of_pod
    }
}

/// Of what [`peer`] returns: the flow's other end is the host. What a pod sends no further than its link arrives there, too, or nowhere: on a
/// bridge other pods are held to their own addresses.
const HOSTS: u64 = 1;
/// It is an address of the node's podCIDR that no pod has.
const NOBODYS: u64 = 2;

/// Whose address the flow's other end has.
#[cfg_attr(target_arch = "bpf", inline(never))]
fn peer<F: Family, T: Tables + FamilyTables<F>>(tables: &T, at: &AtPod<'_, F>, bits: u64) -> u64 {
    let (q, leg) = question(at, bits);
    let sent = leg == LEG_OUT && at.leg == LEG_OUT;
    let on_link = sent && (F::is_link_destination(q.peer) || F::is_multicast(q.peer));
    let known = tables.route(q.peer);
    let hosts = on_link || known & route::LOCAL_HOST != 0;
    T::opaque(u64::from(hosts) * HOSTS | u64::from(!on_link && is_nobodys(known)) * NOBODYS)
}

/// A function of its own in the kernel, for the room on the stack.
#[cfg_attr(target_arch = "bpf", inline(never))]
fn ask_beside<F: Family, T: Tables + FamilyTables<F>>(
    tables: &T,
    config: &Config,
    at: &AtPod<'_, F>,
    bits: u64,
    of_pod: Outcome,
) -> Outcome {
    let (q, leg) = question(at, bits);
    let sends = leg == LEG_OUT;
    let governed = governs(tables, config, PODS);
    // What goes to a service is judged where it leaves; but what it was sent to is known only here.
    let service = matches!(of_pod.reason, Reason::Service);
    let passes = of_pod.reason.passes();
    let asks_action = sends && at.leg == LEG_OUT && !service && passes;
    let begins = bits & EXISTS == 0 && passes && config.flags & CONFIG_ALLOW_UNKNOWN == 0;
    if !governed && !asks_action && !begins {
        return of_pod;
    }
    let peer = peer(tables, at, bits);
    if begins && peer & NOBODYS != 0 {
        return Outcome::of(if at.leg == LEG_OUT {
            Reason::NoSuchWorkload
        } else {
            Reason::UnknownSource
        });
    }
    let to_host = peer & HOSTS != 0;
    // What both deny, the pod denies: its way to its host is not what passes through.
    if to_host && !of_pod.reason.passes() {
        return of_pod;
    }
    if asks_action && to_host {
        match tables.host(PODS, host_set::TO_HOST) {
            None => return Outcome::of(Reason::EndpointToHost),
            Some(sets) if word::slot_check(sets) != word::check24(PODS) => {
                return Outcome::of(Reason::TableRace);
            }
            // `Return` leaves it to rules of the host, of which the endpoint for all interfaces has none for pods.
            Some(sets) if !matches!(word::slot(sets, config.epoch), to_host::ACCEPT | to_host::RETURN) => {
                return Outcome::of(Reason::EndpointToHost);
            }
            Some(_) => {}
        }
    }
    if !governed {
        return of_pod;
    }
    // What is translated was asked about before.
    let original = at.defers || at.leg == LEG_IN;
    let pre_dnat = u32::from(sends && original) * PRE_DNAT;
    let forward = u32::from(!service && !to_host) * FORWARD;
    let stages = T::opaque(u64::from(pre_dnat | forward)) as u32;
    let own = if at.leg == LEG_OUT {
        at.network.src
    } else {
        at.network.dst
    };
    let word = u64::from(q.sport)
        | u64::from(q.port) << 16
        | u64::from(q.protocol) << 32
        | u64::from(q.blind) << 40
        | u64::from(leg) << 41;
    let word = T::opaque(word);
    let q = ToStages {
        ifindex: PODS,
        epoch: config.epoch,
        near: q.peer,
        far: own,
        protocol: (word >> 32) as u8,
        blind: word & 1 << 40 != 0,
        sport: word as u16,
        port: (word >> 16) as u16,
    };
    let decision = q.ask(tables, stages, (word >> 41) as u32 & 1);
    let log = word::decision_logs(decision) || of_pod.log;
    let outcome = outcome(decision);
    if word::decision_goes_on(decision) || outcome.reason.passes() {
        return Outcome { log, ..of_pod };
    }
    Outcome { log, ..outcome }
}
