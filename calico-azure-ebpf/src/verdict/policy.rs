//! One policy question: may this endpoint's set talk with this peer on this port. About four lookups, whatever the
//! number of rules; where rules tell source ports apart, as many again at most.

use super::{FamilyTables, Outcome, Tables};
use crate::abi::{LEVEL_BLOCK, LEVEL_PORT, LEVEL_PROTOCOL, LEVEL_TABLE, PolicyKey, PortKey, Reason, word};
use crate::packet::Family;

/// The question.
#[derive(Clone, Copy)]
pub(super) struct Question<F: Family> {
    /// The endpoint's interface.
    pub(super) ifindex: u32,
    /// Its slot word for the direction in question.
    pub(super) endpoint: u64,
    /// The other side's address.
    pub(super) peer: F::Addr,
    /// IP protocol number.
    pub(super) protocol: u8,
    /// Source port of the flow.
    pub(super) sport: u16,
    /// Destination port of the flow, or ICMP type and code of its first packet.
    pub(super) port: u16,
}

/// Answers in the tables that are live in `epoch`.
#[inline(always)]
pub(super) fn ask<F: Family, T: Tables + FamilyTables<F>>(
    tables: &T,
    epoch: u32,
    q: &Question<F>,
) -> Outcome {
    let outcome = look_up(tables, epoch, q);
    let word = (outcome.rule as u64) | (outcome.reason as u64) << 32 | (outcome.log as u64) << 40;
    let word = T::opaque(word);
    Outcome {
        reason: reason(word >> 32),
        rule: word as u32,
        log: word & 1 << 40 != 0,
    }
}

/// The reasons that a question can end with.
#[inline(always)]
fn reason(code: u64) -> Reason {
    const ALLOW: u8 = Reason::PolicyAllow as u8;
    const DENY: u8 = Reason::PolicyDeny as u8;
    const NOT_READY: u8 = Reason::NotReady as u8;
    const MISSING: u8 = Reason::TableMissing as u8;
    match code as u8 {
        ALLOW => Reason::PolicyAllow,
        DENY => Reason::PolicyDeny,
        NOT_READY => Reason::NotReady,
        MISSING => Reason::TableMissing,
        _ => Reason::TableRace,
    }
}

/// The policy set in an endpoint's slot word.
#[inline(always)]
pub(super) fn ready(epoch: u32, ifindex: u32, endpoint: u64) -> Result<u32, Reason> {
    if word::slot_check(endpoint) != word::check24(ifindex) {
        return Err(Reason::TableRace);
    }
    match word::slot(endpoint, epoch) {
        0 => Err(Reason::NotReady),
        set => Ok(set),
    }
}

#[inline(always)]
fn look_up<F: Family, T: Tables + FamilyTables<F>>(tables: &T, epoch: u32, q: &Question<F>) -> Outcome {
    let set = match ready(epoch, q.ifindex, q.endpoint) {
        Ok(set) => set,
        Err(reason) => return Outcome::of(reason),
    };
    let class = match class_of::<F, T>(tables, epoch, q.peer) {
        Ok(class) => class,
        Err(reason) => return Outcome::of(reason),
    };
    let (class, table) = match tables.policy(&PolicyKey { set, class }) {
        Some(table) => (class, table),
        None => match tables.policy(&PolicyKey {
            set,
            class: F::DEFAULT_CLASS,
        }) {
            Some(table) => (F::DEFAULT_CLASS, table),
            None => return Outcome::of(Reason::TableMissing),
        },
    };
    if (table >> 32) as u32 != word::table_check(set, class) {
        return Outcome::of(Reason::TableRace);
    }
    let table = match table_for_source(tables, table, q.protocol, q.sport) {
        Ok(table) => table,
        Err(reason) => return Outcome::of(reason),
    };
    let Some(decision) = decision(tables, table, q.protocol, q.port) else {
        return Outcome::of(Reason::TableMissing);
    };
    if word::decision_table(decision) != word::table_id(table) || word::decision_leads(decision) {
        return Outcome::of(Reason::TableRace);
    }
    let reason = if word::decision_allows(decision) {
        Reason::PolicyAllow
    } else {
        Reason::PolicyDeny
    };
    Outcome {
        reason,
        rule: word::decision_rule(decision),
        log: word::decision_logs(decision),
    }
}

/// The table that decides: itself, unless rules tell source ports apart.
#[inline(always)]
fn table_for_source<T: Tables>(tables: &T, table: u64, protocol: u8, sport: u16) -> Result<u64, Reason> {
    if word::table_hints(table) & word::hint::SOURCE == 0 {
        return Ok(table);
    }
    let decision = decision(tables, table, protocol, sport).ok_or(Reason::TableMissing)?;
    if word::decision_table(decision) != word::table_id(table) || !word::decision_leads(decision) {
        return Err(Reason::TableRace);
    }
    Ok(word::decision_next(decision))
}

/// The peer class of an address: its own, else its longest prefix's, else the family's default.
#[inline(always)]
fn class_of<F: Family, T: FamilyTables<F>>(tables: &T, epoch: u32, addr: F::Addr) -> Result<u32, Reason> {
    if let Some(slots) = tables.class(addr) {
        if word::slot_check(slots) != F::check(addr) {
            return Err(Reason::TableRace);
        }
        let class = word::slot(slots, epoch);
        if class != 0 {
            return Ok(class);
        }
    }
    let class = tables.cidr(addr, (epoch & 1) as usize);
    Ok(if class == 0 { F::DEFAULT_CLASS } else { class })
}

/// From the most specific entry to the table's default.
#[inline(always)]
fn decision<T: Tables>(tables: &T, table: u64, protocol: u8, port: u16) -> Option<u64> {
    let mut key = PortKey {
        table: word::table_id(table),
        port,
        protocol,
        level: LEVEL_PORT,
    };
    if word::table_hints(table) & word::hint::of(protocol) != 0 {
        if let Some(decision) = tables.port(&key) {
            return Some(decision);
        }
        key.port = port >> 8;
        key.level = LEVEL_BLOCK;
        if let Some(decision) = tables.port(&key) {
            return Some(decision);
        }
        key.port = 0;
        key.level = LEVEL_PROTOCOL;
        if let Some(decision) = tables.port(&key) {
            return Some(decision);
        }
    }
    key.port = 0;
    key.protocol = 0;
    key.level = LEVEL_TABLE;
    tables.port(&key)
}
