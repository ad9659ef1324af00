//! What the tables decide at a host endpoint, stage by stage.

use std::net::IpAddr;

use calico_azure_ebpf::abi::{Reason, host_set, route, word};

use super::{class_of, decided, entry, route_of};
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

/// Judges a packet at a host endpoint. `original` is the packet before destination NAT, `traffic` what it is after that.
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
    let was_local = if original == packet {
        local
    } else {
        own_interface && route_of(desired, original.own) & route::LOCAL_HOST != 0
    };
    let set = |stage: usize| {
        let set = host.sets.get(stage + usize::from(!ingress));
        set.copied().filter(|set| *set != 0)
    };
    let is_open = |set| {
        let said = ask(desired, set, Stage::Failsafe, original);
        matches!(
            said,
            Said::Decision(HostCompiled {
                reason: Reason::PolicyAllow,
                ..
            })
        )
    };
    let open = was_local && set(host_set::FAILSAFE).is_some_and(is_open);
    let stages = [
        (
            Stage::Untracked,
            host_set::UNTRACKED,
            own_interface && !open,
            original,
        ),
        (Stage::PreDnat, host_set::PRE_DNAT, ingress && !open, original),
        (Stage::Failsafe, host_set::FAILSAFE, local, packet),
        (
            Stage::Forward,
            host_set::FORWARD,
            !local && traffic != Traffic::PodToHost,
            packet,
        ),
        (Stage::Normal, host_set::NORMAL, local, packet),
    ];
    let mut logged = false;
    for (stage, place, asked, packet) in stages {
        let Some(set) = set(place).filter(|_| asked) else {
            continue;
        };
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
