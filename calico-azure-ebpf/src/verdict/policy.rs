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
    /// Neither port is known: only an answer that does not depend on them is one.
    pub(super) blind: bool,
}

/// Answers in the tables that are live in `epoch`.
#[inline(always)]
pub(super) fn ask<F: Family, T: Tables + FamilyTables<F>>(
    tables: &T,
    epoch: u32,
    q: &Question<F>,
) -> Outcome {
    T::opaque_outcome(look_up(tables, epoch, q))
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
    let asked = Asked {
        set,
        peer: q.peer,
        protocol: q.protocol,
        sport: q.sport,
        port: q.port,
        blind: q.blind,
    };
    let decision = match decide::<F, T>(tables, epoch, &asked) {
        Ok(decision) => decision,
        Err(reason) => return Outcome::of(reason),
    };
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

/// A question to a policy set.
#[derive(Clone, Copy)]
pub(super) struct Asked<F: Family> {
    pub(super) set: u32,
    /// The other side's address.
    pub(super) peer: F::Addr,
    /// IP protocol number.
    pub(super) protocol: u8,
    /// Source port of the flow.
    pub(super) sport: u16,
    /// As [`Question::port`].
    pub(super) port: u16,
    /// As [`Question::blind`].
    pub(super) blind: bool,
}

/// The decision word.
#[inline(always)]
pub(super) fn decide<F: Family, T: Tables + FamilyTables<F>>(
    tables: &T,
    epoch: u32,
    asked: &Asked<F>,
) -> Result<u64, Reason> {
    let table = entry::<F, T>(tables, epoch, asked.set, asked.peer)?;
    if asked.blind && word::table_hints(table) & (word::hint::SOURCE | word::hint::of(asked.protocol)) != 0 {
        return Err(Reason::UnknownFragment);
    }
    let table = table_for_source(tables, table, asked.protocol, asked.sport)?;
    let decision = decision(tables, table, asked.protocol, asked.port).ok_or(Reason::TableMissing)?;
    if word::decision_table(decision) != word::table_id(table) || word::decision_leads(decision) {
        return Err(Reason::TableRace);
    }
    Ok(decision)
}

/// Of a host endpoint's stage, the policy set for its own side's address.
#[inline(always)]
pub(super) fn near_set<F: Family, T: Tables + FamilyTables<F>>(
    tables: &T,
    epoch: u32,
    stage: u32,
    near: F::Addr,
) -> Result<u32, Reason> {
    let entry = entry::<F, T>(tables, epoch, stage, near)?;
    if word::table_hints(entry) & word::hint::SET == 0 {
        return Err(Reason::TableRace);
    }
    Ok(word::table_id(entry))
}

/// What a set leads to for an address: its class's entry, else the family's.
#[inline(always)]
fn entry<F: Family, T: Tables + FamilyTables<F>>(
    tables: &T,
    epoch: u32,
    set: u32,
    addr: F::Addr,
) -> Result<u64, Reason> {
    // The verifier need not remember by which lookups this was found.
    let class = T::opaque(u64::from(class_of::<F, T>(tables, epoch, addr)?)) as u32;
    let (class, entry) = match tables.policy(&PolicyKey { set, class }) {
        Some(entry) => (class, entry),
        None => {
            let class = F::DEFAULT_CLASS;
            let default = tables.policy(&PolicyKey { set, class });
            (class, default.ok_or(Reason::TableMissing)?)
        }
    };
    if (entry >> 32) as u32 != word::table_check(set, class) {
        return Err(Reason::TableRace);
    }
    Ok(T::opaque(entry))
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
    Ok(T::opaque(word::decision_next(decision)))
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
