//! Reads [`Desired`] exactly as the kernel reads its maps: what the tables decide, on the host.

mod host;

use std::collections::BTreeMap;
use std::net::IpAddr;

use calico_azure_ebpf::abi::{
    CLASS_DEFAULT_V4, CLASS_DEFAULT_V6, LEVEL_BLOCK, LEVEL_PORT, LEVEL_PROTOCOL, LEVEL_TABLE, PolicyKey,
    PortKey, Reason, word,
};

pub use self::host::{HostCompiled, host_verdict};
use super::desired::{Desired, Prefix4, Prefix6};
use super::{Direction, Probe, wire};

/// What the tables decide, and by which entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compiled {
    /// `PolicyAllow`, `PolicyDeny`, or why no decision was found.
    pub reason: Reason,
    /// Id of the deciding rule; 0 if none was found.
    pub rule: u32,
    /// Whether a `Log` rule matched on the way.
    pub log: bool,
    /// Policy set that was asked; 0 if the endpoint is unknown.
    pub set: u32,
    /// The peer's class.
    pub class: u32,
    /// Port table that answered (the one for the source port, where rules tell source ports apart); 0 if none was
    /// found.
    pub table: u32,
}

/// Judges a packet by the policy of the endpoint behind `ifindex`. The packet's own address does not count: what
/// rules ask of it is in the tables.
#[must_use]
pub fn verdict(desired: &Desired, ifindex: u32, direction: Direction, packet: &Probe) -> Compiled {
    verdict_of_class(
        desired,
        ifindex,
        direction,
        packet,
        class_of(desired, packet.peer),
    )
}

/// [`verdict`] for a peer whose class is known: finding it is most of the work where there are many prefixes.
#[must_use]
pub fn verdict_of_class(
    desired: &Desired,
    ifindex: u32,
    direction: Direction,
    packet: &Probe,
    class: u32,
) -> Compiled {
    let peer = packet.peer;
    let missing = |reason, set, table| Compiled {
        reason,
        rule: 0,
        log: false,
        set,
        class,
        table,
    };
    let Some(endpoint) = desired.endpoints.get(&ifindex) else {
        return missing(Reason::NoEndpoint, 0, 0);
    };
    let set = match direction {
        Direction::Ingress => endpoint.ingress,
        Direction::Egress => endpoint.egress,
    };
    let Some(table) = entry(desired, set, class, peer) else {
        return missing(Reason::TableMissing, set, 0);
    };
    let (table, decision) = decided(desired, table, packet);
    let Some(decision) = decision else {
        return missing(Reason::TableMissing, set, word::table_id(table));
    };
    let allow = word::decision_allows(decision);
    Compiled {
        reason: if allow {
            Reason::PolicyAllow
        } else {
            Reason::PolicyDeny
        },
        rule: word::decision_rule(decision),
        log: word::decision_logs(decision),
        set,
        class,
        table: word::table_id(table),
    }
}

/// The class of an address that no predicate holds for.
#[must_use]
pub fn default_class(address: IpAddr) -> u32 {
    if address.is_ipv4() {
        CLASS_DEFAULT_V4
    } else {
        CLASS_DEFAULT_V6
    }
}

/// The peer class of an address: its own, else its longest prefix's, else the family's default.
#[must_use]
pub fn class_of(desired: &Desired, address: IpAddr) -> u32 {
    let class = match address {
        IpAddr::V4(ip) => desired.class4.get(&wire::addr4(ip)),
        IpAddr::V6(ip) => desired.class6.get(&wire::addr6(ip)),
    };
    let class = class
        .copied()
        .or_else(|| longest(&desired.cidr4, &desired.cidr6, address));
    class.unwrap_or_else(|| default_class(address))
}

/// What the node knows of an address: `abi::route` bits.
#[must_use]
pub fn route_of(desired: &Desired, address: IpAddr) -> u32 {
    longest(&desired.routes4, &desired.routes6, address).unwrap_or(0)
}

/// What the longest prefix around an address says.
fn longest(four: &BTreeMap<Prefix4, u32>, six: &BTreeMap<Prefix6, u32>, address: IpAddr) -> Option<u32> {
    match address {
        IpAddr::V4(ip) => {
            let prefix = |len: u8| {
                let mask = u32::MAX.checked_shl(32 - u32::from(len)).unwrap_or(0);
                (wire::addr4((u32::from(ip) & mask).into()), len)
            };
            (0..=32).rev().find_map(|len| four.get(&prefix(len)).copied())
        }
        IpAddr::V6(ip) => {
            let prefix = |len: u8| {
                let mask = u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0);
                (wire::addr6((u128::from(ip) & mask).into()), len)
            };
            (0..=128).rev().find_map(|len| six.get(&prefix(len)).copied())
        }
    }
}

/// What a set leads to for a class, else for the family.
fn entry(desired: &Desired, set: u32, class: u32, address: IpAddr) -> Option<u64> {
    [class, default_class(address)]
        .iter()
        .find_map(|class| desired.policy.get(&PolicyKey { set, class: *class }))
        .copied()
}

/// The table that decides, and its decision.
fn decided(desired: &Desired, mut table: u64, packet: &Probe) -> (u64, Option<u64>) {
    if word::table_hints(table) & word::hint::SOURCE != 0 {
        let lead = decision(desired, table, packet.protocol, packet.sport);
        match lead.filter(|lead| word::decision_leads(*lead)) {
            Some(lead) => table = word::decision_next(lead),
            None => return (table, None),
        }
    }
    (table, decision(desired, table, packet.protocol, packet.dport))
}

/// From the most specific entry to the table's default.
fn decision(desired: &Desired, table: u64, protocol: u8, port: u16) -> Option<u64> {
    let get = |level, protocol, port| {
        desired
            .ports
            .get(&PortKey {
                table: word::table_id(table),
                port,
                protocol,
                level,
            })
            .copied()
    };
    let hinted = word::table_hints(table) & word::hint::of(protocol) != 0;
    hinted
        .then(|| {
            get(LEVEL_PORT, protocol, port)
                .or_else(|| get(LEVEL_BLOCK, protocol, port >> 8))
                .or_else(|| get(LEVEL_PROTOCOL, protocol, 0))
        })
        .flatten()
        .or_else(|| get(LEVEL_TABLE, 0, 0))
}
