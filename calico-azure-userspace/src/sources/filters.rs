//! What else the kernel was told about packets, from rtnetlink: programs on interfaces by the old interface, and rules that choose
//! routes by marks. Only `agent::preflight` uses this.

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::rule::{RuleAttribute, RuleMessage};
use netlink_packet_route::tc::{TcAttribute, TcFilterBpfOption, TcHandle, TcMessage, TcOption};

use super::links::{LinksError, dump};

/// `TC_H_CLSACT`, and the minors of its two ends (linux/pkt_sched.h).
const CLSACT: u16 = 0xffff;
const INGRESS: u16 = 0xfff2;
const EGRESS: u16 = 0xfff3;

/// Names of the eBPF programs that an interface's clsact queue runs, each with `ingress` or `egress`. None if it has no such queue.
///
/// # Errors
/// [`LinksError`].
pub fn filters(ifindex: u32) -> Result<Vec<(&'static str, String)>, LinksError> {
    let mut found = Vec::new();
    for (hook, minor) in [("ingress", INGRESS), ("egress", EGRESS)] {
        let mut request = TcMessage::default();
        request.header.index = i32::try_from(ifindex).unwrap_or(0);
        request.header.parent = TcHandle { major: CLSACT, minor };
        for message in dump(RouteNetlinkMessage::GetTrafficFilter(request))? {
            if let RouteNetlinkMessage::NewTrafficFilter(filter) = message {
                found.extend(name(&filter).map(|name| (hook, name)));
            }
        }
    }
    Ok(found)
}

/// Of a filter that runs a program. The kernel tells of a filter once more than there are, without a program.
fn name(filter: &TcMessage) -> Option<String> {
    let options = filter.attributes.iter().find_map(|attribute| match attribute {
        TcAttribute::Options(options) => Some(options),
        _ => None,
    })?;
    options.iter().find_map(|option| match option {
        TcOption::Bpf(TcFilterBpfOption::ProgName(name)) => Some(name.clone()),
        _ => None,
    })
}

/// Marks and masks by which the node's routing rules choose, with the rule's priority.
///
/// # Errors
/// [`LinksError`].
pub fn marks() -> Result<Vec<(u32, u32, u32)>, LinksError> {
    let mut found = Vec::new();
    for message in dump(RouteNetlinkMessage::GetRule(RuleMessage::default()))? {
        let RouteNetlinkMessage::NewRule(rule) = message else {
            continue;
        };
        let (mut mark, mut mask, mut priority) = (None, u32::MAX, 0);
        for attribute in rule.attributes {
            match attribute {
                RuleAttribute::FwMark(value) => mark = Some(value),
                RuleAttribute::FwMask(value) => mask = value,
                RuleAttribute::Priority(value) => priority = value,
                _ => {}
            }
        }
        // A rule about no mark has a mark of none and a mask of none.
        found.extend(mark.filter(|_| mask != 0).map(|mark| (mark, mask, priority)));
    }
    Ok(found)
}
