//! What the tables decide at a host endpoint, stage by stage.

use std::net::IpAddr;

use calico_azure_ebpf::abi::{Reason, host_set, word};

use super::{class_of, decided, entry};
use crate::policy::reference::Stage;
use crate::policy::{Desired, DesiredHost, Direction, Probe, Traffic};

/// What the tables decide, and in which stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostCompiled {
    pub stage: Stage,
    /// `PolicyAllow`, `PolicyDeny`, or why no decision was found.
    pub reason: Reason,
    /// Id of the deciding rule; 0 if there is none: nothing in the way of forwarded traffic, or of a pod whose host
    /// accepts everything.
    pub rule: u32,
    /// Whether a `Log` rule matched in this stage or one before it.
    pub log: bool,
}

/// What one stage says.
enum Said {
    /// Ask the next.
    Nothing {
        log: bool,
    },
    Decision(HostCompiled),
}

/// Judges a packet at a host endpoint. `original` is the packet before destination NAT.
#[must_use]
pub fn host_verdict(
    desired: &Desired,
    host: &DesiredHost,
    direction: Direction,
    traffic: Traffic,
    original: &Probe,
    packet: &Probe,
) -> HostCompiled {
    let ingress = direction == Direction::Ingress;
    let local = traffic == Traffic::Local;
    let own_interface = matches!(traffic, Traffic::Local | Traffic::Forwarded);
    let stages = [
        (Stage::Failsafe, host_set::FAILSAFE, local, original),
        (Stage::Untracked, host_set::UNTRACKED, own_interface, original),
        (Stage::PreDnat, host_set::PRE_DNAT, ingress, original),
        (
            Stage::Forward,
            host_set::FORWARD,
            !local && traffic != Traffic::PodToHost,
            packet,
        ),
        (Stage::Normal, host_set::NORMAL, local, packet),
    ];
    let mut logged = false;
    for (stage, set, asked, packet) in stages {
        let set = host
            .sets
            .get(set + usize::from(!ingress))
            .copied()
            .unwrap_or_default();
        if !asked || set == 0 {
            continue;
        }
        match ask(desired, set, stage, packet) {
            Said::Nothing { log } => logged |= log,
            Said::Decision(decision) => {
                return HostCompiled {
                    log: decision.log || logged,
                    ..decision
                };
            }
        }
    }
    // What is the host's own always meets a stage that decides.
    HostCompiled {
        stage: if traffic == Traffic::PodToHost {
            Stage::EndpointToHost
        } else {
            Stage::Forward
        },
        reason: if local {
            Reason::TableMissing
        } else {
            Reason::PolicyAllow
        },
        rule: 0,
        log: logged,
    }
}

fn ask(desired: &Desired, template: u32, stage: Stage, packet: &Probe) -> Said {
    let said = |reason, rule, log| {
        Said::Decision(HostCompiled {
            stage,
            reason,
            rule,
            log,
        })
    };
    let find = |set, address: IpAddr| entry(desired, set, class_of(desired, address), address);
    let near = find(template, packet.own).filter(|near| word::table_hints(*near) & word::hint::SET != 0);
    let table = near.and_then(|near| find(word::table_id(near), packet.peer));
    let Some(decision) = table.and_then(|table| decided(desired, table, packet).1) else {
        return said(Reason::TableMissing, 0, false);
    };
    let log = word::decision_logs(decision);
    if word::decision_goes_on(decision) {
        return Said::Nothing { log };
    }
    let reason = if word::decision_allows(decision) {
        Reason::PolicyAllow
    } else {
        Reason::PolicyDeny
    };
    said(reason, word::decision_rule(decision), log)
}
