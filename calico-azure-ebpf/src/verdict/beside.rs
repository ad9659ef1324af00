//! At a pod's interface, what is asked beside the pod's own policy: of a host endpoint for all interfaces pre-DNAT and forward policy, and no
//! other; and of what the pod sends to its host, the pod-to-host action. All must allow, and the pod's leg is approved for all.

use super::flow::AtPod;
use super::host::{FORWARD, PRE_DNAT, ToStages, governs, outcome};
use super::judge::question;
use super::{FamilyTables, Outcome, Tables};
use crate::abi::{Config, LEG_IN, LEG_OUT, Reason, host_set, route, to_host, word};
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

/// Whether the flow's other end is the host. What a pod sends no further than its link arrives there, too, or nowhere: on a bridge other
/// pods are held to their own addresses.
#[cfg_attr(target_arch = "bpf", inline(never))]
fn is_hosts<F: Family, T: Tables + FamilyTables<F>>(tables: &T, at: &AtPod<'_, F>, bits: u64) -> u64 {
    let (q, leg) = question(at, bits);
    let sent = leg == LEG_OUT && at.leg == LEG_OUT;
    let on_link = sent && (F::is_link_destination(q.peer) || F::is_multicast(q.peer));
    T::opaque(u64::from(
        on_link || tables.route(q.peer) & route::LOCAL_HOST != 0,
    ))
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
    let asks_action = sends && at.leg == LEG_OUT && !service && of_pod.reason.passes();
    if !governed && !asks_action {
        return of_pod;
    }
    let to_host = is_hosts(tables, at, bits) != 0;
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
