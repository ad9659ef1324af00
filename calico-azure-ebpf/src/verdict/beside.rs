//! At a pod's interface, what is asked beside the pod's own policy: of a host endpoint for all interfaces pre-DNAT and forward policy, and no
//! other; of what the pod sends to its host, the pod-to-host action; and of what begins between pods of one node, whether the other one is
//! known, because an interface that no agent has looked at yet has no programs that would ask its policy. All must allow, and the pod's leg
//! is approved for all.

use super::flow::{AtPod, EXISTS};
use super::host::{FORWARD, PRE_DNAT, ToStages, governs, outcome};
use super::judge::question;
use super::peer::{HOSTS, LEAVES, NEW, SENT, STRANGER};
use super::{FamilyTables, Outcome, Tables};
use crate::abi::{Config, LEG_IN, LEG_OUT, Reason, host_set, to_host, word};
use crate::packet::{Family, Packet};

/// `HOSTS` key of what passes through the interfaces of pods.
const PODS: u32 = 0;

/// What the endpoint for all interfaces and the pod-to-host action add to what the pod's policy says of its flow; `bits` as for
/// [`super::judge::Judge::answer`].
#[inline(always)]
pub(super) fn beside_pod<F: Family, P: Packet, T: Tables + FamilyTables<F>>(
    packet: &P,
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
    if !asked {
        return of_pod;
    }
    let known = look(
        packet,
        tables,
        config,
        at,
        bits | u64::from(of_pod.reason as u8) << ASKED,
    );
    if known & !HOSTS == 0 {
        return of_pod;
    }
    T::opaque_outcome(ask_beside(tables, config, at, bits | known, of_pod))
}

/// Where in what [`look`] is asked the pod's reason begins.
const ASKED: u32 = 40;
/// Where in its answer the reason begins that denies the packet; 0 for none. Below it are [`HOSTS`] and [`GOVERNED`].
const DENIED: u32 = 40;
/// There is an endpoint for all interfaces.
const GOVERNED: u64 = 8 << 32;

const ALLOWED: u8 = Reason::PolicyAllow as u8;
const NO_SUCH: u8 = Reason::NoSuchWorkload as u8;
const UNKNOWN: u8 = Reason::UnknownSource as u8;
const TO_HOST: u8 = Reason::EndpointToHost as u8;
const RACE: u8 = Reason::TableRace as u8;

/// What there is to ask about, and what of it needs no policy.
#[cfg_attr(target_arch = "bpf", inline(never))]
fn look<F: Family, P: Packet, T: Tables + FamilyTables<F>>(
    packet: &P,
    tables: &T,
    config: &Config,
    at: &AtPod<'_, F>,
    bits: u64,
) -> u64 {
    // What goes to a service is looked at where it leaves.
    let allowed = (bits >> ASKED) as u8 == ALLOWED;
    let governed = u64::from(governs(tables, config, PODS)) * GOVERNED;
    if governed == 0 && !allowed {
        return 0;
    }
    let (q, leg) = question(at, bits);
    let sent = leg == LEG_OUT && at.leg == LEG_OUT;
    let asked = u64::from(config.flags)
        | (u64::from(sent) * SENT)
        | (u64::from(at.leg == LEG_OUT) * LEAVES)
        | (u64::from(bits & EXISTS == 0 && allowed) * NEW);
    let found = tables.peer(packet, q.peer, asked);
    let denied = if found & STRANGER != 0 {
        if at.leg == LEG_OUT { NO_SUCH } else { UNKNOWN }
    } else if found & HOSTS != 0 && sent && allowed {
        match tables.host(PODS, host_set::TO_HOST) {
            None => TO_HOST,
            Some(sets) if word::slot_check(sets) != word::check24(PODS) => RACE,
            // `Return` leaves it to rules of the host, of which the endpoint for all interfaces has none for pods.
            Some(sets) if !matches!(word::slot(sets, config.epoch), to_host::ACCEPT | to_host::RETURN) => {
                TO_HOST
            }
            Some(_) => 0,
        }
    } else {
        0
    };
    T::opaque(governed | found & HOSTS | u64::from(denied) << DENIED)
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
    match (bits >> DENIED) as u8 {
        0 => {}
        NO_SUCH => return Outcome::of(Reason::NoSuchWorkload),
        UNKNOWN => return Outcome::of(Reason::UnknownSource),
        TO_HOST => return Outcome::of(Reason::EndpointToHost),
        _ => return Outcome::of(Reason::TableRace),
    }
    // What both deny, the pod denies: its way to its host is not what passes through.
    if bits & HOSTS != 0 && !of_pod.reason.passes() {
        return of_pod;
    }
    let (q, leg) = question(at, bits);
    let sends = leg == LEG_OUT;
    let service = matches!(of_pod.reason, Reason::Service);
    // What is translated was asked about before.
    let original = at.defers || at.leg == LEG_IN;
    let pre_dnat = u32::from(sends && original) * PRE_DNAT;
    let forward = u32::from(!service && bits & HOSTS == 0) * FORWARD;
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
